"""Every key of a profile's file, and the bounds of those that are numbers, as its schema has them."""

from __future__ import annotations

from typing import Any

from pydantic import TypeAdapter

from hwprofiles.schema import FEATURES, ProfileFile

_SCHEMA = TypeAdapter(ProfileFile).json_schema()


def _properties(name: str) -> dict[str, Any]:
    table = _SCHEMA["properties"][name]
    where = table.get("$ref") or next((ref["$ref"] for ref in table.get("allOf", ())), None)
    found: dict[str, Any] = _SCHEMA["$defs"][where.rpartition("/")[2]]["properties"] if where else {}
    return found


TABLES = {name: frozenset(_properties(name)) for name in _SCHEMA["properties"] if _properties(name)}
TABLES["features"] = frozenset(FEATURES)
BOUNDS = {
    f"{name}.{key}": (entry["minimum"], entry["maximum"])
    for name in TABLES
    for key, entry in _properties(name).items()
    if entry.get("type") == "integer"
}
