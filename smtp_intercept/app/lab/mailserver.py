"""A mail server (aiosmtpd) that records what it saw of its clients, MACs included, as JSON lines on standard output.

``message`` lines are written before the client hears 250; ``session`` lines when the connection is gone. Stores and
relays nothing. Prints ``{"type": "ready"}`` when all addresses are bound.
"""

from __future__ import annotations

import argparse
import asyncio
import hashlib
import json
import signal
import socket
import ssl
import time
from collections.abc import Callable
from itertools import count
from typing import Any

from aiosmtpd.smtp import SMTP, AuthResult, Envelope, LoginPassword, Session

TCP_SAVE_SYN, TCP_SAVED_SYN = 27, 28
WITH_LINK_HEADER = 2  # since Linux 5.10 TCP_SAVE_SYN=2 keeps the Ethernet header as well
BACKLOG = 4096
PROXY_S = 10.0  # for the header of the PROXY protocol

numbers = count(1)


def say(kind: str, **fields: Any) -> None:
    """One line of the record."""
    print(json.dumps({"type": kind, **fields}), flush=True)


def saved_macs(sock: Any) -> dict[str, str] | None:
    """Source and destination MAC of the SYN that opened this connection; None if the kernel kept none."""
    syn = sock.getsockopt(socket.IPPROTO_TCP, TCP_SAVED_SYN, 1024)
    if len(syn) < 34 or syn[12:14] not in (b"\x08\x00", b"\x86\xdd"):
        return None
    return {"source": syn[6:12].hex(":"), "destination": syn[:6].hex(":")}


class Recorder:
    """aiosmtpd's hooks: accepts every recipient but the refused ones, and every message."""

    def __init__(self, refused: frozenset[str]) -> None:
        self._refused = refused

    async def handle_PROXY(self, *_: object) -> bool:  # noqa: N802
        return True

    async def handle_RCPT(  # noqa: N802
        self, server: Conversation, session: Session, envelope: Envelope, address: str, options: list[str]
    ) -> str:
        if address in self._refused:
            return "550 5.1.1 No such user here"
        envelope.rcpt_tos.append(address)
        envelope.rcpt_options.extend(options)
        return "250 2.1.5 Recipient ok"

    async def handle_DATA(self, server: Conversation, session: Session, envelope: Envelope) -> str:  # noqa: N802
        server.messages += 1
        content = envelope.original_content or b""
        say(
            "message",
            **server.seen(session),
            sender=envelope.mail_from,
            recipients=envelope.rcpt_tos,
            sha256=hashlib.sha256(content).hexdigest(),
            size_bytes=len(content),
        )
        return f"250 2.0.0 Ok: {server.number}-{server.messages}"


class Conversation(SMTP):  # type: ignore[misc]
    """One connection."""

    banner_after_s = 0.0

    async def _handle_client(self) -> None:
        await asyncio.sleep(self.banner_after_s)  # as servers do against clients that cannot wait
        await super()._handle_client()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.number, self.messages, self.began_at = next(numbers), 0, time.time()
        sock = transport.get_extra_info("socket")
        self.client, self.server = sock.getpeername()[:2], sock.getsockname()[:2]
        self.macs = saved_macs(sock)
        super().connection_made(transport)

    def seen(self, session: Session | None) -> dict[str, Any]:
        """What is known about the peer."""
        return {
            "session": self.number,
            "client": {"address": self.client[0], "port": self.client[1]},
            "server": {"address": self.server[0], "port": self.server[1]},
            "mac": self.macs,
            "helo": session.host_name if session else None,
            "tls": bool(session and session.ssl),
            "user": session.auth_data if session and session.authenticated else None,
            "time": time.time(),
        }

    def connection_lost(self, error: Exception | None) -> None:
        say("session", **self.seen(self.session), messages=self.messages, seconds=time.time() - self.began_at)
        super().connection_lost(error)


def listener(address: str, port: int) -> socket.socket:
    """A socket whose connections keep their SYN."""
    sock = socket.socket(socket.AF_INET6 if ":" in address else socket.AF_INET, socket.SOCK_STREAM)
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    sock.setsockopt(socket.IPPROTO_TCP, TCP_SAVE_SYN, WITH_LINK_HEADER)
    if sock.family == socket.AF_INET6:
        sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
    sock.bind((address, port))
    return sock


def authenticator(login: str) -> Callable[..., AuthResult]:
    """Knows the one ``USER:PASSWORD``."""
    user, _, password = login.partition(":")

    def authenticate(server: SMTP, session: Session, envelope: Envelope, mechanism: str, said: Any) -> AuthResult:
        known = isinstance(said, LoginPassword) and said == LoginPassword(user.encode(), password.encode())
        return AuthResult(success=known, handled=False, auth_data=user)

    return authenticate


def tls_context(certificate: str | None) -> ssl.SSLContext | None:
    """TLS is spoken if there is a PEM file with key and certificate."""
    if certificate is None:
        return None
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.load_cert_chain(certificate)
    return context


async def serve(arguments: argparse.Namespace) -> None:
    """Serve until SIGTERM."""
    Conversation.banner_after_s = arguments.banner_after
    loop, ended = asyncio.get_running_loop(), asyncio.Event()
    loop.add_signal_handler(signal.SIGTERM, ended.set)
    recorder, context = Recorder(frozenset(arguments.refuse)), tls_context(arguments.certificate)

    def conversation() -> Conversation:
        return Conversation(
            recorder,
            hostname=arguments.hostname,
            ident=arguments.ident,
            tls_context=None if arguments.tls_at_once else context,
            authenticator=authenticator(arguments.login) if arguments.login else None,
            auth_require_tls=not arguments.login,  # the lab's dialogues are to be seen
            auth_required=arguments.login_required,
            proxy_protocol_timeout=PROXY_S if arguments.proxied else None,
            enable_SMTPUTF8=True,
            data_size_limit=0,
            loop=loop,
        )

    for address in arguments.addresses:
        sock, at_once = listener(address, arguments.port), context if arguments.tls_at_once else None
        await loop.create_server(conversation, sock=sock, backlog=BACKLOG, ssl=at_once)
    say("ready")
    await ended.wait()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--port", type=int, default=25)
    parser.add_argument("--hostname", default="server.example.com", help="in the banner")
    parser.add_argument("--ident", default="ESMTP lab", help="rest of the banner")
    parser.add_argument("--banner-after", type=float, default=0.0, help="seconds")
    parser.add_argument("--refuse", action="append", default=[], metavar="RECIPIENT", help="550; may be repeated")
    parser.add_argument("--certificate", metavar="PEM", help="offer STARTTLS")
    parser.add_argument("--login", metavar="USER:PASSWORD", help="offer AUTH to this user, also without TLS")
    parser.add_argument("--login-required", action="store_true", help="no mail without AUTH: a submission server")
    parser.add_argument("--tls-at-once", action="store_true", help="no STARTTLS: TLS from the first octet")
    parser.add_argument("--proxied", action="store_true", help="expect the PROXY protocol's header before all else")
    parser.add_argument("addresses", nargs="+")
    asyncio.run(serve(parser.parse_args()))


if __name__ == "__main__":
    main()
