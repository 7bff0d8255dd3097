"""The product's package for the machines' Debian, by the programs of `make deb`; kept by a hash of what it is of."""

from __future__ import annotations

import hashlib
import platform
import shutil
import sys
from collections.abc import Iterator
from pathlib import Path

from smtp_intercept.app.packaging import deb, elsewhere
from vagrant.lab import places
from vagrant.lab.doing import Progress, run

BUILD_S = 2400.0  # a minute here; for another Debian, that Debian has to be made first
BUILDER = "smtp_intercept.app.packaging"
SOURCES = ("bridge", "hwprofiles", "smtp_intercept")
FILES = (*deb.PAGES, *elsewhere.LOCKS, "pyproject.toml", "LICENSE")


def ensure(suite: str, progress: Progress) -> Path:
    """The package for this suite, built if the sources have changed; `LabError` with the builder's output."""
    place = places.KEPT / "packages" / f"{suite}-{_digest()[:16]}"
    if not place.exists():
        for old in place.parent.glob(f"{suite}*"):
            shutil.rmtree(old)
        with progress.step(f"package: built for Debian {suite}"):
            _build(suite, place.with_name(f"{suite}.new"))
        place.with_name(f"{suite}.new").rename(place)
    (package,) = place.glob("tollbridge_*.deb")
    return package


def _sources() -> Iterator[Path]:
    for tree in SOURCES:
        yield from (path for path in sorted((places.ROOT / tree).rglob("*")) if "__pycache__" not in path.parts)
    yield from (places.ROOT / name for name in FILES)


def _digest() -> str:
    digest = hashlib.sha256()
    for path in _sources():
        if path.is_file():
            digest.update(f"{path.relative_to(places.ROOT)}\0".encode() + path.read_bytes())
    return digest.hexdigest()


def _build(suite: str, out: Path) -> None:
    here = platform.freedesktop_os_release()
    ours = (here.get("ID"), here.get("VERSION_CODENAME")) == ("debian", suite)
    builder = [f"{BUILDER}.deb"] if ours else [f"{BUILDER}.elsewhere", suite]
    # Packed for a way of some metres: half a minute less.
    run(["env", "DPKG_DEB_COMPRESSOR_LEVEL=1", sys.executable, "-m", *builder, "--out", out], timeout_s=BUILD_S)
