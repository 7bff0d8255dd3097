"""Whatever is asked of the queue, in any order and across restarts, it holds what a dictionary would."""

from __future__ import annotations

import asyncio
import tempfile
from dataclasses import dataclass, field
from pathlib import Path

from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import Bundle, RuleBasedStateMachine, invariant, multiple, rule

from smtp_intercept.mta.drafts import SMALL_BYTES
from smtp_intercept.mta.envelope import State
from smtp_intercept.mta.spool import Spool
from tests.mta.spools import ORIGIN, content_of, drafted, envelope, files, outcome

STATES = st.sampled_from(State)
TIMES = st.integers(10, 100).map(float)
SIZES = st.sampled_from((0, 100, SMALL_BYTES, SMALL_BYTES + 1))


@dataclass
class Kept:
    """What the queue should know of a message; ``to`` are the recipients' (state, next_at)."""

    content: bytes
    arrived: float
    to: list[tuple[State, float]]
    held: bool = False
    returning: bool = False
    alternate: str = ""
    attempts: list[int] = field(default_factory=list)

    def due(self, now: float) -> list[int]:
        queued = [n for n, (state, at) in enumerate(self.to) if state is State.QUEUED and (self.returning or at <= now)]
        return [] if self.held else queued

    def revive(self, now: float) -> bool:
        alive = (State.QUEUED, State.DEAD)
        changed = any(state in alive for state, _ in self.to)
        self.to = [(State.QUEUED, now) if state in alive else (state, at) for state, at in self.to]
        return changed


class Queue(RuleBasedStateMachine):
    names = Bundle("names")

    def __init__(self) -> None:
        super().__init__()
        self.loop = asyncio.new_event_loop()
        self.temporary = tempfile.TemporaryDirectory()
        self.directory = Path(self.temporary.name)
        self.spool = Spool.open(self.directory, reserve_bytes=0)
        self.model: dict[str, Kept] = {}

    def teardown(self) -> None:
        self.spool.close()
        self.loop.close()
        self.temporary.cleanup()

    @rule(target=names, size=SIZES, to=st.integers(1, 3), now=TIMES)
    def enqueue(self, size: int, to: int, now: float) -> str:
        content = (f"{len(self.model)}" * size).encode()[:size]
        addresses = [f"r{n}@example.com" for n in range(to)]
        work = self.spool.enqueue(drafted(self.spool, content), ORIGIN, envelope(*addresses), now)
        name = self.loop.run_until_complete(work)
        assert name not in self.model
        self.model[name] = Kept(content, now, [(State.QUEUED, now)] * to, attempts=[0] * to)
        return name

    @rule(
        target=names, name=names, states=st.lists(STATES, min_size=3, max_size=3), now=TIMES, notice=st.none() | SIZES
    )
    def settle(self, name: str, states: list[State], now: float, notice: int | None) -> object:
        kept = self.model.get(name)
        queued = kept.due(1e9) if kept else [0]
        outcomes = [outcome(n, states[n], now) for n in queued]
        draft = None if notice is None else (drafted(self.spool, b"n" * notice), envelope("ann@example.org", sender=""))
        told = self.loop.run_until_complete(self.spool.settle(name, outcomes, draft, now))
        assert (told is not None) == (kept is not None and draft is not None)
        if kept:
            for n in queued:
                kept.to[n] = states[n], now
                kept.attempts[n] += 1
            if all(state in (State.DELIVERED, State.FAILED) for state, _ in kept.to):
                del self.model[name]
        if told is None or notice is None:
            return multiple()
        self.model[told] = Kept(b"n" * notice, now, [(State.QUEUED, now)], attempts=[0])
        return told

    @rule(name=names)
    def hold(self, name: str) -> None:
        kept = self.model.get(name)
        assert self.loop.run_until_complete(self.spool.hold([name])) == (kept is not None and not kept.held)
        if kept:
            kept.held = True

    @rule(name=names, now=TIMES)
    def release(self, name: str, now: float) -> None:
        kept = self.model.get(name)
        assert self.loop.run_until_complete(self.spool.release([name])) == (kept is not None and kept.held)
        if kept:
            kept.held = False

    @rule(name=names, now=TIMES)
    def retry(self, name: str, now: float) -> None:
        kept = self.model.get(name)
        changed = kept is not None and kept.revive(min(now, kept.arrived - 1))
        assert self.loop.run_until_complete(self.spool.retry([name], now)) == changed
        if kept and changed:
            kept.returning = False

    @rule(name=names, host=st.sampled_from(("", "mx2.example.com:25")), now=TIMES)
    def reroute(self, name: str, host: str, now: float) -> None:
        kept = self.model.get(name)
        changed = kept is not None and kept.revive(now)
        assert self.loop.run_until_complete(self.spool.reroute([name], host, now)) == changed
        if kept and changed:
            kept.returning, kept.alternate = False, host

    @rule(name=names, now=TIMES)
    def give_back(self, name: str, now: float) -> None:
        kept = self.model.get(name)
        changed = kept is not None and kept.revive(now) and not kept.returning
        assert self.loop.run_until_complete(self.spool.give_back([name], now)) == changed
        if kept and changed:
            kept.held, kept.returning = False, True

    @rule(name=names)
    def delete(self, name: str) -> None:
        assert self.loop.run_until_complete(self.spool.delete([name])) == (self.model.pop(name, None) is not None)

    @rule()
    def reopen(self) -> None:
        self.spool.close()
        large = sum(len(kept.content) > SMALL_BYTES for kept in self.model.values())
        assert len(files(self.directory)) == large
        self.spool = Spool.open(self.directory, reserve_bytes=0)

    @invariant()
    def it_holds_the_same(self) -> None:
        found = {entry.id: entry for entry in self.spool.entries()}
        assert found.keys() == self.model.keys()
        for name, kept in self.model.items():
            entry = found[name]
            assert content_of(self.spool, name) == kept.content
            assert (entry.held, entry.returning, entry.alternate) == (kept.held, kept.returning, kept.alternate)
            assert [one.attempts for one in entry.queued] == kept.attempts
            assert [one.state for one in entry.queued] == [state for state, _ in kept.to]

    @invariant()
    def the_same_is_due(self) -> None:
        for now in (5.0, 10.0, 50.0, 100.0):
            due = {entry.id: [one.number for one in entry.queued] for entry in self.spool.due(now, 99, ())}
            assert due == {name: kept.due(now) for name, kept in self.model.items() if kept.due(now)}


TestQueue = Queue.TestCase
TestQueue.settings = settings(
    max_examples=25, stateful_step_count=25, deadline=None, suppress_health_check=list(HealthCheck)
)
