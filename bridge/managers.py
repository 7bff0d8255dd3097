"""Tells systemd-networkd and NetworkManager to keep their hands off our links, by files below /run that go at a reboot.

Touches nothing that they have stored, and nothing where the links are not the machine's own (a network namespace).
"""

from __future__ import annotations

import logging
import shutil
import subprocess
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

_LOG = logging.getLogger("tollbridge")
_RUN = Path("/run")
RELOAD_S = 20.0


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


def untell(name: str, run: Path = _RUN) -> None:
    """Remove the files and have that noticed: the manager does with the links what it did before."""
    for path in MANAGERS[name].files:
        (run / path).unlink(missing_ok=True)
    _reload(MANAGERS[name])


def _reload(manager: Manager) -> None:
    """Where it runs. A refusal is said and fails nothing: at its next start it reads the files."""
    if _run("systemctl", "--quiet", "is-active", manager.unit).returncode:
        return
    done = _run(*manager.reload)
    if done.returncode:
        _LOG.warning("%s: %s", " ".join(manager.reload), done.stderr.strip() or f"exit status {done.returncode}")


def _run(name: str, *words: str) -> subprocess.CompletedProcess[str]:
    if (program := _program(name)) is None:
        return subprocess.CompletedProcess((name, *words), 127, "", "not installed")
    try:
        return subprocess.run(  # noqa: S603 - fixed programs
            [program, *words], capture_output=True, text=True, check=False, timeout=RELOAD_S
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
