"""Both event loops."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable

import pytest
import uvloop

from tests.smtp.box import Run


@pytest.fixture(params=["asyncio", "uvloop"])
def run(request: pytest.FixtureRequest) -> Run:
    def on_loop(work: Awaitable[None]) -> None:
        async def timed() -> None:
            async with asyncio.timeout(40):
                await work

        with asyncio.Runner(loop_factory=uvloop.new_event_loop if request.param == "uvloop" else None) as runner:
            runner.run(timed())

    return on_loop
