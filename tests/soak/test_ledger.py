"""The ledger sees all ways in which mail can be lost, doubled, changed or missed, and excuses what a fault explains."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import pytest

from tests.soak.ledger import Sample, Sent, Spell, Taken, Verdict, judge_inspection, judge_mail, risen
from tests.soak.plan import FAULTS

LIVE = Sent("live1", "live", "data", "aa", 100.0, 100.1, "accepted")
QUEUED = replace(LIVE, name="queue1", route="queue")
COPY = Taken("live1", "aa", 100.05)


def spell(name: str, from_at: float = 99.0, ended_at: float = 101.0, well_at: float = 102.0) -> Spell:
    return Spell(name, FAULTS[name], from_at, ended_at, well_at)


def mail(
    sent: Sequence[Sent], taken: Sequence[Taken], queued: Sequence[str] = (), spells: Sequence[Spell] = ()
) -> list[str]:
    return judge_mail(sent, taken, queued, spells).broken


def test_all_is_well() -> None:
    assert mail([LIVE, QUEUED], [COPY], ["queue1"]) == []


KILLED = spell("kill-mta")
BROKEN: dict[str, tuple[list[Sent], list[Taken], list[Spell]]] = {
    "neither delivered nor in the queue": ([LIVE], [], [KILLED]),
    "that nobody sent": ([], [COPY], [KILLED]),
    "though refused": ([replace(LIVE, outcome="refused")], [COPY], [KILLED]),
    "changed on the way": ([LIVE], [replace(COPY, digest="bb")], [KILLED]),
    "told that it was not delivered": ([LIVE], [COPY, Taken("", "cc", 100.0)], [KILLED]),
    "delivered twice": ([LIVE], [COPY, COPY], [KILLED]),
    "not accepted though nothing was wrong": ([replace(LIVE, outcome="unknown", said="reset")], [COPY], []),
}


@pytest.mark.parametrize("said", BROKEN)
def test_it_is_seen(said: str) -> None:
    sent, taken, spells = BROKEN[said]
    (found,) = mail(sent, taken, (), spells)
    assert said in found


def test_the_queue_may_deliver_again_what_a_fault_has_cut() -> None:
    copies = [Taken("queue1", "aa", at) for at in (100.0, 108.0)]
    assert mail([QUEUED], copies, (), [KILLED]) == []
    assert mail([QUEUED], copies, (), [spell("hang-up")]) != []
    assert mail([QUEUED], copies, (), [spell("kill-mta", 10, 11, 12)]) != []


@pytest.mark.parametrize(
    ("route", "fault", "excused"),
    [
        ("postfixlive", "kill-interceptor", True),  # its connection was cut, and it tries again
        ("postfixlive", "flush-host", False),
        ("postfixlive", "run-full", False),
        ("livepostfix", "kill-interceptor", False),  # its client tried once
        ("livepostfix", "server-away", True),  # ended between the recorder's 250 and its own note of it
        ("outpostfix", "server-away", False),  # another host's
        ("queueexim", "kill-mta", True),
        ("queueexim", "kill-interceptor", True),
        ("live", "server-away", False),
    ],
)
def test_who_tries_again_may_deliver_twice(route: str, fault: str, excused: bool) -> None:
    sent = replace(LIVE, name=f"{route}1", route=route)
    copies = [Taken(sent.name, "aa", at) for at in (100.0, 108.0)]
    assert (mail([sent], copies, (), [spell(fault)]) == []) is excused


def test_a_copy_may_have_waited_since_its_250_was_cut() -> None:
    """By two mail servers: the second had it, and put it off; by one: what arrived first was cut first."""
    cut = spell("kill-interceptor", 100, 101, 102)
    for route, excused in (("eximpostfix", True), ("postfixlive", False)):
        sent = replace(LIVE, name=f"{route}1", route=route)
        assert (mail([sent], [Taken(sent.name, "aa", at) for at in (110.0, 111.0)], (), [cut]) == []) is excused


def test_a_notice_that_waits_is_one() -> None:
    assert "told that it was not delivered" in mail([LIVE], [COPY], [""], [KILLED])[0]


def test_who_hears_nothing_may_have_been_heard() -> None:
    unknown = replace(LIVE, outcome="unknown")
    assert mail([unknown], [], (), [KILLED]) == mail([unknown], [COPY], (), [KILLED]) == []


def test_grey_listing_is_no_fault() -> None:
    assert mail([replace(LIVE, outcome="refused", said="RefusedError 451 4.7.1 Later")], []) == []


@pytest.mark.parametrize(
    ("name", "excused"), [("kill-interceptor", True), ("hang-up", False), ("run-full", False), ("no-dns", False)]
)
def test_only_what_stops_mail_excuses(name: str, excused: bool) -> None:
    assert (mail([replace(LIVE, outcome="refused")], [], (), [spell(name)]) == []) is excused


def test_a_mac_needs_its_time() -> None:
    late = replace(LIVE, began_at=110.0, ended_at=111.0, outcome="refused")
    assert mail([late], [], (), [spell("client-mac")]) == []
    assert mail([late], [], (), [spell("flush-room")]) != []


# --- inspection ------------------------------------------------------------------------------------------------------


def samples(*uninspected: int, lines_lost: Sequence[int] = ()) -> list[Sample]:
    lost = [*lines_lost, *[0] * len(uninspected)]
    return [Sample(98.5 + n, {"not_live": count}, lost[n]) for n, count in enumerate(uninspected)]


def crossing(many: int, name: str, seen: Sequence[Sample]) -> Verdict:
    sent = [replace(LIVE, name=f"live{n}") for n in range(many)]
    return judge_inspection(sent, [], set(), seen, [spell(name)] if name else [], 1.0)


@pytest.mark.parametrize(
    ("many", "name", "counted", "holds"),
    [
        (0, "", 0, True),
        (1, "", 9, False),  # nothing was wrong: no counter explains it
        (1, "no-dns", 0, True),  # a second's worth may be under way
        (2, "no-dns", 0, False),
        (10, "no-dns", 9, True),  # which should blind nobody; but it was counted
        (11, "no-dns", 9, False),
        (10, "kill-interceptor", 9, True),
        (11, "kill-interceptor", 9, False),
        (12, "kill-diverter", 9, True),  # two seconds in which nobody counts
        (13, "kill-diverter", 9, False),
    ],
)
def test_what_crossed_uninspected_was_counted(many: int, name: str, counted: int, holds: bool) -> None:
    verdict = crossing(many, name, samples(0, 0, counted, counted))
    assert (verdict.broken == []) is holds
    assert verdict.counts["uninspected"] == many


@pytest.mark.parametrize(("reason", "holds"), [("not_live", True), ("rate_network", False), ("encrypted", False)])
def test_what_a_flood_exceeds_is_not_the_mails(reason: str, holds: bool) -> None:
    seen = [Sample(98.5 + n, {reason: count}) for n, count in enumerate((0, 0, 2000, 2000))]
    assert (crossing(10, "flood", seen).broken == []) is holds


def test_what_should_have_blinded_nobody_is_told_apart() -> None:
    counts = {name: crossing(1, name, samples(0, 9)).counts for name in ("no-dns", "kill-diverter")}
    assert [sum(n for name, n in each.items() if "nobody" in name) for each in counts.values()] == [1, 0]


def test_faults_that_overlap_are_judged_together() -> None:
    """A host with another MAC is given its time, and meanwhile something else goes wrong."""
    sent = [replace(LIVE, name=f"live{n}") for n in range(8)]
    mac = spell("client-mac", 90, 91, 92)
    for spells, holds in (([mac], False), ([mac, spell("kill-interceptor")], True)):
        assert (judge_inspection(sent, [], set(), samples(0, 0, 6, 6), spells, 1.0).broken == []) is holds


def test_what_a_mail_server_sends_crosses_when_it_arrives() -> None:
    """Accepted before anything was wrong; nothing has crossed while it waits."""
    early = replace(LIVE, name="postfixlive1", route="postfixlive", began_at=50.0, ended_at=50.1)
    for arrived_at, said in ((100.0, ""), (60.0, "nothing was wrong")):
        (found,) = [judge_inspection([early], [Taken(early.name, "aa", arrived_at)], set(), [], [spell("no-dns")], 1.0)]
        assert bool(found.broken) == bool(said)
        assert all(said in each for each in found.broken)
    assert judge_inspection([early], [], set(), [], [], 1.0).counts["uninspected"] == 0


def test_what_two_faults_explain_is_the_laters_where_the_first_has_no_room() -> None:
    early = replace(LIVE, route="postfixlive")
    sent = [replace(early, name=f"postfixlive{n}") for n in range(3)]
    spells = [spell("no-dns", 99, 100, 101), spell("no-dns", 109, 110, 111)]
    for seconds, held in ((10.0, 2), (1.0, 1)):
        taken = [Taken(each.name, "aa", 100 + seconds) for each in sent]
        for many in (held, held + 1):
            found = judge_inspection(sent[:many], taken, set(), [], spells, 1.0)
            assert (found.broken == []) is (many == held)
            assert found.counts["uninspected"] == many


def test_the_mail_log_says_how_much_it_lacks() -> None:
    assert crossing(10, "log-full", samples(0, 0, 0, lines_lost=[0, 9, 9])).broken == []
    assert crossing(10, "spool-full", samples(0, 0, 0, lines_lost=[0, 9, 9])).broken != []


def test_counters_that_begin_anew() -> None:
    assert risen(samples(5, 7, 3, 4), 98.0, 110.0)["not_live"] == 2 + 3 + 1
    assert risen(samples(5, 7, 9, 11), 99.0, 99.6)["not_live"] == 4


def test_what_is_in_the_log_was_inspected() -> None:
    assert judge_inspection([LIVE], [], {"live1"}, [], [], 1.0).counts["uninspected"] == 0
