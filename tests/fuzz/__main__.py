"""``make fuzz``: every target in turn, a minute each, with new examples, until it is stopped or something breaks."""

from __future__ import annotations

import itertools
import sys
import time

from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

from tests.fuzz.targets import TARGETS

ROUND_S = 60.0
BATCH = 2_000


def batch(name: str) -> None:
    @settings(
        max_examples=BATCH,
        deadline=None,
        database=None,
        phases=[Phase.generate, Phase.shrink],
        suppress_health_check=list(HealthCheck),
    )
    @given(st.data())
    def run(data: st.DataObject) -> None:
        TARGETS[name](data)

    run()


def main(names: list[str]) -> None:
    for name in itertools.cycle(names or TARGETS):
        began_at, examples = time.monotonic(), 0
        while time.monotonic() - began_at < ROUND_S:
            batch(name)
            examples += BATCH
        print(f"{name}: {examples} examples, nothing found", flush=True)


if __name__ == "__main__":
    main(sys.argv[1:])
