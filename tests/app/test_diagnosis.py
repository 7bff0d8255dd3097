"""Each ailment has a finding with a remedy, a box that is well has none; and what a fact may lack is no finding."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from smtp_intercept.app import diagnosis
from smtp_intercept.app.diagnosis import Certificate, Disk, MailLog, Port, Seen, findings

NOW = 1_790_000_000.0
DAY = 86_400.0
LOG = MailLog("/var/log/tollbridge/mail.log", 200 << 20, 14, NOW - DAY, 1 << 30)
STATUS: dict[str, Any] = {
    **dict.fromkeys(("up", "running", "ready", "live"), True),
    "namespace": "tollbridge",
    "watch": {"lost": [], "contended": [], "differences": [], "healed": []},
    "restarts": {"mta": 0, "tracker": 0},
    "processes": {"mta": 7, "tracker": 8},
    "mail": {"sessions": 1000, "dial_failures": 7, "log_lines_lost": 0},
    "mta": {"counts": {}, "queue": {"dead": 0}},
    "protected": [{"name": "mx of example.com", "addresses": ["192.0.2.20"], "error": ""}],
    "relays": [{"ports": ["p0", "p1"], "state": "armed", "why": ""}],
    "tracking": {"stands": "", "behind_bytes": 0},
    "ended": [],
    **{key: {} for key in ("full", "queue", "unguarded")},
    **dict.fromkeys(("unsaid", "waiting", "drift", "instead", "waits_for_confirm")),
    "change": {"begun": None},
}
WELL = Seen(
    NOW,
    STATUS,
    "inspecting",
    ports=(Port("p0", True, 1500), Port("p1", True, 1500)),
    name_servers=1,
    synchronised=True,
    certificates=(Certificate("/etc/tollbridge/cert.pem", NOW + 60 * DAY),),
    log=LOG,
    disks=(Disk("log.mail", "/var/log/tollbridge", 1 << 40, 128 << 20, "log.reserve_bytes"),),
)


def status(**changed: Any) -> Seen:
    return replace(WELL, status=STATUS | changed)


ILL: dict[str, Seen] = {
    "mail is not inspected": replace(status(live=False), inspecting=False, headline="mail is not inspected"),
    "no carrier": replace(WELL, ports=(Port("p0", True, 1500), Port("p1", False, 1500))),
    "half duplex": replace(WELL, ports=(Port("p0", True, 1500, half_duplex=True),)),
    "MTUs differ (p0 1500, p1 9000)": replace(WELL, ports=(Port("p0", True, 1500), Port("p1", True, 9000))),
    "rx-lro": replace(WELL, ports=(Port("p0", True, 1500, merges=("rx-lro",)),)),
    "did not answer when they were dialled": status(mail={"sessions": 100, "dial_failures": 40}),
    "mail is lost on its way": status(
        watch={"lost": [{"path": "p0 → p1, IPv4", "stage": "gate", "why": "no trace of it", "by": "ip filter INPUT"}]}
    ),
    "again and again": status(watch={"contended": ["ip rule 7"], "differences": ["ip rule 7"]}),
    "not as `up` made it": status(watch={"differences": ["a route is gone"]}),
    "it was put right, 1 times": status(watch={"healed": [{"at": NOW, "what": "the table inet tollbridge"}]}),
    "nobody watches": status(watch={"failed": "no netlink"}),
    "another firewall, whose ip filter FORWARD": replace(WELL, filters=("ip filter FORWARD (policy drop)",)),
    "started again 9 times": status(restarts={"mta": 9}),
    "a part of its sandbox": status(unguarded={"mta": ["its system calls are not filtered"]}),
    "table not_learned was full": status(full={"not_learned": 3}),
    "SYNs were lost": status(queue={"dropped": 3}),
    "waits, and is undone": status(waits_for_confirm=True),
    "the last good configuration": status(instead={"config": "x"}),
    "differs from what is in force": status(drift={"file": "x"}),
    "did not come to its end": status(change={"begun": {"verb": "up", "at": NOW}}),
    "bypass relay p0-p1 is bypassed": status(relays=[{"ports": ["p0", "p1"], "state": "bypassed", "why": "asked for"}]),
    "messages in the queue are dead": status(mta={"counts": {}, "queue": {"dead": 2}}),
    "and no MTA runs": status(waiting={"messages": 3, "spool": "/var/spool/tollbridge"}),
    "did not answer 5 times": status(mail={"mta_silent": 5}),
    "tracking index stands still": status(tracking={"stands": "its disk is full"}),
    "the tracker has ended": status(ended=["tracker"]),
    "the tracker has ended:": status(processes={"mta": 7}),
    "tracker has ended": status(restarts={"mta": 0, "tracker": 1}, tracking=None),
    "cannot be looked up": status(protected=[{"name": "mx", "addresses": [], "error": "SERVFAIL"}]),
    "names no server": replace(WELL, name_servers=0),
    "the clock is not synchronised": replace(WELL, synchronised=False),
    "ends in 3 days": replace(WELL, certificates=(Certificate("/c.pem", NOW + 3 * DAY),)),
    "certificate has expired": replace(WELL, certificates=(Certificate("/c.pem", why="certificate has expired"),)),
    "not to /var/log/tollbridge/mail.log": replace(WELL, log=replace(LOG, elsewhere="/var/log/tollbridge/mail.log.1")),
    "has log.mail_bytes": replace(WELL, log=replace(LOG, size_bytes=1 << 30)),
    "never been rotated": replace(WELL, log=replace(LOG, copies=0, began_at=NOW - 30 * DAY)),
    "lines of the mail log could not": status(mail={"log_lines_lost": 4}),
    "own log were lost": status(unsaid=4),
    "less than log.reserve_bytes": replace(WELL, disks=(replace(WELL.disks[0], free_bytes=1 << 20),)),
}


def test_a_box_that_is_well() -> None:
    assert findings(WELL) == []
    assert findings(Seen(NOW)) == [], "what cannot be told is no finding"


@pytest.mark.parametrize("what", ILL)
def test_each_ailment_is_found_alone_and_has_a_remedy(what: str) -> None:
    (found,) = findings(ILL[what])
    assert what in found.what
    assert found.remedy


def test_no_check_is_without_an_ailment() -> None:
    for check in diagnosis.CHECKS:
        assert any([*check(seen)] for seen in ILL.values()), check


@pytest.mark.parametrize("at", [(0, 0), (1, -1)])
def test_limits(at: tuple[int, float]) -> None:
    """At its edge nothing, one beyond it a finding."""
    beyond, less = at
    sessions = diagnosis.FEW_SESSIONS * 5
    failures = round(sessions * diagnosis.UNANSWERED) + beyond
    assert len(findings(status(mail={"sessions": sessions, "dial_failures": failures}))) == beyond
    few = {"sessions": diagnosis.FEW_SESSIONS - 1, "dial_failures": diagnosis.FEW_SESSIONS - 1}
    assert findings(status(mail=few)) == []
    ends = Certificate("/c.pem", NOW + diagnosis.EXPIRES_S + less)
    assert len(findings(replace(WELL, certificates=(ends,)))) == beyond
    restarts = diagnosis.FEW_RESTARTS - 1 + beyond
    assert len(findings(status(restarts={"mta": restarts}))) == beyond
    disk = replace(WELL.disks[0], free_bytes=WELL.disks[0].reserve_bytes - beyond)
    assert len(findings(replace(WELL, disks=(disk,)))) == beyond
    old = replace(LOG, copies=0, began_at=NOW - diagnosis.UNROTATED_S - beyond)
    assert len(findings(replace(WELL, log=old))) == beyond
    small = replace(old, size_bytes=diagnosis.UNROTATED_BYTES)
    assert findings(replace(WELL, log=small)) == []


@given(st.sets(st.sampled_from([*ILL]), max_size=5))
def test_what_keeps_mail_from_being_inspected_comes_first(whats: set[str]) -> None:
    changes: dict[str, Any] = {}
    for what in whats:
        changes |= {key: value for key, value in ILL[what].status.items() if value != STATUS[key]}
    weights = [finding.mail for finding in findings(status(**changes))]
    assert weights == sorted(weights, reverse=True)
