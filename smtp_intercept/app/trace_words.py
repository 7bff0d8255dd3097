"""The words of `tollbridge trace`: its options, and nothing of what they do."""

from __future__ import annotations

import argparse
import time
from datetime import datetime

from hwprofiles.shown import shown
from smtp_intercept.app.queue_words import age
from smtp_intercept.app.subcommands import Parser, place, whole

MOST = 10_000  # mails of one answer
USUAL = 20


def add(parser: Parser) -> None:
    """To the parser of the verb `trace`."""
    parser.add_argument(
        "id", nargs="?", metavar="ID", help="of a message in the queue, of a session, or of the server's queue"
    )
    some = parser.add_argument_group("filters", "All that are given must fit; upper and lower case are the same.")
    some.add_argument("--from", dest="sender", metavar="WHO", help='an address or a domain; "" is the null sender')
    some.add_argument("--to", dest="recipient", metavar="WHO", help="an address or a domain")
    some.add_argument("--client", metavar="ADDRESS", help="the client's IP address")
    some.add_argument("--message-id", metavar="ID", help="the Message-ID, where the log has it")
    some.add_argument("--outcome", metavar="WORD", help="accepted, rejected, delivered, deferred, failed, aborted …")
    some.add_argument("--rule", metavar="NAME", help="a rule that came into play")
    some.add_argument("--subject", action="append", metavar="WORDS", help="words of the subject, where the log has it")
    some.add_argument("--since", type=when, metavar="WHEN", help="90s, 15m, 2h, 3d ago, or 2026-01-31T12:00")
    some.add_argument("--until", type=when, metavar="WHEN", help="the same; not included")
    parser.add_argument(
        "--number", type=whole(1, MOST), default=USUAL, metavar="N", help="at most so many mails [%(default)s]"
    )
    parser.add_argument("--follow", action="store_true", help="show each record that fits as it comes, until Ctrl-C")
    parser.add_argument("--json", action="store_true", help="for machines: one object a line, each mail's whole story")
    parser.add_argument("--index", type=place, metavar="DIR", help="the index's directory [tracking.index]")


def when(text: str) -> int:
    """In milliseconds of the epoch; a time without a zone is this box's."""
    try:
        if text[-1:] in tuple("smhd"):
            return round((time.time() - age(text)) * 1000)
        return round(datetime.fromisoformat(text).timestamp() * 1000)
    except (argparse.ArgumentTypeError, ValueError, OverflowError, OSError):
        raise argparse.ArgumentTypeError(
            f"{shown(text)} is no time: a number and s, m, h or d, or 2026-01-31, or 2026-01-31T12:00"
        ) from None
