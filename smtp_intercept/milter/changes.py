"""What filters do to a message: to its header, its envelope and its body.

Pure. What is not changed stays as it is to the octet, however odd. A header ends, for a filter, where the first line is
that is no field: what a receiver would show as text must not pass for a header that nobody scans.
"""

from __future__ import annotations

import re
from collections.abc import Iterable

from smtp_intercept.inspect.message import fields, name_of
from smtp_intercept.milter.envelope import Path
from smtp_intercept.milter.replies import (
    AddHeader,
    AddRecipient,
    Change,
    ChangeHeader,
    ChangeSender,
    DeleteRecipient,
    InsertHeader,
)
from smtp_intercept.policy import Rewritten

_FIELD = re.compile(rb"([!-9;-~]+)[ \t]*:(.*)", re.DOTALL)
_LINE_END = re.compile(rb"\r?\n")
_RESET, _MAIL, _RCPT = b"RSET\r\n", b"MAIL %b\r\n", b"RCPT %b\r\n"


def split(header: bytes) -> tuple[list[bytes], bytes]:
    """Of a header without its blank line: the fields, each with its line ends; and what stands behind them."""
    found, at = list[bytes](), 0
    for line in fields(header):
        if not name_of(line):
            break
        found.append(line)
        at += len(line)
    return found, header[at:]


def told(field: bytes, *, leading_space: bool) -> tuple[bytes, bytes]:
    """A field's name and value as a filter has them: LF for line ends, and one space behind the colon left out, unless
    it has asked for all (SMFIP_HDR_LEADSPC)."""
    found = _FIELD.fullmatch(field.rstrip(b"\r\n"))
    assert found is not None
    value = _LINE_END.sub(b"\n", found[2])
    return found[1], value if leading_space else value.removeprefix(b" ")


def edited(lines: Iterable[bytes], changes: Iterable[Change], *, leading_space: bool) -> list[bytes]:
    """The fields as a filter wants them."""
    found = list(lines)
    if found and not found[-1].endswith(b"\n"):
        found[-1] += b"\r\n"
    for change in changes:
        match change:
            case AddHeader(name, value):
                found.append(_field(name, value, leading_space))
            case InsertHeader(index, name, value):
                # Counted with the MTA's own Received:, of which a filter sees nothing (Postfix: milter8.c).
                found.insert(max(0, index - 1), _field(name, value, leading_space))
            case ChangeHeader(index, name, value):
                _change(found, index, name, _field(name, value, leading_space) if value else b"")
    return found


def _field(name: bytes, value: bytes, leading_space: bool) -> bytes:
    space = b"" if leading_space else b" "
    return name + b":" + space + value.replace(b"\n", b"\r\n") + b"\r\n"


def _change(lines: list[bytes], index: int, name: bytes, field: bytes) -> None:
    """One that is not there is added, as Sendmail does."""
    wanted = name.decode("ascii").lower()
    places = [number for number, line in enumerate(lines) if name_of(line) == wanted]
    if index <= len(places):
        lines[places[index - 1] : places[index - 1] + 1] = [field] if field else []
    elif field:
        lines.append(field)


def rewritten(sender: Path, recipients: Iterable[Path], changes: Iterable[Change]) -> Rewritten | None:
    """The envelope that filters have made; None: the one that there was. A recipient that was deleted last is gone, one
    that was added is there, once."""
    path, before = sender, list(recipients)
    left = list(before)
    for change in changes:
        match change:
            case ChangeSender(address, arguments):
                path = _path(b"FROM", address, arguments)
            case AddRecipient(address, arguments):
                added = _path(b"TO", address, arguments)
                if added.mailbox not in {each.mailbox for each in left}:
                    left.append(added)
            case DeleteRecipient(address):
                gone = Path(b"TO:<%b>" % address).mailbox
                left = [each for each in left if each.mailbox != gone]
    return _rewritten(sender, before, path, left)


def _rewritten(sender: Path, before: list[Path], path: Path, left: list[Path]) -> Rewritten | None:
    added = tuple(each.argument for each in left if each not in before)
    deleted = frozenset(each.mailbox for each in before if each not in left)
    another = path.argument if path != sender else None
    if not (added or deleted or another is not None):
        return None
    commands = [_RCPT % each for each in added]
    if deleted or another is not None:
        commands = [_RESET, _MAIL % path.argument, *(_RCPT % each.argument for each in left)]
    return Rewritten(tuple(commands), another, added, deleted)


def _path(keyword: bytes, address: bytes, arguments: tuple[bytes, ...]) -> Path:
    return Path(b" ".join([keyword + b":<" + address + b">", *arguments]))
