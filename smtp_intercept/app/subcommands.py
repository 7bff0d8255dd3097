"""One way to add a verb to a command line: its name, what it does, and one sentence for help and manual."""

from __future__ import annotations

import argparse
from collections.abc import Callable
from typing import TypeAlias

Verb: TypeAlias = Callable[[argparse.Namespace], int]
Subcommands: TypeAlias = "argparse._SubParsersAction[argparse.ArgumentParser]"  # the only name argparse has for it


def add_verb(verbs: Subcommands, name: str, run: Verb, text: str, *, json: bool = False) -> argparse.ArgumentParser:
    """The verb's parser. ``json``: with that option."""
    parser = verbs.add_parser(name, help=text, description=text[0].upper() + text[1:] + ".")
    parser.set_defaults(run=run)
    if json:
        parser.add_argument("--json", action="store_true", help="for machines")
    return parser
