"""Balancers in front of the receiving side: whom their PROXY protocol names, and that nobody else's is believed."""

from __future__ import annotations

import pytest

from tests.mta.receiving import everything, house, send
from tests.smtp.box import Run

V1 = b"PROXY TCP4 203.0.113.5 192.0.2.20 12345 25\r\n"
V2 = b"\r\n\r\n\0\r\nQUIT\n\x21\x11\0\x0c" + bytes([203, 0, 113, 5, 192, 0, 2, 20]) + b"09\0\x19"
LOCAL = b"\r\n\r\n\0\r\nQUIT\n\x20\0\0\0"
TALK = b"EHLO c.example\r\nMAIL FROM:<a@c.example>\r\nRCPT TO:<b@example.com>\r\nDATA\r\nx\r\n.\r\nQUIT\r\n"


@pytest.mark.parametrize("cut", [0, 1, 11, 30])
@pytest.mark.parametrize("header", [V1, V2], ids=["v1", "v2"])
def test_the_client_that_a_balancer_names_is_the_client(run: Run, header: bytes, cut: int) -> None:
    async def work() -> None:
        async with house(balancer=lambda address: True) as it:
            balancer = it.enter()
            if cut:
                await send(balancer, header[:cut])
            await send(balancer, header[cut:] + TALK)
            assert b"queued" in await everything(balancer)
            (session,) = await it.over()
            assert (session["client"]["address"], session["client"]["port"]) == ("203.0.113.5", 12345)
            assert session["balancer"]["address"] not in ("", "203.0.113.5")
            assert it.shelf.kept[0].origin.client == ("203.0.113.5", 12345)
            balancer.close()

    run(work())


@pytest.mark.parametrize("header", [b"", LOCAL], ids=["none", "its own"])
def test_a_balancer_may_speak_for_itself(run: Run, header: bytes) -> None:
    async def work() -> None:
        async with house(balancer=lambda address: True) as it:
            balancer = it.enter()
            await send(balancer, header + TALK)
            assert b"queued" in await everything(balancer)
            (session,) = await it.over()
            assert session["balancer"] is None
            balancer.close()

    run(work())


def test_a_broken_header_is_told(run: Run) -> None:
    async def work() -> None:
        async with house(balancer=lambda address: True) as it:
            balancer = it.enter()
            await send(balancer, b"PROXY TCP4 somebody\r\n")
            assert (await everything(balancer)).startswith(b"421 ")
            (session,) = await it.over()
            assert session["outcome"] == "foreign"
            balancer.close()

    run(work())


def test_nobody_else_is_believed(run: Run) -> None:
    async def work() -> None:
        async with house() as it:
            client = it.enter()
            await send(client, V1 + TALK)
            said = await everything(client)
            assert b"500" in said or b"502" in said
            (session,) = await it.over()
            assert session["balancer"] is None
            assert session["client"]["address"] != "203.0.113.5"
            client.close()

    run(work())
