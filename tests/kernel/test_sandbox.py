"""Whoever breaks into one of the processes: what is tried from inside its own sandbox, beside a running gateway.

The script settles in as the process does (`smtp_intercept.app.child`), with its user, and then does its worst. Also
without the filter of system calls, and without the view of the files, as on a kernel that has none: then the other
walls hold, and the one that is missing is said.
"""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from smtp_intercept.app.accounts import USERS, account
from smtp_intercept.app.lab.mail import MailServer, send
from smtp_intercept.app.lab.network import Lab

pytestmark = [pytest.mark.kernel, pytest.mark.usefixtures("lanes")]

SERVER, MAILBOX = "192.0.2.20", "192.0.2.21"
KINDS = ("diverter", "interceptor", "resolver", "reader", "mta", "tracker", "exporter")

ATTACK = """
import argparse, ctypes, json, os, signal, socket, sys, threading
from pathlib import Path
from bridge import seccomp, view
from smtp_intercept.app import child, config, sandbox

kind, without, told = sys.argv[1], sys.argv[2], json.loads(sys.argv[3])

def missing(*_):
    raise OSError(38, "Function not implemented")

if without == "filter":
    seccomp.deny = missing
if without == "view":
    view.narrow = missing
effective = Path(told["effective"])
settings = config.load(effective)
arguments = argparse.Namespace(uid=told["uid"], gid=told["gid"], parent=os.getppid(), effective=effective)
child.settle_in(kind, arguments, settings)
libc = ctypes.CDLL(None, use_errno=True)
said = {"unguarded": sandbox.myself()["unguarded"]}

def attempt(name, deed):
    try:
        said[name] = f"done: {deed()}"
    except OSError as error:
        said[name] = os.strerror(error.errno)

def call(name, *words):
    if getattr(libc, name)(*words) < 0:
        raise OSError(ctypes.get_errno(), name)

def touch(path):
    Path(path).touch()
    return path

def thread():
    (one := threading.Thread(target=lambda: None)).start()
    one.join()

for name, pid in told["others"].items():
    attempt(f"kill {name}", lambda: os.kill(pid, signal.SIGKILL))
    attempt(f"stop {name}", lambda: os.kill(pid, signal.SIGSTOP))
    attempt(f"ptrace {name}", lambda: call("ptrace", 16, pid, None, None))
    attempt(f"memory of {name}", lambda: open(f"/proc/{pid}/mem").close())
    attempt(f"files of {name}", lambda: os.listdir(f"/proc/{pid}/root" + told["spool"]))
    attempt(f"channels of {name}", lambda: os.listdir(f"/proc/{pid}/fd"))
    attempt(f"a descriptor of {name}", lambda: os.pidfd_open(pid))
attempt("spool", lambda: os.listdir(told["spool"]))
attempt("queue", lambda: open(told["spool"] + "/queue.db", "rb").read(16))
attempt("index", lambda: os.listdir(told["index"]))
attempt("mail log", lambda: open(told["log"]).read(1))
attempt("run directory", lambda: touch(told["run_dir"] + "/status.json"))
attempt("socket of the host", lambda: socket.socket(socket.AF_UNIX).connect(told["socket"]))
attempt("shadow", lambda: open("/etc/shadow").close())
attempt("etc", lambda: touch("/etc/owned"))
attempt("shared memory", lambda: touch("/dev/shm/owned"))
attempt("temporary", lambda: touch("/tmp/owned"))
attempt("kernel memory", lambda: open("/dev/kmem" if os.path.exists("/dev/kmem") else "/dev/mem").close())
attempt("the first namespace", lambda: os.open("/proc/1/ns/net", os.O_RDONLY))
attempt("setns", lambda: call("setns", os.open("/proc/self/ns/net", os.O_RDONLY), 0x40000000))
attempt("mount", lambda: call("mount", b"none", b"/usr", b"tmpfs", 0, None))
attempt("unmount", lambda: call("umount2", told["spool"].encode(), 2))
attempt("chroot", lambda: os.chroot("/"))
attempt("clock", lambda: __import__("time").clock_settime(0, 0))
attempt("frames", lambda: socket.socket(socket.AF_PACKET, socket.SOCK_RAW, 0x0300).close())
attempt("packets", lambda: socket.socket(socket.AF_INET, socket.SOCK_RAW, 6).close())
attempt("bpf", lambda: call("syscall", ctypes.c_long(321), 0, None, 0))
attempt("keys", lambda: call("syscall", ctypes.c_long(250), 0, -3, 0))
attempt("fork", lambda: os.fork() or os._exit(0))
attempt("exec", lambda: os.posix_spawn("/bin/true", ["true"], {}))
attempt("thread", thread)
attempt("a user namespace", lambda: call("unshare", 0x10000000))
print(json.dumps(said))
"""


@pytest.fixture(scope="module")
def lab() -> Iterator[Lab]:
    with Lab() as lab:
        MailServer.start(lab.host("server"))
        spool = str(lab.gateway.directory / "spool")
        protected = [
            {"domain": "example.com", "servers": [SERVER]},
            {"domain": "example.org", "servers": [MAILBOX], "handler": "mta"},
        ]
        tables: dict[str, Any] = {"protected": protected, "mta": {"spool": spool, "hostname": "gateway.example.com"}}
        tables["inspect"] = {"directory": str(lab.gateway.directory / "held")}
        tables["rule"] = [
            {
                "name": "r",
                "when": {"attachment": "*.exe", "dns_list": "x"},
                "then": {"discard": True},
                "mode": "observe",
            }
        ]
        tables["tracking"] = {"index": str(lab.gateway.directory / "index")}
        tables["metrics"] = {"listen": str(lab.gateway.directory / "metrics.sock")}
        lab.gateway.configure({**tables, "dns": {"list": {"x": {"zone": "x.example", "wait_s": 1}}}})
        lab.gateway.start()
        yield lab


@pytest.fixture(scope="module")
def doors(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """A socket that everybody may speak to, where the host has those of D-Bus and of containers."""
    path = f"/run/tollbridge-test-{os.getpid()}"
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(path)
        Path(path).chmod(0o666)
        listener.listen(8)
        yield path
    Path(path).unlink()


def attack(lab: Lab, kind: str, door: str, without: str = "nothing") -> dict[str, Any]:
    """What came of each attempt."""
    gateway, (uid, gid) = lab.gateway, account(kind)
    pids = gateway.pids()
    told = {
        "uid": uid,
        "gid": gid,
        "effective": str(gateway.run_dir / "effective.toml"),
        "run_dir": str(gateway.run_dir),
        "spool": str(gateway.directory / "spool"),
        "log": str(gateway.log),
        "index": str(gateway.directory / "index"),
        "socket": door,
        "others": {name: pid for name, pid in pids.items() if name != kind},
    }
    host = gateway if kind in ("resolver", "mta") else gateway.room
    done = host.run([gateway.interpreter, "-c", ATTACK, kind, without, json.dumps(told)], check=False)
    assert done.returncode == 0, done.stderr
    assert gateway.pids() == pids, "everybody lives"
    return dict(json.loads(done.stdout))


# What each wall is alone to stop, so that it may be done where that is missing.
ALONE = {
    "nothing": ("thread",),
    "filter": ("thread", "a user namespace", "a descriptor of", "fork", "exec", "frames", "packets", "keys"),
    "view": ("thread", "socket of the host", "shared memory", "temporary"),
}


@pytest.mark.parametrize(
    ("kind", "without"), [*((kind, "nothing") for kind in KINDS), ("interceptor", "filter"), ("interceptor", "view")]
)
def test_nothing_comes_of_it(lab: Lab, doors: str, kind: str, without: str) -> None:
    said = attack(lab, kind, doors, without)
    unguarded = said.pop("unguarded")
    done = {name for name, what in said.items() if what.startswith("done")}
    own = {"mta": {"spool", "queue"}, "tracker": {"index"}}.get(kind, set())
    own |= {place for place in ("spool", "index") if said[place] == "done: []"}  # empty, as it seems to others
    assert own | {"thread"} <= done
    assert {name for name in done - own if not name.startswith(ALONE[without])} == set()
    assert len(unguarded) == (without != "nothing")
    assert all(wall.endswith("Function not implemented") for wall in unguarded)


def test_each_wall_answers_for_itself(lab: Lab, doors: str) -> None:
    """With all of them: the queue is not there, signals are refused, no frame is seen of what crosses."""
    said = attack(lab, "interceptor", doors)
    assert said["spool"] == "done: []" or said["spool"] == "No such file or directory"
    assert said["socket of the host"] == "No such file or directory"
    assert (said["etc"], said["temporary"]) == ("Read-only file system",) * 2
    assert {said[f"{deed} diverter"] for deed in ("kill", "stop", "ptrace")} == {"Operation not permitted"}
    assert said["frames"] == "Address family not supported by protocol"
    assert said["packets"] == "Operation not permitted", "CAP_NET_RAW is for other hosts' addresses only"


@pytest.mark.parametrize("kind", KINDS)
def test_the_process_itself_is_in_it(lab: Lab, kind: str) -> None:
    """All threads; the view from inside, as root sees it by /proc."""
    pid = lab.gateway.pids()[kind]
    for task in Path(f"/proc/{pid}/task").iterdir():
        status = dict(line.split(":\t", 1) for line in (task / "status").read_text().splitlines() if ":\t" in line)
        assert (status["Seccomp"], status["NoNewPrivs"]) == ("2", "1")
        assert {*status["Uid"].split(), *status["Gid"].split()} == {*map(str, account(kind))}
    root = Path(f"/proc/{pid}/root")
    spool = root.joinpath(*(lab.gateway.directory / "spool").parts[1:])
    assert (spool / "queue.db").exists() is (kind == "mta")
    mounts = [line.split()[4:6] for line in Path(f"/proc/{pid}/mountinfo").read_text().splitlines()]
    writable = {where for where, options in mounts if "rw" in options.split(",")}
    own = {"mta": {"spool"}, "tracker": {"index"}}.get(kind, set())
    assert writable == {str(lab.gateway.directory / name) for name in own}
    assert lab.gateway.status()["unguarded"] == {}


def test_no_two_kinds_are_one_user() -> None:
    accounts = [account(kind) for kind in USERS]
    assert len({uid for uid, _ in accounts} | {0, 65534}) == len(USERS) + 2


def test_mail_is_inspected_and_queued_in_there(lab: Lab) -> None:
    for server, domain in ((SERVER, "example.com"), (MAILBOX, "example.org")):
        (entry,) = send(lab.host("client"), server, [f"user@{domain}"], sender=f"a@{domain}")
        assert entry["accepted"], entry
        assert lab.gateway.wait_log(sender=f"a@{domain}")


def test_the_interceptor_names_no_servers(lab: Lab) -> None:
    """What it may say to the diverter is another channel than the resolver's."""
    gateway = lab.gateway
    interceptor, resolver = (sockets(gateway.pids()[kind]) for kind in ("interceptor", "resolver"))
    assert interceptor
    assert resolver
    assert not interceptor & resolver


def sockets(pid: int) -> set[str]:
    """Each open socket by its number in the kernel, but for the standard streams."""
    there = (link for link in Path(f"/proc/{pid}/fd").iterdir() if int(link.name) > 2)
    return {target for link in there if (target := os.readlink(link)).startswith("socket:")}  # noqa: PTH115


def test_the_kernel_takes_the_whole_filter() -> None:
    """Every group of the table is in it: each name is one that the library knows here."""
    code = (
        "import ctypes; from bridge import denied; from bridge.seccomp import _library; l = _library()\n"
        "names = [n for g in denied.GROUPS.values() for n in g.split()]\n"
        "print(*[n for n in names if l.seccomp_syscall_resolve_name(n.encode()) == -1])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert set(done.stdout.split()) <= {"open_tree_attr"}, "misspelt, or newer than the library"


OF_ROOT = """
import ctypes, json, os, signal, socket, subprocess, sys
from bridge import seccomp
from smtp_intercept.app import sandbox

getattr(sandbox, sys.argv[1])()
libc = ctypes.CDLL(None, use_errno=True)
said = {"unguarded": sandbox.unguarded()}

def attempt(name, deed):
    try:
        deed()
        said[name] = "done"
    except OSError as error:
        said[name] = os.strerror(error.errno)

def call(name, *words):
    if getattr(libc, name)(*words) < 0:
        raise OSError(ctypes.get_errno(), name)

sleeper = subprocess.Popen(["sleep", "60"])
attempt("ptrace", lambda: call("ptrace", 16, sleeper.pid, None, None))
attempt("bpf", lambda: call("syscall", ctypes.c_long(321), 0, None, 0))
attempt("keys", lambda: call("syscall", ctypes.c_long(250), 0, -3, 0))
attempt("a module", lambda: call("syscall", ctypes.c_long(175), b"", 0, b""))
attempt("io_uring", lambda: call("syscall", ctypes.c_long(425), 1, None))
attempt("clock", lambda: __import__("time").clock_settime(0, __import__("time").time()))
attempt("a device", lambda: os.mknod("/dev/shm/owned", 0o20600, os.makedev(1, 1)))
attempt("a pipe", lambda: os.mkfifo(f"/dev/shm/pipe{os.getpid()}") or os.unlink(f"/dev/shm/pipe{os.getpid()}"))
attempt("bluetooth", lambda: socket.socket(socket.AF_BLUETOOTH, socket.SOCK_RAW, 1))
attempt("a user namespace", lambda: call("unshare", 0x10000000))
clone = ctypes.c_long(56), 0x10000000 | 17, None, None, None, None
attempt("a user namespace of a child's", lambda: call("syscall", *clone))
attempt("mounts of its own", lambda: call("unshare", 0x20000))
attempt("setns", lambda: call("setns", os.open("/proc/self/ns/net", os.O_RDONLY), 0x40000000))
attempt("signal", sleeper.terminate)
attempt("packets", lambda: socket.socket(socket.AF_PACKET, socket.SOCK_RAW, 0x0300).close())
print(json.dumps(said))
"""
# What a supervisor does all day; a keeper only ends what it has started.
_BOTH = {"signal", "packets", "a pipe"}
SPARED = {"shut_supervisor": {*_BOTH, "mounts of its own", "setns"}, "shut_keeper": _BOTH}


@pytest.mark.parametrize("wall", SPARED)
def test_what_stays_root_has_a_wall_too(lab: Lab, wall: str) -> None:
    done = lab.gateway.run([lab.gateway.interpreter, "-c", OF_ROOT, wall], check=False)
    assert done.returncode == 0, done.stderr
    said = json.loads(done.stdout)
    assert said.pop("unguarded") == []
    assert {name for name, what in said.items() if what == "done"} == SPARED[wall]
    assert said["bluetooth"] == "Address family not supported by protocol"


def test_the_supervisor_is_behind_it(lab: Lab) -> None:
    for task in Path(f"/proc/{lab.gateway.pids()['supervisor']}/task").iterdir():
        assert "\nSeccomp:\t2\n" in (task / "status").read_text()
