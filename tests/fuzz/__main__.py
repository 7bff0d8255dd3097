"""``make fuzz``: every target in turn, a minute each way, until it is stopped or something breaks.

By atheris, if it is there, guided by coverage and going on each time from where it was; and by Hypothesis alone, which
sees what happens inside a regular expression no worse.
"""

from __future__ import annotations

import itertools
import subprocess
import sys
import time
from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path

from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

from tests.fuzz.command_lines import in_a_namespace
from tests.fuzz.targets import TARGETS

ROUND_S = 60
END_S = 30.0  # beyond it, for the last example
BATCH = 2_000
TYPED = "command_lines"
FOUND = Path(".fuzz")  # by target: what reached new code, and what broke it


class FoundError(Exception):
    """A target failed; the text is what it said."""


def guided(name: str) -> str:
    """A round under atheris."""
    folder = FOUND / name
    folder.mkdir(parents=True, exist_ok=True)
    command = [sys.executable, "-m", "tests.fuzz.guided", name]
    options = [f"-max_total_time={ROUND_S}", f"-artifact_prefix={FOUND}/", str(folder)]
    done = subprocess.run([*command, *options], check=False, timeout=ROUND_S + END_S, capture_output=True, text=True)
    if done.returncode:
        raise FoundError(f"{done.stdout}{done.stderr}\nagain by: {' '.join(command)} the file that it names")
    return f"{len(list(folder.iterdir()))} ways through the code"


def blind(name: str) -> str:
    """A round of Hypothesis alone."""
    began_at, examples = time.monotonic(), 0
    while time.monotonic() - began_at < ROUND_S:
        batch(name)
        examples += BATCH
    return f"{examples} examples"


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


def typed(name: str) -> str:
    """A round of command lines, each batch by another chance, in a namespace of its own."""
    began_at, lines = time.monotonic(), 0
    while time.monotonic() - began_at < ROUND_S:
        done = in_a_namespace(BATCH, time.time_ns())
        if done.returncode:
            raise FoundError(f"{done.stdout}{done.stderr}")
        lines += BATCH
    return f"{lines} command lines"


def main(names: list[str]) -> None:
    ways: list[Callable[[str], str]] = [*([guided] if find_spec("atheris") else []), blind]
    rounds = [(name, way) for name in names or (*TARGETS, TYPED) for way in ([typed] if name == TYPED else ways)]
    for name, search in itertools.cycle(rounds):
        print(f"{name}: {search(name)}, nothing found", flush=True)


if __name__ == "__main__":
    try:
        main(sys.argv[1:])
    except FoundError as found:
        sys.exit(str(found))
    except KeyboardInterrupt:
        sys.exit(130)
