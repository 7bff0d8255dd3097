"""What the two processes may still do, as the kernel tells it, and what `confine` leaves to whoever breaks in.

process      user      CapEff = CapPrm = CapInh..CapAmb       CapBnd  NoNewPrivs  core, ptrace
supervisor   root      (started by systemd or root; speaks with no stranger)
diverter     not root  CAP_NET_ADMIN                           none    1           no
interceptor  not root  CAP_NET_RAW                             none    1           no
resolver     not root  none                                    none    1           no
"""

from __future__ import annotations

import os
import signal
import stat
import subprocess
import sys
import time
from ast import literal_eval
from collections.abc import Iterator
from pathlib import Path

import pytest

from bridge.privilege import Capability
from smtp_intercept.app.lab.host import AT_LAST_S
from smtp_intercept.app.lab.network import Lab

pytestmark = [pytest.mark.kernel, pytest.mark.usefixtures("lanes")]

KEPT = {"diverter": 1 << Capability.NET_ADMIN, "interceptor": 1 << Capability.NET_RAW, "resolver": 0}


@pytest.fixture(scope="module")
def processes() -> Iterator[dict[str, int]]:
    with Lab() as lab:
        lab.gateway.configure()
        lab.gateway.start()
        yield lab.gateway.pids()


def status(pid: int) -> dict[str, str]:
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    return {name: value.strip() for name, _, value in (line.partition(":") for line in lines)}


@pytest.mark.parametrize("name", KEPT)
def test_at_most_one_capability_and_no_way_to_another(processes: dict[str, int], name: str) -> None:
    seen = status(processes[name])
    user, group = (set(map(int, seen[key].split())) for key in ("Uid", "Gid"))
    assert len(user) == len(group) == 1
    assert 0 not in user | group
    assert seen["Groups"] == ""
    sets = {key: int(seen[key], 16) for key in ("CapEff", "CapPrm", "CapInh", "CapAmb", "CapBnd")}
    kept = KEPT[name]
    assert sets == {"CapEff": kept, "CapPrm": kept, "CapInh": 0, "CapAmb": 0, "CapBnd": 0}
    assert seen["NoNewPrivs"] == "1"


@pytest.mark.parametrize("name", KEPT)
def test_all_threads_are_confined(processes: dict[str, int], name: str) -> None:
    tasks = Path(f"/proc/{processes[name]}/task")
    for task in tasks.iterdir():
        lines = (task / "status").read_text().splitlines()
        assert f"CapPrm:\t{KEPT[name]:016x}" in lines


@pytest.mark.parametrize("name", KEPT)
def test_no_core_and_no_debugger(processes: dict[str, int], name: str) -> None:
    """The files in /proc of a process that is not dumpable are root's."""
    process = Path(f"/proc/{processes[name]}")
    limits = (process / "limits").read_text().splitlines()
    (core,) = [line.split()[4:6] for line in limits if line.startswith("Max core file size")]
    assert core == ["0", "0"]
    assert (process / "maps").stat().st_uid == 0 != int(status(processes[name])["Uid"].split()[0])


@pytest.mark.parametrize("name", KEPT)
def test_nothing_of_the_others_is_left_open(processes: dict[str, int], name: str) -> None:
    """Besides sockets, event files and standard streams: the mail log of the one that writes it."""
    links = [(link.readlink(), link.stat()) for link in Path(f"/proc/{processes[name]}/fd").iterdir()]
    kernel = Path("/proc").stat().st_dev
    opened = {
        path.name
        for path, kind in links
        if (stat.S_ISREG(kind.st_mode) or stat.S_ISDIR(kind.st_mode)) and kind.st_dev != kernel
        if path.suffix not in (".out", ".err")
    }
    assert opened == ({"mail.log"} if name == "interceptor" else set())


# What somebody would try who runs code in a confined process. Each line says how it went.
BREAK_OUT = """
import ctypes, os, socket, subprocess, sys
from bridge.privilege import Capability, confine
keep = Capability[sys.argv[1]]
confine(65534, 65534, [keep])
libc = ctypes.CDLL(None, use_errno=True)

def attempt(name, deed):
    try:
        result = deed()
    except OSError as error:
        result = error.strerror
    print(name, result)

def capabilities(pid="self"):
    lines = dict(line.split(":", 1) for line in open(f"/proc/{pid}/status"))
    return " ".join(lines[key].strip() for key in ("CapPrm", "CapEff", "CapBnd"))

attempt("setuid", lambda: os.setuid(0))
attempt("setresuid", lambda: os.setresuid(0, 0, 0))
attempt("setgid", lambda: os.setgid(0))
attempt("setgroups", lambda: os.setgroups([0]))
attempt("keepcaps", lambda: libc.prctl(8, 1, 0, 0, 0))
attempt("securebits", lambda: libc.prctl(28, 0, 0, 0, 0))
attempt("ambient", lambda: libc.prctl(47, 2, int(keep), 0, 0))
attempt("dumpable", lambda: libc.prctl(3, 0, 0, 0, 0))
run = [sys.argv[2], "/proc/self/status"]
attempt("exec", lambda: subprocess.run(run, capture_output=True, text=True).stdout.split())
attempt("raw", lambda: socket.socket(socket.AF_INET, socket.SOCK_RAW, 6).close())
attempt("mark", lambda: socket.socket().setsockopt(socket.SOL_SOCKET, socket.SO_MARK, 1))
attempt("bind", lambda: socket.socket().bind(("127.0.0.1", 24)))
attempt("open", lambda: open("/etc/shadow").close())
"""


@pytest.mark.parametrize("kept", [Capability.NET_ADMIN, Capability.NET_RAW])
def test_a_confined_process_cannot_break_out(tmp_path: Path, kept: Capability) -> None:
    """It runs a setuid program of root's, which makes root of anybody else and here stays without any capability."""
    program = tmp_path / "cat"
    program.write_bytes(Path("/bin/cat").read_bytes())
    program.chmod(0o4755)
    for directory in (tmp_path, *(parent for parent in tmp_path.parents if "pytest" in str(parent))):
        directory.chmod(0o755)
    anybody = subprocess.run([program, "/proc/self/status"], user=65534, capture_output=True, text=True, check=True)
    assert euid(anybody.stdout.split()) == "0"
    command = ["unshare", "-n", sys.executable, "-c", BREAK_OUT, kept.name, str(program)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=AT_LAST_S, check=False)
    assert done.returncode == 0, done.stderr
    said = dict(line.split(" ", 1) for line in done.stdout.splitlines())
    denied, gained = "Operation not permitted", literal_eval(said["exec"])
    assert {said[name] for name in ("setuid", "setresuid", "setgid", "setgroups")} == {denied}
    assert {said[name] for name in ("keepcaps", "securebits", "ambient")} == {"-1"}
    assert said["dumpable"] == "0"
    assert euid(gained) == "65534"
    assert [gained[gained.index(name) + 1] for name in ("CapPrm:", "CapEff:")] == ["0" * 16] * 2
    assert said["raw"] == ("None" if kept is Capability.NET_RAW else denied)
    assert said["mark"] == "None"  # with either: that is how a socket joins the lane
    assert (said["bind"], said["open"]) == ("Permission denied", "Permission denied")


def euid(status_words: list[str]) -> str:
    return status_words[status_words.index("Uid:") + 2]


ORPHAN = """
import os, signal, sys, time
from bridge.privilege import Capability, confine, die_with_parent
parent = os.getppid()
confine(65534, 65534, [Capability.NET_RAW])
if sys.argv[1] == "late":
    parent = 1 << 22
print("confined", os.getpid(), flush=True)
die_with_parent(signal.SIGTERM, parent)
print("waits", flush=True)
time.sleep(30)
"""


@pytest.mark.parametrize("when", ["late", "in time"])
def test_who_has_lost_its_parent_ends_even_if_it_was_lost_before(when: str) -> None:
    """``late``: the parent has died before it could be watched."""
    keep = f"import subprocess, sys; subprocess.run([sys.executable, '-c', sys.argv[1], {when!r}])"
    with subprocess.Popen([sys.executable, "-c", keep, ORPHAN], stdout=subprocess.PIPE, text=True) as parent:
        assert parent.stdout
        pid = int(parent.stdout.readline().split()[1])
        if when == "in time":
            assert parent.stdout.readline() == "waits\n"
            parent.send_signal(signal.SIGKILL)
        assert parent.stdout.read() == ""  # nobody holds the other end any more
    deadline_at = time.monotonic() + 25.0  # it would sleep for thirty
    while os.path.exists(f"/proc/{pid}/exe"):  # noqa: PTH110
        assert time.monotonic() < deadline_at
        time.sleep(0.02)
