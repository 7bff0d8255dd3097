"""SASL exchanges between real programs, through a running gateway: an XOAUTH2 token of 16 KB, and a GSSAPI-shaped
exchange that ends in a security layer, with mail inside it.

smtplib ──> gateway ──> aiosmtpd
"""

from __future__ import annotations

import asyncio
import io
import smtplib
from base64 import b64decode, b64encode
from collections import defaultdict
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any, cast

import pytest
from aiosmtpd.smtp import SMTP, AuthResult

from smtp_intercept.direction import Domains, Protection
from smtp_intercept.policy import PASSED, Question, Ruling, Stage
from smtp_intercept.rules import Rules
from smtp_intercept.sasl import MAX_USER, Exchange
from smtp_intercept.session import Session
from tests.smtp.box import LOCAL, Box, Run, box

pytestmark = pytest.mark.filterwarnings("ignore:Requiring AUTH while not requiring TLS")

TOKEN = "t0ken" * 3_277  # 16 KB, as Kerberos tickets and those of some identity providers have
XOAUTH2 = f"user=u@example.com\1auth=Bearer {TOKEN}\1\1"
LONGEST_LINE = 65_536
NOT_CONFIDENTIAL, CONFIDENTIAL = 1, 4  # RFC 4752 §3.3
KEY = 0x5A  # of the seal: no octet inside is what it was


def wrapped(layer: int) -> str:
    """A token of RFC 4121 §4.2.6.2 that is not sealed, with the layer in it; base64."""
    header = b"\x05\x04\x00\xff" + (12).to_bytes(2) + bytes(2) + bytes(8)
    return b64encode(header + bytes([layer, 0, 255, 255]) + b"u" + b"c" * 12).decode()


def sealed(data: bytes) -> bytes:
    """One buffer (RFC 4422 §3.7)."""
    return len(data).to_bytes(4) + opened(data)


def opened(data: bytes) -> bytes:
    return bytes(octet ^ KEY for octet in data)


class Inbox:
    """What arrived, and how its sender had shown who he is."""

    def __init__(self) -> None:
        self.tokens, self.mail = list[bytes](), list[bytes]()

    async def handle_DATA(self, server: SMTP, session: Any, envelope: Any) -> str:  # noqa: N802
        self.mail.append(envelope.content)
        return "250 taken"

    async def auth_XOAUTH2(self, server: SMTP, args: list[str]) -> AuthResult:  # noqa: N802
        said = b64decode(args[1]) if len(args) > 1 else await server.challenge_auth("")
        self.tokens.append(cast("bytes", said))
        return AuthResult(success=True)

    async def auth_GSSAPI(self, server: SMTP, args: list[str]) -> AuthResult:  # noqa: N802
        await server.challenge_auth("")
        await server.challenge_auth(wrapped(CONFIDENTIAL | NOT_CONFIDENTIAL), encode_to_b64=False)
        inside = cast("Any", server)
        inside._reader, inside._writer = Unsealing(inside._reader), Sealing(inside._writer)
        return AuthResult(success=True)


class Unsealing:
    """A server's reader behind the layer."""

    def __init__(self, reader: asyncio.StreamReader) -> None:
        self._reader, self._lines = reader, asyncio.StreamReader()

    async def readuntil(self, separator: bytes = b"\n") -> bytes:
        while separator not in cast("Any", self._lines)._buffer:
            size = int.from_bytes(await self._reader.readexactly(4))
            self._lines.feed_data(opened(await self._reader.readexactly(size)))
        return await self._lines.readuntil(separator)


class Sealing:
    """A server's writer: the reply to AUTH is the last in clear."""

    def __init__(self, writer: asyncio.StreamWriter) -> None:
        self._writer, self._begun = writer, False

    def write(self, data: bytes) -> None:
        self._writer.write(sealed(data) if self._begun else data)
        self._begun = True

    def __getattr__(self, name: str) -> Any:
        return getattr(self._writer, name)


class SealedSocket(io.RawIOBase):
    """A client's socket behind the layer."""

    def __init__(self, sock: Any) -> None:
        self.sock, self._clear = sock, sock.makefile("rb")

    def sendall(self, data: bytes) -> None:
        self.sock.sendall(sealed(data))

    def makefile(self, mode: str) -> io.BufferedReader:
        return io.BufferedReader(self)

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        data = opened(self._clear.read(int.from_bytes(self._clear.read(4))))
        buffer[: len(data)] = data
        return len(data)

    def close(self) -> None:
        self._clear.close()
        self.sock.close()


@asynccontextmanager
async def served() -> AsyncIterator[tuple[Box, Inbox]]:
    inbox = Inbox()

    class Server(SMTP):  # type: ignore[misc]
        line_length_limit = LONGEST_LINE
        command_size_limits: defaultdict[str, int] = defaultdict(lambda: LONGEST_LINE)  # noqa: RUF012

    def server() -> SMTP:
        return Server(inbox, auth_require_tls=False, auth_required=True, hostname="mx.example")

    listener = await asyncio.get_running_loop().create_server(server, LOCAL, 0)
    async with listener, box(listener.sockets[0].getsockname()[1]) as it:
        yield it, inbox


def send(client: smtplib.SMTP) -> None:
    client.sendmail("u@example.com", ["b@example.com"], "Subject: x\r\n\r\ntext\r\n")
    client.quit()


def by_xoauth2(port: int, at_once: bool) -> None:
    with smtplib.SMTP(LOCAL, port, "c.example", 10) as client:
        client.ehlo()
        client.auth("XOAUTH2", lambda challenge=None: XOAUTH2, initial_response_ok=at_once)
        send(client)


@pytest.mark.parametrize("at_once", [True, False], ids=["with the command", "behind a challenge"])
def test_a_token_of_16_kb_and_mail_behind_it(run: Run, at_once: bool) -> None:
    async def work() -> None:
        async with served() as (it, inbox):
            await asyncio.to_thread(by_xoauth2, it.port, at_once)
            (session,) = await it.over()
            assert inbox.tokens == [XOAUTH2.encode()]
            assert len(inbox.mail) == 1
            assert [(m["sender"], m["outcome"]) for m in it.messages()] == [("u@example.com", "accepted")]
            assert (session["doubt"], session["sasl_layer"], session["messages"]) == (None, False, 1)
            assert TOKEN[:20] not in str(it.log)
            assert b64encode(XOAUTH2.encode())[:20].decode() not in str(it.log)

    run(work())


def by_gssapi(port: int) -> None:
    with smtplib.SMTP(LOCAL, port, "c.example", 10) as client:
        client.ehlo()
        for line, code in (
            ("AUTH GSSAPI", 334),
            (b64encode(b"ticket" * 2_700).decode(), 334),
            (wrapped(CONFIDENTIAL), 235),
        ):
            assert client.docmd(line)[0] == code
        inside = cast("Any", client)
        inside.sock, inside.file = SealedSocket(inside.sock), None
        client.ehlo()
        send(client)


def test_mail_in_a_security_layer_is_not_held_back_and_the_log_says_so(run: Run) -> None:
    """Both peers have agreed upon it: nothing of it is read, and nobody is told that there was none."""

    async def work() -> None:
        async with served() as (it, inbox):
            await asyncio.to_thread(by_gssapi, it.port)
            (session,) = await it.over()
            assert len(inbox.mail) == 1
            assert it.messages() == []
            assert (session["doubt"], session["sasl_layer"], session["messages"]) == (None, True, 0)
            counts = it.gateway.counters()
            assert (counts["sasl_layers"], counts["unread"], counts["client_doubts"]) == (1, 0, 0)

    run(work())


def coded(octets: bytes) -> bytes:
    return b64encode(octets)


@pytest.mark.parametrize(
    ("said", "user"),
    [
        ([b"PLAIN " + coded(b"\0boss\0secret")], "boss"),
        ([b"plain", coded(b"other\0boss\0secret")], "boss"),  # acts for somebody else, by his own password
        ([b"PLAIN", coded(b"boss")], ""),
        ([b"PLAIN", coded(b"a\0b\0c\0d")], ""),
        ([b"PLAIN", b"*"], ""),
        ([b"PLAIN =", coded(b"\0boss\0secret")], ""),
        ([b"LOGIN", coded(b"boss@example.com"), coded(b"secret")], "boss@example.com"),
        ([b"LOGIN " + coded(b"boss"), coded(b"secret")], "boss"),
        ([b"LOGIN", b"no base64!", coded(b"secret")], ""),
        ([b"LOGIN", b"", coded(b"secret")], ""),
        ([b"LOGIN", coded(b"boss\0\x1b[2J"), coded(b"secret")], "boss\\x00\\x1b[2J"),
        ([b"LOGIN", coded(b"x" * 5_000), coded(b"secret")], "x" * MAX_USER),
        ([b"CRAM-MD5", coded(b"the boss " + b"0a" * 16)], "the boss"),
        ([b"CRAM-MD5", coded(b"secret")], ""),
        ([b"XOAUTH2 " + coded(b"user=boss@example.com\x01auth=Bearer secret\x01\x01")], "boss@example.com"),
        ([b"OAUTHBEARER " + coded(b"n,a=boss@example.com,\x01auth=Bearer secret\x01\x01")], "boss@example.com"),
        ([b"SCRAM-SHA-256 " + coded(b"n,,n=boss,r=secret")], "boss"),
        ([b"SCRAM-SHA-256", coded(b"n,a=other,n=boss,r=x"), coded(b"c=biws,r=x,p=secret")], "boss"),
        ([b"DIGEST-MD5", coded(b'charset=utf-8,username="boss",digest-uri="smtp/mx",response=secret')], "boss"),
        ([b"NTLM", coded(b"secret")], ""),
        ([b""], ""),
    ],
)
def test_whose_password_it_is(said: list[bytes], user: str) -> None:
    """And nothing of the password is kept."""
    exchange = Exchange(said[0])
    for line in said[1:]:
        exchange.hear(line + b"\r\n")
    assert exchange.user == user
    assert "secret" not in exchange.user


@pytest.mark.parametrize(("reply", "user"), [(b"235 2.7.0 in\r\n", "boss"), (b"535 5.7.8 no\r\n", "")])
def test_the_user_is_known_when_the_server_has_taken_the_password(reply: bytes, user: str) -> None:
    asked: list[Question] = []

    def ask(question: Question) -> Ruling:
        asked.append(question)
        return PASSED

    session = Session(Protection(Domains.of([])), Rules(ask=ask))
    for heard, said in (
        (b"220 mx\r\n", b"EHLO c\r\n"),
        (b"250-mx\r\n250 AUTH PLAIN\r\n", b"AUTH PLAIN " + coded(b"\0boss\0secret") + b"\r\n"),
        (reply, b"MAIL FROM:<a@c.example>\r\n"),
    ):
        session.server_sent(heard, 0.0)
        session.client_sent(said, 0.0)
    assert (asked[-1].stage, asked[-1].user, asked[-1].authenticated) == (Stage.MAIL, user, bool(user))
    assert session.fields().get("user", "") == user
    assert "secret" not in repr(session.fields())
