"""Mail logs as the gateway writes them, of any length: each mail's records follow from its number alone."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

from smtp_intercept.timestamp import timestamp

BEGAN_S = 1_790_000_000.0
PER_DAY = 300_000
USERS, SITES = 50_000, 20_000


def record(kind: str, at: float, **more: Any) -> dict[str, Any]:
    return {"type": kind, "time": timestamp(at), **more}


def message(number: int, /, at: float | None = None, **more: Any) -> dict[str, Any]:
    """The ``number``-th mail; what stands in ``more`` is another."""
    at = BEGAN_S + number * 86_400 / PER_DAY if at is None else at
    to = f"user{number * 7 % USERS}@example.com"
    said = {
        "session": f"a1b2c3d4-{number}",
        "number": 1,
        "direction": "incoming",
        "handler": "proxy",
        "sender": f"sender{number % 977}@site{number % SITES}.example",
        "recipients": [{"address": to, "direction": "incoming", "reply": "250 2.1.5 Ok"}],
        "size_bytes": 1000 + number % 50_000,
        "seconds": 0.113,
        "reply": f"250 2.0.0 Ok: queued as 4F{number:010X}" if number % 50 else "550 5.7.1 not here",
        "outcome": "accepted" if number % 50 else "rejected",
    }
    return record("message", at, **{**said, **more})


def session(number: int, /, at: float | None = None, messages: int = 1, **more: Any) -> dict[str, Any]:
    """The session of that mail."""
    at = BEGAN_S + number * 86_400 / PER_DAY + 0.01 if at is None else at
    low, high = number % 251, number // 251 % 251
    said = {
        "session": f"a1b2c3d4-{number}",
        "port": "p0",
        "vlan": None,
        "client": {"address": f"198.51.{high}.{low}", "port": 40000, "mac": "52:54:00:00:00:01"},
        "balancer": None,
        "server": {"address": "192.0.2.20", "port": 25, "mac": "52:54:00:00:00:02"},
        "direction": "incoming",
        "handler": "proxy",
        "hidden": True,
        "source_port_kept": True,
        "helo": f"mail.site{number % SITES}.example",
        "tls": "none",
        "messages": messages,
        "bytes_from_client": 2000,
        "bytes_from_server": 300,
        "doubt": None,
        "doubted": None,
        "sasl_layer": False,
        "seconds": 0.2,
        "outcome": "closed",
        "reason": "by the client",
    }
    return record("session", at, **{**said, **more})


def delivery(queue_id: str, at: float, outcome: str = "delivered", **more: Any) -> dict[str, Any]:
    said = {
        "queue_id": queue_id,
        "sender": "ann@example.org",
        "recipient": "bob@example.com",
        "next_hop": "example.com",
        "host": "mx[192.0.2.20]:25",
        "row": "protected[0]",
        "reply": "250 Ok: as 9A8B7C6D" if outcome == "delivered" else "450 4.2.1 busy",
        "outcome": outcome,
        "seconds": 0.4,
        "attempt": 1,
    }
    return record("delivery", at, **{**said, **more})


def notice(queue_id: str, about: str, at: float, **more: Any) -> dict[str, Any]:
    said = {"queue_id": queue_id, "about": about, "recipient": "ann@example.org", "actions": ["failed"]}
    return record("notice", at, **{**said, **more})


def line(of: dict[str, Any]) -> bytes:
    return json.dumps(of, separators=(",", ":"), ensure_ascii=False).encode(errors="surrogatepass")


def lines(mails: range) -> Iterator[bytes]:
    """A message and its session for each."""
    for number in mails:
        yield line(message(number))
        yield line(session(number))
