"""The negotiation: what the filter may change, which events it wants, and which of them it answers (SMFIC_OPTNEG).

Pure. Versions 2 to 6; what a filter asks for beyond the offer is a mistake of its own.
"""

from __future__ import annotations

import struct
from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import IntFlag

from smtp_intercept.milter.packets import MilterError, packet
from smtp_intercept.milter.replies import read_symbols

NEGOTIATE = b"O"
NEWEST, OLDEST = 6, 2
_OPTIONS = struct.Struct("!III")
_STAGES = 7  # that have macros: SMFIM_LAST is 6


class Action(IntFlag):
    """What a filter may do (SMFIF_*)."""

    ADD_HEADERS = 0x1
    CHANGE_BODY = 0x2
    ADD_RECIPIENTS = 0x4
    DELETE_RECIPIENTS = 0x8
    CHANGE_HEADERS = 0x10
    QUARANTINE = 0x20
    CHANGE_SENDER = 0x40
    ADD_RECIPIENTS_WITH_ARGUMENTS = 0x80
    SET_SYMBOLS = 0x100


class Flag(IntFlag):
    """Events that a filter does not want, or does not answer, and what else it understands (SMFIP_*)."""

    NO_CONNECT = 0x1
    NO_HELO = 0x2
    NO_MAIL = 0x4
    NO_RECIPIENT = 0x8
    NO_BODY = 0x10
    NO_HEADERS = 0x20
    NO_HEADERS_END = 0x40
    UNANSWERED_HEADER = 0x80
    NO_UNKNOWN = 0x100
    NO_DATA = 0x200
    SKIP = 0x400
    REFUSED_RECIPIENTS = 0x800
    UNANSWERED_CONNECT = 0x1000
    UNANSWERED_HELO = 0x2000
    UNANSWERED_MAIL = 0x4000
    UNANSWERED_RECIPIENT = 0x8000
    UNANSWERED_DATA = 0x10000
    UNANSWERED_UNKNOWN = 0x20000
    UNANSWERED_HEADERS_END = 0x40000
    UNANSWERED_BODY = 0x80000
    LEADING_SPACE = 0x100000


ALL_ACTIONS = Action(0x1FF)
ALL_FLAGS = Flag(0x1FFFFF)
# What a filter of an older protocol has never heard of, by the version that brought it (libmilter/engine.c).
_FLAGS_OF: Mapping[int, Flag] = {2: Flag(0x7F), 3: Flag(0x17F), 4: Flag(0x37F), 5: Flag(0x37F), 6: ALL_FLAGS}
_ACTIONS_OF: Mapping[int, Action] = {number: Action(0x3F) for number in (2, 3, 4, 5)} | {6: ALL_ACTIONS}


@dataclass(frozen=True, slots=True)
class Agreement:
    """What holds for one connection. ``symbols`` has the macros that the filter wants, by stage."""

    version: int
    actions: Action
    flags: Flag
    symbols: Mapping[int, tuple[str, ...]] = field(default_factory=dict)


def offer(version: int = NEWEST) -> bytes:
    """The packet that begins a connection."""
    return packet(NEGOTIATE, _OPTIONS.pack(version, _ACTIONS_OF[version], _FLAGS_OF[version]))


def read_agreement(payload: bytes, offered: int = NEWEST) -> Agreement:
    """The filter's answer."""
    if len(payload) < _OPTIONS.size:
        raise MilterError("an answer to the negotiation that is not whole")
    version, actions, flags = _OPTIONS.unpack_from(payload)
    if not OLDEST <= version <= offered:
        raise MilterError(f"version {version} of the protocol; {OLDEST} to {offered} are spoken here")
    if surplus := actions & ~_ACTIONS_OF[offered]:
        raise MilterError(f"the filter wants to do what was not offered: {surplus:#x}")
    # The upper bits are for the size of packets, and libmilter's own (MDS): what was not offered is not used.
    known = Flag(flags & _FLAGS_OF[version])
    return Agreement(version, Action(actions), known, dict(_symbols(payload[_OPTIONS.size :])))


def _symbols(rest: bytes) -> list[tuple[int, tuple[str, ...]]]:
    found = []
    while rest:
        end = rest.find(b"\0", 4) + 1
        symbols = read_symbols(rest[:end] if end else rest)
        if symbols.stage >= _STAGES:
            raise MilterError(f"macros for stage {symbols.stage}")
        found.append((symbols.stage, symbols.names))
        rest = rest[end:]
    return found
