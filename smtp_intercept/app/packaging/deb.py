"""`make deb`: the wheel and its locked dependencies in a virtual environment of their own, as a Debian package.

Needs no root and no debhelper. The package fits this machine's architecture and its python3 only: netfilterqueue,
uvloop and pydantic are compiled. Nothing is fetched where it is installed; Python's bytecode is made there (postinst).
"""

from __future__ import annotations

import argparse
import gzip
import hashlib
import os
import platform
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from email.utils import formatdate
from importlib import metadata
from pathlib import Path

from smtp_intercept.app import cli, config
from smtp_intercept.app.packaging import completion, manual
from smtp_intercept.app.packaging.bundled import Bundled, bundled, normal
from smtp_intercept.app.packaging.copyrights import copyright_file
from smtp_intercept.app.packaging.sbom import bill
from smtp_intercept.app.packaging.words import words_of
from smtp_intercept.timestamp import timestamp

HERE = Path(__file__).parent
ROOT = HERE.parents[2]
HOME = "usr/lib/tollbridge"  # of the virtual environment
PYTHON = "python{}.{}".format(*sys.version_info[:2])
SITE = f"{HOME}/lib/{PYTHON}/site-packages"
LOCK = ROOT / "requirements" / "run.txt"  # versions and hashes: nothing else is installed, whatever an index says
DOC = "usr/share/doc/tollbridge"
# Who builds the package answers for it, as dch(1) knows them; the project has no address (RFC 2606: nor has this one).
MAINTAINER = "{} <{}>".format(
    os.environ.get("DEBFULLNAME", "Tollbridge maintainers"),
    os.environ.get("DEBEMAIL", "maintainers@tollbridge.invalid"),
)

# The manual, where its links find one another; what they call otherwise there.
PAGES = (
    "README.md",
    "CHANGELOG.md",
    "vagrant/README.md",
    *sorted(f"docs/{path.name}" for path in (ROOT / "docs").glob("*.md")),
)
RENAMED = {
    "(smtp_intercept/app/sample.toml)": "(tollbridge.toml)",
    "(LICENSE)": "(copyright)",
    "(../smtp_intercept/app/packaging/files/prometheus-rules.yml)": "(../prometheus-rules.yml)",
    "(../smtp_intercept/app/packaging/files/grafana-dashboard.json)": "(../grafana-dashboard.json)",
}
# source below smtp_intercept/app/packaging/ or the checkout → where it is installed
FILES = {
    "smtp_intercept/app/packaging/files/tollbridge.service": "usr/lib/systemd/system/tollbridge.service",
    "smtp_intercept/app/packaging/files/tollbridge-bridge.service": "usr/lib/systemd/system/tollbridge-bridge.service",
    "smtp_intercept/app/packaging/files/tollbridge-relay.service": "usr/lib/systemd/system/tollbridge-relay.service",
    "smtp_intercept/app/packaging/files/sysusers.conf": "usr/lib/sysusers.d/tollbridge.conf",
    "smtp_intercept/app/packaging/files/tmpfiles.conf": "usr/lib/tmpfiles.d/tollbridge.conf",
    "smtp_intercept/app/packaging/files/logrotate": "etc/logrotate.d/tollbridge",
    "smtp_intercept/app/sample.toml": f"{DOC}/tollbridge.toml",
    "smtp_intercept/app/packaging/files/prometheus-rules.yml": f"{DOC}/prometheus-rules.yml",
    "smtp_intercept/app/packaging/files/grafana-dashboard.json": f"{DOC}/grafana-dashboard.json",
    **{page: f"{DOC}/{page}" for page in PAGES},
}
CONFFILES = ("/etc/logrotate.d/tollbridge",)
SCRIPTS = ("postinst", "prerm", "postrm")
# What a virtual environment starts its commands with; isolated from the caller's directory and environment,
# and leaves no file that dpkg does not own.
COMMAND = f"""\
#!/bin/sh
exec /{HOME}/bin/python3 -IBm smtp_intercept.app "$@"
"""


def control(version: str, architecture: str, libraries: str, size_kib: int) -> str:
    """The package's own words, deb-control(5)."""
    major, minor = sys.version_info[:2]
    depends = [
        f"python3 (>= {major}.{minor})",
        f"python3 (<< {major}.{minor + 1})",
        f"{PYTHON}",
        *("libseccomp2", "nftables", "kmod", "passwd", "systemd"),
        libraries,
    ]
    return f"""\
Package: tollbridge
Version: {version}
Architecture: {architecture}
Maintainer: {MAINTAINER}
Installed-Size: {size_kib}
Depends: {", ".join(depends)}
Recommends: iptables, logrotate, man-db
Suggests: bash-completion
Section: mail
Priority: optional
Description: transparent, packet-level SMTP gateway
 An invisible bridge between two or more ports that inspects mail and passes
 everything else. With its libraries in {PYTHON}'s own
 virtual environment, /{HOME}.
"""


def version_here() -> str:
    """The product's, and the release that it is built on: 0.1.0+deb12. The next release's is an upgrade of it."""
    release = platform.freedesktop_os_release()
    name = {"debian": "deb"}.get(release["ID"], release["ID"])
    return f"{metadata.version('tollbridge')}+{name}{release.get('VERSION_ID', '')}"


def build(out: Path, work: Path, *, quick: bool = False) -> Path:
    """Make ``out``/tollbridge_VERSION_ARCHITECTURE.deb; ``work`` is emptied. Raises CalledProcessError.
    ``quick``: hardly compressed, for those who only want to look inside."""
    shutil.rmtree(work, ignore_errors=True)
    stage = work / "stage"
    wheels = work / "wheels"
    brought = _environment(stage, wheels)
    _strip(stage / SITE)
    _install_papers(stage, brought, wheels)
    _install_files(stage)
    _install_pages(stage)
    version, architecture = version_here(), _said("dpkg", "--print-architecture")
    _control_area(stage, version, architecture, _libraries(work, stage))
    _settle_modes(stage)
    out.mkdir(parents=True, exist_ok=True)
    target = out / f"tollbridge_{version}_{architecture}.deb"
    _run("dpkg-deb", "--root-owner-group", *(("-Zgzip", "-z1") if quick else ("-Zxz",)), "--build", stage, target)
    return target


def wheel(out: Path) -> None:
    """The product's own wheel, and beside it those of all that it needs, in the locked versions."""
    out.mkdir(parents=True, exist_ok=True)
    source = out / "source"  # a copy: setuptools leaves its work, and would pack last time's, in the checkout
    shutil.rmtree(source, ignore_errors=True)
    for name in ("bridge", "hwprofiles", "smtp_intercept"):
        shutil.copytree(ROOT / name, source / name, ignore=shutil.ignore_patterns("__pycache__"))
    for name in ("pyproject.toml", "README.md", "LICENSE"):
        shutil.copy2(ROOT / name, source / name)
    # What builds them is here already, in its own locked version: pip would fetch the newest.
    built = ("wheel", "--no-deps", "--no-build-isolation", "--wheel-dir", out)
    _pip(*built, source)
    _pip(*built, "--require-hashes", "--requirement", LOCK)
    shutil.rmtree(source)


def _environment(stage: Path, wheels: Path) -> list[Bundled]:
    """What `python3 -m venv` makes, with the wheels installed; dpkg owns every file of it. Returns what others have
    brought."""
    wheel(wheels)
    site, binaries = stage / SITE, stage / HOME / "bin"
    # Without dependencies and index: exactly these files and no others.
    _pip("install", "--no-index", "--no-deps", "--no-compile", "--target", site, *sorted(wheels.glob("*.whl")))
    # Other people's commands, with this machine's paths in them, and their manual pages, where nobody looks.
    for own in ("bin", "share"):
        shutil.rmtree(site / own, ignore_errors=True)
    brought = bundled(site)
    for trace in (*site.glob("*.dist-info/direct_url.json"), *site.glob("*.dist-info/RECORD")):
        trace.unlink()
    binaries.mkdir(parents=True)
    for name in ("python", "python3", PYTHON):
        (binaries / name).symlink_to(f"/usr/bin/{PYTHON}")
    (binaries / "tollbridge").write_text(COMMAND)
    home = f"home = /usr/bin\ninclude-system-site-packages = false\nversion = {sys.version.split()[0]}\n"
    (stage / HOME / "pyvenv.cfg").write_text(home)
    (stage / "usr/bin").mkdir(parents=True)
    (stage / "usr/bin/tollbridge").symlink_to("../lib/tollbridge/bin/tollbridge")
    return brought


def _install_papers(stage: Path, brought: list[Bundled], wheels: Path) -> None:
    """Whose it is, and what is in it."""
    digests = {normal(path.name.split("-")[0]): path for path in wheels.glob("*.whl")}
    sums = {name: hashlib.sha256(path.read_bytes()).hexdigest() for name, path in digests.items()}
    # Of what was compiled here nobody else has the sum.
    known = {name: digest for name, digest in sums.items() if digest in LOCK.read_text()}
    needed = [normal(re.split(r"[^\w.-]", need)[0]) for need in metadata.requires("tollbridge") or ()]
    at = timestamp((ROOT / "CHANGELOG.md").stat().st_mtime)
    (stage / DOC).mkdir(parents=True, exist_ok=True)
    (stage / DOC / "copyright").write_text(copyright_file(HOME, SITE, brought))
    (stage / DOC / "sbom.cdx.json").write_text(bill(version_here(), at, brought, needed, known))


def _strip(site: Path) -> None:
    """As dh_strip(1) does: other people's debugging symbols are half of their libraries."""
    for library in sorted(site.rglob("*.so")):
        _run("strip", "--remove-section=.comment", "--remove-section=.note", "--strip-unneeded", library)


def _install_files(stage: Path) -> None:
    for source, target in FILES.items():
        path = stage / target
        path.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(ROOT / source, path)
    for page in PAGES:
        _rename_links(stage / DOC / page)
    _write_gz(stage / DOC / "changelog.gz", _changelog())
    (stage / "etc/tollbridge").mkdir()


def _rename_links(page: Path) -> None:
    text = page.read_text()
    for link, there in RENAMED.items():
        text = text.replace(link, there)
    page.write_text(text)


def _changelog() -> str:
    """deb-changelog(5), which has one form; what users notice is in CHANGELOG.md."""
    at = formatdate((ROOT / "CHANGELOG.md").stat().st_mtime)
    return (
        f"tollbridge ({version_here()}) unstable; urgency=medium\n\n  * See CHANGELOG.md.\n\n -- {MAINTAINER}  {at}\n"
    )


def pages() -> dict[str, str]:
    """Where each page and completion goes → its text."""
    words, version = words_of(cli._parser()), metadata.version("tollbridge")
    return {
        "usr/share/man/man8/tollbridge.8.gz": manual.command(words, version),
        "usr/share/man/man5/tollbridge.toml.5.gz": manual.configuration(config.sample(), version),
        "usr/share/bash-completion/completions/tollbridge": completion.bash(words),
        "usr/share/zsh/vendor-completions/_tollbridge": completion.zsh(words),
        "usr/share/fish/vendor_completions.d/tollbridge.fish": completion.fish(words),
    }


def _install_pages(stage: Path) -> None:
    for target, text in pages().items():
        path = stage / target
        path.parent.mkdir(parents=True, exist_ok=True)
        if path.suffix == ".gz":
            _write_gz(path, text)
        else:
            path.write_text(text)


def _write_gz(path: Path, text: str) -> None:
    path.write_bytes(gzip.compress(text.encode(), mtime=0))


def _libraries(work: Path, stage: Path) -> str:
    """The Debian packages that the compiled parts are linked with, as dpkg-shlibdeps finds them."""
    (work / "debian").mkdir()
    (work / "debian/control").write_text("Source: tollbridge\n\nPackage: tollbridge\nArchitecture: any\n")
    objects = [f"-e{path.relative_to(work)}" for path in sorted((stage / SITE).rglob("*.so"))]
    ignored = "--ignore-missing-info"  # manylinux wheels bring some of their own
    said = _said("dpkg-shlibdeps", "-O", ignored, "--warnings=0", *objects, cwd=work)
    return said.removeprefix("shlibs:Depends=")


def _control_area(stage: Path, version: str, architecture: str, libraries: str) -> None:
    area = stage / "DEBIAN"
    area.mkdir()
    size = sum(path.lstat().st_size for path in _installed(stage))
    (area / "control").write_text(control(version, architecture, libraries, size // 1024))
    (area / "conffiles").write_text("".join(f"{name}\n" for name in CONFFILES))
    for name in SCRIPTS:
        shutil.copyfile(HERE / "debian" / name, area / name)
    files = [path for path in _installed(stage) if not path.is_symlink()]
    sums = ((hashlib.md5(path.read_bytes(), usedforsecurity=False).hexdigest(), path) for path in files)
    (area / "md5sums").write_text("".join(f"{digest}  {path.relative_to(stage)}\n" for digest, path in sums))


def _installed(stage: Path) -> Iterator[Path]:
    return (path for path in sorted(stage.rglob("*")) if not path.is_dir() and "DEBIAN" not in path.parts)


def _settle_modes(stage: Path) -> None:
    """Whatever the umask here: readable by all, written by root, executable only where it must be."""
    commands = {stage / HOME / "bin/tollbridge", *(stage / "DEBIAN" / name for name in SCRIPTS)}
    for path in stage.rglob("*"):
        if not path.is_symlink():
            path.chmod(0o755 if path.is_dir() or path in commands else 0o644)
    stage.chmod(0o755)


def _pip(*words: str | Path) -> None:
    _run(sys.executable, "-m", "pip", "--quiet", "--disable-pip-version-check", *words)


def _run(*words: str | Path, cwd: Path = ROOT) -> None:
    environment = {**os.environ, "PIP_ROOT_USER_ACTION": "ignore"}
    subprocess.run(words, cwd=cwd, env=environment, check=True, stdout=subprocess.DEVNULL)  # noqa: S603 - fixed programs


def _said(*words: str | Path, cwd: Path = ROOT) -> str:
    done = subprocess.run(words, cwd=cwd, check=True, stdout=subprocess.PIPE, text=True)  # noqa: S603 - fixed programs
    return done.stdout.strip()


def main() -> None:
    """The words of `make deb` and `make wheel`."""
    parser = argparse.ArgumentParser(prog="make deb", description="Build the Debian package, or wheels.")
    parser.add_argument("--out", type=Path, default=ROOT / "dist", help="where to [%(default)s]")
    parser.add_argument("--wheel", action="store_true", help="only the wheel, with those that it needs")
    arguments = parser.parse_args()
    if arguments.wheel:
        wheel(arguments.out)
    else:
        print(build(arguments.out, ROOT / "build" / "deb"))


if __name__ == "__main__":
    main()
