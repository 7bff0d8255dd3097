"""What every mail server of these tests can do, whatever program it is: take mail, show what it took, pass mail on."""

from __future__ import annotations

import re
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from smtp_intercept.app.lab.host import AT_LAST_S, POLL_S, SOON_S, Host, LabError, Process
from tests.peers.jail import MAILBOX, seen_inside

DOMAIN = "{}.test"  # a receiver's own domain, by which the senders route
# How a message is to travel: as its receiver's domain begins, so that an MTA has a route of its own for each way.
PLAIN, TLS, SIX = "", "tls", "six"
WAYS = (PLAIN, TLS, SIX)


@dataclass(frozen=True, slots=True)
class Delivery:
    """One message as a server stored it. ``content`` is the stored file, whole, in the server's own format."""

    sender: str
    recipients: tuple[str, ...]
    content: bytes


@dataclass(frozen=True, slots=True)
class Peer:
    """A mail server at work. ``spools`` are globs of its queue's files in the jail: none matches when all mail has
    left it."""

    name: str
    host: Host
    address: str
    process: Process
    spools: tuple[str, ...] = ()
    read: Callable[[Peer], list[Delivery]] = field(default=lambda peer: maildir(peer))

    @property
    def domain(self) -> str:
        return DOMAIN.format(self.name)

    def reached(self, way: str) -> tuple[str, str]:
        """The recipients' domain and the address to dial."""
        return by_way(self.domain, way), six(self.address) if way == SIX else self.address

    def deliveries(self) -> list[Delivery]:
        """Everything that was stored so far."""
        return self.read(self)

    def inside(self, path: str) -> Path:
        return seen_inside(self.process, path)

    def settled(self) -> bool:
        """Nothing is on its way any more."""
        root = self.inside("/")
        return not any(path.is_file() for glob in self.spools for path in root.glob(glob.lstrip("/")))

    def settle(self, timeout_s: float = AT_LAST_S) -> None:
        """Wait until all mail has been delivered; `LabError` if it is not in time."""
        _wait(
            self.settled, timeout_s, lambda: f"{self.name} still has mail in its queue\n{self.process.stderr[-2000:]}"
        )

    def wait_ready(self) -> Peer:
        """Return when it greets."""
        dial = "import socket, sys; s = socket.create_connection((sys.argv[1], 25), 5); sys.exit(s.recv(3) != b'220')"
        _wait(
            lambda: self.process.running and not self.host.python(dial, self.address, check=False).returncode,
            SOON_S,
            lambda: f"{self.name} does not greet\n{self.process.stdout}{self.process.stderr}",
        )
        return self


@dataclass(frozen=True, slots=True)
class Route:
    """Where mail for a domain goes. ``way`` is TLS: after STARTTLS, or not at all; else without it."""

    domain: str
    server: str
    way: str


Routes = Sequence[Route]


def by_way(domain: str, way: str) -> str:
    return f"{way}.{domain}" if way else domain


def six(address: str) -> str:
    """The IPv6 address of who has this IPv4 address."""
    return f"2001:db8::{address.rpartition('.')[2]}"


# How the servers name the envelope's parts in what they store, always above the message's own header.
_FIELD = re.compile(rb"^(return-path|x-mail-args|x-original-to|envelope-to|x-rcpt-args|delivered-to): *(.*?)\r?$", re.I)
_SENDERS = frozenset({b"return-path", b"x-mail-args"})
_FOLD = re.compile(rb"\r?\n[ \t]+")
_END = re.compile(rb"^(received: |x-helo: |\r?\n)", re.I | re.M)


def maildir(peer: Peer) -> list[Delivery]:
    """The messages of the jail's Maildir."""
    return [stored(path.read_bytes()) for path in sorted(peer.inside(f"{MAILBOX}/new").glob("*"))]


def stored(content: bytes) -> Delivery:
    """A stored message whose envelope stands in its header."""
    end = _END.search(content)
    fields = [
        match.groups()
        for line in _FOLD.sub(b" ", content[: end.start() if end else None]).split(b"\n")
        if (match := _FIELD.match(line))
    ]
    senders = [_addresses(value)[0] for name, value in fields if name.lower() in _SENDERS]
    recipients = [address for name, value in fields if name.lower() not in _SENDERS for address in _addresses(value)]
    return Delivery(senders[0] if senders else "", tuple(dict.fromkeys(recipients)), content)


def _addresses(value: bytes) -> list[str]:
    return [part.rpartition("<")[2].partition(">")[0].strip() for part in value.decode(errors="replace").split(",")]


def _wait(holds: Callable[[], bool], timeout_s: float, text: Callable[[], str]) -> None:
    deadline_at = time.monotonic() + timeout_s
    while not holds():
        if time.monotonic() > deadline_at:
            raise LabError(text())
        time.sleep(POLL_S * 5)
