"""What `status` tells of the rules. Data in, data out."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from typing import Any

from rich.table import Table


def page(*reports: Mapping[str, Any]) -> dict[str, Any]:
    """Its part of the page."""
    return {"rules": counted(*reports), "list_errors": errors(*reports), "filters": filters(*reports)}


def filters(*reports: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Each as each process has it."""
    return [dict(each) for report in reports for each in report.get("filters", [])]


def resting(found: list[dict[str, Any]]) -> list[str]:
    """Those that do not work, as `status` says it."""
    return [
        f"filter {each['name']} is {each['state']}: {each['last_error']}" for each in found if each["state"] != "works"
    ]


def filter_table(found: list[dict[str, Any]]) -> Table:
    """For people."""
    table = Table("filter", "state", "messages", "failures", "not asked", "usually", "at most")
    for each in found:
        counts = (str(each[name]) for name in ("messages", "failures", "skipped"))
        table.add_row(each["name"], each["state"], *counts, f"{each['median_ms']} ms", f"{each['slowest_ms']} ms")
    return table


def counted(*reports: Mapping[str, Any]) -> dict[str, dict[str, int]]:
    """By rule: how often it decided something, and would have."""
    done, would = (
        sum((Counter(report.get(f"{what}_counts", {})) for report in reports), Counter[str]())
        for what in ("rules", "would")
    )
    return {name: {"done": done[name], "would": would[name]} for name in sorted({**done, **would})}


def errors(*reports: Mapping[str, Any]) -> list[str]:
    """Of lists that are used as they were."""
    return sorted({error for report in reports for error in report.get("list_errors", [])})


def warnings(found: list[str]) -> list[str]:
    """The same, as `status` says it."""
    return [f"a list of the rules is used as it was: {error}" for error in found]


def table(counts: Mapping[str, Mapping[str, int]]) -> Table:
    """For people."""
    rules = Table("rule", "messages", "would have been")
    for name, number in counts.items():
        rules.add_row(name, str(number["done"]), str(number["would"]))
    return rules
