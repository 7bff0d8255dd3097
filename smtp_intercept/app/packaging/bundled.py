"""What other people's distributions say of themselves: name, version, licence, its texts, what was compiled in.

Reads a directory of installed wheels, before their RECORDs are taken away. One without a licence is refused.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from importlib.metadata import Distribution, distributions
from pathlib import Path, PurePosixPath
from typing import Any

# By classifier, where there is no expression (PEP 639). Several are a choice.
_CLASSIFIED = {
    "MIT License": "MIT",
    "Apache Software License": "Apache-2.0",
    "BSD License": "BSD-3-Clause",
    "ISC License (ISCL)": "ISC",
    "Mozilla Public License 2.0 (MPL 2.0)": "MPL-2.0",
}
_TEXT = re.compile(r"(LICEN[CS]E|COPYING|NOTICE|AUTHORS)", re.IGNORECASE)
_COPYRIGHT = re.compile(r"^\W{0,4}((?:Copyright (?:\([cC]\)|©|\d{4})|©).*)$", re.MULTILINE)
# Linked into a compiled part, and told of by no file of the wheel: name → (purl type, name, licence).
_LINKED = {"uvloop": (("generic", "libuv", "MIT"),)}


class UnknownLicenceError(Exception):
    """A distribution does not say under which licence it is."""


@dataclass(frozen=True, slots=True)
class Part:
    """Compiled into a distribution: by its purl, name and version ("" is unknown)."""

    purl: str
    name: str
    version: str
    licence: str


@dataclass(frozen=True, slots=True)
class Bundled:
    """One distribution. ``licence`` is an SPDX expression, ``texts`` are the licence's files by their path below
    site-packages, ``places`` what it has put there (directories end in "/")."""

    name: str
    version: str
    licence: str
    home: str
    authors: str
    texts: dict[str, str]
    places: tuple[str, ...]
    needs: tuple[str, ...]
    parts: tuple[Part, ...]

    @property
    def purl(self) -> str:
        return f"pkg:pypi/{self.name}@{self.version}"

    @property
    def copyrights(self) -> list[str]:
        """Each line that says whose it is; else who made it."""
        lines = (line.strip() for text in self.texts.values() for line in _COPYRIGHT.findall(text))
        # The licences' own, and a template's.
        found = dict.fromkeys(line for line in lines if "Free Software Foundation" not in line and "[yyyy]" not in line)
        return [*found] or [self.authors or f"the authors of {self.name}"]


def bundled(site: Path, but: Iterable[str] = ("tollbridge",)) -> list[Bundled]:
    """All below ``site`` but these, by name. `UnknownLicenceError`."""
    found = [_read(site, one) for one in distributions(path=[str(site)]) if normal(one.name) not in but]
    return sorted(found, key=lambda one: one.name)


def normal(name: str) -> str:
    """PEP 503."""
    return re.sub(r"[-_.]+", "-", name).lower()


def _read(site: Path, one: Distribution) -> Bundled:
    files = [PurePosixPath(file) for file in one.files or ()]
    texts = {str(file): (site / file).read_text("utf-8", "replace") for file in files if _is_text(file)}
    said = one.metadata
    return Bundled(
        name=normal(one.name),
        version=one.version,
        licence=_licence(one),
        home=_home(said.get_all("Project-URL") or [], str(said["Home-page"] or "")),
        authors=", ".join(said[key] for key in ("Author", "Author-email") if key in said),
        texts=texts,
        places=tuple(sorted({_place(file) for file in files if file.parts[0] not in ("..", "bin")})),
        needs=tuple(sorted({normal(name) for need in one.requires or () for name in _needed(need)})),
        parts=(*_linked(normal(one.name)), *_compiled_in(site, files)),
    )


def _place(file: PurePosixPath) -> str:
    return f"{file.parts[0]}/" if len(file.parts) > 1 else file.name


def _is_text(file: PurePosixPath) -> bool:
    return ".dist-info" in file.parts[0] and bool(_TEXT.match(file.name))


def _licence(one: Distribution) -> str:
    said = one.metadata
    if "License-Expression" in said:
        return str(said["License-Expression"])
    kinds = [line.rpartition(" :: ")[2] for line in said.get_all("Classifier") or () if line.startswith("License ::")]
    if known := [_CLASSIFIED[kind] for kind in kinds if kind in _CLASSIFIED]:
        return " OR ".join(sorted(known))
    if "License" in said and re.fullmatch(r"[A-Za-z0-9.+-]+", said["License"]):
        return str(said["License"])
    raise UnknownLicenceError(f"{one.name} {one.version} does not say under which licence it is")


def _home(urls: list[str], home: str) -> str:
    links = dict(url.split(", ", 1) for url in urls if ", " in url)
    named = {name.lower(): url for name, url in links.items()}
    return home or next((named[key] for key in ("homepage", "home", "source", "repository") if key in named), "")


def _needed(requirement: str) -> Iterator[str]:
    """Not what an extra asks for."""
    if "extra" not in requirement.partition(";")[2] and (name := re.match(r"[A-Za-z0-9._-]+", requirement)):
        yield name[0]


def _linked(name: str) -> Iterator[Part]:
    for kind, library, licence in _LINKED.get(name, ()):
        yield Part(f"pkg:{kind}/{library}", library, "", licence)


def _compiled_in(site: Path, files: Iterable[PurePosixPath]) -> Iterator[Part]:
    """What the wheel's own bill of materials lists (PEP 770), each once."""
    found: dict[str, Part] = {}
    for file in files:
        if "sboms" in file.parts and file.name.endswith(".json"):
            listed = json.loads((site / file).read_text("utf-8"))
            for part in listed.get("components", ()) if listed.get("bomFormat") == "CycloneDX" else ():
                purl = str(part.get("purl", f"pkg:generic/{part['name']}")).partition("?")[0]
                found[purl] = Part(purl, part["name"], part.get("version", ""), _expression(part.get("licenses", ())))
    yield from found.values()


def _expression(licences: Iterable[dict[str, Any]]) -> str:
    each = (said.get("expression") or said.get("license", {}).get("id", "") for said in licences)
    return " AND ".join(filter(None, each))
