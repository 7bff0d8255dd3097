"""The dialogues through a running gateway on loopback: real sockets, both event loops, policies included.

client ──> gateway ──> server          both ends are scripted; `tests/kernel/test_dialogues.py` does it on the wire
"""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.smtp.box import Run, box, connected, listening
from tests.smtp.replay import check_live, check_log
from tests.smtp.script import FILES, read_script


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_dialogue(run: Run, path: Path) -> None:
    script = read_script(path)
    script.limits |= {"error_delay_s": 0.01, "error_delay_step_s": 0.01} if script.pauses else {}
    rules = script.rules

    async def work() -> None:
        async with listening() as (port, taken), box(port, rules=lambda passage: rules) as it:
            client = await connected(it.port)
            await check_live(script, client, await taken())
            (session,) = await it.over()
            check_log(script, it.messages(), session)

    run(work())
