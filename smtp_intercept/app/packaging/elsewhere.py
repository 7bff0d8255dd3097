"""`make deb DEBIAN=CODENAME`: the package for another release of Debian, built inside that release.

Needs root and debootstrap. The root directory is made once and kept in .tools/; nothing of this machine's Python goes
in.
"""

from __future__ import annotations

import argparse
import os
import shutil
import subprocess
from pathlib import Path

from smtp_intercept.app.packaging.deb import FILES, HERE, ROOT

MIRROR = os.environ.get("DEBIAN_MIRROR", "http://deb.debian.org/debian")
TOOLS = Path(os.environ.get("TOLLBRIDGE_TOOLS") or ROOT / ".tools")
# What compiles netfilterqueue, makes a virtual environment and packs it.
INCLUDED = "build-essential,ca-certificates,dpkg-dev,libnetfilter-queue-dev,python3-dev,python3-venv"
CERTIFICATES = Path("/etc/ssl/certs/ca-certificates.crt")
DEBOOTSTRAP_S, BUILD_S = 900, 900
# What is mounted in the root goes with its processes, and they with this one: half-made it is safe to remove.
ALONE = ("unshare", "--mount", "--pid", "--fork", "--kill-child")
LOCKS = ("requirements/build.txt", "requirements/run.txt")
SOURCES = ("pyproject.toml", "README.md", "CHANGELOG.md", "LICENSE", *LOCKS)
BUILD = """\
set -e
cd /build/source
python3 -m venv /build/venv
export PIP_CERT=/build/certificates.crt PIP_DISABLE_PIP_VERSION_CHECK=1 PIP_ROOT_USER_ACTION=ignore PYTHONPATH=$PWD
/build/venv/bin/pip install --quiet --require-hashes -r requirements/build.txt
/build/venv/bin/pip install --quiet --require-hashes --no-build-isolation -r requirements/run.txt
/build/venv/bin/pip install --quiet --no-deps --no-build-isolation .
exec /build/venv/bin/python -m smtp_intercept.app.packaging.deb --out /build/out
"""


def build_root(codename: str, name: str = "build", included: str = INCLUDED) -> Path:
    """A fresh Debian of that release with these packages, in .tools/NAME-CODENAME, made if it is not there.
    Raises CalledProcessError and OSError (no debootstrap)."""
    root = TOOLS.resolve() / f"{name}-{codename}"
    ready = root / ".ready"
    if not ready.exists() or ready.read_text() != included:
        shutil.rmtree(root, ignore_errors=True)
        words = ["debootstrap", "--variant=minbase", f"--include={included}", codename, str(root), MIRROR]
        subprocess.run([*ALONE, *words], check=True, stdout=subprocess.DEVNULL, timeout=DEBOOTSTRAP_S)  # noqa: S603 - fixed program
        ready.write_text(included)
    return root


def build(codename: str, out: Path) -> Path:
    """Make ``out``/tollbridge_*.deb for that release. Raises as `build_root` does."""
    root = build_root(codename)
    place = root / "build"
    shutil.rmtree(place, ignore_errors=True)
    _copy_source(place / "source")
    (place / "build.sh").write_text(BUILD)
    shutil.copyfile("/etc/resolv.conf", root / "etc/resolv.conf")
    # This machine's: it may reach the package index through a proxy that only it trusts.
    shutil.copyfile(CERTIFICATES, place / "certificates.crt")
    environment = {"PATH": "/usr/sbin:/usr/bin:/sbin:/bin", "HOME": "/root", "LC_ALL": "C.UTF-8", **_proxies()}
    words = [*ALONE, f"--mount-proc={root}/proc", "chroot", str(root), "sh", "/build/build.sh"]
    subprocess.run(words, check=True, stdout=subprocess.DEVNULL, env=environment, timeout=BUILD_S)  # noqa: S603
    (made,) = (place / "out").glob("tollbridge_*.deb")
    out.mkdir(parents=True, exist_ok=True)
    return Path(shutil.copy(made, out))


def _proxies() -> dict[str, str]:
    names = ("http_proxy", "https_proxy", "no_proxy", "PIP_INDEX_URL")
    return {key: value for key, value in os.environ.items() if key in names or key.lower() in names}


def _copy_source(source: Path) -> None:
    """What the package is made of, without what this machine has made of it."""
    leave = shutil.ignore_patterns("__pycache__")
    for package in ("bridge", "hwprofiles", "smtp_intercept"):
        shutil.copytree(ROOT / package, source / package, ignore=leave)
    within = str(HERE.relative_to(ROOT))
    for name in {*SOURCES, *(name for name in FILES if not name.startswith(within))}:
        (source / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy2(ROOT / name, source / name)


def _codename(text: str) -> str:
    if not text.isascii() or not text.isalpha() or not text.islower():
        raise argparse.ArgumentTypeError(f"{text!r} is no codename of Debian, such as bookworm or trixie")
    return text


def main() -> None:
    """The words of `make deb DEBIAN=…`."""
    parser = argparse.ArgumentParser(prog="make deb", description="Build the Debian package inside another release.")
    parser.add_argument("codename", type=_codename, help="such as trixie")
    parser.add_argument("--out", type=Path, default=ROOT / "dist", help="where to [%(default)s]")
    arguments = parser.parse_args()
    if os.geteuid() or shutil.which("debootstrap") is None:
        parser.error("needs root, and debootstrap: apt-get install debootstrap")
    print(build(arguments.codename, arguments.out))


if __name__ == "__main__":
    main()
