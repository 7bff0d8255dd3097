"""Lists of the rules as `check`, `up` and `run` look at them: what the process that hears strangers could not use."""

from __future__ import annotations

from pathlib import Path
from typing import Any, cast

import pytest

from smtp_intercept.app.config import parse
from smtp_intercept.app.objections import OBJECTIONS, Asked, Verb
from smtp_intercept.app.rulings import Rulings
from smtp_intercept.inspect.lists import ListError

CONFIG = """
[bridge]
ports = ["p0", "p1"]
[[rule]]
name = "r"
when = {{ sender = ["a@example.com", "@{path}"], client_not = "@{path}" }}
then.accept = true
"""


def said(path: Path) -> list[str]:
    nothing = cast(Any, None)
    asked = Asked(parse(CONFIG.format(path=path)), nothing, nothing, nothing)
    (objection,) = (each for each in OBJECTIONS if each.find.__name__ == "_lists")
    assert objection.by & Verb.RUN
    return [f"{m.key}: {m.reason}; {m.remedy}" for m in objection.find(asked)]


@pytest.mark.parametrize(
    ("text", "mode", "told"),
    [
        (None, 0, ["No such file or directory; make it, readable for everybody"] * 2),
        ("", 0o644, []),
        ("# nobody yet\n", 0o600, ["is not for every user to read; chmod o+r {path}"] * 2),
        ("192.0.2.1\n", 0o644, ["1: '192.0.2.1' is not a name; write it like"]),
        ("example.com\n", 0o644, ["1: 'example.com' does not appear to be an IPv4 or IPv6 network; write it like"]),
    ],
)
def test_what_is_refused(tmp_path: Path, text: str | None, mode: int, told: list[str]) -> None:
    path = tmp_path / "list.txt"
    if text is not None:
        path.write_text(text)
        path.chmod(mode)
    found = said(path)
    assert len(found) == len(told)
    for error, wanted in zip(found, told, strict=True):
        assert error.startswith(f"rule[0].when: {path}")
        assert wanted.format(path=path) in error


def test_a_process_does_not_begin_with_half_of_its_rules(tmp_path: Path) -> None:
    with pytest.raises(ListError):
        Rulings(parse(CONFIG.format(path=tmp_path / "absent")))
