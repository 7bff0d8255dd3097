"""The fuzz targets for a bounded time; `make fuzz` runs them until it is stopped."""

from __future__ import annotations

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.fuzz.targets import TARGETS

EXAMPLES = {"session": 300, "peers": 300, "address": 500, "reply": 500}


@pytest.mark.parametrize("name", TARGETS)
def test_target(name: str) -> None:
    @settings(max_examples=EXAMPLES[name], deadline=None, suppress_health_check=list(HealthCheck))
    @given(st.data())
    def run(data: st.DataObject) -> None:
        TARGETS[name](data)

    run()
