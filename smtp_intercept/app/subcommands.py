"""The words of a command line: one way to add a verb, and what somebody is told who misspells one.

Options of the command itself may stand behind the verb too.
"""

from __future__ import annotations

import argparse
import difflib
import gc
import sys
from collections.abc import Callable, Iterable
from functools import cache
from importlib import import_module
from pathlib import Path
from types import ModuleType
from typing import Any, NoReturn, TypeAlias

from hwprofiles.shown import on_one_line, shown

Verb: TypeAlias = Callable[[argparse.Namespace], int]
Subcommands: TypeAlias = "argparse._SubParsersAction[Parser]"  # the only name argparse has for it

# What other programs call it.
_ELSEWHERE = {
    "start": "up` and `run",
    "restart": "up` and `run",
    "reload": "up",
    "stop": "down",
    "test": "check",
    "validate": "check",
    "verify": "check",
    "configure": "setup",
    "install": "setup",
    "version": "--version",
    "mailq": "queue list",
}


class Parser(argparse.ArgumentParser):
    """Names the nearest word for one that it does not know, and is exact about options."""

    def __init__(self, *words: Any, **settings: Any) -> None:
        super().__init__(*words, **settings)
        self.verbs: Subcommands | None = None

    def add_verbs(self, dest: str, metavar: str, text: str | None = None) -> Subcommands:
        """The verbs of this one; one of them must be given."""
        self.verbs = self.add_subparsers(dest=dest, required=True, metavar=metavar, help=text)
        return self.verbs

    def _check_value(self, action: argparse.Action, value: Any) -> None:
        if action.choices is not None and value not in action.choices:
            known = [name for name in action.choices if name != "guard"]
            raise argparse.ArgumentError(
                action, f"{value!r} is not a verb{near(str(value), known)} There are {', '.join(known)}"
            )

    def parse_args(self, args: Any = None, namespace: Any = None) -> Any:
        """Exits with 2 for what no parser knows, in the words of the verb that it stands behind."""
        found, unknown = self.parse_known_args(args, namespace)
        if unknown:
            self._behind(found)._refuse(unknown)
        return found

    def _behind(self, found: argparse.Namespace) -> Parser:
        if self.verbs is None:
            return self
        return self.verbs.choices[getattr(found, self.verbs.dest)]._behind(found)

    def _refuse(self, unknown: list[str]) -> NoReturn:
        option = next((word.partition("=")[0] for word in unknown if word.startswith("--")), "")
        hint = near(option, (flag for flag in self._option_string_actions if flag.startswith("--"))) if option else "."
        self.error(f"unrecognized arguments: {' '.join(unknown)}{hint}")

    def error(self, message: str) -> NoReturn:
        """It repeats what was typed."""
        super().error(on_one_line(message))


def near(word: str, known: Iterable[str]) -> str:
    """The end of a sentence: ``: did you mean …?`` or a full stop."""
    nearest = difflib.get_close_matches(word.lower(), list(known), n=1)
    meant = _ELSEWHERE.get(word.lower()) or (nearest[0] if nearest else "")
    return f": did you mean `{meant}`?" if meant else "."


@cache
def named(place: str) -> Verb:
    """What ``module.function`` of this package does; loaded when it is done, for a verb waits for nothing that only
    others use."""

    def run(arguments: argparse.Namespace) -> int:
        module, _, function = place.rpartition(".")
        verb: Verb = getattr(_loaded(f"{__package__}.{module}"), function)
        return verb(arguments)

    return run


def _loaded(name: str) -> ModuleType:
    """Without the collector: it would walk, again and again, what stays to the end."""
    if (module := sys.modules.get(name)) is not None:
        return module
    gc.disable()
    try:
        return import_module(name)
    finally:
        gc.freeze()
        gc.enable()


def add_verb(verbs: Subcommands, name: str, run: str, text: str, *, json: bool = False) -> Parser:
    """The verb's parser. ``run`` is its place as `named` takes it; ``json``: with that option."""
    parser = add_group(verbs, name, text)
    parser.set_defaults(run=named(run))
    if json:
        parser.add_argument("--json", action="store_true", help="for machines")
    return parser


def add_group(verbs: Subcommands, name: str, text: str) -> Parser:
    """As `add_verb`, of one that has verbs of its own."""
    parser = verbs.add_parser(name, help=text, description=text[0].upper() + text[1:] + ".")
    for option in ("--config", "--run-dir", "--state-dir"):
        add_here_too(parser, option)
    return parser


def whole(least: int, most: int, unit: str = "") -> Callable[[str], int]:
    """The type of an option that takes a whole number."""

    def read(text: str) -> int:
        if not (text.isascii() and text.isdigit() and len(text) <= len(str(most)) and least <= int(text) <= most):
            raise argparse.ArgumentTypeError(f"{shown(text)} is not a whole number from {least} to {most}{unit}")
        return int(text)

    return read


def place(text: str) -> Path:
    """The type of an option that takes a path. An empty one, of a variable that is not set, would be the directory that
    the command was started in; a line break in one would make two of every line that names it."""
    if not text:
        raise argparse.ArgumentTypeError("is empty; name a path (is a variable of the script not set?)")
    if text == "-":
        raise argparse.ArgumentTypeError("- is no file; for standard input name /dev/stdin")
    if on_one_line(text) != text:
        raise argparse.ArgumentTypeError(f"{shown(text)} has a control character in its name; name another")
    return Path(text)


def add_here_too(parser: argparse.ArgumentParser, option: str) -> None:
    """A path that an outer parser has a default and a text for."""
    parser.add_argument(option, type=place, default=argparse.SUPPRESS, help=argparse.SUPPRESS)
