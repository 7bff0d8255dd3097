"""Brings a condition about in a running gateway, by its name: for labs, whose tests show what becomes of mail then.

Refuses without the lab's word (`WORD` in the environment), and knows no condition but those of its table.
"""

from __future__ import annotations

import argparse
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TypeAlias, assert_never

from smtp_intercept.app import config
from smtp_intercept.app.defaults import RUN_DIR
from smtp_intercept.app.exits import FailedError, UsageError
from smtp_intercept.app.rundir import RunDir, read_json

WORD = "TOLLBRIDGE_LAB"
LASTING_S = 60.0  # what lasts, lasts no longer than this
FILLED_OCTETS = 16 << 20  # a lab's file system is no larger
KINDS = ("diverter", "interceptor", "resolver", "mta")
_NAMESPACES = Path("/run/netns")


@dataclass(frozen=True, slots=True)
class Send:
    """A signal, to every process of this kind, or to the daemon itself ("supervisor")."""

    kind: str
    number: signal.Signals


@dataclass(frozen=True, slots=True)
class Kill:
    """As often as it is started again, until whoever simulates it is ended."""

    kind: str


@dataclass(frozen=True, slots=True)
class Unplug:
    """The last of the ports: in a network namespace of its own, until whoever simulates it is ended."""


@dataclass(frozen=True, slots=True)
class Do:
    """A command where the wire is; {port} is the last of the ports, ``rules`` what it reads."""

    command: str
    rules: str = ""


@dataclass(frozen=True, slots=True)
class Fill:
    """The file system of the run directory, or of the mail log, which has to be a small one of its own; or, to undo it,
    no more."""

    full: bool
    log: bool = False


@dataclass(frozen=True, slots=True)
class Clog:
    """The pipe that the processes say all on; or, to undo it, read what is in it."""

    full: bool


Act: TypeAlias = Send | Kill | Unplug | Fill | Clog | Do


@dataclass(frozen=True, slots=True)
class Condition:
    """``words`` for people; ``undo`` is empty where the gateway mends itself."""

    words: str
    do: tuple[Act, ...]
    undo: tuple[Act, ...] = ()

    @property
    def lasts(self) -> bool:
        """While it is being simulated, and no longer."""
        return any(isinstance(act, Kill | Unplug) for act in self.do)


def _hung(kind: str) -> tuple[tuple[Send], tuple[Send]]:
    return (Send(kind, signal.SIGSTOP),), (Send(kind, signal.SIGCONT),)


_DROPS = "table inet simulated {{ chain c {{ type filter hook {} priority 5;\n tcp dport 25 drop\n }}\n }}\n"
_FOREIGN = (Do("nft delete table inet simulated"),)
_MTU = "ip link set {{port}} mtu {}"
CONDITIONS: Mapping[str, Condition] = {
    "none": Condition("all is well", ()),
    "no-daemon": Condition("`up`, and no daemon: killed, or not started yet", (Send("supervisor", signal.SIGKILL),)),
    "interceptor-dead": Condition("the interceptor dies, again and again", (Kill("interceptor"),)),
    "interceptor-hung": Condition("the interceptor hangs", *_hung("interceptor")),
    "diverter-dead": Condition("the diverter dies, again and again", (Kill("diverter"),)),
    "diverter-hung": Condition("the diverter hangs", *_hung("diverter")),
    "mta-hung": Condition("the MTA hangs; mail that it should have", *_hung("mta")),
    "foreign-input": Condition(
        "another program's rule drops what the lane turns inwards (a firewall's input chain)",
        (Do("nft -f -", _DROPS.format("input")),),
        _FOREIGN,
    ),
    "foreign-forward": Condition(
        "another program's rule drops what is bridged (Docker's FORWARD DROP)",
        (Do("nft -f -", _DROPS.format("forward")),),
        _FOREIGN,
    ),
    "rules-flushed": Condition("`nft flush ruleset`, two seconds ago", (Do("nft flush ruleset"),)),
    "rules-of-routing-flushed": Condition("`ip rule del`, two seconds ago", (Do("ip rule del pref 25"),)),
    "port-gone": Condition("a port is gone (unplugged, its driver reset)", (Unplug(),)),
    "run-full": Condition("the file system of the run directory is full", (Fill(full=True),), (Fill(full=False),)),
    "log-full": Condition(
        "the file system of the mail log is full", (Fill(full=True, log=True),), (Fill(full=False, log=True),)
    ),
    "journal-blocked": Condition(
        "nobody reads what the processes say (a journal that hangs), and they have something to say",
        (Clog(full=True), *(Send(kind, signal.SIGHUP) for kind in ("supervisor", *KINDS))),
        (Clog(full=False),),
    ),
    "mtu-raised": Condition("a port's MTU is raised to 9000", (Do(_MTU.format(9000)),), (Do(_MTU.format(1500)),)),
}


def simulate(run_dir: RunDir, name: str, *, undo: bool = False) -> None:
    """Bring it about, or take it away. Raises `FailedError`."""
    if os.environ.get(WORD) != "1":
        raise UsageError(f"this breaks a gateway on purpose; only a lab may, which sets {WORD}=1")
    condition = CONDITIONS[name]
    for act in condition.undo if undo else condition.do:
        match act:
            case Send(kind, number):
                _send(run_dir, kind, number, needed=not undo)
            case Kill(kind):
                _kill(run_dir, kind)
            case Unplug():
                _unplug(run_dir)
            case Fill(full, log):
                _fill(_log_directory(run_dir) if log else run_dir.path, full=full)
            case Clog(full):
                _clog(run_dir, full=full)
            case Do(command, rules):
                _run(_where(run_dir), command.format(port=_port(run_dir)), rules)
            case _:
                assert_never(act)


def _pids(run_dir: RunDir, kind: str) -> set[int]:
    processes = (read_json(run_dir.status) or {}).get("processes", {})
    return {pid for name, pid in processes.items() if name.partition("-")[0] == kind}


def _send(run_dir: RunDir, kind: str, number: signal.Signals, *, needed: bool) -> None:
    """What was stopped may have been ended and started again since: then there is nothing to undo."""
    pids = _pids(run_dir, kind)
    if needed and not pids:
        raise FailedError(f"no {kind} runs; start the daemon first: tollbridge run")
    for pid in pids:
        with suppress(ProcessLookupError):
            os.kill(pid, number)


def _kill(run_dir: RunDir, kind: str) -> None:
    until, killed = time.monotonic() + LASTING_S, set[int]()
    while time.monotonic() < until:
        for pid in (_pids(run_dir, kind) | _started(run_dir, kind)) - killed:
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
            killed.add(pid)
        time.sleep(0.02)


def _started(run_dir: RunDir, kind: str) -> set[int]:
    """The daemon's children of this kind, before it has told of them."""
    found, program = set[int](), f"{__package__}.{kind}".encode()
    for daemon in _pids(run_dir, "supervisor"):
        with suppress(OSError):
            children = Path(f"/proc/{daemon}/task/{daemon}/children").read_text(encoding="ascii").split()
            found |= {int(pid) for pid in children if program in _command(pid)}
    return found


def _command(pid: str) -> list[bytes]:
    try:
        return Path(f"/proc/{pid}/cmdline").read_bytes().split(b"\0")
    except OSError:  # it has ended
        return []


def _unplug(run_dir: RunDir) -> None:
    port, ended = _port(run_dir), threading.Event()
    signal.signal(signal.SIGTERM, lambda *_: ended.set())
    with subprocess.Popen(["unshare", "--net", "sleep", str(LASTING_S)]) as there:  # noqa: S603, S607 - a fixed program
        try:
            time.sleep(0.3)  # until it has a namespace
            _run(_where(run_dir), f"ip link set {port} netns {there.pid}")
            ended.wait(LASTING_S / 2)
            _run(["nsenter", f"--net=/proc/{there.pid}/ns/net"], f"ip link set {port} netns {os.getpid()}")
        finally:
            there.kill()


def _fill(directory: Path, *, full: bool) -> None:
    filler, room = directory / "filler", os.statvfs(directory)
    filler.unlink(missing_ok=True)
    if not full:
        return
    if (free := room.f_bavail * room.f_frsize) > FILLED_OCTETS:
        raise FailedError(f"{directory} has {free} octets of room; mount a small file system there first")
    with suppress(OSError), filler.open("wb", buffering=0) as file:
        while file.write(bytes(4096)):
            pass


def _log_directory(run_dir: RunDir) -> Path:
    return Path(config.load(run_dir.effective).log.mail).resolve().parent


def _clog(run_dir: RunDir, *, full: bool) -> None:
    (pid,) = _pids(run_dir, "supervisor") or {0}
    said = Path(f"/proc/{pid}/fd/2")
    if not said.is_fifo():
        raise FailedError("standard error of the daemon is no pipe; start it with one")
    pipe = os.open(said, os.O_NONBLOCK | (os.O_WRONLY if full else os.O_RDONLY))
    with suppress(BlockingIOError):
        while os.write(pipe, b"\n" * 4096) if full else os.read(pipe, 65536):
            pass
    os.close(pipe)


def _port(run_dir: RunDir) -> str:
    return str((read_json(run_dir.plan) or {}).get("ports", [""])[-1])


def _where(run_dir: RunDir) -> list[str]:
    """Before a command for the wire's own network namespace, if it has one."""
    return ["ip", "netns", "exec", run_dir.room] if (_NAMESPACES / run_dir.room).exists() else []


def _run(where: list[str], command: str, rules: str = "") -> None:
    words = [*where, *command.split()]
    done = subprocess.run(words, input=rules, text=True, capture_output=True, check=False)  # noqa: S603 - from the table
    if done.returncode:
        raise FailedError(f"{' '.join(words)}: {done.stderr.strip()}")


def main(argv: Sequence[str] | None = None) -> int:
    """``python -m smtp_intercept.app.simulate CONDITION``: no verb of the command, for nobody is to find it there."""
    parser = argparse.ArgumentParser(prog="tollbridge-simulate", description=__doc__)
    parser.add_argument("--run-dir", type=Path, default=RUN_DIR)
    parser.add_argument("condition", choices=[*CONDITIONS])
    parser.add_argument("--undo", action="store_true")
    arguments = parser.parse_args(argv)
    try:
        simulate(RunDir(arguments.run_dir), arguments.condition, undo=arguments.undo)
    except FailedError as error:
        print(f"tollbridge-simulate: {error}", file=sys.stderr)
        return error.status
    return 0


if __name__ == "__main__":
    sys.exit(main())
