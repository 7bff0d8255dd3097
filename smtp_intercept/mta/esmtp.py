"""The arguments of MAIL and RCPT: a path and its parameters, of which only those that the MTA keeps its word on.

Pure. Takes what RFC 5321 §4.1.2 allows and the harmless habits of real clients: a blank after the colon, a path
without brackets, dots anywhere in a local part, long local parts. Whatever else is an `Answer`, never a guess.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from types import MappingProxyType
from typing import TypeVar

from smtp_intercept.answers import Answer
from smtp_intercept.mta.envelope import Body, Notify, Recipient

MAX_MAILBOX_OCTETS = 512  # RFC 5321 §4.5.3.1.3 asks for 256; VERP and SRS make longer ones
MAX_DOMAIN_OCTETS = 255  # RFC 5321 §4.5.3.1.2
MAX_ENVID_CHARACTERS = 100  # RFC 3461 §4.4
MAX_ORCPT_CHARACTERS = 500  # RFC 3461 §4.2

BAD_SENDER = Answer(501, "5.1.7 Bad sender address syntax")
BAD_RECIPIENT = Answer(501, "5.1.3 Bad recipient address syntax")
BAD_PARAMETER = Answer(501, "5.5.4 Bad parameter")
UNKNOWN_PARAMETER = Answer(555, "5.5.4 Unsupported parameter")  # RFC 5321 §4.1.1.11
NO_SMTPUTF8 = Answer(553, "5.6.7 Non-ASCII address without SMTPUTF8")  # RFC 6531 §3.5

_OTHER = "\x80-\ud7ff\ue000-\U0010ffff"  # no surrogates: they stand for octets that are no UTF-8
# One pass whatever the client sends. No possessive group in another one: Python 3.11.2 forgets where it began.
_ATOM = rf"[A-Za-z0-9!#$%&'*+/=?^_`{{|}}~.{_OTHER}-]++"
_QUOTED = rf'"(?:[ !#-\[\]-~{_OTHER}]|\\[ -~])*"'
_LABEL = rf"[A-Za-z0-9_{_OTHER}]++(?:-++[A-Za-z0-9_{_OTHER}]++)*"
_HOST = rf"(?:{_LABEL}(?:\.{_LABEL})*|\[[!-Z^-~]++\])"
_MAILBOX = rf"(?:{_QUOTED}|{_ATOM})(?:@({_HOST}))?"
_ROUTE = rf"(?:@{_HOST}(?:,@{_HOST})*:)?"  # RFC 5321 §4.1.1.3: taken and ignored
_ANGLED = re.compile(rf"[ \t]*+<{_ROUTE}({_MAILBOX}|)>(?= |\Z)")
_BARE = re.compile(rf"[ \t]*+({_MAILBOX})(?= |\Z)")
_PARAMETER = re.compile(rf"([A-Za-z0-9][A-Za-z0-9-]*+)(?:=([!-<>-~{_OTHER}]++))?")
_XTEXT = re.compile(r"(?:[!-*,-<>-~]|\+[0-9A-F]{2})++")  # RFC 3461 §4
_SIZE = re.compile(r"[0-9]{1,20}")  # RFC 1870 §3
# RFC 3461 §4.2; RFC 6533 §3 for the type "utf-8".
_ORCPT = re.compile(rf"[A-Za-z0-9-]++;[!-<>-~{_OTHER}]++")


class RefusedError(Exception):
    """What was sent is not taken; ``answer`` says why."""

    def __init__(self, answer: Answer) -> None:
        super().__init__(answer.text)
        self.answer = answer


@dataclass(frozen=True, slots=True)
class Mail:
    """What MAIL said. ``size_bytes``: announced (RFC 1870), or 0."""

    reverse_path: str
    size_bytes: int = 0
    body: Body = Body.SEVEN_BIT
    smtputf8: bool = False
    ret: str = ""
    envid: str = ""


def read_mail(argument: str, *, extended: bool) -> Mail:
    """From what follows "MAIL"; `RefusedError`. ``extended``: after EHLO, so that there may be parameters."""
    path, parameters = _split(argument, "FROM:", BAD_SENDER)
    _check(path, BAD_SENDER)
    mail = _apply(Mail(path), parameters, _OF_MAIL, extended=extended)
    if not mail.smtputf8 and not path.isascii():
        raise RefusedError(NO_SMTPUTF8)
    return mail


def read_recipient(argument: str, *, extended: bool, smtputf8: bool) -> Recipient:
    """From what follows "RCPT"; `RefusedError`. ``smtputf8``: MAIL had it."""
    path, parameters = _split(argument, "TO:", BAD_RECIPIENT)
    if path.lower() != "postmaster":  # RFC 5321 §4.5.1: the one without a domain
        _check(path or "?", BAD_RECIPIENT)
    if not smtputf8 and not path.isascii():
        raise RefusedError(NO_SMTPUTF8)
    return _apply(Recipient(path), parameters, _OF_RECIPIENT, extended=extended)


def _split(argument: str, keyword: str, bad: Answer) -> tuple[str, list[str]]:
    """The mailbox without source route, and the parameters."""
    if argument[: len(keyword)].upper() != keyword:
        raise RefusedError(bad)
    found = _ANGLED.match(argument, len(keyword)) or _BARE.match(argument, len(keyword))
    if found is None:
        raise RefusedError(bad)
    return found[1], argument[found.end() :].split()


def _check(path: str, bad: Answer) -> None:
    domain = path.rpartition("@")[2] if path.rpartition('"')[2].count("@") else ""
    long = len(path.encode()) > MAX_MAILBOX_OCTETS or len(domain.encode()) > MAX_DOMAIN_OCTETS
    if path and (not domain or long or not path.isprintable()):  # no bidirectional overrides, no C1 controls
        raise RefusedError(bad)


Said = TypeVar("Said", Mail, Recipient)


def _apply(
    said: Said,
    parameters: list[str],
    known: Mapping[str, Callable[[Said, str | None], Said]],
    *,
    extended: bool,
) -> Said:
    seen = set()
    for parameter in parameters:
        found = _PARAMETER.fullmatch(parameter)
        if found is None:
            raise RefusedError(BAD_PARAMETER)
        keyword = found[1].upper()
        if not extended or keyword not in known:
            raise RefusedError(UNKNOWN_PARAMETER)
        if keyword in seen:
            raise RefusedError(BAD_PARAMETER)
        seen.add(keyword)
        said = known[keyword](said, found[2])
    return said


def _size(mail: Mail, value: str | None) -> Mail:
    return replace(mail, size_bytes=int(_fit(_SIZE, value)))


def _body(mail: Mail, value: str | None) -> Mail:
    try:
        return replace(mail, body=Body((value or "").upper()))
    except ValueError:
        raise RefusedError(BAD_PARAMETER) from None


def _smtputf8(mail: Mail, value: str | None) -> Mail:
    if value is not None:
        raise RefusedError(BAD_PARAMETER)
    return replace(mail, smtputf8=True)


def _ret(mail: Mail, value: str | None) -> Mail:
    ret = (value or "").upper()
    if ret not in {"FULL", "HDRS"}:
        raise RefusedError(BAD_PARAMETER)
    return replace(mail, ret=ret)


def _envid(mail: Mail, value: str | None) -> Mail:
    return replace(mail, envid=_fit(_XTEXT, value, MAX_ENVID_CHARACTERS))


def _notify(recipient: Recipient, value: str | None) -> Recipient:
    wishes = (value or "").upper().split(",")
    if wishes == ["NEVER"]:
        return replace(recipient, notify=Notify.NEVER)
    notify = Notify.NEVER
    for wish in wishes:
        if wish not in {"SUCCESS", "FAILURE", "DELAY"}:  # NEVER stands alone (RFC 3461 §4.1)
            raise RefusedError(BAD_PARAMETER)
        notify |= Notify[wish]
    return replace(recipient, notify=notify)


def _orcpt(recipient: Recipient, value: str | None) -> Recipient:
    return replace(recipient, original=_fit(_ORCPT, value, MAX_ORCPT_CHARACTERS))


def _fit(pattern: re.Pattern[str], value: str | None, most_characters: int = 20) -> str:
    if value is None or len(value) > most_characters or not pattern.fullmatch(value):
        raise RefusedError(BAD_PARAMETER)
    return value


_OF_MAIL: Mapping[str, Callable[[Mail, str | None], Mail]] = MappingProxyType(
    {"SIZE": _size, "BODY": _body, "SMTPUTF8": _smtputf8, "RET": _ret, "ENVID": _envid}
)
_OF_RECIPIENT: Mapping[str, Callable[[Recipient, str | None], Recipient]] = MappingProxyType(
    {"NOTIFY": _notify, "ORCPT": _orcpt}
)
