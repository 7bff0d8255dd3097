"""The words of `tollbridge queue`: its verbs and options, and nothing of what they do."""

from __future__ import annotations

import argparse
import re
from collections.abc import Callable

from smtp_intercept.app.subcommands import Parser, add_here_too, add_verb, place
from smtp_intercept.mta.listing import Standing

_S = {"s": 1, "m": 60, "h": 3600, "d": 86400}

_CHANGES = {
    "retry": ("queue.retry", "try at once, also what is dead; what is held stays held"),
    "hold": ("queue.hold", "do not try until released"),
    "release": ("queue.release", "let what is held be tried again"),
    "delete": ("queue.delete", "delete messages, after asking"),
    "reroute": ("queue.reroute", "send to another host than the one that the configuration chooses"),
}


def add(parser: Parser) -> None:
    """To the parser of the verb `queue`."""
    parser.add_argument("--spool", type=place, metavar="DIR", help="the queue's directory [mta.spool]")
    verbs = parser.add_verbs("queue_verb", "WHAT", "what to do with it")
    listing = add_verb(verbs, "list", "queue.list_", "show the messages that fit, the oldest first")
    _add_filters(listing)
    listing.add_argument("--json", action="store_true", help="for machines: one object a line")
    show = add_verb(verbs, "show", "queue.show", "show one message: its envelope, its attempts, its header")
    show.add_argument("id", metavar="ID", help="the message, as `list` names it")
    show.add_argument("--json", action="store_true", help="for machines")
    show.add_argument("--content", action="store_true", help="the whole content instead, as it was received")
    for name, (run, text) in _CHANGES.items():
        change = add_verb(verbs, name, run, text)
        _add_filters(change)
        change.add_argument("--all", action="store_true", help="every message")
        if name in _OWN:
            _OWN[name](change)
    for verb in verbs.choices.values():
        add_here_too(verb, "--spool")


def _add_delete(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--yes", action="store_true", help="do not ask")
    parser.add_argument(
        "--notify", action="store_true", help="let the running MTA tell the senders that their mail was not delivered"
    )


def _add_reroute(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--via", type=_host, required=True, metavar="HOST[:PORT]", help='where to; "": as configured again'
    )


_OWN: dict[str, Callable[[argparse.ArgumentParser], None]] = {"delete": _add_delete, "reroute": _add_reroute}


def _add_filters(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("ids", nargs="*", metavar="ID", help="these messages")
    some = parser.add_argument_group("filters", "All that are given must fit; in addresses * stands for anything.")
    some.add_argument("--from", dest="sender", metavar="ADDRESS", help='of this sender; "" is the null one')
    some.add_argument("--to", dest="recipient", metavar="ADDRESS", help="to this recipient")
    some.add_argument("--domain", metavar="NAME", help="to a recipient of this domain")
    some.add_argument("--state", type=_state, metavar="STATE", help=_STATES)
    some.add_argument("--older", type=age, metavar="AGE", help="that arrived longer ago: 90s, 15m, 2h, 3d")


_STANDINGS = ", ".join(standing.value for standing in Standing)
_STATES = f"that are {_STANDINGS}"


def _state(text: str) -> Standing:
    try:
        return Standing(text)
    except ValueError:
        raise argparse.ArgumentTypeError(f"{text!r} is not one of {_STANDINGS}") from None


def _host(text: str) -> str:
    from smtp_intercept.app import queue  # and with it the configuration, which no other word needs

    return queue.host(text)


def age(text: str) -> float:
    """In seconds."""
    if not (fits := re.fullmatch(r"(\d{1,9})([smhd])", text)):
        raise argparse.ArgumentTypeError(f"{text!r} is no age: a number and s, m, h or d")
    return float(fits[1]) * _S[fits[2]]
