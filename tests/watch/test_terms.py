"""By what a record can be found, and that no record, whoever wrote it, is more than the index can take."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from smtp_intercept.watch import terms
from smtp_intercept.watch.terms import Field, Kind, kind_of, names_in, number_of, values_of
from tests.watch import logs

TEXT = st.text(st.characters(), max_size=40)  # lone surrogates too
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | TEXT,
    lambda inner: st.lists(inner, max_size=5) | st.dictionaries(TEXT, inner, max_size=5),
    max_leaves=10,
)
KEYS = (
    *("type", "time", "session", "queue_id", "about", "sender", "recipient", "recipients", "client", "reply"),
    *("outcome", "messages", "rules", "would", "subject", "message_id", "actions"),
)
RECORDS = st.dictionaries(st.sampled_from(KEYS), JSON) | st.builds(
    lambda kind, rest: {**rest, "type": kind},
    st.sampled_from(["message", "session", "delivery", "notice"]),
    st.dictionaries(st.sampled_from(KEYS), JSON),
)


def values(record: dict[str, Any]) -> set[tuple[Field, str]]:
    kind = kind_of(record)
    assert kind is not None
    return values_of(record, kind)


@given(RECORDS)
def test_whatever_a_line_holds(record: dict[str, Any]) -> None:
    kind = kind_of(record)
    if kind is not None:
        for value in values_of(record, kind):
            assert -(1 << 63) <= number_of(value) < 1 << 63
        terms.queue_ids(record)
        terms.session_of(record)
        terms.of_session(record)


def test_a_message_by_all_that_it_has() -> None:
    more: dict[str, Any] = {
        "rules": ["No Viagra"],
        "subject": "Rëchnung, Nr. 7",
        "message_id": "<A.B@x.example>",
        "queue_id": "0CKQ2T0PMLB",
    }
    found = values(logs.message(7, sender="Ann@Example.org", **more))
    assert {
        (Field.SENDER, "ann@example.org"),
        (Field.SENDER, "@example.org"),
        (Field.RECIPIENT, "user49@example.com"),
        (Field.RECIPIENT, "@example.com"),
        (Field.ID, "a1b2c3d4-7"),
        (Field.ID, "0ckq2t0pmlb"),
        (Field.ID, "4f0000000007"),
        (Field.OUTCOME, "accepted"),
        (Field.RULE, "no viagra"),
        (Field.SUBJECT, "rëchnung"),
        (Field.SUBJECT, "7"),
        (Field.MESSAGE_ID, "a.b@x.example"),
    } <= found


def test_what_a_rule_did_or_would_have_done_is_found_by_its_name() -> None:
    found = values(logs.message(7, rules=["A"], would=["B"])) | values(logs.session(7, messages=0, would=["C"]))
    assert {(Field.RULE, "a"), (Field.RULE, "b"), (Field.RULE, "c")} <= found


def test_a_session_with_messages_is_found_by_them_and_one_without_by_itself() -> None:
    own, alone = logs.session(3), logs.session(3, messages=0, tls="started")
    assert (kind_of(own), kind_of(alone)) == (Kind.SESSION, Kind.UNSEEN)
    assert values(own) == {(Field.ID, "a1b2c3d4-3"), (Field.SESSION, "a1b2c3d4-3")}
    assert {(Field.CLIENT, "198.51.0.3"), (Field.OUTCOME, "closed")} <= values(alone)


@pytest.mark.parametrize("asked", ["postmaster", "Postmaster", "<>", "bob@example.com", "example.com", "EXAMPLE.com."])
def test_whoever_was_written_to_is_found_as_people_ask(asked: str) -> None:
    """A mailbox without a domain too: RFC 5321 §4.5.1."""
    said = ["postmaster", "", "bob@Example.com"]
    to = [{"address": address, "direction": "incoming", "reply": "250 Ok"} for address in said]
    found = values(logs.message(1, recipients=to)) | values(logs.delivery("Q", 0.0, recipient=""))
    assert (Field.RECIPIENT, terms.address(asked)) in found


@pytest.mark.parametrize(
    ("asked", "meant"),
    [
        ("", "<>"),
        ("<>", "<>"),
        ("Bob@Example.COM.", "bob@example.com"),
        ("example.com", "@example.com"),
        ("@example.com", "@example.com"),
        ('"a b"@example.com', '"a b"@example.com'),
    ],
)
def test_how_an_address_is_asked_for(asked: str, meant: str) -> None:
    assert terms.address(asked) == meant


@pytest.mark.parametrize(
    ("reply", "names"),
    [
        ("250 2.0.0 Ok: queued as 4F2D61AB", ["4f2d61ab"]),
        ("250 OK id=1tHxyz-000abC-2D", ["1thxyz-000abc-2d"]),
        ("250 2.0.0 4AUMHOZq012345 Message accepted for delivery", ["4aumhozq012345"]),
        ("250 2.0.0 OK  1732990000 5b1f17b1804b1-434b0f70dd5si1234.12 - gsmtp", ["5b1f17b1804b1-434b0f70dd5si1234.12"]),
        ("250 2.1.5 Ok", []),
        ("250 2.6.0 from 192.0.2.200 accepted", []),
        ("550 5.7.1 4F2D61AB is no name", []),
        ("", []),
    ],
)
def test_the_name_in_the_servers_queue(reply: str, names: list[str]) -> None:
    assert names_in(reply) == names


def test_one_reply_names_few() -> None:
    assert len(names_in("250 " + " ".join(f"name{number:06}" for number in range(500)))) == terms.MOST_IDS


def test_a_subject_has_few_words() -> None:
    assert len(terms.words("a " * 500)) == terms.MOST_WORDS
