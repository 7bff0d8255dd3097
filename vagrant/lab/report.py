"""The tests' results as a Markdown table, and its place in docs/lab.md. Pure."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum
from xml.etree import ElementTree

SECTION = "<!-- {suite}: written by make lab-test -->\n{text}<!-- end of {suite} -->\n"


class Outcome(StrEnum):
    PASSED = "passed"
    FAILED = "failed"
    SKIPPED = "skipped"


@dataclass(frozen=True, slots=True)
class Case:
    """One test. ``why`` is the reason of a skipped one."""

    module: str
    name: str
    seconds: float
    outcome: Outcome
    why: str = ""


@dataclass(frozen=True, slots=True)
class Facts:
    """What was tested on: the date, the Debian, its kernel, how the machines ran, and what the steps before took."""

    date: str
    suite: str
    kernel: str
    runner: str
    steps: tuple[tuple[str, float], ...]


def cases(xml: str) -> list[Case]:
    """The test cases of a JUnit report, as pytest writes it; ParseError if it is none."""
    return [_case(element) for element in ElementTree.fromstring(xml).iter("testcase")]  # noqa: S314 - our own file


def _case(element: ElementTree.Element) -> Case:
    module = element.get("classname", "").removeprefix("tests.")
    skipped = element.find("skipped")
    bad = element.find("failure") is not None or element.find("error") is not None
    outcome = Outcome.FAILED if bad else Outcome.PASSED if skipped is None else Outcome.SKIPPED
    why = "" if skipped is None else skipped.get("message", "")
    return Case(module, element.get("name", ""), float(element.get("time", "0")), outcome, why)


def markdown(facts: Facts, results: Sequence[Case]) -> str:
    """The report: what was run on what, a row for each test, what the steps took."""
    count = {outcome: sum(case.outcome is outcome for case in results) for outcome in Outcome}
    told = ", ".join(f"{number} {outcome}" for outcome, number in count.items() if number) or "no test ran"
    took_s = sum(case.seconds for case in results)
    lines = [
        f"{facts.date}, Debian {facts.suite}, Linux {facts.kernel}, {facts.runner}: **{told}** in {took_s:.0f} s.",
        "",
        "| step | s |",
        "| --- | ---: |",
        *(f"| {name} | {seconds:.0f} |" for name, seconds in facts.steps),
        "",
        "| test | | s |",
        "| --- | --- | ---: |",
        *(_row(case) for case in results),
    ]
    return "\n".join(lines) + "\n"


def _row(case: Case) -> str:
    why = f": {case.why}" if case.why else ""
    told = f"{case.outcome}{why}".replace("|", "\\|").replace("\n", " ")
    name = f"{case.module}.{case.name}".replace("|", "\\|")
    return f"| `{name}` | {told} | {case.seconds:.0f} |"


def put(document: str, suite: str, text: str) -> str:
    """The document with the suite's section replaced; ValueError if it has none."""
    begin, end = (re.escape(mark) for mark in SECTION.format(suite=suite, text="\0").split("\0"))
    section = SECTION.format(suite=suite, text=text)
    replaced, times = re.subn(f"{begin}.*?{end}", lambda _: section, document, flags=re.DOTALL)
    if times != 1:
        raise ValueError(f"{times} sections for {suite}; one begins with {SECTION.format(suite=suite, text='')!r}")
    return replaced
