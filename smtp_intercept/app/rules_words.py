"""The words of `tollbridge rules`: its verbs and options, and nothing of what they do."""

from __future__ import annotations

from bridge.flow import MAX_VLAN
from smtp_intercept.app.queue_words import age
from smtp_intercept.app.subcommands import Parser, add_verb, place, whole


def add(parser: Parser) -> None:
    """To the parser of the verb `rules`."""
    verbs = parser.add_verbs("rules_verb", "WHAT", "what to do with them")
    test = add_verb(
        verbs, "test", "rules.test", "show every rule's answer to a message, and what would come of it", json=True
    )
    test.add_argument("file", type=place, metavar="FILE", help="the message, as mail programs save it (.eml)")
    test.add_argument("--from", dest="client", required=True, metavar="A", help="the client's address")
    test.add_argument("--to", dest="server", required=True, metavar="B", help="the address it dials")
    test.add_argument("--port", metavar="P", help="the port of arrival [the first of bridge.ports]")
    test.add_argument("--vlan", type=whole(0, MAX_VLAN), default=0, metavar="V", help="the VLAN [untagged]")
    test.add_argument("--helo", default="", metavar="H", help="the name that the client gives [none]")
    test.add_argument("--authenticated", action="store_true", help="the client has given a password")
    test.add_argument("--user", default="", metavar="U", help="and this is whose [nobody's]")
    test.add_argument("--sender", metavar="S", help="of the envelope [the message's Return-Path: or From:]")
    test.add_argument(
        "--rcpt", action="append", default=[], metavar="R", help="a recipient; may be repeated [its To: and Cc:]"
    )
    replay = add_verb(
        verbs,
        "replay",
        "replay.replay",
        "tell what of the mail log's messages the rules on disk would not have accepted",
        json=True,
    )
    replay.add_argument("--since", type=age, default=86_400.0, metavar="TIME", help="so far back: 30m, 12h [1d]")
    replay.add_argument("--log", type=place, metavar="FILE", help="another mail log than log.mail, as a rotated one")
