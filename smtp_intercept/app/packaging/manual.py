"""The manual pages tollbridge(8) and tollbridge.toml(5), made from the command's words and the sample. Pure."""

from __future__ import annotations

import re
from collections.abc import Iterator

from smtp_intercept.app.exits import MEANS
from smtp_intercept.app.packaging.words import Option, Word

_FILES = (
    ("/etc/tollbridge/tollbridge.toml", "The configuration, tollbridge.toml(5)."),
    ("/etc/tollbridge/profiles/*.toml", "Hardware profiles of one's own; they go over those of the package by name."),
    ("/run/tollbridge", "The running gateway's files; ledger.jsonl is what undoes up."),
    ("/var/lib/tollbridge/last-good.toml", "The last configuration that mail was inspected with."),
    ("/var/log/tollbridge/mail.log", "A JSON line for each message and each session."),
    ("/var/spool/tollbridge", "Mail that the built-in MTA has accepted and not yet delivered."),
)
_UNITS = (
    ("tollbridge-bridge.service", "Makes the bridge and the mail lane at boot (up), takes them back (down)."),
    ("tollbridge-relay.service", "Keeps the relays of bypass hardware (hw keep), where there is any."),
    ("tollbridge.service", "Inspects mail while it runs (run); stopped, the box is a wire."),
)
_TABLE = re.compile(r"(\[\[?[\w.]+\]?\])(?:\s+#\s*(.*))?$")
_KEY = re.compile(r"(\w+) = (.*?)(?:\s+#\s*(\[.*?\])?\s*(.*))?$")


def command(root: Word, version: str) -> str:
    """tollbridge(8)."""
    parts = [_head("TOLLBRIDGE", 8, version), _section("NAME"), "tollbridge \\- a transparent SMTP gateway"]
    parts += [_section("SYNOPSIS"), ".B tollbridge\n[\\fIOPTION\\fR ...] \\fIVERB\\fR [\\fIARGUMENT\\fR ...]"]
    parts += [_section("DESCRIPTION"), _text(root.text), _section("OPTIONS"), *map(_option, root.options)]
    parts += [_section("VERBS")]
    for word in root.walk():
        if word.path:
            parts += [f".SS {_text(' '.join(word.path))}", _text(word.text), *map(_option, _own(word))]
    parts += [_section("EXIT STATUS"), *(_item(str(status.value), meaning) for status, meaning in MEANS.items())]
    parts += [_section("UNITS"), *(_item(name, text) for name, text in _UNITS)]
    parts += [_section("FILES"), *(_item(name, text) for name, text in _FILES)]
    parts += [_section("SEE ALSO"), ".BR tollbridge.toml (5),\n.BR nft (8),\n.BR bridge (8)"]
    return "\n".join(parts) + "\n"


def _own(word: Word) -> Iterator[Option]:
    return (option for option in word.options if "--help" not in option.flags)


def configuration(sample: str, version: str) -> str:
    """tollbridge.toml(5): every table and key of the sample, with its default and meaning."""
    parts = [_head("TOLLBRIDGE.TOML", 5, version), _section("NAME")]
    parts += ["tollbridge.toml \\- configuration of the transparent SMTP gateway", _section("DESCRIPTION")]
    parts += [
        "One TOML file. Only bridge.ports must be given. "
        "Keys stand under their table, with an example; the default stands behind it."
    ]
    comment: list[str] = []
    for line in sample.splitlines()[2:]:
        if found := _TABLE.match(line):
            parts += [_section(found[1]), *map(_text, filter(None, (found[2], *comment)))]
            comment = []
        elif found := _KEY.match(line):
            parts += [*([".PP", *map(_text, comment)] if comment else []), _key(*found.groups(""))]
            comment = []
        elif line.startswith("# "):
            comment.append(line[2:])
    parts += [_section("SEE ALSO"), ".BR tollbridge (8)"]
    return "\n".join(parts) + "\n"


def _key(name: str, example: str, default: str, meaning: str) -> str:
    said = [f"{meaning.rstrip(',;')}." if meaning else "", f"Default: {default[1:-1]}." if default else ""]
    return f".TP\n\\fB{_text(name)}\\fR = {_text(example)}\n" + _text(" ".join(filter(None, said)) or "See above.")


def _option(option: Option) -> str:
    flags = ", ".join(f"\\fB{_text(flag)}\\fR" for flag in option.flags)
    value = f"\\fI{_text(option.value)}\\fR" if option.value else ""
    return f".TP\n{' '.join(filter(None, (flags, value)))}\n{_text(option.text)}"


def _item(name: str, text: str) -> str:
    return f".TP\n.I {_text(name)}\n{_text(text)}"


def _head(title: str, section: int, version: str) -> str:
    names = f'{title} {section} "" "tollbridge {version}" "System administration"'
    return f".\\\" Made from the program's own words.\n.TH {names}"


def _section(name: str) -> str:
    return f'.SH "{_text(name)}"'


def _text(text: str) -> str:
    """Safe for roff: no line is a request, no character is an escape."""
    escaped = text.replace("\\", "\\e").replace("-", "\\-").replace("`", "").replace("§", "\\(sc").replace("…", "...")
    return f"\\&{escaped}" if escaped[:1] in (".", "'") else escaped
