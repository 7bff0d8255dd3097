"""What is left of a run: a table in docs/lab.md."""

from __future__ import annotations

import pytest

from vagrant.lab import places, plan, report
from vagrant.lab.report import Case, Facts, Outcome

XML = """\
<testsuites><testsuite name="pytest">
<testcase classname="tests.vm.test_mail" name="test_a[x|y]" time="1.6"/>
<testcase classname="tests.vm.test_mail" name="test_b" time="2.0"><failure message="no">text</failure></testcase>
<testcase classname="tests.vm.test_mail" name="test_c" time="0.1"><skipped message="not | here"/></testcase>
</testsuite></testsuites>
"""
FACTS = Facts("2026-01-02", "bookworm", "6.1.0-1", "qemu (tcg)", (("tests", 3.7),))


def test_cases() -> None:
    assert report.cases(XML) == [
        Case("vm.test_mail", "test_a[x|y]", 1.6, Outcome.PASSED),
        Case("vm.test_mail", "test_b", 2.0, Outcome.FAILED),
        Case("vm.test_mail", "test_c", 0.1, Outcome.SKIPPED, "not | here"),
    ]


def test_the_table_says_how_it_went() -> None:
    lines = report.markdown(FACTS, report.cases(XML)).splitlines()
    told = "1 passed, 1 failed, 1 skipped"
    assert lines[0] == f"2026-01-02, Debian bookworm, Linux 6.1.0-1, qemu (tcg): **{told}** in 4 s."
    assert "| tests | 4 |" in lines
    assert lines[-3:] == [
        "| `vm.test_mail.test_a[x\\|y]` | passed | 2 |",
        "| `vm.test_mail.test_b` | failed | 2 |",
        "| `vm.test_mail.test_c` | skipped: not \\| here | 0 |",
    ]


def test_no_test_is_no_success() -> None:
    assert "**no test ran**" in report.markdown(FACTS, [])


@pytest.mark.parametrize("suite", plan.Suite)
def test_its_place_in_the_document(suite: plan.Suite) -> None:
    document = (places.ROOT / "docs/lab.md").read_text()
    once = report.put(document, suite, "one \\1 line\n")
    assert "\none \\1 line\n<!-- end of" in once
    assert report.put(once, suite, "another\n") == report.put(document, suite, "another\n")
    assert len(report.put(document, suite, "").splitlines()) <= len(document.splitlines())


def test_a_document_without_a_place() -> None:
    with pytest.raises(ValueError, match="0 sections for bookworm"):
        report.put("# Lab\n", "bookworm", "")
