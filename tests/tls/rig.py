"""A gateway on loopback that takes part in TLS, with servers and clients of the standard library."""

from __future__ import annotations

import asyncio
import smtplib
import socket
import ssl
import time
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager
from dataclasses import replace
from typing import Any

from aiosmtpd.controller import Controller

from smtp_intercept.direction import Direction, Servers
from smtp_intercept.proxy import Arrival
from smtp_intercept.rules import Rules
from smtp_intercept.tls.anchors import Anchors
from smtp_intercept.tls.contexts import towards_client
from smtp_intercept.tls.manners import Identity, Means
from smtp_intercept.tls.part import Own, Part
from smtp_intercept.tls.x509 import Signer, Trust, load_key
from tests.smtp.box import LOCAL, Box, box
from tests.tls.pki import Root, der

NAME = "mx.example.com"
V12, V13 = ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3
WORLD = Root()  # who signs the servers
ORGANISATION = Root()  # whom the box's own clients trust
MINE = WORLD.issue(NAME)
TAKES_PART = Rules(takes_part=True, reject_bare_newline=True)


def part(
    *identities: tuple[bytes, bytes],
    signer: Root | None = None,
    trust: Root = WORLD,
    minimum: ssl.TLSVersion = V12,
    required: bool = False,
    clock: Callable[[], float] = time.time,
    anchors: Anchors | None = None,
    **means: Any,
) -> Part:
    """With these chains and keys for the server on loopback."""
    own = tuple(
        Own(Identity(number, Servers.of([LOCAL]), (NAME,)), towards_client(*pair, minimum), der(pair[0]))
        for number, pair in enumerate(identities)
    )
    minter = Signer(signer.certificate, load_key(signer.key)) if signer else None
    known = Means(tuple(each.identity for each in own), minter.authority.constraints if minter else None, **means)
    return Part(
        known, own, minter, Trust([trust.certificate]), minimum=minimum, required=required, clock=clock, anchors=anchors
    )


def server_context(pair: tuple[bytes, bytes] = MINE) -> ssl.SSLContext:
    return towards_client(*pair, V12)


def client_context(root: Root | None = WORLD) -> ssl.SSLContext:
    """It verifies, if there is a root."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    if root is None:
        context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    else:
        context.load_verify_locations(cadata=root.pem.decode())
    return context


class Keeper:
    """An aiosmtpd handler that keeps content."""

    def __init__(self) -> None:
        self.mails: list[bytes] = []
        self.tls: list[bool] = []

    async def handle_DATA(self, server: Any, session: Any, envelope: Any) -> str:  # noqa: N802
        self.mails.append(envelope.original_content)
        self.tls.append(session.ssl is not None)
        return "250 2.0.0 kept"


@contextmanager
def mail_server(context: ssl.SSLContext) -> Iterator[tuple[int, Keeper]]:
    keeper = Keeper()
    with socket.socket() as probe:
        probe.bind((LOCAL, 0))
        port = probe.getsockname()[1]
    controller = Controller(keeper, hostname=LOCAL, port=port, tls_context=context, data_size_limit=2**26)
    controller.start()
    try:
        yield port, keeper
    finally:
        controller.stop()


@asynccontextmanager
async def gate(
    port: int, it: Part, direction: Direction = Direction.INCOMING, *, first: bool = False
) -> AsyncIterator[Box]:
    """``first``: TLS from the first octet."""
    rules = replace(TAKES_PART, tls_first=first)
    async with box(port, rules=lambda passage: rules, part=it) as found:
        found.gateway._describe = lambda sock: Arrival("p0", direction)
        yield found


class Client(smtplib.SMTP):
    """Says another name in TLS than the address that it dials."""

    def __init__(self, port: int, name: str = NAME) -> None:
        super().__init__(LOCAL, port, local_hostname="client.example", timeout=20)
        self._host = name


def post(port: int, context: ssl.SSLContext, *contents: bytes, name: str = NAME) -> tuple[bytes | None, str | None]:
    """What the client has seen: the certificate, DER, and the version."""
    with Client(port, name) as client:
        client.ehlo()
        client.starttls(context=context)
        assert isinstance(client.sock, ssl.SSLSocket)
        seen = client.sock.getpeercert(binary_form=True), client.sock.version()
        for content in contents:
            client.sendmail("a@c.example", ["b@example.com"], content)
    return seen


async def posted(
    it: Box, context: ssl.SSLContext, *contents: bytes, name: str = NAME
) -> tuple[bytes | None, str | None]:
    return await asyncio.to_thread(post, it.port, context, *contents, name=name)
