"""What was promised to clients, what the next hop took, and whether the two agree. Pure."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from itertools import pairwise
from typing import Any

OURS = "example.com"  # recipients: "ok-…" is taken, "no-…" refused, "later-…" taken at the second attempt
SENDERS = "senders.example"


@dataclass(slots=True)
class Sent:
    """One message whose content went out; ``heard`` is the reply, "" if the connection was lost before it."""

    name: str
    recipients: tuple[str, ...]
    heard: str = ""

    @property
    def kept(self) -> bool:
        return self.heard.startswith("250")


@dataclass(frozen=True, slots=True)
class Taken:
    """By the next hop, from the MTA's ``life``, written down before it said 250. Of a notice: its Message-ID, and the
    recipients that it tells of."""

    life: int
    at: float
    recipients: tuple[str, ...]
    notice: str = ""
    failed: tuple[str, ...] = ()
    whole: bool = True


@dataclass
class Ledger:
    """As it grows."""

    sent: dict[str, Sent] = field(default_factory=dict)
    taken: list[Taken] = field(default_factory=list)
    kept: int = 0
    _asked: int = 0

    @property
    def under_way(self) -> int:
        """Roughly: what was accepted and neither delivered nor bounced."""
        return self.kept - len(self.taken) + self._asked

    @contextmanager
    def waiting(self, sent: Sent) -> Iterator[None]:
        self._asked += 1
        try:
            yield
        finally:
            self._asked -= 1

    def hear(self, sent: Sent, reply: str) -> None:
        sent.heard = reply
        self.kept += sent.kept

    def told(self) -> dict[str, Any]:
        return {"sent": [asdict(each) for each in self.sent.values()], "taken": [asdict(each) for each in self.taken]}


@dataclass
class Verdict:
    """``broken`` is empty, or the MTA has lied."""

    counts: Counter[str] = field(default_factory=Counter)
    broken: list[str] = field(default_factory=list)

    def no(self, said: str, what: Sequence[str]) -> None:
        self.broken += [f"{each} {said}" for each in what]


def judge(
    sent: Mapping[str, Sent], taken: Sequence[Taken], settled: Mapping[str, int], killed_at: Mapping[int, float]
) -> Verdict:
    """``settled``: recipient → the life whose log says that it was delivered; ``killed_at``: life → when it was
    killed. Every message here has left the queue."""
    verdict, copies = Verdict(), defaultdict[str, list[Taken]](list)
    notices = defaultdict[str, set[str]](set)
    told = defaultdict[str, set[str]](set)
    for each in taken:
        for recipient in each.recipients if not each.notice else (each.notice,):
            copies[recipient].append(each)
        if each.notice:
            name = each.recipients[0].partition("@")[0].removeprefix("s-")
            notices[name].add(each.notice)
            told[name] |= set(each.failed)
    came = {recipient for recipient in copies if "@" + OURS in recipient}
    verdict.no("is not whole", [each.recipients[0] for each in taken if not each.whole])
    for message in sent.values():
        _judge_message(message, came, told[message.name], len(notices[message.name]), verdict)
    for what, several in copies.items():
        _judge_copies(what, several, settled.get(what), killed_at, verdict)
    verdict.counts["notices"] = sum(map(len, notices.values()))
    verdict.counts["delivered"] = len(came)
    return verdict


def _judge_message(message: Sent, came: set[str], told: set[str], notices: int, verdict: Verdict) -> None:
    failing = {recipient for recipient in message.recipients if recipient.startswith("no-")}
    others = set(message.recipients) - failing
    seen = bool(others & came or told)
    verdict.counts["accepted" if message.kept else "refused" if message.heard else "unheard"] += 1
    verdict.counts["unheard and kept"] += seen and not message.heard
    verdict.counts["refused and kept"] += seen and not message.kept and bool(message.heard)
    if message.kept or seen:
        verdict.no("is lost", sorted(others - came))
        verdict.no("was not told of", sorted(failing - told))
    verdict.no("was delivered and bounced, or refused and delivered", sorted(failing & came | others & told))
    if notices > 1:
        verdict.no(f"was told of {notices} times", [message.name])


def _judge_copies(
    what: str, copies: Sequence[Taken], settled: int | None, killed_at: Mapping[int, float], verdict: Verdict
) -> None:
    """Another copy needs a kill: between its delivery and the commit that writes it down."""
    verdict.counts["duplicates"] += len(copies) - 1
    for copy, next_one in pairwise(copies):
        if copy.life not in killed_at or copy.life >= next_one.life:
            verdict.no(f"was delivered again without a kill, in lives {copy.life} and {next_one.life}", [what])
        else:
            verdict.counts["slowest_ms"] = max(
                verdict.counts["slowest_ms"], round((killed_at[copy.life] - copy.at) * 1000)
            )
    if settled is not None and copies[-1].life > settled:
        verdict.no(f"was delivered again in life {copies[-1].life}, settled in life {settled}", [what])
