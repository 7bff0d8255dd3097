"""The profiles that came with this package, and the administrator's own. Only reads files."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from functools import cache
from importlib import resources
from pathlib import Path

from hwprofiles.profile import Profile, ProfileError, read

LOCAL = Path("/etc/tollbridge/profiles")  # the administrator's own, which go over those of the package

_LOG = logging.getLogger("tollbridge")


def profiles() -> tuple[Profile, ...]:
    """Every profile, by name: those that came with this package, and over them the administrator's own."""
    return tuple(profile for profile, _ in _all().values())


def profile_text(name: str) -> str:
    """The TOML of one of them; KeyError."""
    return _all()[name][1]


@cache
def _all() -> dict[str, tuple[Profile, str]]:
    models = resources.files("hwprofiles") / "models"
    ours = {file.name.removesuffix(".toml"): file for file in models.iterdir() if file.name.endswith(".toml")}
    texts = {name: file.read_text(encoding="utf-8") for name, file in ours.items()}
    found = {name: (read(name, text), text) for name, text in texts.items()} | dict(_local())
    return dict(sorted(found.items()))


def _local() -> Iterator[tuple[str, tuple[Profile, str]]]:
    """One that cannot be used is told of and not used: at boot nobody mends it, and the wire must not be cut."""
    for file in sorted(LOCAL.glob("*.toml")):
        try:
            text = file.read_text(encoding="utf-8")
            yield file.stem, (read(file.stem, text), text)
        except (OSError, UnicodeDecodeError, ProfileError) as error:
            _LOG.warning("%s is not used: %s", file, error)
