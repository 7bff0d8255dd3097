"""The words of `tollbridge hw`: its verbs and options, and nothing of what they do."""

from __future__ import annotations

import argparse
from collections.abc import Callable
from pathlib import Path

from smtp_intercept.app import hw


def add(parser: argparse.ArgumentParser) -> None:
    """To the parser of the verb `hw`."""
    verbs = parser.add_subparsers(dest="hw_verb", required=True, metavar="WHAT", help="what to do with it")
    facts = _verb(verbs, "facts", hw.facts, "show the facts of this box; JSON where nobody is looking: > box.json")
    facts.add_argument("--json", action="store_true", help="for machines: the file that --facts reads")
    detect = _verb(verbs, "detect", hw.detect, "say which profile is for the box, and why")
    detect.add_argument("--json", action="store_true", help="for machines")
    show = _verb(verbs, "show", hw.show, "show a profile, and what of it is not in effect yet")
    show.add_argument("profile", nargs="?", metavar="PROFILE", help="its name [the one for this box]")
    for parser_of_facts in (facts, detect, show):
        parser_of_facts.add_argument(
            "--facts", dest="replayed", type=Path, metavar="FILE", help="of the box in this file, not of this one"
        )
    _verb(verbs, "plan", hw.plan, "print the settings that `apply` would make, touching nothing")
    _verb(verbs, "apply", hw.apply, "make them; `up` does so too")
    _verb(verbs, "revert", hw.revert, "undo them and leave the bridge as it is; `down` undoes both")


def _verb(
    verbs: argparse._SubParsersAction[argparse.ArgumentParser],
    name: str,
    run: Callable[[argparse.Namespace], int],
    text: str,
) -> argparse.ArgumentParser:
    parser = verbs.add_parser(name, help=text, description=text[0].upper() + text[1:] + ".")
    parser.set_defaults(run=run)
    return parser
