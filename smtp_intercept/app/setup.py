"""`tollbridge setup`: asks the few questions, writes a commented configuration, offers to try it.

Changes nothing but that one file; what is tried is `tollbridge up --confirm`, which undoes itself.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from smtp_intercept.app import config as configuration
from smtp_intercept.app import naming, presets, streams
from smtp_intercept.app.exits import FailedError
from smtp_intercept.app.given import text as text_of
from smtp_intercept.app.ports import Port, found, proposed
from smtp_intercept.app.reading import MAX_FILE_BYTES
from smtp_intercept.app.signals import undisturbed
from smtp_intercept.app.template import KEYS, adapted, asked, filled
from smtp_intercept.protected import ProtectedServers

CONFIRM_S = 120
Ask = Callable[[str], str]


@dataclass(frozen=True, slots=True)
class Question:
    """``key`` as in the answers file; ``read`` turns the words typed into TOML's value, ValueError if they are none."""

    key: str
    text: str
    read: Callable[[str], Any]


def _words(text: str) -> list[str]:
    return text.replace(",", " ").split()


def _one_of(*values: str) -> Callable[[str], str]:
    def read(text: str) -> str:
        if text not in values:
            raise ValueError(f"one of {', '.join(values)}")
        return text

    return read


def _two(text: str) -> list[str]:
    if len(names := _words(text)) < 2:
        raise ValueError("two or more, links or labels, with a space between them")
    return names


_HANDLER = "Who answers mail for it: proxy (the server itself, live) or mta (this box accepts, keeps and delivers it)"
QUESTIONS = (
    Question("ports", "Ports to bridge", _two),
    Question("management", "Addresses of the box itself, on the bridge, with prefix length (none: -)", _words),
    Question("gateway", "The box's default route (none: -)", str),
    Question("domain", "Domain whose mail is to be inspected", str),
    Question("servers", "Its mail servers: addresses, networks, names, or mx", _words),
    Question("handler", _HANDLER, _one_of("proxy", "mta")),
)
assert {question.key for question in QUESTIONS} == set(KEYS)


def setup(arguments: argparse.Namespace) -> int:
    """The verb."""
    path: Path = arguments.config
    _mind_the_place(path)
    given = _given(arguments.answers)
    ask: Ask = _silent if arguments.yes else input
    if path.exists() and not _agreed(arguments, ask, f"{path} exists; replace it, keeping {path}.old?"):
        raise FailedError(f"{path} exists and was left as it is; to write it anew: tollbridge setup --yes")
    ports, case = found()
    _show_ports(ports)
    defaults = {"ports": " ".join(proposed(ports, case)), "servers": "mx", "handler": "proxy"}
    preset = None if arguments.preset is None else presets.text(arguments.preset)
    asking = [question for question in QUESTIONS if preset is None or question.key in asked(preset)]
    answers = {question.key: _answer(question, given, defaults.get(question.key, ""), ask) for question in asking}
    text = filled(configuration.sample(), answers) if preset is None else adapted(preset, answers)
    config = naming.parse(text, path)
    _show_servers(config)
    streams.warn(configuration.warnings(config))
    with undisturbed() as change:
        _write(path, text)
        print(f"written: {path}")
    change.check()
    return _offer(arguments, ask)


def _given(answers: Path | None) -> dict[str, Any]:
    """The answers of a file, TOML; a key that no question has is a mistake."""
    if answers is None:
        return {}
    try:
        given = configuration.toml(text_of(answers, MAX_FILE_BYTES))
    except ValueError as error:
        raise FailedError(f"--answers: {answers}: {error}") from None
    if unknown := given.keys() - set(KEYS):
        raise FailedError(f"--answers: {answers}: {', '.join(sorted(unknown))}: not asked; known are {', '.join(KEYS)}")
    for key, value in given.items():
        if not isinstance(value, str) and not (isinstance(value, list) and all(isinstance(one, str) for one in value)):
            raise FailedError(f"--answers: {answers}: {key}: {value} is neither text in quotes nor a list of it")
    return given


def _mind_the_place(path: Path) -> None:
    """Before anything is asked: whether there can be such a file. Raises OSError, `FailedError`."""
    if path.is_dir():
        raise FailedError(f"--config: {path} is a directory; name a file in it")
    if path.exists() and not path.is_file():  # to write it anew would take a device from the whole machine
        raise FailedError(f"--config: {path} is not a file; name one")
    there = next(parent for parent in path.absolute().parents if parent.exists())
    if not there.is_dir():
        raise FailedError(f"--config: {there} is a file, so there is no {path}; name another place")
    if not os.access(there, os.W_OK):
        raise FailedError(f"--config: {there} cannot be written to; run setup as root, or name another place")


def _silent(question: str) -> str:
    return ""


def _agreed(arguments: argparse.Namespace, ask: Ask, question: str) -> bool:
    return arguments.yes or _typed(ask, f"{question} [y/N] ").lower() in ("y", "yes")


def _typed(ask: Ask, prompt: str) -> str:
    try:
        return ask(prompt).strip()
    except EOFError:
        raise FailedError("questions were left open; for machines: tollbridge setup --answers FILE --yes") from None


def _answer(question: Question, given: Mapping[str, Any], default: str, ask: Ask) -> Any:
    """The file's, else the one typed, until it reads; an empty line takes the default."""
    if question.key in given:
        return given[question.key]
    while True:
        typed = _typed(ask, f"{question.text}{f' [{default}]' if default else ''}: ") or default
        if typed == "-" or not typed:
            if question.key in ("management", "gateway"):
                return None
            if ask is _silent:
                raise FailedError(f"{question.key}: has no default; give it in --answers FILE")
            continue
        try:
            return question.read(typed)
        except ValueError as error:
            if ask is _silent:
                raise FailedError(f"{question.key}: {error}") from None
            print(f"  {error}")


def _show_ports(ports: tuple[Port, ...]) -> None:
    print("Ports of this box:")
    for port in ports:
        print(f"  {port}")


def _show_servers(config: configuration.Config) -> None:
    """What the names stand for now, so that a wrong one is seen here and not in the mail log."""
    servers = ProtectedServers(configuration.protected_servers(config))
    asyncio.run(servers.resolve_once())
    for name in servers.state():
        print(f"  {name.name}: {', '.join(name.addresses) or name.error or 'no address'}")


def _write(path: Path, text: str) -> None:
    """All or nothing, at any instant; the one before is kept."""
    path.parent.mkdir(mode=0o755, parents=True, exist_ok=True)
    fresh = path.with_name(f"{path.name}.new")
    try:
        if path.exists():
            shutil.copy2(path, fresh)
            fresh.replace(path.with_name(f"{path.name}.old"))
        fresh.write_text(text, encoding="utf-8")
        fresh.replace(path)
    except BaseException:
        fresh.unlink(missing_ok=True)
        raise


def _offer(arguments: argparse.Namespace, ask: Ask) -> int:
    try_it = f"tollbridge up --confirm {CONFIRM_S}"
    if arguments.yes or _typed(ask, f"Try it now, with `{try_it}`? [y/N] ").lower() not in ("y", "yes"):
        print(f"next: tollbridge check; {try_it}; tollbridge confirm; systemctl start tollbridge")
        return 0
    where = ["--config", str(arguments.config), "--run-dir", str(arguments.run_dir)]
    words = [sys.executable, "-P", "-m", "smtp_intercept.app", *where, "up", "--confirm", str(CONFIRM_S)]
    with undisturbed():  # that one hears the signals itself, and has something to undo
        return subprocess.run(words, check=False).returncode  # noqa: S603 - own module
