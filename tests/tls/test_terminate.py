"""Sessions of which both ends are encrypted and the box reads what is said: what both peers see, and what is written
down.
"""

from __future__ import annotations

import asyncio
import smtplib
import socket
import ssl
from base64 import b64encode

import pytest

from smtp_intercept.direction import Direction
from smtp_intercept.tls.manners import Why
from tests.smtp.box import LOCAL, Run
from tests.tls.peers import both, encrypted
from tests.tls.pki import Root, der, issue
from tests.tls.rig import (
    MINE,
    NAME,
    ORGANISATION,
    V12,
    V13,
    WORLD,
    Client,
    client_context,
    gate,
    mail_server,
    part,
    posted,
    server_context,
)

SMALL = b"Subject: small\r\n\r\nhello\r\n"
LARGE = b"Subject: large\r\n\r\n" + (b"x" * 900 + b"\r\n") * 3_000
OUT = Direction.OUTGOING


@pytest.mark.parametrize("version", [V12, V13], ids=["1.2", "1.3"])
def test_incoming_mail_is_read_and_the_certificate_is_the_servers_own(run: Run, version: ssl.TLSVersion) -> None:
    context = client_context()
    context.maximum_version = version

    async def work() -> None:
        with mail_server(server_context()) as (port, keeper):
            async with gate(port, part(MINE)) as it:
                seen = await posted(it, context, SMALL, LARGE)
                session = (await it.over())[0]
        assert seen == (der(MINE[0]), version.name.replace("_", "."))
        assert (keeper.mails, keeper.tls) == ([SMALL, LARGE], [True, True])
        assert [message["outcome"] for message in it.messages()] == ["accepted", "accepted"]
        assert (session["tls"], session["helo"], session["outcome"]) == ("taken part in", "client.example", "completed")
        encryption = session["encryption"]
        assert encryption["sni"] == NAME
        assert encryption["server"]["verified"] == "verified"
        assert encryption["client"]["version"] == seen[1]
        assert encryption["server"]["version"] == "TLSv1.3"

    run(work())


@pytest.mark.parametrize(
    ("server", "verified", "believed"),
    [
        (MINE, "verified", True),
        (WORLD.issue("mx.example.org"), "name_mismatch", False),
        (WORLD.issue(NAME, days=(-3, -1)), "expired", False),
        (issue((NAME,), (-1, 10)), "self_signed", False),
        (Root().issue(NAME), "untrusted", False),
    ],
)
def test_what_outgoing_clients_are_shown_is_worth_what_the_servers_is(
    run: Run, server: tuple[bytes, bytes], verified: str, believed: bool
) -> None:
    async def work() -> None:
        with mail_server(server_context(server)) as (port, keeper):
            async with gate(port, part(signer=ORGANISATION), OUT) as it:
                seen = await posted(it, client_context(None), SMALL)
                session = (await it.over())[0]
                if believed:
                    await posted(it, client_context(ORGANISATION), SMALL)
                else:
                    with pytest.raises(ssl.SSLCertVerificationError):
                        await posted(it, client_context(ORGANISATION), SMALL)
        assert seen[0] != der(server[0])
        assert session["encryption"]["server"]["verified"] == verified
        assert len(keeper.mails) == 1 + believed

    run(work())


def test_a_client_that_refuses_is_left_alone_from_then_on(run: Run) -> None:
    """It trusts the world, and not the organisation's authority."""

    async def work() -> None:
        with mail_server(server_context()) as (port, keeper):
            async with gate(port, taking := part(signer=ORGANISATION), OUT) as it:
                with pytest.raises(ssl.SSLCertVerificationError):
                    await posted(it, client_context(), SMALL)
                seen = await posted(it, client_context(), SMALL)
                sessions = await it.over(2)
        assert seen[0] == der(MINE[0])
        assert keeper.mails == [SMALL]
        assert it.messages() == []
        assert "failed" in sessions[0]["encryption"]
        assert sessions[1]["encryption"] == {"left_alone": "client_refused"}
        assert sessions[1]["tls"] == "started"
        report = taking.report()
        assert report["tls"] == {"taken_part_in": 0, "client_refused": 1}
        assert report["tls_remembered"] == {"client_refused": 1}
        assert report["tls_left"][0]["name"] == f"{LOCAL} port {it.port}, for 127.0.0.0/24"

    run(work())


def test_who_refuses_the_servers_own_certificate_is_not_passed_for_it(run: Run) -> None:
    async def work() -> None:
        with mail_server(server_context()) as (port, _):
            async with gate(port, taking := part(MINE)) as it:
                for _ in range(2):
                    with pytest.raises(ssl.SSLCertVerificationError):
                        await posted(it, client_context(ORGANISATION), SMALL)
                await posted(it, client_context(None), SMALL)
                await it.over(3)
        assert len(it.messages()) == 1
        assert taking.report() == {"tls": {"taken_part_in": 1}, "tls_remembered": {}, "tls_left": []}

    run(work())


@pytest.mark.parametrize(
    ("means", "direction", "why"),
    [
        ({}, Direction.INCOMING, Why.NO_IDENTITY),
        ({}, OUT, Why.NO_AUTHORITY),
        ({"signer": ORGANISATION, "exempt_names": (NAME,)}, OUT, Why.EXEMPT),
        ({"signer": Root(("example.org",))}, OUT, Why.CONSTRAINED),
    ],
)
def test_left_alone(run: Run, means: dict[str, object], direction: Direction, why: Why) -> None:
    async def work() -> None:
        with mail_server(server_context()) as (port, keeper):
            async with gate(port, taking := part(**means), direction) as it:  # type: ignore[arg-type]
                assert (await posted(it, client_context(), SMALL))[0] == der(MINE[0])
                session = (await it.over())[0]
        assert keeper.mails == [SMALL]
        assert (session["tls"], session["encryption"]) == ("started", {"left_alone": why.value})
        assert taking.report()["tls"] == {"taken_part_in": 0, why.value: 1}

    run(work())


def test_a_server_that_asks_for_a_client_certificate_is_left_alone(run: Run) -> None:
    asking = server_context()
    asking.verify_mode = ssl.CERT_OPTIONAL
    asking.load_verify_locations(cadata=WORLD.pem.decode())

    async def work() -> None:
        with mail_server(asking) as (port, keeper):
            async with gate(port, part(MINE)) as it:
                for version in (V12, V13):
                    context = client_context()
                    context.maximum_version = version
                    if version is V12:
                        with pytest.raises((ssl.SSLError, OSError, smtplib.SMTPException)):
                            await posted(it, context, SMALL)
                    assert (await posted(it, context, SMALL))[0] == der(MINE[0])
                sessions = await it.over(3)
        assert keeper.mails == [SMALL, SMALL]
        assert [session["encryption"].get("left_alone") for session in sessions] == [
            None,
            *["client_certificate_asked_for"] * 2,
        ]

    run(work())


def test_required_verification(run: Run) -> None:
    async def work() -> None:
        with mail_server(server_context(issue((NAME,), (-1, 10)))) as (port, keeper):
            async with gate(port, part(signer=ORGANISATION, required=True), OUT) as it:
                for _ in range(2):  # nobody is passed for it
                    with pytest.raises((ssl.SSLError, OSError, smtplib.SMTPException)):
                        await posted(it, client_context(None), SMALL)
                session = (await it.over(2))[1]
        assert keeper.mails == []
        assert session["encryption"] == {"failed": "the server's certificate is not good enough: self_signed"}

    run(work())


def test_tickets_are_taken(run: Run) -> None:
    context = client_context()
    sessions: list[ssl.SSLSession] = []

    def talk(port: int) -> bool:
        with Client(port) as client:
            client.ehlo()
            client.docmd("STARTTLS")
            assert client.sock is not None
            secured = context.wrap_socket(client.sock, server_hostname=NAME, session=sessions[0] if sessions else None)
            secured.sendall(b"EHLO c.example\r\n")
            while b"250 " not in secured.recv(4096):
                pass
            if secured.session:
                sessions[:] = [secured.session]
            client.sock, client.file = secured, None
            return bool(secured.session_reused)

    async def work() -> None:
        with mail_server(server_context()) as (port, _):
            async with gate(port, part(MINE)) as it:
                assert await asyncio.to_thread(talk, it.port) is False
                assert await asyncio.to_thread(talk, it.port) is True

    run(work())


def test_who_has_given_a_password_in_tls_is_in_the_record_and_the_password_is_not(run: Run) -> None:
    """What was said before TLS is nobody's word."""

    async def work() -> None:
        async with both(part(MINE)) as (it, client, server):
            await encrypted(client, server)
            for said, answer in (
                (b"EHLO c.example\r\n", b"250-mx\r\n250 AUTH PLAIN\r\n"),
                (b"AUTH PLAIN " + b64encode(b"\0boss\0secret") + b"\r\n", b"235 in\r\n"),
                (b"QUIT\r\n", b"221 bye\r\n"),
            ):
                await client.say(said)
                assert await server.hear() == said
                await server.say(answer)
                await client.hear(answer)
            for peer in (server, client):
                peer.sock.shutdown(socket.SHUT_WR)
            session = (await it.over())[0]
        assert (session["tls"], session["user"]) == ("taken part in", "boss")
        assert "secret" not in str(it.log)

    run(work())
