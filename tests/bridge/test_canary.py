"""The canary: what it takes to be one, to be forged, and to prove a path."""

from __future__ import annotations

from itertools import count
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from scapy.all import IP, TCP, Dot1Q, Ether, IPv6

from bridge import flow
from bridge.canary import (
    ENDS,
    EVERY_S,
    FAILING_S,
    FLIGHT_S,
    PASSING_FAILS_S,
    Canaries,
    Flight,
    Path,
    frame,
    macs,
    paths,
)
from bridge.flow import Mark, parse_syn
from bridge.segment import ACK, SYN, segment

MACS = macs(7)
V4 = Path(0, 4, 25)


def canaries(*of: Path, legs: tuple[int, ...] = (0, 1)) -> Canaries:
    secrets = count(1000)
    return Canaries(of or (V4,), legs, lambda bits: next(secrets), 0.0)


def answer(flight: Flight) -> bytes:
    """What the listener says."""
    client, server = ENDS[flight.path.version]
    return segment((server, client), (flight.path.port, flight.client_port), SYN | ACK, 5, flight.sequence + 1)


def seen(packet: bytes) -> bytes:
    return frame(packet, MACS, 0)


def come_back(birds: Canaries, flight: Flight, now: float) -> Flight | None:
    assert birds.judge(parse_syn(flight.syn()), (flight.leg, flight.path.vlan))
    assert birds.hear(seen(answer(flight)), flight.leg, now) is flight
    return birds.hear(seen(flight.dial()), 1 - flight.leg, now)


def test_none_fails_before_there_is_an_interceptor_to_answer() -> None:
    """On a busy machine that starts seconds after the diverter."""
    birds = Canaries((V4,), (0, 1), lambda bits: 1000)
    birds.due(0.0)
    assert birds.failing(60.0) == []
    for now in (60.0, 61.0):
        birds.begin(now)
    assert birds.failing(60.0 + FAILING_S) == []
    assert birds.failing(60.0 + FAILING_S + 0.1) != []


@pytest.mark.parametrize("version", [4, 6])
@pytest.mark.parametrize("vlan", [0, 10])
def test_its_frames_are_ethernets_and_their_sums_are_right(version: int, vlan: int) -> None:
    flight, _ = canaries(Path(vlan, version, 587)).due(0.0)
    packet = Ether(frame(flight.syn(), MACS, vlan))
    assert (packet.src, packet.dst) == MACS
    assert (packet[Dot1Q].vlan if vlan else 0) == vlan
    network = packet[IP if version == 4 else IPv6]
    assert (network[TCP].flags, network[TCP].dport, network[TCP].seq) == ("S", 587, flight.sequence)
    carried = network[TCP].chksum
    del network[TCP].chksum
    if version == 4:
        assert network.chksum == IP(bytes(IP(bytes(network), chksum=None))).chksum
    assert type(network)(bytes(network))[TCP].chksum == carried


def test_its_macs_are_local_unicast_of_this_box_alone_and_differ_in_one_bit() -> None:
    client, server = (bytes.fromhex(mac.replace(":", "")) for mac in MACS)
    assert client[0] & 3 == 2
    assert (client[:5], client[5] | 1) == (server[:5], server[5])
    assert macs(8) != MACS
    assert client[3] & 0x80, "the lane's own have none"


def test_a_path_is_proven_when_answer_and_dial_have_come_back() -> None:
    birds = canaries()
    flight, _ = birds.due(0.0)
    assert birds.proven(0.1) == 0
    proven = come_back(birds, flight, 0.1)
    assert proven is flight
    assert flight.back
    assert birds.proven(0.1) == 1
    assert birds.failing(FAILING_S) == []
    assert birds.proven(0.2 + FAILING_S) == 0


def test_each_path_has_its_own_and_they_start_from_one_leg_after_the_other() -> None:
    every = paths([10], [4, 6], [25, 587])
    birds = canaries(*every)
    first = [flight for flight in birds.due(0.0) if not flight.passes]
    assert {flight.path for flight in first} == set(every)
    assert len(every) == 8
    assert {flight.leg for flight in first} == {0, 1}
    assert birds.due(EVERY_S * 0.9) == []
    assert len(birds.due(EVERY_S)) == 8


def test_one_that_is_lost_is_told_with_what_is_known_of_it() -> None:
    birds = canaries(V4, Path(0, 6, 25))
    four, six, *_ = birds.due(0.0)
    come_back(birds, six, 0.1)
    assert birds.judge(parse_syn(four.syn()), (four.leg, 0))
    (lost,) = birds.failing(FAILING_S + 0.05)
    assert (lost.path, lost.judged, lost.answered) == (V4, True, False)


# Everything that a station on the wire may say, if it knew all but the secrets: nothing of it is a canary, in the queue
# or on a leg.
@pytest.mark.parametrize(
    "change",
    [
        {"sequence": 1},
        {"client_port": 7},
        {"server_port": 26},
        {"client": bytes([192, 0, 2, 10])},
        {"server": bytes([192, 0, 2, 20])},
    ],
    ids=lambda change: next(iter(change)),
)
def test_a_syn_with_one_thing_wrong_is_somebody_elses(change: dict[str, Any]) -> None:
    birds = canaries()
    flight, _ = birds.due(0.0)
    right = parse_syn(flight.syn())
    fields = {name: getattr(right, name) for name in ("client", "server", "client_port", "server_port", "sequence")}
    assert not birds.judge(flow.Syn(**{**fields, **change}), (flight.leg, 0))
    assert not birds.judge(right, (1 - flight.leg, 0)), "from another port"
    assert not birds.judge(right, (flight.leg, 10)), "in another VLAN"
    assert birds.judge(right, (flight.leg, 0))


def test_no_answer_counts_before_the_question_nor_on_another_leg_nor_twice() -> None:
    birds = canaries()
    flight, _ = birds.due(0.0)
    said = seen(answer(flight))
    assert birds.hear(said, flight.leg, 0.1) is None, "nobody has judged it: it cannot have been answered"
    assert birds.judge(parse_syn(flight.syn()), (flight.leg, 0))
    assert birds.hear(said, 1 - flight.leg, 0.1) is None
    assert birds.hear(seen(flight.dial()), 1 - flight.leg, 0.1) is None, "not dialled yet"
    assert birds.hear(seen(flight.syn()), 1 - flight.leg, 0.1) is None, "bridged, it proves nothing"
    assert birds.hear(said, flight.leg, 0.1) is flight
    assert birds.hear(said, flight.leg, 0.1) is None
    assert birds.hear(seen(flight.reset()), 1 - flight.leg, 0.1) is None
    assert birds.hear(seen(flight.dial()), flight.leg, 0.1) is None, "where the client is, no server is dialled"
    assert birds.proven(0.1) == 0


def test_one_that_passes_proves_by_crossing_and_nothing_else() -> None:
    birds = canaries()
    _, flight = birds.due(0.0)
    assert flight.passes
    crossed = seen(flight.syn())
    assert birds.hear(crossed, 1 - flight.leg, 0.1) is None, "it was bridged without having been asked about"
    assert birds.judge(parse_syn(flight.syn()), (flight.leg, 0)) is flight
    assert birds.hear(seen(answer(flight)), flight.leg, 0.1) is None
    assert birds.hear(crossed, flight.leg, 0.1) is None
    assert [lost.passes for lost in birds.failing(PASSING_FAILS_S + 0.1)] == [False, True]
    assert birds.hear(crossed, 1 - flight.leg, 0.2) is flight
    assert birds.proven(0.2) == 0, "inspection has nothing of it"
    assert [lost.passes for lost in birds.failing(PASSING_FAILS_S + 0.1)] == [False]


def test_an_old_one_proves_nothing() -> None:
    birds = canaries()
    old, _ = birds.due(0.0)
    assert birds.judge(parse_syn(old.syn()), (old.leg, 0))
    birds.due(FLIGHT_S + 1)
    assert birds.hear(seen(answer(old)), old.leg, FLIGHT_S + 1) is None


@given(st.binary(max_size=80))
def test_whatever_is_on_a_leg_is_read_without_a_fault(data: bytes) -> None:
    birds = canaries()
    birds.due(0.0)
    assert birds.hear(data, 0, 0.1) is None


@given(st.lists(st.floats(0.001, 3.0), max_size=200))
def test_what_flies_is_bounded(pauses: list[float]) -> None:
    birds, now = canaries(*paths([], [4, 6], [25])), 0.0
    for pause in pauses:
        now += pause
        birds.due(now)
        assert len(birds._flights) <= 4 * (FLIGHT_S / EVERY_S + 2)


def test_its_marks_are_no_mails() -> None:
    for vlan in (0, 10, 4094):
        judged = Mark(0, 3, vlan).encode() | flow.CANARY
        assert Mark.decode(judged) == Mark(0, 3, vlan)
        for queue in (0, 63):
            for version in (4, 6):
                assert flow.live_mark(queue, vlan, version) & flow.CANARY == 0
                assert flow.queue_of(flow.live_mark(queue, vlan, version)) == queue
    live = {flow.live_mark(q, v, ip) for q in range(64) for v in (0, 1, 10, 4094) for ip in (4, 6)}
    assert len(live) == 64 * 4 * 2
