"""What a mistake in somebody's TOML file is called, whichever file it is: pydantic's errors in the words of people.

Pure. Which file and line it is, the caller knows; what is known in a table, its schema.
"""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType

from pydantic_core import ErrorDetails, PydanticCustomError

from hwprofiles.shown import cut, shown

MOST_REASON = 300  # letters; a value of a megabyte must not hide what is wrong with it
_LIST = ("a list", "put it in brackets: [ … ]")
_TABLE = ("a table", "write it as a [table]")
_TYPES: Mapping[str, tuple[str, str]] = MappingProxyType(
    {
        "string_type": ("a text", 'put it in quotes: "…"'),
        "bool_type": ("true or false", "write true or false, without quotes"),
        "int_type": ("a whole number", "write it without quotes and without a fraction"),
        "tuple_type": _LIST,
        "frozen_set_type": _LIST,
        "model_type": _TABLE,
        "dataclass_type": _TABLE,
        "dict_type": _TABLE,
    }
)


def mistake(reason: str, remedy: str) -> PydanticCustomError:
    """A mistake in one value."""
    return PydanticCustomError("mistake", "{reason}", {"reason": cut(reason, MOST_REASON), "remedy": remedy})


def told(details: ErrorDetails) -> tuple[str, str]:
    """What is wrong, and the remedy; that of a key that is missing or unknown is the schema's to say, and "" here."""
    context, value = details.get("ctx", {}), details["input"]
    match details["type"]:
        case "mistake":
            return context["reason"], context["remedy"]
        case "missing":
            return "is missing", ""
        case "extra_forbidden" | "unexpected_keyword_argument":
            return "is not a known key", ""
        case "greater_than_equal":
            return f"{value} is too low", f"the least is {context['ge']}"
        case "less_than_equal":
            return f"{value} is too high", f"the most is {context['le']}"
        case "too_long":
            return f"has {context['actual_length']}, more than {context['max_length']}", "give fewer"
        case "too_short":
            return "is an empty list", "leave it out, or name one"
        case "enum":
            return f"{shown(value)} is not one of {context['expected'].replace(chr(39), '')}", "choose one of them"
        case kind if kind in _TYPES:
            wanted, remedy = _TYPES[kind]
            return f"{shown(value)} is not {wanted}", remedy
    return details["msg"], "see the sample"
