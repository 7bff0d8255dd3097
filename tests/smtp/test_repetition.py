"""What is said so often a minute, and then counted; what is always said."""

from __future__ import annotations

from collections import Counter

from hypothesis import given
from hypothesis import strategies as st

from smtp_intercept.repetition import KEYS, OTHERS, WINDOW_S, Repetition, Weight, Worth

MATTER = (Weight.MATTER, "")

KEYED = st.lists(st.tuples(st.sampled_from("abc"), st.floats(0, 3 * WINDOW_S)), max_size=60)


@given(said=KEYED, each=st.integers(0, 4), together=st.integers(0, 6))
def test_nothing_is_lost_of_the_number(said: list[tuple[str, float]], each: int, together: int) -> None:
    """What was said and what is told of afterwards is what there was, of each key; no window has more than it may."""
    repetition, passed, told, windows = Repetition(each, together), Counter[str](), Counter[str](), Counter[int]()
    now = window = 0.0
    for key, at in sorted(said, key=lambda pair: pair[1]):
        now = 1000 + at
        told.update(repetition.over(now))
        if repetition.admits(key, now):
            window = repetition._began_at
            passed[key] += 1
            windows[int(window)] += 1
    told.update(repetition.over(now + WINDOW_S))
    assert passed + told == Counter(key for key, _ in said)
    assert not together or max(windows.values(), default=0) <= together
    assert each or together or not told


def test_who_uses_names_without_end_fills_no_memory() -> None:
    repetition = Repetition(2)
    assert sum(repetition.admits(str(number), 1.0) for number in range(KEYS + 1000)) == KEYS + 2
    assert repetition.over(1.0 + WINDOW_S) == {OTHERS: 998}


def test_what_matters_repeats_nothing() -> None:
    worth = Worth()
    message = {"type": "message", "session": "s", "outcome": "accepted"}
    session = {
        "type": "session",
        "session": "s",
        "client": {"address": "192.0.2.10"},
        "outcome": "closed",
        "handler": "proxy",
        "tls": "offered",
        "sasl_layer": False,
    }
    assert [worth.of(record) for record in (message, message, session)] == [MATTER] * 3
    assert [worth.of({"type": kind}) for kind in ("delivery", "notice")] == [MATTER] * 2
    closed = "session 192.0.2.0/24 closed"
    assert worth.of({**session, "session": "other"}) == (Weight.TRIFLE, closed)
    opaque: list[dict[str, object]] = [{"tls": "started"}, {"sasl_layer": True}]
    assert [worth.of({**session, "session": "other", **each}) for each in opaque] == [(Weight.MAYBE, closed)] * 2
    seen = {**session, "session": "other", "handler": "mta", "tls": "started"}  # and had no message
    assert worth.of(seen) == (Weight.TRIFLE, closed)
    assert worth.of({**message, "outcome": "rejected"}) == (Weight.TRIFLE, "message s rejected")
    assert {worth.of({**message, "outcome": out}) for out in ("discarded", "unknown")} == {MATTER}
