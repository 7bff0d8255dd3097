"""The product's package for the machines' Debian, by `make deb`'s own program; kept by a hash of what it is made of.

For another Debian than this machine's it is built inside that one: a directory by debootstrap, entered by chroot.
"""

from __future__ import annotations

import hashlib
import platform
import shutil
import sys
from collections.abc import Iterator
from pathlib import Path

from smtp_intercept.app.lab.host import LabError
from vagrant.lab import places
from vagrant.lab.box import MIRROR
from vagrant.lab.doing import Progress, run

BUILD_S, DEBOOTSTRAP_S = 900.0, 1800.0
BUILDER = "smtp_intercept.app.packaging.deb"
TREES = ("bridge", "hwprofiles", "smtp_intercept")
FILES = ("docs/install.md", "tests/requirements.txt", "pyproject.toml", "README.md", "CHANGELOG.md", "LICENSE")
# What the Makefile installs to build with, in a Debian that has nothing yet.
TOOLS = "build-essential,ca-certificates,libnetfilter-queue-dev,python3-dev,python3-venv"
# In there: the checkout's own environment, as the Makefile makes it, then its builder.
SCRIPT = """\
set -e
cd /source
[ -x /venv/bin/python ] || python3 -m venv /venv
/venv/bin/python -m pip install --quiet --disable-pip-version-check -r tests/requirements.txt
/venv/bin/python -m pip install --quiet --disable-pip-version-check --no-deps --editable .
PYTHONPATH=/source /venv/bin/python -m smtp_intercept.app.packaging.deb --out /out
"""


def ensure(suite: str, progress: Progress) -> Path:
    """The package for this suite, built if the sources have changed; `LabError` with the builder's output."""
    place = places.KEPT / "packages" / f"{suite}-{_digest()[:16]}"
    if not place.exists():
        for old in place.parent.glob(f"{suite}-*"):
            shutil.rmtree(old)
        with progress.step(f"package: built for Debian {suite}"):
            _build(suite, place.with_name(f"{suite}.new"))
        place.with_name(f"{suite}.new").rename(place)
    (package,) = place.glob("tollbridge_*.deb")
    return package


def _sources() -> Iterator[Path]:
    for tree in TREES:
        yield from (path for path in sorted((places.ROOT / tree).rglob("*")) if "__pycache__" not in path.parts)
    yield from (places.ROOT / name for name in FILES)


def _digest() -> str:
    digest = hashlib.sha256()
    for path in _sources():
        if path.is_file():
            digest.update(f"{path.relative_to(places.ROOT)}\0".encode() + path.read_bytes())
    return digest.hexdigest()


def _build(suite: str, out: Path) -> None:
    shutil.rmtree(out, ignore_errors=True)
    out.mkdir(parents=True)
    here = platform.freedesktop_os_release()
    if (here.get("ID"), here.get("VERSION_CODENAME")) == ("debian", suite):
        run([sys.executable, "-m", BUILDER, "--out", out], timeout_s=BUILD_S)
    else:
        _build_in(_foreign(suite), out)


def _foreign(suite: str) -> Path:
    """A Debian of that suite to build in; made once."""
    root = places.KEPT / "builders" / suite
    if not (root / ".ready").exists():
        shutil.rmtree(root, ignore_errors=True)
        root.parent.mkdir(parents=True, exist_ok=True)
        run(["debootstrap", "--variant=minbase", f"--include={TOOLS}", suite, root, MIRROR], timeout_s=DEBOOTSTRAP_S)
        (root / ".ready").touch()
    return root


def _build_in(root: Path, out: Path) -> None:
    """Copies the sources in, builds, and takes the package out: nothing of this machine is mounted there."""
    for name in ("source", "out"):
        shutil.rmtree(root / name, ignore_errors=True)
    for tree in TREES:
        shutil.copytree(places.ROOT / tree, root / "source" / tree, ignore=shutil.ignore_patterns("__pycache__"))
    for name in FILES:
        (root / "source" / name).parent.mkdir(exist_ok=True)
        shutil.copy2(places.ROOT / name, root / "source" / name)
    for name in ("etc/resolv.conf", "etc/ssl/certs/ca-certificates.crt"):
        shutil.copy2(Path("/", name), root / name)
    run(["chroot", root, "sh", "-c", SCRIPT], timeout_s=BUILD_S)
    packages = list((root / "out").glob("*.deb"))
    if len(packages) != 1:
        raise LabError(f"{root}/out: one package was to be built, there are {len(packages)}")
    shutil.copy2(packages[0], out)
