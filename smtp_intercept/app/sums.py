"""What several processes of one kind say, as if one had said it.

Pure.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from typing import Any


def summed(reports: Iterable[Mapping[str, Any]]) -> dict[str, Any]:
    """Numbers, and numbers in tables, are added; of lists all items are kept, those of one name once; true is what all
    say. One report stays as it is, and of none there is nothing."""
    known = [report for report in reports if report]
    if len(known) == 1:
        return dict(known[0])
    keys = dict.fromkeys(key for report in known for key in report if key != "pid")
    return {key: _sum([report[key] for report in known if key in report]) for key in keys}


def _sum(values: list[Any]) -> Any:
    match values[0]:
        case bool():
            return all(values)
        case int():
            return sum(values)
        case Mapping():
            counts: Counter[str] = Counter()
            for table in values:
                counts.update(table)
            return dict(counts)
        case list():
            return list({_name(item): item for each in values for item in each}.values())
        case other:
            return other


def _name(item: Any) -> str:
    return str(item.get("name", item)) if isinstance(item, Mapping) else str(item)
