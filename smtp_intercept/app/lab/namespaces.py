"""Network namespaces, veth wires and switches by pyroute2, and the registry that lets a later run clean up after a
killed one.

Ends only processes that live in a namespace of its own making; removes only namespaces that the registry names.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import shutil
import signal
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from functools import partial
from itertools import count
from pathlib import Path
from threading import Thread
from typing import Any, NoReturn, TypeVar

from pyroute2 import IPRoute, netns

from smtp_intercept.app.ended import lives
from smtp_intercept.app.lab.host import patient
from smtp_intercept.app.rundir import RunDir

REGISTRY = Path("/run/tollbridge-lab")
NAMESPACES = Path("/run/netns")
NODAD = 0x02  # IFA_F_NODAD: usable at once, no duplicate address detection
# 802.1D group addresses that a Linux bridge may be told to forward: all but STP, pause and LACP (bits 0-2).
FORWARD_GROUPS = 0xFFF8
FORWARDING = 3  # BR_STATE_FORWARDING

_serial = count()
T = TypeVar("T")


def claim() -> tuple[str, Path, int]:
    """A name prefix that nobody else has, a directory, and the lock that lives as long as this process.

    What dead processes left behind is removed first.
    """
    REGISTRY.mkdir(mode=0o755, exist_ok=True)
    with _locked(REGISTRY):
        _remove_leftovers()
        prefix = f"tb{os.getpid()}-{next(_serial)}"
        directory = Path(tempfile.mkdtemp(prefix=f"{prefix}-"))
        directory.chmod(0o755)  # the gateway's unprivileged half must get in
        lock = os.open(REGISTRY / prefix, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
        fcntl.flock(lock, fcntl.LOCK_EX)
        os.write(lock, str(directory).encode())
    return prefix, directory, lock


def release(prefix: str, lock: int) -> None:
    """Remove every trace of ``prefix`` and give the name back."""
    remove(prefix)
    os.close(lock)


def room_of(run_dir: Path) -> str:
    """The network namespace that a gateway with this run directory has made for its wire, as its ledger says; or ""."""
    with contextlib.suppress(OSError):
        for line in (run_dir / "ledger.jsonl").read_text().splitlines():
            with contextlib.suppress(ValueError):  # being written
                undo = json.loads(line)["undo"]
                if undo["step"] == "RemoveRoom" and (NAMESPACES / undo["room"]).exists():
                    return str(undo["room"])
    return ""


def remove(prefix: str) -> None:
    """Kill what still runs in the namespaces of ``prefix``, remove them, the directory and the registration."""
    names = [path.name for path in NAMESPACES.glob(f"{prefix}-*")]
    entry = REGISTRY / prefix
    directory = entry.read_text() if entry.exists() else ""
    rooms = [RunDir(run_dir).room for run_dir in Path(directory or "/nonexistent").glob("*/run")]
    names += [room for room in rooms if (NAMESPACES / room).exists()]
    _kill_all(set(processes(names)))
    for name in names:
        netns.remove(name)
    if Path(directory).name.startswith(f"{prefix}-"):
        shutil.rmtree(directory, ignore_errors=True)
    entry.unlink(missing_ok=True)


def _remove_leftovers() -> None:
    for entry in list(REGISTRY.iterdir()):
        with contextlib.suppress(BlockingIOError), _locked(entry, fcntl.LOCK_NB):
            remove(entry.name)


@contextlib.contextmanager
def _locked(path: Path, how: int = 0) -> Iterator[None]:
    descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | how)
        yield
    finally:
        os.close(descriptor)


def processes(names: Iterable[str]) -> Iterator[int]:
    """The pids of all processes whose network namespace is one of ``names``."""
    inodes = {(NAMESPACES / name).stat().st_ino for name in names}
    for path in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):
            if (path / "ns/net").stat().st_ino in inodes:
                yield int(path.name)


def _kill_all(pids: Iterable[int]) -> None:
    for pid in pids:
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)
    deadline_at = time.monotonic() + 2.0  # a killed process holds its sockets until it is gone
    while any(lives(pid) for pid in pids) and time.monotonic() < deadline_at:
        time.sleep(0.01)


def make(name: str, sysctls: Mapping[str, str]) -> None:
    """A namespace with its loopback up. ``sysctls`` are set before any other link appears, so defaults take hold."""
    netns.create(name)
    set_sysctls(name, sysctls)
    set_link(name, "lo", state="up")


def set_sysctls(name: str, sysctls: Mapping[str, str]) -> None:
    """Write ``{"net/ipv6/conf/all/forwarding": "1"}`` and the like inside a namespace."""

    def write() -> None:
        for key, value in sysctls.items():
            Path("/proc/sys", key).write_text(value)

    inside(name, write)


def inside(name: str, work: Callable[[], T]) -> T:
    """``work()`` in a thread of its own that has entered the namespace: /proc/sys/net and new sockets follow it.

    pyroute2's own ``netns=`` forks, and a fork would inherit the lab's clean-up.
    """
    outcome: list[Callable[[], T]] = []

    def enter() -> None:
        try:
            netns.setns(name)
            value = work()
            outcome.append(lambda: value)
        except Exception as error:
            outcome.append(partial(_raise, error))

    thread = Thread(target=enter)
    thread.start()
    thread.join()
    return outcome[0]()


def _raise(error: Exception) -> NoReturn:
    raise error


def _ask(name: str, work: Callable[[Any], T]) -> T:
    """``work(routes)`` with a netlink socket of the namespace."""

    def ask() -> T:
        with IPRoute() as routes:
            return work(routes)

    return inside(name, ask)


def wire(left: tuple[str, str, str], right: tuple[str, str, str], mtu: int) -> None:
    """One veth pair. An end is (namespace, interface, MAC; empty: any). Both ends stay down."""
    ends = [
        {"ifname": interface, "net_ns_fd": name, "mtu": mtu, **({"address": mac} if mac else {})}
        for name, interface, mac in (left, right)
    ]
    with IPRoute() as routes:
        routes.link("add", kind="veth", **ends[0], peer=ends[1])


def set_link(name: str, interface: str, **settings: Any) -> None:
    """Change a link, e.g. ``state="up"``, ``mtu=1400``."""
    _ask(name, lambda routes: routes.link("set", index=_index(routes, interface), **settings))


def add_addresses(name: str, interface: str, addresses: Iterable[Any]) -> None:
    """Give an interface its addresses (`ipaddress` interfaces), usable at once."""

    def add(routes: Any) -> None:
        index = _index(routes, interface)
        for address in addresses:
            flags = NODAD if address.version == 6 else 0
            routes.addr("add", index=index, address=str(address.ip), prefixlen=address.network.prefixlen, flags=flags)

    _ask(name, add)


def add_vlan(name: str, interface: str, vlan: int) -> str:
    """The link that says with this VID what is said by it; its name. Stays down."""
    link = f"{interface}.{vlan}"
    _ask(
        name,
        lambda routes: routes.link("add", ifname=link, kind="vlan", link=_index(routes, interface), vlan_id=vlan),
    )
    return link


def add_switch(name: str, interface: str, ports: Iterable[str]) -> None:
    """A bridge that forwards all it may and says nothing itself: no STP, no IGMP or MLD queries, no delay."""

    def add(routes: Any) -> None:
        routes.link("add", ifname=interface, kind="bridge", br_stp_state=0, br_forward_delay=0, br_mcast_snooping=0)
        index = _index(routes, interface)
        routes.link("set", index=index, kind="bridge", br_group_fwd_mask=FORWARD_GROUPS)
        for port in ports:
            routes.link("set", index=_index(routes, port), master=index, state="up")
        routes.link("set", index=index, state="up")

    _ask(name, add)


def remove_link(name: str, interface: str) -> None:
    """Remove a link; its ports, if it is a bridge, stay."""
    _ask(name, lambda routes: routes.link("del", index=_index(routes, interface)))


def own_addresses(name: str) -> tuple[frozenset[str], frozenset[str]]:
    """Every MAC and every IP address of the links in a namespace, but not the loopback's and not the unset MAC."""
    macs = _ask(name, lambda routes: {link.get("address") for link in routes.get_links()})
    addresses = _ask(name, lambda routes: {entry.get("address") for entry in routes.get_addr()})
    return frozenset(macs - {"00:00:00:00:00:00", None}), frozenset(addresses - {"127.0.0.1", "::1"})


def unfilter_bridges(name: str) -> None:
    """Keep iptables' hooks (and their packet checks) off the bridges of a namespace, where the kernel has them."""

    def write() -> None:
        for path in Path("/proc/sys/net/bridge").glob("bridge-nf-call-*"):
            path.write_text("0")

    inside(name, write)


def wait_forwarding(name: str, prefix: str, ports: int, timeout_s: float = 60.0) -> None:
    """Wait until so many bridge ports whose name begins with ``prefix`` forward.

    The kernel tells a bridge of a new carrier up to a second late; frames until then are lost.
    """
    deadline_at = time.monotonic() + patient(timeout_s)

    def wait(routes: Any) -> None:
        while sum(_forwards(link, prefix) for link in routes.get_links()) < ports:
            if time.monotonic() > deadline_at:
                raise TimeoutError(f"the bridge ports in {name} do not forward after {timeout_s} s")
            time.sleep(0.01)

    _ask(name, wait)


def _index(routes: Any, interface: str) -> int:
    return int(routes.link_lookup(ifname=interface)[0])


def _forwards(link: Any, prefix: str) -> bool:
    if not str(link.get("ifname")).startswith(prefix) or link.get("operstate") != "UP":
        return False
    information: Any = link.get("linkinfo")
    port: Any = information and information.get("slave_data")
    return bool(port) and port.get("state") == FORWARDING
