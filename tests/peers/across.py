"""A pytest plugin that puts the two ends of a suite's own connections into two namespaces.

::

    the suite, in the client's namespace              the server's namespace
    connect("127.0.0.1", p) ─────── wires, gateway ───── the socket that listen() was called on

The suite sees nothing of it: every name that it asks for is the one that it gave. Unix sockets, and connections to
what never listened, stay where they are. Writes each test's outcome, and how many connections it made across.
"""

from __future__ import annotations

import ctypes
import json
import os
import socket
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from importlib import import_module
from importlib.resources import files
from importlib.util import find_spec
from ipaddress import ip_address
from itertools import cycle, islice, product
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

ENVIRONMENT = "TOLLBRIDGE_ACROSS"  # Setting as JSON
CLONE_NEWNET = 0x40000000
LOOPBACK = {socket.AF_INET: "127.0.0.1", socket.AF_INET6: "::1"}
PORTS = range(30_000, 30_016)  # that the gateway intercepts, as many as it will
PLACES = 1_000  # tried before giving up
Address = tuple[str, int]

_libc = ctypes.CDLL(None, use_errno=True)
_bind, _listen, _accept = socket.socket.bind, socket.socket.listen, socket.socket.accept
_connect, _connect_ex = socket.socket.connect, socket.socket.connect_ex
_getsockname, _getpeername = socket.socket.getsockname, socket.socket.getpeername


@dataclass(slots=True)
class Across:
    """``client`` and ``servers``: the addresses of each family. ``listening``: (family, the suite's port) -> where
    that is; ``shown``: the reverse, as the suite gave it. ``crossed``: connections so far."""

    namespace: str
    client: Mapping[int, str]
    servers: Mapping[int, Sequence[str]]
    listening: dict[tuple[int, int], Address] = field(default_factory=dict)
    shown: dict[Address, tuple[Any, ...]] = field(default_factory=dict)
    crossed: int = 0
    _places: dict[int, Iterator[Address]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self._places = {family: cycle(product(hosts, PORTS)) for family, hosts in self.servers.items()}

    def listen(self, sock: socket.socket, *backlog: int) -> None:
        if self.applies(sock) and self.is_local(_getsockname(sock)[0]):
            self.move(sock)
        _listen(sock, *backlog)

    def move(self, sock: socket.socket) -> None:
        """Put a socket of the server's namespace in the place of a bound one."""
        name = _getsockname(sock)
        with self.there():
            other = socket.socket(sock.family, sock.type)
        other.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        place = self.bind_somewhere(other)
        self.listening[sock.family, name[1]] = place
        self.shown[place] = name
        _replace(sock, other)

    def bind_somewhere(self, sock: socket.socket) -> Address:
        """The next place that is free: one that was used lately may have connections yet."""
        for place in islice(self._places[sock.family], PLACES):
            try:
                _bind(sock, place)
            except OSError:
                continue
            return place
        raise OSError("no place is free in the server's namespace")

    def target(self, sock: socket.socket, address: Any) -> Any:
        """Where a connection goes. A socket bound to a loopback address is bound to the client's instead."""
        if not self.applies(sock) or not self.is_local(address[0]):
            return address
        place = self.listening.get((sock.family, address[1]))
        if place is None:
            return address
        if (name := _getsockname(sock))[1] and self.is_local(name[0]):
            other = socket.socket(sock.family, sock.type)
            _replace(sock, other, (self.client[sock.family], name[1]))
        self.crossed += 1
        return place

    def applies(self, sock: socket.socket) -> bool:
        return sock.family in LOOPBACK and sock.type == socket.SOCK_STREAM

    def is_local(self, host: str) -> bool:
        if host in {"", "localhost"}:
            return True
        try:
            address = ip_address(host)
        except ValueError:
            return False
        return address.is_loopback or address.is_unspecified

    def show(self, name: Any) -> Any:
        """A socket's name as the suite knows it."""
        if not isinstance(name, tuple):
            return name
        if given := self.shown.get(name[:2]):
            family = socket.AF_INET6 if ":" in name[0] else socket.AF_INET
            host = LOOPBACK[family] if ip_address(given[0]).is_unspecified else given[0]
            return host, *given[1:]
        own = next((family for family, address in self.client.items() if address == name[0]), None)
        return name if own is None else (LOOPBACK[socket.AddressFamily(own)], *name[1:])

    @contextmanager
    def there(self) -> Iterator[None]:
        """This thread in the server's namespace: what it opens belongs there for ever."""
        with Path("/proc/thread-self/ns/net").open() as own, Path("/run/netns", self.namespace).open() as other:
            _enter(other.fileno())
            try:
                yield
            finally:
                _enter(own.fileno())


def _enter(descriptor: int) -> None:
    if _libc.setns(descriptor, CLONE_NEWNET):
        raise OSError(ctypes.get_errno(), "setns")


def _replace(sock: socket.socket, other: socket.socket, name: Address | None = None) -> None:
    """Make ``sock`` the socket ``other``, under its own descriptor."""
    timeout_s = sock.gettimeout()
    os.dup2(other.fileno(), sock.fileno(), inheritable=False)
    other.close()
    sock.settimeout(timeout_s)
    if name is not None:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        _bind(sock, name)


def install(across: Across) -> None:
    """From here on every socket of this process goes across."""

    def accept(sock: socket.socket) -> tuple[socket.socket, Any]:
        accepted, name = _accept(sock)
        return accepted, across.show(name)

    patches: dict[str, Any] = {
        "listen": lambda sock, *backlog: across.listen(sock, *backlog),
        "accept": accept,
        "connect": lambda sock, address: _connect(sock, across.target(sock, address)),
        "connect_ex": lambda sock, address: _connect_ex(sock, across.target(sock, address)),
        "getsockname": lambda sock: across.show(_getsockname(sock)),
        "getpeername": lambda sock: across.show(_getpeername(sock)),
    }
    for name, patch in patches.items():
        setattr(socket.socket, name, patch)


class Reporter:
    """One JSON line a test: its name, its outcome, its connections across."""

    def __init__(self, across: Across, path: Path) -> None:
        self._across, self._path, self._before = across, path, 0

    def pytest_runtest_logstart(self) -> None:
        self._before = self._across.crossed

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        if report.when != "call" and report.outcome == "passed":
            return
        crossed = self._across.crossed - self._before
        with self._path.open("a") as out:
            out.write(json.dumps({"test": report.nodeid, "outcome": report.outcome, "crossed": crossed}) + "\n")


def provide_resources() -> None:
    """aiosmtpd's tests ask setuptools where a file is; Python 3.12 and later comes without it."""
    if find_spec("pkg_resources") is None:
        module = ModuleType("pkg_resources")
        module.resource_filename = lambda package, name: str(files(package) / name)  # type: ignore[attr-defined]
        sys.modules["pkg_resources"] = module


if ENVIRONMENT in os.environ:
    provide_resources()  # before the suite's own conftest is read


def pytest_configure(config: pytest.Config) -> None:
    setting = json.loads(os.environ[ENVIRONMENT])
    families = (int(socket.AF_INET), int(socket.AF_INET6))
    client = dict(zip(families, setting["client"], strict=True))
    across = Across(setting["namespace"], client, dict(zip(families, setting["servers"], strict=True)))
    install(across)
    config.pluginmanager.register(Reporter(across, Path(setting["report"])))
    import_module("test").__path__.extend(setting["test_path"])  # CPython's own package
