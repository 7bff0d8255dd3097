"""The command's own words as data: what manual pages and completions are made of, so that neither can go stale.

Pure: reads an argparse parser, knows nothing of what the verbs do.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from dataclasses import dataclass

from smtp_intercept.app.subcommands import place


@dataclass(frozen=True, slots=True)
class Option:
    """One option or operand. ``flags`` is empty for an operand; ``value`` is "" for a switch; ``names_file``: it is
    completed with files."""

    flags: tuple[str, ...]
    value: str
    text: str
    names_file: bool = False


@dataclass(frozen=True, slots=True)
class Word:
    """One verb: ``path`` is () for the command itself, ("queue", "list") for a verb of a verb."""

    path: tuple[str, ...]
    text: str
    options: tuple[Option, ...]
    verbs: tuple[Word, ...] = ()

    def walk(self) -> Iterator[Word]:
        """This word and all below it, as the help lists them."""
        yield self
        for verb in self.verbs:
            yield from verb.walk()


def words_of(parser: argparse.ArgumentParser, path: tuple[str, ...] = ()) -> Word:
    """What the parser accepts. What its help does not name (a verb without help) is left out."""
    verbs: list[Word] = []
    for action in parser._actions:
        if isinstance(action, argparse._SubParsersAction):
            for shown in action._choices_actions:
                verbs.append(words_of(action.choices[shown.dest], (*path, shown.dest)))
    return Word(path, parser.description or "", tuple(_options(parser)), tuple(verbs))


def _options(parser: argparse.ArgumentParser) -> Iterator[Option]:
    for action in parser._actions:
        if isinstance(action, argparse._SubParsersAction) or action.help == argparse.SUPPRESS:
            continue
        text = (action.help or "") % {"default": action.default, "prog": parser.prog}
        yield Option(tuple(action.option_strings), _value(action), text, action.type is place)


def _value(action: argparse.Action) -> str:
    if action.nargs == 0:
        return ""
    name = action.metavar if isinstance(action.metavar, str) else action.dest.upper().replace("_", "-")
    return f"[{name} ...]" if action.nargs == "*" else name
