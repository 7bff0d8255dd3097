"""The lane's listeners: opened by the only interceptor, or here for several that accept from the same ones.

A worker that hangs takes nothing from a listener that others share. One socket for each by SO_REUSEPORT would leave it
its part of the connections, which the kernel goes on to accept for it.
"""

from __future__ import annotations

import errno
import socket
from collections.abc import Iterable
from pathlib import Path

from bridge.lane import Lane
from smtp_intercept.app.config import Config
from smtp_intercept.app.holder import holders
from smtp_intercept.transparent import listen


def listeners(settings: Config, vlans: Iterable[int]) -> list[socket.socket]:
    """Of the lane, and of those of the VLANs. OSError, to be told by `reason`."""
    return listeners_on([Lane().link, *(Lane(vlan).link for vlan in vlans)], settings)


def listeners_on(links: Iterable[str], settings: Config) -> list[socket.socket]:
    """At those links alone."""
    families = [socket.AF_INET] + ([socket.AF_INET6] if Path("/proc/net/if_inet6").exists() else [])
    # Without a mark of its own: a socket that has one does not take the SYN's (inet_request_mark in the kernel).
    ports = settings.intercept.ports
    return [listen(family, port, link, None) for link in links for port in ports for family in families]


def reason(error: OSError, settings: Config) -> str:
    """Why the listeners cannot be had, and what to do."""
    if error.errno == errno.EADDRINUSE:
        return f"intercept.ports: {'; '.join(taken(settings))}"
    return f"cannot open the lane's sockets: {error}; has `tollbridge up` been run?"


def taken(settings: Config) -> tuple[str, str]:
    """Who has the mail ports, and what to do."""
    ports = settings.intercept.ports
    found = "; ".join(map(str, holders(ports))) or f"another service listens on one of {', '.join(map(str, ports))}"
    return (
        f"{found}; the lane's listener takes the port on every address, so that even a service on 127.0.0.1 alone "
        "(Debian's exim4) is in its way",
        "stop that service (systemctl disable --now NAME), or have it listen on another port",
    )


class Shared:
    """Held open while one of those who share them lives. Without any, a SYN must find no listener."""

    def __init__(self, settings: Config, vlans: Iterable[int]) -> None:
        self._settings, self._vlans, self._sockets = settings, tuple(vlans), list[socket.socket]()

    def lend(self) -> tuple[int, ...]:
        """Their numbers, for a process that is about to start. OSError."""
        if not self._sockets:
            self._sockets = listeners(self._settings, self._vlans)
        return tuple(sock.fileno() for sock in self._sockets)

    def close(self) -> None:
        while self._sockets:
            self._sockets.pop().close()


def adopt(numbers: list[int]) -> list[socket.socket]:
    """The inherited ones."""
    found = [socket.socket(fileno=number) for number in numbers]
    for sock in found:
        sock.setblocking(False)
        sock.set_inheritable(False)
    return found
