"""The diverter's loop: SYNs out of the kernel's queue, a verdict on each, the beat between them.

Reads IP and TCP headers and one line format from the interceptor; asks nobody anything before a verdict.
"""

from __future__ import annotations

import select
import socket
import time
from collections import Counter
from collections.abc import Callable, Mapping
from typing import Any, TypeAlias

from netfilterqueue import COPY_PACKET, NetfilterQueue

from bridge.deadman import DeadMansSwitch
from bridge.flow import Action, AuthenticatedError, MalformedPacketError, Mark, Syn, Verdict, parse_syn
from bridge.lane import QUEUE_NUMBER
from bridge.proving import Prover, RawSockets
from bridge.refuse import reset

COPY_OCTETS = 1500  # IP and TCP headers with all the options and extensions that fit into a frame
SOCKET_OCTETS = 4 << 20  # the queue socket's buffer: the whole queue of headers fits
TURN_S = 0.1  # the loop turns so often, whatever comes
TICK_SYNS = 64  # and once in so many SYNs

Place: TypeAlias = tuple[int, int]  # the index of the port of arrival, and the VID (0: untagged)
Decide: TypeAlias = Callable[[Syn, Place], Verdict]


class Diverter:
    """``queue`` is its own of those among which the ruleset shares the SYNs out, from 0. ``arrivals`` maps a leg's
    ifindex to its `Place`; what cannot be inspected passes, or with ``block`` is dropped. ``fly`` makes of its raw
    sockets, and of whether an interceptor lives, what sends its canaries."""

    def __init__(
        self,
        *,
        decide: Decide,
        arrivals: Mapping[int, Place],
        fly: Callable[[RawSockets, Callable[[float], bool]], Prover],
        queue_length: int,
        block: bool,
        queue: int = 0,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._decide, self._arrivals, self._clock = decide, arrivals, clock
        self._stranded = Action.DROP if block else Action.PASS
        self._stale = False
        self.switch = DeadMansSwitch()
        self.counts: Counter[str] = Counter()
        self._raw = RawSockets()
        self.prover = fly(self._raw, self.switch.alive)
        self._queue = NetfilterQueue()
        number = QUEUE_NUMBER + queue
        self._queue.bind(number, self._on_packet, queue_length, COPY_PACKET, COPY_OCTETS, SOCKET_OCTETS)

    def run(self, channels: Mapping[socket.socket, Callable[[], None]], report: Callable[[], None]) -> None:
        """Until an exception (SystemExit of a signal) ends it. What belongs to a channel is called when that is
        readable, ``report`` at every turn."""
        hear = {channel.fileno(): listen for channel, listen in channels.items()}
        poll = select.poll()
        poll.register(self._queue.get_fd(), select.POLLIN)
        for channel in channels:
            poll.register(channel, select.POLLIN)
        for tap in self.prover.filenos():
            poll.register(tap, select.POLLIN)
        try:
            while True:
                ready = {fd for fd, _ in poll.poll(TURN_S * 1000)}
                # What waited while this process stood still is settled before the switch closes again.
                self._stale = self.switch.turn(self._clock())
                for number in ready & hear.keys():
                    hear[number]()
                if self._queue.get_fd() in ready:
                    self._queue.run(block=False)
                self._stale = False
                self._tick()
                report()
        finally:
            self._queue.unbind()

    def _tick(self) -> None:
        self.prover.tick(self._clock())

    # --- one SYN ---------------------------------------------------------------------------------------------------

    def _on_packet(self, packet: Any) -> None:
        """Never raises: one packet that breaks us would break the loop for all."""
        try:
            syn = parse_syn(packet.get_payload())
            place = self._arrivals.get(packet.physindev, (0, 0))
            if (mark := self.prover.judge(syn, place)) is not None:
                packet.set_mark(mark)
                packet.accept()
                return
            verdict = self._judge(syn, place)
        except AuthenticatedError:
            syn, place, verdict = None, (0, 0), self._strand("authenticated")
        except MalformedPacketError:  # no host makes such: neither inspected nor bridged
            syn, place, verdict = None, (0, 0), Verdict(Action.DROP)
            self.counts["dropped.malformed"] += 1
        except Exception:  # our bug: count it, let the mail go on
            syn, place, verdict = None, (0, 0), self._strand("failed")
        self._answer(packet, syn, place, verdict)
        if self.counts["syns"] % TICK_SYNS == 0:  # a flood must not silence the beat
            self._tick()

    def _judge(self, syn: Syn, place: Place) -> Verdict:
        now = self._clock()
        self.counts["syns"] += 1
        if self._stale:
            return self._strand("stale")
        verdict = self._decide(syn, place)
        if verdict.action is not Action.INTERCEPT:
            return verdict
        if not self.switch.alive(now):
            return self._strand("interceptor_silent")
        if not self.switch.accepting(now):
            return self._strand("interceptor_full")
        return verdict

    def _strand(self, why: str) -> Verdict:
        self.counts[f"not_inspected.{why}"] += 1
        return Verdict(self._stranded)

    def _answer(self, packet: Any, syn: Syn | None, place: Place, verdict: Verdict) -> None:
        self.counts[f"verdict.{verdict.action.value}"] += 1
        match verdict.action:
            case Action.INTERCEPT:
                packet.set_mark(Mark(verdict.tag, *place).encode())
                packet.accept()
            case Action.PASS:
                packet.set_mark(0)
                packet.accept()
            case Action.DROP:
                packet.drop()
            case Action.REJECT:
                packet.drop()
                if syn is not None:
                    # With its port of arrival: a lane that has forgotten the client must not flood the server's RST.
                    self._raw.send(reset(syn), syn.client, Mark(verdict.tag, *place).encode())
