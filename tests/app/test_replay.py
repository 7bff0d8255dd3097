"""The mail log against other rules than those that it was written under."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from smtp_intercept.app import cli

CONFIG = """
[bridge]
ports = ["p0", "p1"]
[log]
mail = "{log}"
[[protected]]
domain = "example.com"
servers = ["192.0.2.20"]
[[rule]]
name = "friends"
when.sender = "friend@else.example"
then.accept = true
[[rule]]
name = "foreign"
when = {{ message = "incoming", sender = "else.example" }}
then.refuse = "550 5.7.1 no"
[[rule]]
name = "large"
when.size_over_bytes = 1000
then.defer = "451 4.7.1 later"
[[rule]]
name = "lottery"
when = {{ client = "198.51.100.0/24", header.Subject = "*lottery*" }}
then.discard = true
"""


def records(name: str, sender: str, size: int = 10, client: str = "192.0.2.9", **more: Any) -> list[dict[str, Any]]:
    recipient = {"address": "a@example.com", "direction": "incoming", "reply": "250 ok"}
    message: dict[str, Any] = {"type": "message", "time": "2026-11-30T10:00:00.000Z", "session": name, "sender": sender}
    message |= {"recipients": [recipient], "size_bytes": size, "outcome": "accepted", **more}
    ends = {side: {"address": address, "port": 25} for side, address in (("client", client), ("server", "192.0.2.20"))}
    session = {"type": "session", "session": name, **ends, "direction": "incoming", "port": "p0", "vlan": None}
    return [message, {**session, "helo": "c.example"}]


LOG = [
    *records("1", "a@else.example"),
    *records("2", "friend@else.example", 5_000),
    *records("3", "b@c.example", 5_000),
    *records("4", "b@c.example", client="198.51.100.7"),
    *records("5", "a@else.example", outcome="rejected"),
    *records("6", "b@c.example"),
    records("7", "open@c.example")[0],  # its session has not ended
    *records("8", "a@else.example", time="2020-01-01T00:00:00.000Z"),
]


@pytest.fixture
def config(tmp_path: Path) -> Path:
    log = tmp_path / "mail.log"
    log.write_text("".join(f"{json.dumps(record)}\n" for record in LOG) + '{"type": "mess')
    path = tmp_path / "tollbridge.toml"
    path.write_text(CONFIG.format(log=log))
    return path


def test_what_would_change(config: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["--config", str(config), "rules", "replay", "--since", "1000d"]) == 0
    assert capsys.readouterr().out.splitlines() == [
        "2026-11-30T10:00:00.000Z  <a@else.example> to <a@example.com>: was accepted, "
        "now refuse 550 5.7.1 no (foreign)",
        "2026-11-30T10:00:00.000Z  <b@c.example> to <a@example.com>: was accepted, now defer 451 4.7.1 later (large)",
        "foreign: decides for 2",
        "friends: decides for 1",
        "large: decides for 1",
        "6 messages, 2 would fare otherwise, 1 depend on what is not in the log",
    ]


def test_for_machines(config: Path, capsys: pytest.CaptureFixture[str]) -> None:
    cli.main(["--config", str(config), "rules", "replay", "--since", "9999d", "--json"])
    told = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert [each["changes"] for each in told] == [True, False, True, False, False, False, True]
    assert told[3]["now"] == "depends on its header, or on a password"


def test_without_a_log(config: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["--config", str(config), "rules", "replay", "--log", "/nowhere/x"]) == 1
    assert "/nowhere/x: cannot be read" in capsys.readouterr().err
