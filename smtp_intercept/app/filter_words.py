"""The words of `tollbridge filter`: its verbs and options, and nothing of what they do."""

from __future__ import annotations

from smtp_intercept.app.subcommands import Parser, add_verb, place


def add(parser: Parser) -> None:
    """To the parser of the verb `filter`."""
    verbs = parser.add_verbs("filter_verb", "WHAT", "what to do with one")
    test = add_verb(verbs, "test", "filter_test.test", "talk to one filter, and show all that is said", json=True)
    test.add_argument("name", metavar="NAME", help="a [[filter]] of the configuration")
    test.add_argument("file", type=place, nargs="?", metavar="FILE", help="a message (.eml) [a short one]")
    test.add_argument(
        "--from", dest="client", default="192.0.2.1", metavar="A", help="the client's address [%(default)s]"
    )
    test.add_argument("--helo", default="client.example.com", metavar="H", help="its name [%(default)s]")
    test.add_argument("--sender", metavar="S", help="of the envelope [the message's Return-Path: or From:]")
    test.add_argument(
        "--rcpt", action="append", default=[], metavar="R", help="a recipient; may be repeated [its To: and Cc:]"
    )
