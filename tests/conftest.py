"""The same code gets the same answer: laws are tried on examples that their test alone decides (`make fuzz` looks
further), nothing is run again, and what is not shown is told (`tests.unshown`)."""

from __future__ import annotations

from collections.abc import Generator
from pathlib import Path

import pytest
from hypothesis import settings

from tests import unshown

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


def pytest_addoption(parser: pytest.Parser) -> None:
    text = "of several runs, the last tells what none has shown: each adds its own to this file"
    parser.addoption("--unshown", type=Path, metavar="FILE", help=text)


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    if hasattr(config, "workerinput"):  # one of several (pytest-xdist); a run of its own keeps the order it was asked
        items.sort(key=lambda item: next((rank for rank, place in enumerate(LONG) if place in item.nodeid), len(LONG)))


@pytest.hookimpl(wrapper=True, tryfirst=True)
def pytest_runtest_makereport() -> Generator[None, pytest.TestReport, pytest.TestReport]:
    report = yield
    unshown.judged(report)
    return report


@pytest.hookimpl(wrapper=True, tryfirst=True)
def pytest_make_collect_report() -> Generator[None, pytest.CollectReport, pytest.CollectReport]:
    report = yield
    unshown.judged(report)
    return report


@pytest.hookimpl(wrapper=True, tryfirst=True)
def pytest_terminal_summary(
    terminalreporter: pytest.TerminalReporter, config: pytest.Config
) -> Generator[None, None, None]:
    yield  # what failed, and the list of it
    if hasattr(config, "workerinput"):
        return
    path: Path | None = config.getoption("--unshown")
    earlier = path.read_text().splitlines() if path and path.exists() else []
    skipped = [unshown.reason(report) for report in terminalreporter.getreports("skipped")]
    lines = [*dict.fromkeys([*earlier, *unshown.told(skipped, config.getoption("markexpr"))])]
    if path:
        path.write_text("".join(f"{line}\n" for line in lines))
    if lines:
        terminalreporter.section("not shown by this run")
        terminalreporter.write("".join(f"{line}\n" for line in lines))
