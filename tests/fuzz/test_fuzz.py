"""The fuzz targets for a bounded time; `make fuzz` runs them until it is stopped."""

from __future__ import annotations

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.fuzz.differential import check, trusting
from tests.fuzz.targets import TARGETS

EXAMPLES = {"session": 300, "envelopes": 200, "peers": 300, "address": 500, "reply": 500}
SESSIONS = 2_000


def test_what_a_loose_server_stores_is_logged_envelope_by_envelope() -> None:
    """And the same sessions get through where a client's doubt is let pass, or they would prove nothing."""
    for seed in range(SESSIONS):
        check(str(seed))
    unread = [it for it in map(trusting, map(str, range(SESSIONS // 10))) if it.session.unread and it.server.taken]
    assert len(unread) > SESSIONS // 200


def test_what_a_judge_has_held_and_refused_changes_nothing_of_that() -> None:
    """Whoever decides, at once or in his own time, about an envelope that server and client do not see alike."""
    for seed in range(SESSIONS):
        check(str(seed), judged=True)


def test_nor_does_it_matter_that_it_is_said_in_tls() -> None:
    """With and without a judge. Some of it gets through, and all of that is read."""
    stored = 0
    for seed in range(SESSIONS):
        it = check(str(seed), judged=bool(seed % 2), encrypted=True)
        stored += len(it.server.taken)
    assert stored > SESSIONS // 20


@pytest.mark.parametrize("name", TARGETS)
def test_target(name: str) -> None:
    @settings(max_examples=EXAMPLES[name], deadline=None, suppress_health_check=list(HealthCheck))
    @given(st.data())
    def run(data: st.DataObject) -> None:
        TARGETS[name](data)

    run()
