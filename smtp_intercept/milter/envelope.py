"""What a filter is told of a session and its message, and the macros that go with it, as Postfix has them.

Pure data, and how it is written down (MILTER_README: "What macros will Postfix send").
"""

from __future__ import annotations

import re
import struct
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from ipaddress import ip_address
from types import MappingProxyType

from smtp_intercept.milter.exchange import Event
from smtp_intercept.milter.packets import strings
from smtp_intercept.wire import parse_path

_PORT = struct.Struct("!H")
# MAIL FROM:<path> and RCPT TO:<path>: the path as it was written, then ESMTP's arguments.
_ARGUMENT = re.compile(rb"\s*(?:FROM|TO)\s*:\s*(<(?:\"(?:[^\"\\]|\\.)*\"|[^>\"])*>|\S*)(.*)", re.IGNORECASE | re.DOTALL)
UNKNOWN = b"unknown"  # Postfix's word for a client whose name is not known
VERSION = b"Tollbridge"


@dataclass(frozen=True, slots=True)
class Path:
    """MAIL's or RCPT's argument."""

    argument: bytes

    @property
    def words(self) -> list[bytes]:
        """The path with its brackets, and each of ESMTP's arguments."""
        found = _ARGUMENT.fullmatch(self.argument)
        path, rest = (found[1], found[2]) if found else (b"", b"")
        return [path if path.startswith(b"<") else b"<" + path + b">", *rest.split()]

    @property
    def mailbox(self) -> str:
        """As rules and the mail log have it."""
        return parse_path(self.argument)


@dataclass(frozen=True, slots=True)
class Visit:
    """One client's: ``client`` and ``server`` are (address, port), ``name`` is the session's in the mail log. ``ident``
    names the message under way there."""

    name: str
    client: tuple[str, int]
    server: tuple[str, int]
    hostname: str
    daemon: str = ""
    helo: str = ""
    authenticated: bool = False
    tls: str = ""
    ident: str = ""


@dataclass(frozen=True, slots=True)
class Envelope:
    """A visit's message: its recipients so far."""

    visit: Visit
    sender: Path
    recipients: tuple[Path, ...] = field(default=())


def connect(visit: Visit) -> bytes:
    """SMFIC_CONNECT."""
    address, port = visit.client
    family = b"6" if ip_address(address).version == 6 else b"4"
    return strings([UNKNOWN]) + family + _PORT.pack(port) + strings([address.encode()])


def helo(visit: Visit) -> bytes:
    """SMFIC_HELO."""
    return strings([visit.helo.encode(errors="replace")])


def path(argument: Path) -> bytes:
    """SMFIC_MAIL and SMFIC_RCPT."""
    return strings(argument.words)


def macros(event: Event, envelope: Envelope, recipient: Path | None = None) -> list[tuple[str, bytes]]:
    """Those that are known, by their names as the protocol has them."""
    makers = _MACROS.get(event)
    found = makers(envelope, recipient or Path(b"")) if makers else ()
    return [(name if len(name) == 1 else f"{{{name}}}", value) for name, value in found if value]


_Macros = Sequence[tuple[str, bytes]]


def _connect(envelope: Envelope, _: Path) -> _Macros:
    visit = envelope.visit
    address, port = visit.client
    server, server_port = visit.server
    return (
        ("j", visit.hostname.encode()),
        ("daemon_name", (visit.daemon or visit.hostname).encode()),
        ("daemon_addr", server.encode()),
        ("daemon_port", b"%d" % server_port),
        ("v", VERSION),
        ("_", b"%b [%b]" % (UNKNOWN, address.encode())),
        ("client_addr", address.encode()),
        ("client_name", UNKNOWN),
        ("client_ptr", UNKNOWN),
        ("client_port", b"%d" % port),
    )


def _helo(envelope: Envelope, _: Path) -> _Macros:
    return (("tls_version", envelope.visit.tls.encode()),)


def _ident(envelope: Envelope, _: Path) -> _Macros:
    return (("i", envelope.visit.ident.encode()),)


def _mail(envelope: Envelope, _: Path) -> _Macros:
    mailbox = envelope.sender.mailbox
    return (
        *_ident(envelope, _),
        ("auth_type", b"unknown" if envelope.visit.authenticated else b""),
        ("mail_addr", mailbox.encode()),
        ("mail_host", mailbox.rpartition("@")[2].encode()),
        ("mail_mailer", b"smtp"),
        ("client_addr", envelope.visit.client[0].encode()),
        ("client_name", UNKNOWN),
    )


def _recipient(envelope: Envelope, recipient: Path) -> _Macros:
    mailbox = recipient.mailbox
    return (
        *_ident(envelope, recipient),
        ("rcpt_addr", mailbox.encode()),
        ("rcpt_host", mailbox.rpartition("@")[2].encode()),
        ("rcpt_mailer", b"smtp"),
    )


_MACROS: Mapping[Event, Callable[[Envelope, Path], _Macros]] = MappingProxyType(
    {
        Event.CONNECT: _connect,
        Event.HELO: _helo,
        Event.MAIL: _mail,
        Event.RECIPIENT: _recipient,
        Event.DATA: _ident,
        Event.HEADERS_END: _ident,
        Event.END: _ident,
    }
)
