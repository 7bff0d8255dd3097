"""What `make deb` packs, without installing it: each file where it belongs, root's, and nothing of the machine it was
built on; and how far the units shut their processes in.

unit                        systemd-analyze security, of 10
tollbridge.service          3.5   the supervisor, diverter, interceptor, resolver and MTA together
tollbridge-bridge.service   4.1   makes a namespace and links, loads modules; lives for seconds
tollbridge-relay.service    3.2   keeps the relays of bypass hardware
"""

from __future__ import annotations

import io
import json
import os
import re
import subprocess
import tarfile
from pathlib import Path

import pytest
from cyclonedx.schema import SchemaVersion
from cyclonedx.validation.json import JsonStrictValidator

from smtp_intercept.app.packaging import deb, elsewhere
from smtp_intercept.app.packaging.bundled import UnknownLicenceError, bundled, normal
from tests.links import dead
from tests.tools import as_installed, program

PAPERS = (f"{deb.DOC}/copyright", f"{deb.DOC}/sbom.cdx.json")
UNITS = {"tollbridge.service": 3.5, "tollbridge-bridge.service": 4.1, "tollbridge-relay.service": 3.2}
# Which ends are followed by another start: not after `down` (130), nor after what only a person mends (2).
ENDS = (0, 1, 2, 130, 143)
STARTED_AGAIN = {
    "tollbridge.service": {0, 1, 143},
    "tollbridge-bridge.service": {130, 143},
    "tollbridge-relay.service": {1, 143},
}
ROOT = Path(__file__).parents[2]


def said(*words: str | Path) -> bytes:
    return subprocess.run(words, check=True, capture_output=True, timeout=120).stdout


@pytest.fixture(scope="module")
def package(tmp_path_factory: pytest.TempPathFactory) -> Path:
    work = tmp_path_factory.mktemp("deb")
    return deb.build(work / "out", work / "work", quick=True)


@pytest.fixture(scope="module")
def files(package: Path) -> tarfile.TarFile:
    return tarfile.open(fileobj=io.BytesIO(said("dpkg-deb", "--fsys-tarfile", package)))


def read(files: tarfile.TarFile, name: str) -> bytes:
    file = files.extractfile(f"./{name}")
    assert file is not None
    return file.read()


@pytest.mark.parametrize("unit", UNITS)
def test_what_nobody_asked_to_end_is_started_again(unit: str) -> None:
    """As systemd.service(5) has it; at work: tests/packaging/test_installed.py."""
    text = (Path(deb.__file__).parent / "files" / unit).read_text()
    says = dict(line.split("=", 1) for line in text.splitlines() if "=" in line and not line.startswith("#"))
    prevented, clean = (
        set(map(int, says.get(key, "").split())) for key in ("RestartPreventExitStatus", "SuccessExitStatus")
    )
    failures = set(ENDS) - clean - {0}
    assert {"always": set(ENDS), "on-failure": failures}[says["Restart"]] - prevented == STARTED_AGAIN[unit]


def test_what_is_in_it(files: tarfile.TarFile) -> None:
    names = {name.removeprefix("./") for name in files.getnames()}
    assert names >= {
        *deb.FILES.values(),
        *PAPERS,
        *deb.pages(),
        "usr/bin/tollbridge",
        "etc/tollbridge",
        f"{deb.HOME}/pyvenv.cfg",
    }
    assert "etc/tollbridge/tollbridge.toml" not in names, "an administrator's, or `tollbridge setup`'s"
    assert f"{deb.SITE}/hwprofiles/models/generic.toml" in names
    places = ("etc", "usr/bin", "usr/lib/tollbridge", "usr/lib/systemd", "usr/lib/sysusers.d", "usr/lib/tmpfiles.d")
    stray = [n for n in names if not n.startswith((*places, "usr/share")) and n not in (".", "", "usr", "usr/lib")]
    assert stray == []


def test_it_is_roots_and_nobody_elses_to_write(files: tarfile.TarFile) -> None:
    assert {(member.uname, member.gname) for member in files} == {("root", "root")}
    assert [member.name for member in files if not member.issym() and member.mode & 0o7022] == []
    executable = {member.name for member in files if member.isfile() and member.mode & 0o111}
    assert executable == {f"./{deb.HOME}/bin/tollbridge"}


def test_it_is_not_of_this_machine(files: tarfile.TarFile) -> None:
    ours = str(ROOT).encode()
    assert [
        m.name for m in files if m.isfile() and not m.name.endswith(".so") and ours in read(files, m.name[2:])
    ] == []
    assert [m.name for m in files if m.issym() and m.linkname.startswith(str(ROOT))] == []


def test_it_brings_no_bytecode(files: tarfile.TarFile) -> None:
    """No package may (Debian's Python policy); postinst makes it, prerm takes it away."""
    assert [name for name in files.getnames() if "__pycache__" in name or name.endswith(".pyc")] == []
    for script, words in (("postinst", "compileall"), ("prerm", "-name __pycache__")):
        assert words in (ROOT / "smtp_intercept/app/packaging/debian" / script).read_text()


def test_every_link_of_the_manual_is_alive_there(files: tarfile.TarFile, tmp_path: Path) -> None:
    for page in deb.PAGES:
        path = tmp_path / page
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(read(files, f"{deb.DOC}/{page}"))
    present = {name.removeprefix("./").removeprefix(f"{deb.DOC}/") for name in files.getnames()}
    assert [link for page in deb.PAGES for link in dead(tmp_path, page, present.__contains__)] == []


def test_its_modules_load_as_they_are_packed(package: Path, tmp_path: Path) -> None:
    """Stripped libraries too; by the command that is packed, but for the place where it is installed."""
    said("dpkg-deb", "--extract", package, tmp_path)
    command = (tmp_path / deb.HOME / "bin/tollbridge").read_text()
    words = re.findall(r"exec /\S+ (-\w+) (\S+)", command)
    assert words == [("-IBm", "smtp_intercept.app")]
    load = f"import sys; sys.path.insert(0, {str(tmp_path / deb.SITE)!r}); import netfilterqueue, uvloop, pydantic_core"
    said(f"/usr/bin/{deb.PYTHON}", "-IBc", f"{load}; from smtp_intercept.app import cli, diverter, interceptor, mta")


def test_lintian_finds_no_error(package: Path) -> None:
    _, environment = program("lintian")
    words = as_installed("lintian", "--allow-root", "--tag-display-limit", "0", str(package))
    done = subprocess.run(words, env={**os.environ, **environment}, capture_output=True, text=True, timeout=300)
    assert "W: tollbridge:" in done.stdout, f"it has looked: {done.stdout}{done.stderr}"
    assert [line for line in done.stdout.splitlines() if line.startswith("E:")] == []


def test_its_copyright_is_true(files: tarfile.TarFile) -> None:
    """DEP-5: each file of others below site-packages is in one paragraph, which has the licence and its text."""
    paragraphs = read(files, PAPERS[0]).decode().split("\n\n")
    assert all(re.match(r"Format:|Files:", paragraph) for paragraph in paragraphs)
    of = {
        pattern.strip(): paragraph
        for paragraph in paragraphs[2:]
        for pattern in re.findall(r"^ usr/.*", paragraph, re.MULTILINE)
    }
    ours = {f"{deb.SITE}/{name}" for name in ("bridge", "hwprofiles", "smtp_intercept")}
    names = {name.removeprefix("./") for name in files.getnames()}
    for place in {"/".join(name.split("/")[:7]) for name in names if name.startswith(f"{deb.SITE}/")}:
        if place not in ours and "/tollbridge-" not in place:
            assert f"{place}/*" in of or place in of, place
    for paragraph in of.values():
        assert re.search(r"^Copyright:\n \S", paragraph, re.MULTILINE)
        licence, text = re.findall(r"^License: (.+)\n((?: .*\n)+)", paragraph, re.MULTILINE)[0]
        assert licence
        assert len(text.splitlines()) > 5 or "/usr/share/common-licenses/" in text, paragraph
    scapy = of[f"{deb.SITE}/scapy/*"]
    assert "License: GPL-2.0-only\n" in scapy
    assert "/usr/share/common-licenses/GPL-2." in scapy


def test_its_bill_of_materials_is_valid_and_whole(files: tarfile.TarFile) -> None:
    text = read(files, PAPERS[1]).decode()
    assert JsonStrictValidator(SchemaVersion.V1_6).validate_str(text) is None
    found = json.loads(text)
    listed = {(one["name"], one["version"]) for one in found["components"]}
    packed = re.findall(r"site-packages/([\w.]+)-([\w.]+)\.dist-info$", "\n".join(files.getnames()), re.MULTILINE)
    assert listed == {(normal(name), version) for name, version in packed if name != "tollbridge"}
    refs = {one["bom-ref"] for one in (*found["components"], found["metadata"]["component"])}
    assert refs == {one["ref"] for one in found["dependencies"]}
    locked = deb.LOCK.read_text()
    unsummed = [one["name"] for one in found["components"] if "hashes" not in one]
    assert unsummed == ["netfilterqueue"], "compiled here; of all others the wheel is the index's"
    assert all(one["hashes"][0]["content"] in locked for one in found["components"] if "hashes" in one)
    parts = {one["name"]: one.get("components", []) for one in found["components"]}
    assert len(parts["pydantic-core"]) > 20, "what Rust has linked into it"
    assert [part["name"] for part in parts["uvloop"]] == ["libuv"]


def test_who_says_nothing_of_its_licence_is_refused(tmp_path: Path) -> None:
    (tmp_path / "x-1.dist-info").mkdir()
    (tmp_path / "x-1.dist-info/METADATA").write_text("Metadata-Version: 2.1\nName: x\nVersion: 1\n")
    with pytest.raises(UnknownLicenceError, match="x 1 does not say"):
        bundled(tmp_path)


@pytest.mark.parametrize("lock", ["requirements/build.txt", "requirements/run.txt", "tests/requirements.txt"])
def test_every_locked_version_has_its_hashes(lock: str) -> None:
    """Of this architecture's wheels for both Pythons, or of the source."""
    text = (ROOT / lock).read_text()
    pinned = re.findall(r"^([\w.-]+)==(\S+)((?: \\\n    --hash=sha256:[0-9a-f]{64})*)", text, re.MULTILINE)
    assert len(pinned) == len(re.findall(r"^[\w.-]+", text, re.MULTILINE)) > 2
    assert [name for name, _, hashes in pinned if not hashes] == []


def test_the_locks_agree() -> None:
    run, tests = (
        dict(re.findall(r"^([\w.-]+)==(\S+)", (ROOT / lock).read_text(), re.MULTILINE))
        for lock in ("requirements/run.txt", "tests/requirements.txt")
    )
    assert run.items() <= tests.items()


def test_pip_takes_nothing_unlooked_at() -> None:
    """Wherever something is fetched it is by hash; what is built is built by what is there."""
    makefile = (ROOT / "Makefile").read_text()
    rule = makefile.partition("$(VENV)/.ready: pyproject.toml")[2].partition("\n\n")[0]
    for script in (rule.replace("$(PIP)", "pip install"), elsewhere.BUILD):
        fetching = [line for line in script.splitlines() if "pip install" in line]
        assert len(fetching) == 3
        assert all("--require-hashes" in line or "--no-deps" in line for line in fetching)
        assert all("--no-build-isolation" in line for line in fetching[1:])


def test_its_versions_are_the_locked_ones(files: tarfile.TarFile) -> None:
    locked = dict(re.findall(r"^([\w.-]+)==(\S+)", deb.LOCK.read_text(), re.MULTILINE))
    found = re.findall(r"site-packages/([\w.]+)-([\w.]+)\.dist-info$", "\n".join(files.getnames()), re.MULTILINE)
    packed = {name.lower().replace("_", "-"): version for name, version in found}
    assert {"netfilterqueue", "uvloop", "pydantic"} <= packed.keys()
    assert packed.pop("tollbridge")
    assert packed == {name: locked[name] for name in packed}


def test_it_says_what_it_needs(package: Path) -> None:
    depends = said("dpkg-deb", "--field", package, "Depends").decode()
    major, minor = re.findall(r"\d+", deb.PYTHON)
    assert f"python3 (>= {major}.{minor}), python3 (<< {major}.{int(minor) + 1})" in depends
    assert "libnetfilter-queue1" in depends
    assert said("dpkg-deb", "--field", package, "Architecture").decode().strip() != "all"


def test_its_scripts_are_clean(package: Path, tmp_path: Path) -> None:
    said("dpkg-deb", "--control", package, tmp_path / "control")
    for name in deb.SCRIPTS:
        path = tmp_path / "control" / name
        assert path.stat().st_mode & 0o777 == 0o755
        assert path.read_text().startswith("#!/bin/sh\nset -e\n")
        said("sh", "-n", path)
        said(*as_installed("shellcheck", str(path)))


@pytest.mark.parametrize(("unit", "most"), UNITS.items())
def test_the_sandbox(unit: str, most: float) -> None:
    told = said(
        *as_installed("systemd-analyze"),
        "security",
        "--offline=true",
        "--no-pager",
        ROOT / "smtp_intercept/app/packaging/files" / unit,
    ).decode()
    (exposure,) = re.findall(r"Overall exposure level for \S+: ([\d.]+)", told)
    assert float(exposure) <= most
