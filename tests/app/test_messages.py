"""What people are told, over all keys and options: the right key, in their file's words, in one line that is not long.

Every key of the schema is given every kind of value that TOML has; every option of the command that reads its value is
given junk. Nothing of Python's shows: no ``True``, no tuple, no name of a class or a function.
"""

from __future__ import annotations

import argparse
import re
import types
import typing
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from pydantic import BaseModel

from smtp_intercept.app import cli
from smtp_intercept.app import config as configuration
from smtp_intercept.app.config import MOST_MISTAKES, ConfigError, ConfigErrors, parse
from smtp_intercept.app.schema import Config
from smtp_intercept.app.subcommands import Parser

# What would show a person how the program is written.
PYTHON = re.compile(
    r"\b(True|False|None)\b|datetime|PosixPath|IPv[46](Address|Network|Interface)|<class|object at 0x|\{'|\(\)|\('|,\)"
    r"|Traceback|[Ii]nput should|__|_[a-z]+ value|\blambda\b|\bdict\b|\btuple\b|\bstr\b"
)
MOST = 700
# In TOML's words: each kind of value, and the odd ones of each.
VALUES = (
    *("true", "7", "-1", "1.5", "nan", f"1{'0' * 40}", "[]", "[true, 1.5]", "[['x']]", "{}", "{ x = 1, 'y z' = [] }"),
    *("2026-01-31", "2026-01-31T12:00:00Z", "12:00:00", "''", "'\\'", '"\\u001b[2J\\n"', f"'{'x' * 5000}'"),
    *("'*.example.com'", "[2026-01-31]", "['', 'a b', '999.1.1.1', 'a/b', 'x@example.com']", "[{ x = 1 }]"),
)
NAMES = {"port": "enp1s0", "tls_for": "example.com"}  # of tables that people name


def keys(table: type[BaseModel], path: tuple[str, ...] = ()) -> Iterator[tuple[str, ...]]:
    """Every key, ``*`` standing for the one entry of a list of tables."""
    for name, field in table.model_fields.items():
        inner = [part for part in parts(field.annotation) if isinstance(part, type) and issubclass(part, BaseModel)]
        many = "tuple" in str(field.annotation) and inner
        named = (NAMES[name],) if name in NAMES and table is not Config and "Mapping" in str(field.annotation) else ()
        yield (*path, name)
        for below in inner:
            yield from keys(below, (*path, name, *(("*",) if many else named)))
        if named and not inner:
            yield (*path, name, *named)


def parts(annotation: Any) -> Iterator[Any]:
    yield annotation
    for part in typing.get_args(annotation) if not isinstance(annotation, types.GenericAlias) else annotation.__args__:
        yield from parts(part)


KEYS = sorted(set(keys(Config)))
FILLED = {
    ("protected", "*"): "domain = 'example.com'\nservers = ['192.0.2.20']",
    ("pickup", "rule", "*"): "action = 'pass'",
    ("bypass", "*"): "ports = ['enp1s0', 'enp2s0']\nkind = 'silicom'",
    ("rule", "*"): "name = 'r'\nthen = { refuse = '550 no' }",
    ("filter", "*"): "name = 'f'\naddress = 'unix:/run/f/f'",
    ("tls", "identity", "*"): "certificate = '/c'\nkey = '/k'",
    ("tls", "authority"): "certificate = '/c'\nkey = '/k'",
    ("relay",): "host = 'relay.example.net'",
    ("bridge",): "ports = ['enp1s0', 'enp2s0']",
}


def text_with(path: tuple[str, ...], value: str) -> str:
    """A configuration that is sound but for that key."""
    *table, key = path
    tables = dict.fromkeys([("bridge",), tuple(table)])
    lines = []
    if not table:
        return f"{key} = {value}\n" + ("" if key == "bridge" else f"[bridge]\n{FILLED['bridge',]}\n")
    for at in tables:
        name = ".".join(f'"{part}"' if "." in part else part for part in at if part != "*")
        lines.append(f"[[{name}]]" if at[-1] == "*" else f"[{name}]")
        lines += [
            line for line in FILLED.get(at, "").splitlines() if at != tuple(table) or not line.startswith(f"{key} ")
        ]
        lines += [f"{key!r} = {value}"] if at == tuple(table) else []
    return "\n".join(lines) + "\n"


@pytest.mark.parametrize("path", KEYS, ids=".".join)
def test_a_value_of_any_kind_is_told_with_its_key_and_in_the_files_words(path: tuple[str, ...]) -> None:
    text, refused = "", 0
    for value in VALUES:
        text = text_with(path, value)
        errors = mistakes(text)
        refused += bool(errors)
        for said in map(str, errors):
            assert not PYTHON.search(said), said
            assert len(said) <= MOST, said
            assert said.isprintable(), said
        about = [error for error in errors if at(error.key, path)]
        # What does not go together with another key may be told of that one.
        assert all(error in about or path[-1] in error.reason for error in errors), (value[:80], [*map(str, errors)])
        line = text[: text.index(value)].count("\n") + 1
        assert {error.line for error in about} <= {line, line - 1}, [*map(str, about)]
    assert refused >= len(VALUES) // 2


def mistakes(text: str) -> tuple[ConfigError, ...]:
    try:
        parse(text, Path("/etc/t.toml"))
    except ConfigErrors as errors:
        return errors.errors
    return ()


def test_a_file_with_thousands_of_mistakes_is_told_of_in_seconds() -> None:
    errors = mistakes(f"[bridge]\nports = ['p0', 'p1']\nvlans = [{'0, ' * 5000}]\n")
    assert len(errors) == MOST_MISTAKES + 1
    assert str(errors[-1]) == f"/etc/t.toml: has {5000 - MOST_MISTAKES} mistakes more; mend these first"


def at(key: str, path: tuple[str, ...]) -> bool:
    """Whether the error's key is that one, or within it."""
    plain = tuple(re.sub(r"\[\d+\]", ".*", key).replace('"example.com"', "example‚com").split("."))
    wanted = tuple(part.replace("example.com", "example‚com") for part in path)
    return plain[: len(wanted)] == wanted or plain == wanted[:-1] or plain == ("",)


def actions(parser: Parser, path: tuple[str, ...] = ()) -> Iterator[tuple[tuple[str, ...], argparse.Action]]:
    for action in parser._actions:
        if action.type is not None and action.type is not Path and action.option_strings:
            yield path, action
    for name, verb in (parser.verbs.choices if parser.verbs else {}).items():
        yield from actions(verb, (*path, name))


@pytest.mark.parametrize(("path", "action"), [pytest.param(*a, id=" ".join(a[0])) for a in actions(cli._parser())])
def test_an_option_says_what_it_takes(
    path: tuple[str, ...], action: argparse.Action, capsys: pytest.CaptureFixture[str]
) -> None:
    for junk in ("soon", "", "1e9", "99999999999999999999", "1.5", "-"):
        try:
            cli._parser().parse_args([*path, f"{action.option_strings[0]}={junk}"])
        except SystemExit:
            error = capsys.readouterr().err.splitlines()[-1]
            assert not PYTHON.search(error), error
            assert "invalid" not in error, error


def test_a_byte_order_mark_is_no_mistake(tmp_path: Path) -> None:
    """Nor is it a part of the line that a mistake is in."""
    path = tmp_path / "t.toml"
    path.write_bytes("\ufeff[bridge]\nports = ['enp1s0', 'enp2s0']\n".encode())
    assert configuration.load(path).bridge.ports == ("enp1s0", "enp2s0")
    path.write_bytes("\ufeff[bridge]\nports = ['enp1s0']\n".encode())
    with pytest.raises(ConfigErrors, match=r"t\.toml:2: bridge\.ports: has 1"):
        configuration.load(path)
    path.write_bytes("[bridge]\n".encode("utf-16"))
    with pytest.raises(ConfigErrors, match=r"t\.toml:1: byte 0xff is not UTF-8; save it as UTF-8"):
        configuration.load(path)


@pytest.mark.parametrize(
    ("line", "named"),
    [
        ("ports = [\u201cp0\u201d, 'p1']", "U+201C (left double quotation mark), U+201D (right double quotation mark)"),
        ("ports\u00a0= ['p0', 'p1']", "U+00A0 (no-break space)"),
        ("\ufeffports = ['p0', 'p1']", "U+FEFF (zero width no-break space)"),
        ("\u200bports = ['p0', 'p1']", "U+200B (zero width space)"),
    ],
)
def test_letters_that_only_look_right_are_named(line: str, named: str) -> None:
    """Pasted from a page, or glued together from two files."""
    (error,) = mistakes(f"[bridge]\n{line}\n")
    assert str(error).startswith("/etc/t.toml:2: ")
    assert f": the line has {named}; type it anew" in str(error)
