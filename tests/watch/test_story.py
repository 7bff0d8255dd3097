"""One mail as people read it: whole, in order, and harmless whatever strangers have said."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from smtp_intercept.watch.story import headline, name_of, state_of, told
from tests.watch.logs import BEGAN_S, delivery, message, notice, session
from tests.watch.test_terms import RECORDS

T = BEGAN_S
HOSTILE = "\x1b]0;owned\x07\x1b[2J\r\n\u202egpj.exe\x9b31m\ud800<b>\x00"


def of_the_mta() -> list[dict[str, Any]]:
    to = [
        {"address": f"{name}@example.com", "direction": "incoming", "reply": "250 2.1.5 Ok"} for name in ("bob", "eve")
    ]
    return [
        message(1, T, queue_id="0CKQ2T0PMLB", sender="ann@example.org", recipients=to, reply="250 2.0.0 queued"),
        session(1, T + 0.1, seconds=0.5, vlan=7, began="2026-09-21T14:13:19.600Z"),
        delivery("0CKQ2T0PMLB", T + 3),
        delivery("0CKQ2T0PMLB", T + 4, "deferred", recipient="eve@example.com"),
        delivery("0CKQ2T0PMLB", T + 9, "failed", recipient="eve@example.com", attempt=2, reply="550 5.1.1 who?"),
        notice("0CKQ2T0PMLD", "0CKQ2T0PMLB", T + 9),
        delivery("0CKQ2T0PMLD", T + 10, "deferred", recipient="ann@example.org", sender=""),
    ]


def test_a_mail_whole() -> None:
    assert (
        "\n".join(told(of_the_mta()))
        == """\
2026-09-21T14:13:20Z  delivered and failed  ann@example.org → bob@example.com and 1 more  198.51.0.1  0CKQ2T0PMLB
  2026-09-21T14:13:19.600Z  session   a1b2c3d4-1: 198.51.0.1:40000 by p0, VLAN 7 to 192.0.2.20:25, incoming, proxy
                                      EHLO mail.site1.example
                                      closed (by the client) after 0.5 s
  2026-09-21T14:13:20.000Z  message   MAIL FROM ann@example.org
                                      RCPT TO bob@example.com (incoming): 250 2.1.5 Ok
                                      RCPT TO eve@example.com (incoming): 250 2.1.5 Ok
                                      accepted, queued as 0CKQ2T0PMLB, 1001 octets: 250 2.0.0 queued
  2026-09-21T14:13:23.000Z  delivery  bob@example.com, attempt 1 at mx[192.0.2.20]:25: delivered: 250 Ok: as 9A8B7C6D
  2026-09-21T14:13:24.000Z  delivery  eve@example.com, attempt 1 at mx[192.0.2.20]:25: deferred: 450 4.2.1 busy
  2026-09-21T14:13:29.000Z  delivery  eve@example.com, attempt 2 at mx[192.0.2.20]:25: failed: 550 5.1.1 who?
  2026-09-21T14:13:29.000Z  notice    0CKQ2T0PMLD to ann@example.org: failed
  2026-09-21T14:13:30.000Z  delivery  ann@example.org, attempt 1 at mx[192.0.2.20]:25: deferred: 450 4.2.1 busy"""
    )


@pytest.mark.parametrize(
    ("records", "state"),
    [
        ([message(1)], "accepted"),
        ([message(50)], "rejected"),
        ([session(1, messages=0, tls="started")], "not seen"),
        ([session(1, messages=0, sasl_layer=True)], "not seen"),
        ([session(1, messages=0, outcome="reset")], "reset"),
        (of_the_mta(), "delivered and failed"),
        (of_the_mta()[:3], "delivered"),
    ],
)
def test_what_has_become_of_it(records: list[dict[str, Any]], state: str) -> None:
    assert state_of(records) == state


def test_what_rules_did_and_would_have_done() -> None:
    gone = {"address": "bob@example.com", "direction": "incoming", "reply": "250 2.1.5 Ok", "discarded": True}
    records = [
        message(1, T, recipients=[gone], rules=["no lottery", "tag"], outcome="discarded"),
        session(1, T + 0.1, would=["no strangers"]),
    ]
    lines = [line.strip() for line in told(records)]
    assert any(
        line.endswith("RCPT TO bob@example.com (incoming, thrown away by a rule): 250 2.1.5 Ok") for line in lines
    )
    assert "by rules: no lottery, tag" in lines
    assert "by rules that are only observed: no strangers" in lines
    assert state_of(records) == "discarded"


def test_it_has_a_name_to_be_asked_for() -> None:
    assert name_of(of_the_mta()) == "0CKQ2T0PMLB"
    assert name_of([session(7), message(7)]) == "a1b2c3d4-7.1"
    assert name_of([session(7)]) == "a1b2c3d4-7"
    assert name_of(of_the_mta()[2:4]) == "0CKQ2T0PMLB"


def test_strangers_command_no_terminal() -> None:
    to = [{"address": HOSTILE, "direction": HOSTILE, "reply": HOSTILE}]
    client = {"address": HOSTILE, "port": HOSTILE}
    said: dict[str, Any] = dict.fromkeys(("sender", "reply", "outcome", "queue_id", "session", "number"), HOSTILE)
    records = [
        message(1, recipients=to, rules=[HOSTILE], **said),
        session(1, helo=HOSTILE, reason=HOSTILE, client=client, tls=HOSTILE, doubt=HOSTILE, port=HOSTILE),
        delivery(HOSTILE, T, recipient=HOSTILE, host=HOSTILE, reply=HOSTILE),
        notice(HOSTILE, HOSTILE, T, actions=[HOSTILE], recipient=HOSTILE),
    ]
    for line in told(records):
        assert line.isprintable(), ascii(line)
    assert "\\x1b]0;owned\\x07" in headline(records)


@given(st.lists(RECORDS, max_size=5))
def test_whatever_the_records_hold(records: list[dict[str, Any]]) -> None:
    for line in (headline(records), *told(records)):
        assert line.isprintable(), ascii(line)
