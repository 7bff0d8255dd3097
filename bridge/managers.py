"""Tells systemd-networkd and NetworkManager to keep their hands off our links, by files below /run that go at a reboot.

Touches nothing that they have stored, and nothing where the links are not the machine's own (a network namespace).
"""

from __future__ import annotations

import logging
import shutil
import subprocess
import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

_LOG = logging.getLogger("tollbridge")
_RUN = Path("/run")
_PLAIN = {"LC_ALL": "C", "PATH": "/usr/sbin:/usr/bin:/sbin:/bin"}  # states of devices in no other language
RELOAD_S = 20.0
LET_GO_S = 5.0  # until NetworkManager has taken its addresses back


@dataclass(frozen=True, slots=True)
class Manager:
    """``files``: path below /run → its text for these links. ``unit`` is what runs, ``reload`` has it read them."""

    name: str
    unit: str
    reload: tuple[str, ...]
    files: Mapping[str, Callable[[Iterable[str]], str]]


_HEAD = "# Made by `tollbridge up`, removed by `tollbridge down`.\n"


def _network(links: Iterable[str]) -> str:
    return f"{_HEAD}[Match]\nName={' '.join(links)}\n\n[Link]\nUnmanaged=yes\n"


def _networkd(_: Iterable[str]) -> str:
    """Else it removes, when it starts, routes and rules that it has not made itself: those of the mail lane."""
    return f"{_HEAD}[Network]\nManageForeignRoutes=no\nManageForeignRoutingPolicyRules=no\n"


def _network_manager(links: Iterable[str]) -> str:
    """A section for devices: unlike keyfile.unmanaged-devices no other file replaces it (NetworkManager.conf(5))."""
    names = ",".join(f"interface-name:={link}" for link in links)
    return f"{_HEAD}[device-tollbridge]\nmatch-device={names}\nmanaged=0\n"


# The first file that matches a link counts, in the order of their names (systemd.network(5)).
NETWORKD = Manager(
    "networkd",
    "systemd-networkd.service",
    ("networkctl", "reload"),
    {"systemd/network/00-00-tollbridge.network": _network, "systemd/networkd.conf.d/tollbridge.conf": _networkd},
)
NETWORK_MANAGER = Manager(
    "NetworkManager",
    "NetworkManager.service",
    ("nmcli", "general", "reload", "conf"),
    {"NetworkManager/conf.d/tollbridge.conf": _network_manager},
)
MANAGERS = {manager.name: manager for manager in (NETWORKD, NETWORK_MANAGER)}


def present() -> tuple[str, ...]:
    """Those that may run on this machine, now or later; none in a network namespace of its own."""
    if not Path("/run/systemd/system").exists() or not _links_are_the_machines():
        return ()
    return tuple(name for name, manager in MANAGERS.items() if _program(manager.reload[0]))


def _links_are_the_machines() -> bool:
    try:
        return Path("/proc/self/ns/net").stat().st_ino == Path("/proc/1/ns/net").stat().st_ino
    except OSError:  # in the unit's sandbox, which has the machine's
        return True


def managed(name: str, links: Iterable[str]) -> list[str]:
    """Those of the links that NetworkManager has hold of; networkd lets go when it is reloaded."""
    if name != NETWORK_MANAGER.name or not _runs(NETWORK_MANAGER):
        return []
    listed = _run("nmcli", "--terse", "--fields", "DEVICE,STATE", "device").stdout
    states = dict(line.split(":", 1) for line in listed.splitlines() if ":" in line)
    return [link for link in links if states.get(link, "unmanaged") != "unmanaged"]


def told(name: str, links: Iterable[str], run: Path = _RUN) -> bool:
    """Whether its files are there, for these links."""
    links = list(links)
    return all(_text(run / path) == text(links) for path, text in MANAGERS[name].files.items())


def untold(name: str, run: Path = _RUN) -> bool:
    return not any((run / path).exists() for path in MANAGERS[name].files)


def tell(name: str, links: Iterable[str], run: Path = _RUN) -> None:
    """Write the files and have them read."""
    links = list(links)
    for path, text in MANAGERS[name].files.items():
        (run / path).parent.mkdir(mode=0o755, parents=True, exist_ok=True)
        fresh = (run / path).with_suffix(".new")  # which no manager reads
        fresh.write_text(text(links), encoding="utf-8")
        fresh.chmod(0o644)
        fresh.replace(run / path)
    _reload(MANAGERS[name])
    _let_go(name, links)


def _let_go(name: str, links: list[str]) -> None:
    """NetworkManager keeps what it has, also over its own restart, until it is told of each."""
    for link in managed(name, links):
        _said("nmcli", "device", "set", link, "managed", "no")
    deadline = time.monotonic() + LET_GO_S
    while managed(name, links) and time.monotonic() < deadline:
        time.sleep(LET_GO_S / 50)


def untell(name: str, links: Iterable[str], run: Path = _RUN) -> None:
    """Remove the files and have that noticed: the manager does with the links, which it was made to let go of, what it
    did before."""
    for path in MANAGERS[name].files:
        (run / path).unlink(missing_ok=True)
    _reload(MANAGERS[name])
    if _runs(MANAGERS[name]):
        for link in links:
            _said("nmcli", "device", "set", link, "managed", "yes")


def _reload(manager: Manager) -> None:
    if _runs(manager):
        _said(*manager.reload)


def _runs(manager: Manager) -> bool:
    return _run("systemctl", "--quiet", "is-active", manager.unit).returncode == 0


def _said(*words: str) -> None:
    """A refusal is said and fails nothing: at its next start the manager reads the files."""
    done = _run(*words)
    if done.returncode:
        _LOG.warning("%s: %s", " ".join(words), done.stderr.strip() or f"exit status {done.returncode}")


def _run(name: str, *words: str) -> subprocess.CompletedProcess[str]:
    if (program := _program(name)) is None:
        return subprocess.CompletedProcess((name, *words), 127, "", "not installed")
    try:
        return subprocess.run(  # noqa: S603 - fixed programs
            [program, *words], capture_output=True, text=True, check=False, timeout=RELOAD_S, env=_PLAIN
        )
    except subprocess.TimeoutExpired:
        return subprocess.CompletedProcess((name, *words), 124, "", f"no answer within {RELOAD_S:.0f} s")


def _program(name: str) -> str | None:
    return shutil.which(name, path="/usr/bin:/bin:/usr/sbin:/sbin")


def _text(path: Path) -> str | None:
    try:
        return path.read_text(encoding="utf-8")
    except OSError:
        return None
