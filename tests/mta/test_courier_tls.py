"""TLS and credentials towards servers, on both event loops.

security        not offered     handshake fails      certificate of another
none            in clear        -                    -
opportunistic   in clear        again, in clear      taken         (again, in clear, too where TLS dies behind it)
required        waits           waits                taken
verified        waits           waits                waits
"""

from __future__ import annotations

import asyncio
import ssl
import subprocess
from pathlib import Path

import pytest

from smtp_intercept.mta.courier import Bounds, Credentials
from smtp_intercept.mta.envelope import State
from smtp_intercept.mta.nexthop import NextHop, Place, Security
from smtp_intercept.mta.tls import Contexts
from tests.mta.couriers import CONTENT, TAKEN, courier, parcel, states, to
from tests.mta.remote import Behaviour, serving
from tests.smtp.box import Run

STARTTLS: Behaviour = {"EHLO": "250-remote.example\r\n250 STARTTLS", "STARTTLS": "220 go ahead"}
AUTH: Behaviour = {**STARTTLS, "EHLO": ["250-remote.example\r\n250 STARTTLS", "250-remote.example\r\n250 AUTH PLAIN"]}


@pytest.fixture(scope="module")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Of 127.0.0.1, signed by itself."""
    path = tmp_path_factory.mktemp("certificate") / "remote.pem"
    wanted = "req -x509 -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes -days 2 -subj /CN=remote.example"
    subprocess.run(
        ["openssl", *wanted.split(), "-addext", "subjectAltName=IP:127.0.0.1", "-keyout", path, "-out", f"{path}.crt"],
        check=True,
        capture_output=True,
        timeout=20,
    )
    path.write_text(path.read_text() + Path(f"{path}.crt").read_text())
    return path


def server_side(certificate: Path) -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate)
    return context


@pytest.mark.parametrize("security", [Security.OPPORTUNISTIC, Security.REQUIRED, Security.VERIFIED])
def test_tls(run: Run, certificate: Path, security: Security) -> None:
    async def work() -> None:
        async with serving(STARTTLS, tls=server_side(certificate)) as remote:
            carrier = courier(tls=Contexts(certificate))
            for content in (CONTENT, b"x" * 3_000_000 + b"\r\n"):
                assert states(await carrier.carry(parcel(to(remote, security=security), content))) == TAKEN
            assert remote.secured == 1
            assert len(remote.messages[1]) == 3_000_002

    run(work())


def test_a_certificate_of_nobody_known_or_of_another(run: Run, certificate: Path) -> None:
    async def work() -> None:
        for host, authorities in (("127.0.0.1", None), ("127.0.0.2", certificate)):
            async with serving(STARTTLS, tls=server_side(certificate), host=host) as remote:
                carrier = courier(tls=Contexts(authorities))
                (outcome,) = await carrier.carry(parcel(to(remote, security=Security.VERIFIED)))
                assert (outcome.state, outcome.status) == (State.QUEUED, "4.7.5")
                assert "certificate verify failed" in outcome.reply
                assert not remote.messages

    run(work())


@pytest.mark.parametrize(
    ("security", "expected"), [(Security.OPPORTUNISTIC, TAKEN), (Security.REQUIRED, [(State.QUEUED, "4.7.5")])]
)
def test_a_handshake_that_fails(run: Run, security: Security, expected: list[tuple[State, str]]) -> None:
    """The server's TLS has no certificate at all: no cipher suits both."""

    async def work() -> None:
        async with serving(STARTTLS, tls=ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)) as remote:
            carrier = courier()
            assert states(await carrier.carry(parcel(to(remote, security=security)))) == expected
            assert carrier.counters.in_clear == (security is Security.OPPORTUNISTIC)

    run(work())


def test_a_server_that_leaves_instead_of_a_handshake(run: Run) -> None:
    async def work() -> None:
        async with serving(STARTTLS) as remote, asyncio.timeout(5):
            (outcome,) = await courier().carry(parcel(to(remote, security=Security.REQUIRED)))
            assert (outcome.state, outcome.status) == (State.QUEUED, "4.7.5")

    run(work())


# Of the connection with TLS: where it dies. The first EHLO is before TLS.
DYING: list[Behaviour] = [
    {**STARTTLS, "EHLO": [STARTTLS["EHLO"], None]},  # type: ignore[list-item]
    {**STARTTLS, "MAIL": None},
    {**STARTTLS, "DATA": None},
]


@pytest.mark.parametrize("dying", DYING, ids=["EHLO", "MAIL", "DATA"])
@pytest.mark.parametrize(
    ("security", "expected"), [(Security.OPPORTUNISTIC, TAKEN), (Security.REQUIRED, [(State.QUEUED, "4.4.2")])]
)
def test_tls_that_dies_behind_the_handshake(
    run: Run, certificate: Path, dying: Behaviour, security: Security, expected: list[tuple[State, str]]
) -> None:
    """Mail to such a server would wait for days, and come back."""

    async def work() -> None:
        async with serving(dying, STARTTLS, tls=server_side(certificate)) as remote:
            carrier = courier(tls=Contexts(certificate))
            assert states(await carrier.carry(parcel(to(remote, security=security)))) == expected
            in_clear = security is Security.OPPORTUNISTIC
            assert (remote.secured, carrier.counters.in_clear) == (1, in_clear)
            assert len(remote.messages) == in_clear
            assert all("STARTTLS" not in said for said in remote.commands[1:])

    run(work())


def test_who_may_have_the_message_does_not_get_it_again_in_clear(run: Run, certificate: Path) -> None:
    async def work() -> None:
        async with serving({**STARTTLS, "END": None}, STARTTLS, tls=server_side(certificate)) as remote:
            carrier = courier(tls=Contexts(certificate))
            (outcome,) = await carrier.carry(parcel(to(remote, security=Security.OPPORTUNISTIC)))
            assert (outcome.state, outcome.status) == (State.QUEUED, "4.4.2")
            assert "a duplicate is possible" in outcome.reply
            assert (len(remote.commands), carrier.counters.in_clear) == (1, 0)

    run(work())


def test_octets_behind_starttls_are_refused(run: Run, certificate: Path) -> None:
    async def work() -> None:
        injected: Behaviour = {**STARTTLS, "STARTTLS": b"220 go ahead\r\n250-remote.example\r\n250 X\r\n"}
        async with serving(injected, tls=server_side(certificate)) as remote:
            (outcome,) = await courier().carry(parcel(to(remote, security=Security.OPPORTUNISTIC)))
            assert (outcome.state, outcome.status) == (State.QUEUED, "4.7.5")
            assert not remote.messages

    run(work())


def test_credentials_go_over_tls_and_into_no_text(run: Run, certificate: Path) -> None:
    async def work() -> None:
        wrong: Behaviour = {**AUTH, "AUTH": "535 5.7.8 AHVzZXIAc2VjcmV0"}
        async with serving(AUTH, wrong, tls=server_side(certificate)) as remote:
            known = Credentials("user", "secret")
            hop = NextHop("R3", (Place(remote.host, remote.port),), security=Security.REQUIRED, authenticate=True)
            carrier = courier(credentials=known, bounds=Bounds(messages_per_connection=1))
            assert states(await carrier.carry(parcel(hop))) == TAKEN
            assert "AUTH PLAIN AHVzZXIAc2VjcmV0" in remote.commands[0]
            (outcome,) = await carrier.carry(parcel(hop))
            assert (outcome.state, outcome.status) == (State.QUEUED, "4.7.8")
            for text in (repr(outcome), repr(known), repr(carrier)):
                assert "secret" not in text
                assert "AHVzZXIAc2VjcmV0" not in text

    run(work())
