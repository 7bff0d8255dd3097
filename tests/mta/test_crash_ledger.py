"""The judge of the crash tests sees each way to break the promise: lost, half, twice, told twice."""

from __future__ import annotations

import pytest

from tests.mta.crash_ledger import Sent, Taken, judge

OK, NO = "ok-0-1.1@example.com", "no-1-1.1@example.com"
BACK = ("s-1.1@senders.example",)
KEPT = Sent("1.1", (OK, NO), "250 2.0.0 Ok")
COME, TOLD = Taken(0, 10.0, (OK,)), Taken(0, 10.5, BACK, "n1", (NO,))
AGAIN, TOLD_AGAIN = Taken(1, 12.0, (OK,)), Taken(1, 12.0, BACK, "n2", (NO,))
BOTH = Taken(0, 10.5, BACK, "n1", (NO, OK))
LATER = Taken(2, 14.0, (OK,))


@pytest.mark.parametrize(
    ("sent", "taken", "settled", "broken"),
    [
        (KEPT, [COME, TOLD], {}, []),
        (KEPT, [COME, TOLD, AGAIN], {}, []),
        (KEPT, [TOLD], {}, [f"{OK} is lost"]),
        (KEPT, [COME], {}, [f"{NO} was not told of"]),
        (Sent("1.1", (OK, NO)), [], {}, []),
        (Sent("1.1", (OK, NO)), [COME], {}, [f"{NO} was not told of"]),
        (KEPT, [COME, COME, TOLD], {}, [f"{OK} was delivered again without a kill, in lives 0 and 0"]),
        (KEPT, [AGAIN, LATER, TOLD], {}, [f"{OK} was delivered again without a kill, in lives 1 and 2"]),
        (KEPT, [COME, TOLD, AGAIN], {OK: 0}, [f"{OK} was delivered again in life 1, settled in life 0"]),
        (KEPT, [COME, TOLD, TOLD_AGAIN], {}, ["1.1 was told of 2 times"]),
        (KEPT, [COME, BOTH], {}, [f"{OK} was delivered and bounced, or refused and delivered"]),
        (KEPT, [Taken(0, 10.0, (OK,), whole=False), TOLD], {}, [f"{OK} is not whole"]),
    ],
)
def test_what_breaks_the_promise(sent: Sent, taken: list[Taken], settled: dict[str, int], broken: list[str]) -> None:
    assert judge({sent.name: sent}, taken, settled, killed_at={0: 11.0}).broken == broken


def test_what_was_refused_and_came_is_counted() -> None:
    counts = judge({"1.1": Sent("1.1", (OK,), "451 4.3.0")}, [COME], {}, {}).counts
    assert counts["refused and kept"] == 1
