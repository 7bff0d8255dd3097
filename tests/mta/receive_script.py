"""Dialogues with the receiving side as text files, and how one is played on a socket pair.

    c -> EHLO c.example          the client sends this line and CRLF
    c => b"..\\r\\n"               octets as they are, a Python literal
    s -> 250 2.0.0 Ok            the MTA must say this line and CRLF
    c close                      the client will send no more
    s close                      the MTA must have closed the connection
    kept: {...}                  a message that must be in the spool: envelope, and content behind our Received: line
    log:                         then the records in order, JSON, the session's own last

Before all that:

    limit: recipients 2          a field of `Limits`
    intake: size_bytes 10        a field of `Intake`
    spool: full | broken         or `room 10`: octets that fit
"""

from __future__ import annotations

import ast
import asyncio
import json
import socket
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from smtp_intercept.limits import DEFAULT_LIMITS
from smtp_intercept.mta.receive import Intake
from tests.dialogue import lines, spoken
from tests.mta.receiving import Kept, Shelf, everything, house, send
from tests.smtp.cuts import Cut

FILES = sorted((Path(__file__).parent / "receive_dialogues").glob("*.txt"))
VOLATILE = {"time", "session", "seconds", "port", "client", "server", "bytes_from_client", "bytes_from_server"}
Step = tuple[str, bytes | None]  # the side, and what it says; None at the end of its stream


@dataclass(slots=True)
class Script:
    """A dialogue file."""

    steps: list[Step] = field(default_factory=list)
    kept: list[dict[str, Any]] = field(default_factory=list)
    log: list[dict[str, Any]] = field(default_factory=list)
    limits: dict[str, float] = field(default_factory=dict)
    intake: dict[str, float] = field(default_factory=dict)
    spool: str = ""

    def add(self, side: str, data: bytes | None) -> None:
        before = self.steps[-1] if self.steps else None
        if before and data is not None and before[0] == side and before[1] is not None:
            self.steps[-1] = (side, before[1] + data)
        else:
            self.steps.append((side, data))


def read_script(path: Path) -> Script:
    script, left = Script(), lines(path)
    for line in left:
        keyword, _, rest = line.partition(":")
        name, _, value = rest.strip().partition(" ")
        match keyword:
            case "log":
                script.log = [json.loads(record) for record in left]
            case "kept":
                script.kept.append(json.loads(rest))
            case "limit":
                script.limits[name] = ast.literal_eval(value)
            case "intake":
                script.intake[name] = ast.literal_eval(value)
            case "spool":
                script.spool = rest.strip()
            case _:
                side, _, said = spoken(line, "cs")
                script.add(side, said)
    return script


def shelf(script: Script) -> Shelf:
    kind, _, room = script.spool.partition(" ")
    return Shelf(full=kind == "full", broken=kind == "broken", fails_at_bytes=int(room) if room else float("inf"))


async def play(script: Script, cut: Cut) -> None:
    """Each line of the client's in the pieces that ``cut`` makes; the MTA's must come octet by octet."""
    limits = replace(DEFAULT_LIMITS, **script.limits)  # type: ignore[arg-type]
    intake = replace(Intake(), **script.intake)  # type: ignore[arg-type]
    async with house(shelf(script), limits=limits, intake=intake) as it:
        with it.enter() as sock:
            await converse(script.steps, sock, cut)
        await it.over()
        assert [plain(kept) for kept in it.shelf.kept] == script.kept
        assert [without(record) for record in it.log] == script.log
        assert not [draft for draft in it.shelf.drafts if not draft.over]


async def converse(steps: list[Step], sock: socket.socket, cut: Cut) -> None:
    for side, data in steps:
        if side == "c" and data is None:
            sock.shutdown(socket.SHUT_WR)
        elif side == "c":
            for piece in cut(data or b""):
                await send(sock, piece)
                await asyncio.sleep(0)
        elif data is None:
            assert await everything(sock) == b""
        else:
            assert (await exactly(sock, len(data))).decode() == data.decode()


async def exactly(sock: socket.socket, size: int) -> bytes:
    data = b""
    while len(data) < size and (piece := await asyncio.get_running_loop().sock_recv(sock, size - len(data))):
        data += piece
    return data


def plain(kept: Kept) -> dict[str, Any]:
    """Only what is not usual."""
    envelope, (trace, _, content) = kept.envelope, kept.content.partition(b"+0000\r\n")
    assert trace.startswith(b"Received: from ")
    usual: dict[str, Any] = {"body": "7BIT", "smtputf8": False, "ret": "", "envid": ""}
    said = {"body": envelope.body.value, "smtputf8": envelope.smtputf8, "ret": envelope.ret, "envid": envelope.envid}
    return {
        "from": envelope.reverse_path,
        "to": [r.address for r in envelope.recipients],
        **{name: value for name, value in said.items() if value != usual[name]},
        "content": content.decode("latin-1"),
    }


def without(record: dict[str, Any]) -> dict[str, Any]:
    usual: dict[str, Any] = {"direction": "incoming", "handler": "mta"}
    usual |= dict.fromkeys(("hidden", "source_port_kept", "doubt", "vlan", "balancer"))
    assert record["handler"] == "mta"
    return {
        name: value
        for name, value in record.items()
        if name not in VOLATILE and not (name in usual and usual[name] == value)
    }
