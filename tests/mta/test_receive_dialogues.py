"""Dialogues as text files (`script` says how they are written), each whole, octet by octet and in random cuts, on both
event loops.
"""

from __future__ import annotations

import random
from collections.abc import Iterable
from pathlib import Path

import pytest

from tests.mta.script import FILES, bytewise, play, read_script, whole
from tests.smtp.box import Run


def test_there_are_dialogues() -> None:
    assert len(FILES) >= 19


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_dialogue(path: Path, run: Run) -> None:
    script = read_script(path)
    run(play(script, whole))
    run(play(script, bytewise))
    for seed in range(5):
        chance = random.Random(seed)

        def in_pieces(data: bytes, chance: random.Random = chance) -> Iterable[bytes]:
            while data:
                size = chance.choice([1, 2, 3, 5, 20, 100])
                yield data[:size]
                data = data[size:]

        run(play(script, in_pieces))
