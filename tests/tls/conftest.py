"""The loop that the interceptor has."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable

import pytest
import uvloop

from tests.smtp.box import Run


@pytest.fixture
def run() -> Run:
    def on_loop(work: Awaitable[None]) -> None:
        async def timed() -> None:
            async with asyncio.timeout(60):
                await work

        with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
            runner.run(timed())

    return on_loop
