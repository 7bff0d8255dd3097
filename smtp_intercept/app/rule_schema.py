"""The tables of the rules: [[rule]] with its ``when`` and ``then``, and [inspect].

Data only. What a word means is said in `inspect`; here is how it is written.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from enum import StrEnum
from pathlib import PurePosixPath
from types import MappingProxyType
from typing import Annotated, Any

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, ValidationInfo

from bridge.flow import MAX_VLAN
from hwprofiles.shown import shown
from hwprofiles.validation import mistake
from smtp_intercept.app import fields
from smtp_intercept.app.defaults import HELD
from smtp_intercept.inspect import actions, criteria
from smtp_intercept.inspect.actions import Unknown
from smtp_intercept.inspect.criteria import DIRECTIONS, HOURS, LISTS, MAILBOXES, NETWORKS, TEXTS, WEEKDAYS, Kind
from smtp_intercept.inspect.dns import read_answer, read_zone
from smtp_intercept.inspect.written import Written, edits, is_file, path_of
from smtp_intercept.limits import DEFAULT_LIMITS
from smtp_intercept.milter.address import read_address

MAX_RULES = 10_000  # each is a bit of every decision
MAX_NAME_CHARACTERS = 64  # a log record may have twenty of them
MAX_FILTERS = 64
MAX_INLINE = 10_000  # entries; longer lists have files


class Mode(StrEnum):
    """Whether what rules decide is done."""

    ENFORCE = "enforce"
    OBSERVE = "observe"


class TooLarge(StrEnum):
    """What is said of content that rules must see and that is larger than may be held."""

    REFUSE = "refuse"
    DEFER = "defer"
    PASS = "pass"


class OnSilence(StrEnum):
    """What is done where nothing is decided in time."""

    DEFER = "defer"
    ACCEPT = "accept"


class _Table(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)


def _read_entry(kind: Kind, value: Any) -> Any:
    try:
        if is_file(kind, value):
            return f"@{fields.read_absolute(path_of(value))}"
        if not isinstance(value, str) and kind.texts:
            raise ValueError(f"{shown(value)} is not a text")
        kind.read(value)
    except ValueError as error:
        raise mistake(str(error), f"write it like {kind.example}") from None
    return value


def _entry(kind: Kind) -> BeforeValidator:
    return BeforeValidator(lambda value: _read_entry(kind, value))


def _one_or_more(kind: Kind) -> BeforeValidator:
    """One entry, or a list of them. Of one that is wrong it is not said that it is the first."""

    def several(value: Any) -> Any:
        return value if isinstance(value, (tuple, dict)) else (_read_entry(kind, value),)

    return BeforeValidator(several)


def _text(read: Callable[[str], Any], example: str) -> BeforeValidator:
    def checked(value: Any) -> Any:
        try:
            if not isinstance(value, str):
                raise ValueError(f"{shown(value)} is not a text")
            read(value)
        except ValueError as error:
            raise mistake(str(error), f'write it like "{example}"') from None
        return value

    return BeforeValidator(checked)


def _port(value: Any) -> Any:
    if not isinstance(value, str):
        raise ValueError(f"{shown(value)} is not a text")
    return fields.read_port(value)


def _vlan(value: Any) -> Any:
    if not isinstance(value, int) or isinstance(value, bool) or not 0 <= value <= MAX_VLAN:
        raise ValueError(f"{shown(value)} is no VLAN's VID")
    return value


def _name(value: Any) -> Any:
    if not isinstance(value, str) or not value.isprintable() or not 0 < len(value.strip()) <= MAX_NAME_CHARACTERS:
        raise mistake(f"{shown(value)} is not a name", f'give 1 to {MAX_NAME_CHARACTERS} letters: "no executables"')
    return value


def _names(value: Any) -> Any:
    """One, or a list of them."""
    return (value,) if isinstance(value, str) else value


def _field_name(value: Any) -> Any:
    try:
        return actions.read_field(value, "x")[0]
    except (ValueError, TypeError):
        raise mistake(f"{shown(value)} is not the name of a header field", 'write it like "Subject"') from None


def _field_value(value: Any) -> Any:
    try:
        return actions.read_field("X", value)[1]
    except (ValueError, TypeError, AttributeError) as error:
        raise mistake(str(error), "write one line in ASCII, in quotes") from None


def _reply(action: str, example: str) -> BeforeValidator:
    return _text(lambda text: actions.read_reply(action, text), example)


def _only_true(value: Any) -> Any:
    if value is not True:
        raise mistake(f"{shown(value)} is not true", "write true, or leave it out")
    return value


def _not_yet(value: Any, info: ValidationInfo) -> Any:
    needed = {**criteria.AWAITED, **actions.AWAITED}[info.field_name or ""]
    raise mistake(f"is not available yet: it needs {needed}", "leave it out until then")


_PORT = Kind(_port, '"enp1s0" or "52:54:00:12:34:56"')
_VLAN = Kind(_vlan, "10, or 0 for untagged mail", texts=False)
_INLINE = Field(min_length=1, max_length=MAX_INLINE)
Ports = Annotated[tuple[Annotated[str, _entry(_PORT)], ...], _one_or_more(_PORT), _INLINE]
Vlans = Annotated[tuple[Annotated[int, _entry(_VLAN)], ...], _one_or_more(_VLAN), _INLINE]
Networks = Annotated[tuple[Annotated[str, _entry(NETWORKS)], ...], _one_or_more(NETWORKS), _INLINE]
Mailboxes = Annotated[tuple[Annotated[str, _entry(MAILBOXES)], ...], _one_or_more(MAILBOXES), _INLINE]
Texts = Annotated[tuple[Annotated[str, _entry(TEXTS)], ...], _one_or_more(TEXTS), _INLINE]
Directions = Annotated[tuple[Annotated[str, _entry(DIRECTIONS)], ...], _one_or_more(DIRECTIONS), _INLINE]
Hours = Annotated[tuple[Annotated[str, _entry(HOURS)], ...], _one_or_more(HOURS), _INLINE]
Days = Annotated[tuple[Annotated[str, _entry(WEEKDAYS)], ...], _one_or_more(WEEKDAYS), _INLINE]
ListName = Annotated[str, _entry(LISTS)]
ListNames = Annotated[tuple[ListName, ...], _one_or_more(LISTS), _INLINE]
FieldName = Annotated[str, BeforeValidator(_field_name)]
FieldValue = Annotated[str, BeforeValidator(_field_value)]
Refused = Annotated[str, _reply("refuse", "550 5.7.1 not accepted here")]
Deferred = Annotated[str, _reply("defer", "451 4.7.1 come again later")]
Closed = Annotated[str, _reply("close", "421 4.7.0 not from here")]
Name = Annotated[str, BeforeValidator(_name)]
ModeChoice = Annotated[Mode, fields.choice(Mode)]
UnknownChoice = Annotated[Unknown, fields.choice(Unknown)]
TooLargeChoice = Annotated[TooLarge, fields.choice(TooLarge)]
OnSilenceChoice = Annotated[OnSilence, fields.choice(OnSilence)]
Filters = Annotated[tuple[Name, ...], BeforeValidator(_names), Field(min_length=1, max_length=16)]
Always = Annotated[bool, BeforeValidator(_only_true)]
NotYet = Annotated[None, BeforeValidator(_not_yet)]


class When(_Table):
    """[rule.when]: all of them must hold; what is None is not asked."""

    connection: Directions | None = None
    port: Ports | None = None
    port_not: Ports | None = None
    vlan: Vlans | None = None
    vlan_not: Vlans | None = None
    client: Networks | None = None
    client_not: Networks | None = None
    server: Networks | None = None
    server_not: Networks | None = None
    hours: Hours | None = None
    days: Days | None = None
    client_name: Texts | None = None
    client_name_not: Texts | None = None
    client_named: bool | None = None
    dns_list: ListNames | None = None
    dns_list_not: ListNames | None = None
    helo: Texts | None = None
    helo_not: Texts | None = None
    helo_resolves: bool | None = None
    authenticated: bool | None = None
    user: Texts | None = None
    sender: Mailboxes | None = None
    sender_not: Mailboxes | None = None
    sender_resolves: bool | None = None
    message: Directions | None = None
    recipient: Mailboxes | None = None
    recipient_not: Mailboxes | None = None
    recipients_over: int | None = Field(None, ge=0, le=1_000_000, description="of one message")
    header: Mapping[FieldName, Texts] | None = None
    header_not: Mapping[FieldName, Texts] | None = None
    attachment: Texts | None = None
    attachment_type: Texts | None = None
    size_over_bytes: int | None = Field(None, ge=0, le=1 << 40, description="as sent")
    tls_client: NotYet = None
    tls_server: NotYet = None
    filter_says: NotYet = None
    rate_over: NotYet = None
    greylisted: NotYet = None
    reputation_under: NotYet = None
    seen: NotYet = None


class Then(_Table):
    """[rule.then]: at most one of the first five."""

    accept: Always | None = None
    refuse: Refused | None = None
    defer: Deferred | None = None
    discard: Always | None = None
    close: Closed | None = None
    tag_subject: FieldValue | None = None
    add_header: Mapping[FieldName, FieldValue] | None = None
    replace_header: Mapping[FieldName, FieldValue] | None = None
    remove_header: tuple[FieldName, ...] | None = None
    filter: Filters | None = None
    quarantine: NotYet = None
    redirect: NotYet = None
    copy_to: NotYet = None
    slow_down_s: NotYet = None


class Rule(_Table):
    """[[rule]]: no ``when`` is every message."""

    name: Name
    when: When = When()
    then: Then
    mode: ModeChoice = Mode.ENFORCE
    unanswered: UnknownChoice = Unknown.NO
    unreadable: UnknownChoice = Unknown.DEFER


class DnsList(_Table):
    """[dns.list.NAME]: a list that says of addresses whether they are in it (RFC 5782)."""

    zone: Annotated[str, _text(read_zone, "zen.example.org")]
    answers: Annotated[tuple[Annotated[str, _text(read_answer, "127.0.0.2")], ...], _INLINE] = ("127.0.0.0/8",)
    wait_s: int = Field(3, ge=1, le=30, description="a list that is down must not keep a session waiting")


class OnFailure(StrEnum):
    """What becomes of mail without a filter that it should have gone through."""

    DEFER = "defer"
    ACCEPT = "accept"


def _filter_address(value: Any) -> Any:
    try:
        read_address(value)
    except ValueError as error:
        raise mistake(
            str(error), 'write it like "127.0.0.1:11332", "[::1]:8891" or "unix:/run/opendkim/opendkim.sock"'
        ) from None
    return value


class Filter(_Table):
    """[[filter]]: a program that speaks milter."""

    name: Name
    address: Annotated[str, BeforeValidator(_filter_address)]
    connect_s: int = Field(10, ge=1, le=300, description="a filter that does not answer must not hold mail up")
    command_s: int = Field(30, ge=1, le=600, description="the same, of each thing that it is told")
    end_s: int = Field(120, ge=1, le=570, description="the same, of the whole message; the client waits ten minutes")
    on_failure: Annotated[OnFailure, fields.choice(OnFailure)] = OnFailure.DEFER
    on_quarantine: Annotated[OnFailure, fields.choice(OnFailure)] = OnFailure.DEFER
    failures: int = Field(5, ge=1, le=1_000, description="in a row, after which nobody waits for it")
    rest_s: int = Field(30, ge=1, le=3_600, description="how long nobody does")


class Inspect(_Table):
    """[inspect]"""

    mode: ModeChoice = Mode.ENFORCE
    size_bytes: int = Field(
        DEFAULT_LIMITS.held_message_bytes,
        ge=65_536,
        le=2_147_483_647,
        description="held content must not fill the disk",
    )
    too_large: TooLargeChoice = TooLarge.REFUSE
    decide_s: int = Field(
        round(DEFAULT_LIMITS.decide_s),
        ge=1,
        le=570,
        description="filters included; clients wait five minutes, and ten for the last reply (RFC 5321 §4.5.3.2)",
    )
    on_silence: OnSilenceChoice = OnSilence.DEFER
    directory: fields.FilePath = PurePosixPath(HELD)
    look_wait_s: int = Field(
        30, ge=5, le=240, description="a message that is hard to look into must not hold its client; that waits 600"
    )
    dns_wait_s: int = Field(5, ge=1, le=30, description="a name server that is slow must not keep a session waiting")


# In the order in which `[[rule]]` may have them.
RuleTables: Mapping[tuple[str, ...], type[_Table]] = MappingProxyType(
    {
        ("rule", "*"): Rule,
        ("rule", "*", "when"): When,
        ("rule", "*", "then"): Then,
        ("inspect",): Inspect,
        ("filter", "*"): Filter,
        ("dns", "list", "*"): DnsList,
    }
)


def written(rule: Rule) -> Written:
    """As `inspect` takes it."""
    then = rule.then
    spoken = [(action, text) for action in actions.SPOKEN if (text := getattr(then, action))]
    silent = [verdict for action, verdict in actions.SILENT.items() if getattr(then, action)]
    ending = [*silent, *(actions.read_reply(action, text) for action, text in spoken)]
    return Written(
        rule.name,
        {key: value for key, value in rule.when if value is not None},
        ending[0] if ending else None,
        edits(then.tag_subject, then.add_header or {}, then.replace_header or {}, then.remove_header or ()),
        rule.mode is Mode.OBSERVE,
        then.filter or (),
        rule.unanswered,
        rule.unreadable,
    )
