"""Each question that people ask is answered within the limit, in processor time, whatever else the machine does.

`python -m tests.bench.tracing` measures it with ten million.
"""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.bench.tracing import MOST_S, build, measure

MAILS = 6_000


@pytest.fixture(scope="module")
def directory(tmp_path_factory: pytest.TempPathFactory) -> Path:
    place = tmp_path_factory.mktemp("index")
    build(place, MAILS, lambda _: None)
    return place


def test_each_question_is_answered_in_time(directory: Path) -> None:
    found = measure(directory, MAILS, rounds=1)
    assert {name for name, (_, _, shown) in found.items() if not shown} == {"what there is not"}
    assert {name: cpu_s for name, (_, cpu_s, _) in found.items() if cpu_s > MOST_S} == {}
