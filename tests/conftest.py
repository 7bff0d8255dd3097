"""The same code gets the same answer: laws are tried on examples that their test alone decides. `make fuzz` looks
further."""

from __future__ import annotations

import pytest
from hypothesis import settings

# No deadline: a slow machine is no fault of the code.
settings.register_profile("repeatable", derandomize=True, deadline=None)
settings.load_profile("repeatable")

# Begun first: what takes minutes for itself would, begun last, keep all others waiting.
LONG = (
    "tests/stock/",
    *(
        f"tests/kernel/test_{name}.py"
        for name in ("equality", "invisible", "mta_box", "up_down", "suites", "direction", "bypass", "bad_input")
    ),
    "tests/kernel/",
)


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    if hasattr(config, "workerinput"):  # one of several (pytest-xdist); a run of its own keeps the order it was asked
        items.sort(key=lambda item: next((rank for rank, place in enumerate(LONG) if place in item.nodeid), len(LONG)))
