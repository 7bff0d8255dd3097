"""`python -m tests.bench.tracing`: how long a question to the tracking index takes, with so many messages in it.

Each message has its session beside it. The exit status is 1 where the slowest of a question's rounds took more than
`MOST_S`. ``--keep DIR`` leaves the index there, and asks one that is there already.
"""

from __future__ import annotations

import argparse
import os
import sys
import time
from collections.abc import Callable
from pathlib import Path
from tempfile import TemporaryDirectory

from smtp_intercept.app.trace import page, records
from smtp_intercept.watch import story
from smtp_intercept.watch.index import DAY_MS, Index, Keep, Writer, volumes_in
from smtp_intercept.watch.terms import Field, Question, Value
from tests.watch import logs

MOST_S = 0.3
SHOWN = 20
ROUNDS = 5
LINES = 1_000  # of the log, added at one go
TOLD_S = 10.0


def build(directory: Path, mails: int, tell: Callable[[str], None]) -> float:
    """Seconds that it took."""
    writer, began_at, told_at = Writer(directory, Keep(3_650, 1 << 44)), time.perf_counter(), 0.0
    for number in range(0, mails, LINES // 2):
        lines = logs.lines(range(number, min(mails, number + LINES // 2)))
        writer.add(lines, {"log": number}, round(logs.BEGAN_S * 1000) + 3_650 * DAY_MS)
        if (now := time.perf_counter()) - told_at > TOLD_S:
            told_at = now
            tell(f"{number} of {mails} messages, {number / (now - began_at):.0f} a second")
    writer.close()
    return time.perf_counter() - began_at


def questions(mails: int) -> dict[str, Question]:
    """Each of what people ask; the mail asked for lies in the middle."""
    one = mails // 2 + 1
    message, session = logs.message(one), logs.session(one)
    at_ms = round((logs.BEGAN_S + one * 86_400 / logs.PER_DAY) * 1000)
    recipient = message["recipients"][0]["address"]
    asked: dict[str, tuple[Value, ...]] = {
        "a sender": ((Field.SENDER, message["sender"]),),
        "a sender's domain": ((Field.SENDER, message["sender"][message["sender"].index("@") :]),),
        "a recipient": ((Field.RECIPIENT, recipient),),
        "a client": ((Field.CLIENT, session["client"]["address"]),),
        "a name in the server's queue": ((Field.ID, f"4f{one:010x}"),),
        "a session": ((Field.ID, message["session"]),),
        "sender and recipient": ((Field.SENDER, message["sender"]), (Field.RECIPIENT, recipient)),
        "everybody's recipient's domain": ((Field.RECIPIENT, "@example.com"),),
        "what was rejected": ((Field.OUTCOME, "rejected"), (Field.RECIPIENT, "@example.com")),
        "what there is not": ((Field.SENDER, "nobody@nowhere.example"),),
        "the newest": (),
    }
    found = {name: Question(frozenset(values)) for name, values in asked.items()}
    found["an hour of a client's day"] = Question(
        frozenset({(Field.CLIENT, session["client"]["address"])}), at_ms - 1_800_000, at_ms + 1_800_000
    )
    found["the newest of an hour long ago"] = Question(frozenset(), at_ms - 3_600_000, at_ms)
    return found


def ask(directory: Path, question: Question) -> tuple[float, float, int]:
    """Seconds by the clock and of the processor, from opening the index to the lines that `trace` would print, and
    how many mails they tell of."""
    began_at, cpu_at = time.perf_counter(), time.process_time()
    index = Index(directory)
    try:
        mails = [index.mail(hit) for hit, _ in zip(index.find(question), range(SHOWN), strict=False)]
        for mail in mails:
            story.headline(records(mail))
            page(mail)
    finally:
        index.close()
    return time.perf_counter() - began_at, time.process_time() - cpu_at, len(mails)


def measure(directory: Path, mails: int, rounds: int) -> dict[str, tuple[float, float, int]]:
    """Of each question the slowest of its rounds."""
    return {name: max(ask(directory, each) for _ in range(rounds)) for name, each in questions(mails).items()}


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.bench.tracing", description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--mails", type=int, default=10_000_000, help="messages in the index [%(default)s]")
    parser.add_argument("--rounds", type=int, default=ROUNDS, help="of each question [%(default)s]")
    parser.add_argument("--keep", type=Path, metavar="DIR", help="build the index there, and leave it")
    arguments = parser.parse_args()
    with TemporaryDirectory(dir=os.environ.get("TMPDIR", "/var/tmp")) as place:
        directory = arguments.keep or Path(place)
        directory.mkdir(exist_ok=True)
        if not volumes_in(directory):
            seconds = build(directory, arguments.mails, lambda line: print(line, file=sys.stderr, flush=True))
            print(f"built: {arguments.mails / seconds:.0f} messages a second")
        size = sum(path.stat().st_size for path in volumes_in(directory).values())
        print(f"{arguments.mails} messages, {size / arguments.mails:.0f} octets each")
        found = measure(directory, arguments.mails, arguments.rounds)
    for name, (seconds, cpu_s, shown) in found.items():
        print(f"{seconds * 1000:8.1f} ms  {cpu_s * 1000:8.1f} ms of a processor  {shown:3} shown  {name}")
    return int(any(seconds > MOST_S for seconds, _, _ in found.values()))


if __name__ == "__main__":
    sys.exit(main())
