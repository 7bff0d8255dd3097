"""The words of `tollbridge hw`: its verbs and options, and nothing of what they do."""

from __future__ import annotations

import argparse

from smtp_intercept.app.subcommands import Parser, add_verb, place, whole


def add(parser: Parser) -> None:
    """To the parser of the verb `hw`."""
    verbs = parser.add_verbs("hw_verb", "WHAT", "what to do with it")
    facts = add_verb(verbs, "facts", "hw.facts", "show the facts of this box; JSON where nobody is looking: > box.json")
    facts.add_argument("--json", action="store_true", help="for machines: the file that --facts reads")
    detect = add_verb(verbs, "detect", "hw.detect", "say which profile is for the box, and why")
    detect.add_argument("--json", action="store_true", help="for machines")
    show = add_verb(verbs, "show", "hw.show", "show a profile, and where its facts are from")
    show.add_argument("profile", nargs="?", metavar="PROFILE", help="its name [the one for this box]")
    for parser_of_facts in (facts, detect, show):
        parser_of_facts.add_argument(
            "--facts", dest="replayed", type=place, metavar="FILE", help="of the box in this file, not of this one"
        )
    add_verb(verbs, "plan", "hw.plan", "print the settings that `apply` would make, touching nothing")
    add_verb(verbs, "apply", "hw.apply", "make them; `up` does so too")
    measure = "measure what other settings would gain on this box, and propose them"
    _add_tune(add_verb(verbs, "tune", "hw.tune", measure, json=True))
    add_verb(verbs, "bypass", "hw_relays.bypass", "have the bypass relays join their ports: the box is out of the path")
    add_verb(verbs, "arm", "hw_relays.arm", "end that: the relays are armed while the box bridges")
    add_verb(verbs, "keep", "hw_relays.keep", "keep the bypass relays, in the foreground; `up` starts it by itself")
    add_verb(verbs, "revert", "hw.revert", "undo them and leave the bridge as it is; `down` undoes both")


def _add_tune(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--ports", nargs=2, metavar=("A", "B"), help="over two unused ports joined by a cable [in namespaces alone]"
    )
    parser.add_argument(
        "--only", action="append", default=[], metavar="WHAT", help="a table or key of the profile; may be repeated"
    )
    parser.add_argument("--rounds", type=whole(5, 50), default=7, metavar="N", help="[%(default)s]")
    parser.add_argument(
        "--seconds", type=whole(1, 60), default=4, metavar="S", help="of each load in each round [%(default)s]"
    )
    parser.add_argument("--output", type=place, metavar="FILE", help="write the profile there, if one is proposed")
