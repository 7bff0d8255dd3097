"""Command lines by chance: whatever is typed, wherever the output goes, the command ends with one of its statuses and
without a traceback.

::

    unshare --net ─▶ a box with no ports of that name ─▶ thousands of lines, in this process, real verbs
                                                      └▶ dozens of forks with standard files closed, full, torn, latin-1

``python -m tests.fuzz.command_lines LINES SEED``. Stubs only for what would build a lab or wait: the demo, measuring,
the probe of the kernel, a child of `setup`, and the name servers.
"""

from __future__ import annotations

import functools
import io
import os
import random
import re
import subprocess
import sys
import tempfile
import traceback
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from unittest import mock

import dns.resolver

from smtp_intercept.app import cli, entry, streams
from smtp_intercept.app.exits import Exit

STATUSES = {*map(int, Exit)}
ROOT = Path(__file__).parents[2]
FORKS = 40
ONCE_IN = 15  # lines whose words are a whole command: those cost the most
VALID = """
[bridge]
ports = ["tbx0", "tbx1"]
[[protected]]
domain = "example.com"
servers = ["192.0.2.20"]
[mta]
spool = "{}"
"""
# What a file may hold → by the name that it has here.
FILES: Mapping[str, bytes] = {
    "good.toml": b"",
    "empty.toml": b"",
    "bom.toml": b"\xef\xbb\xbf[bridge]\n",
    "latin.toml": b"# caf\xe9\n",
    "deep.toml": b"x = " + b"[" * 5000,
    "long.toml": b"x = " + b"9" * 5000,
    "nul.toml": b'[bridge]\nports = ["a\\u0000b", "c"]\n',
    "date.toml": b"gateway = 2026-01-01\n",
    "nested.toml": b'ports = [["a"], 1]\nservers = nan\n',
    "wide.toml": 'domain = "→.example"\nservers = ["\U0001f4e7"]\nports = ["é", "ü"]\n'.encode(),
    "answers.toml": b'domain = "example.com"\nservers = ["192.0.2.20"]\nports = ["tbx0", "tbx1"]\n',
    "label.toml": b'domain = "' + b"a" * 300 + b'"\nservers = ["' + b"b" * 70 + b'.example"]\n',
    "list.json": b"[1, 2]",
    "box.json": b'{"nics": 3}',
}


def _split(text: str) -> list[str]:
    return text.split()


WORDS = [
    *_split(
        "setup check plan up confirm down run status explain queue hw demo guard list show hold release retry delete"
    ),
    *_split("reroute facts detect apply revert tune bypass arm keep --help -h --version --json --yes --all --notify"),
    *_split("--content --keep --boot --adopted --config --run-dir --state-dir --answers --confirm --from --to --port"),
    *_split("--vlan --rcpt --spool --domain --state --older --via --facts --ports --only --rounds --seconds --output"),
    *_split("--token -- - --conf --json=1 --vlan=-1 --confirm=1e3"),
]
VALUES = [
    *_split(
        "0 -1 1e9 nan ٣ 10 60 192.0.2.1 2001:db8::1 fe80::1%tbx0 192.0.2.0/24 :: example.com user@example.com <> *@*"
    ),
    *_split("user@[192.0.2.20] → é tbx0 LAN1 02:00:00:00:00:01 generic dead held 90s 3d 999999999d host:25 [::1]:25"),
    *_split("host:99999 %s {0} ../../etc / /dev/null /dev/full /dev/zero /dev/stdin /proc/self/mem ABCDEFGH"),
    *("", "9" * 400, "\udcff", "\u202e", "a" * 300, "a\nb", "x\x1b[31m", "a\u2028b"),
]
# Whole commands, in which a word is then changed as often as not.
LINES = [
    line.split()
    for line in """
check
check --json
plan
plan --json
up
up --confirm 10
up --boot
up --boot --adopted
down
confirm
run
status
status --json
explain --from 192.0.2.10 --to 192.0.2.20
explain --from 2001:db8::1 --to 192.0.2.20 --rcpt user@example.com
explain --from 192.0.2.1 --to :: --port tbx0
setup
setup --yes
setup --yes --answers answers.toml
setup --answers date.toml
setup --answers wide.toml --yes
setup --answers label.toml --yes
setup --answers nested.toml --yes
setup --answers deep.toml --yes
queue list
queue list --json
queue show ABC
queue delete --all --yes
queue retry X
queue hold --all
queue reroute --via host:25 --all
queue list --older 3d --state dead
hw facts --json
hw detect --facts box.json
hw detect --facts list.json
hw show generic
hw show
hw plan
hw apply
hw revert
hw bypass
hw arm
hw keep
guard --token x
""".strip().splitlines()
]


def line(chance: random.Random, here: Path) -> list[str]:
    """The words behind `tollbridge`."""
    paths = [str(here / name) for name in (*FILES, "none.toml", "folder", "folder/x", "good.toml/x", "a" * 300)]
    words = list(chance.choice(LINES)) if chance.random() * ONCE_IN < 1 else _words(chance, chance.randrange(1, 7))
    words = [str(here / word) if word in FILES else word for word in words]
    for _ in range(chance.randrange(3)):
        _change(chance, words, paths)
    where = [] if chance.random() < 0.1 else ["--config", paths[0] if chance.random() < 0.7 else chance.choice(paths)]
    where += ["--run-dir", str(here / "run")] if chance.random() < 0.9 else ["--run-dir", chance.choice(paths)]
    if "--state-dir" not in words:
        where += ["--state-dir", str(here / "state")]
    return [*where, *words]


def _words(chance: random.Random, number: int) -> list[str]:
    return [chance.choice(WORDS if chance.random() < 0.6 else VALUES) for _ in range(number)]


def _change(chance: random.Random, words: list[str], paths: list[str]) -> None:
    if not words or chance.random() < 0.4:
        words.insert(chance.randrange(len(words) + 1), chance.choice([*WORDS, *VALUES, *paths]))
        return
    at = chance.randrange(len(words))
    match chance.randrange(4):
        case 0:
            del words[at]
        case 1:
            words[at] = chance.choice([*VALUES, *paths])
        case 2:
            words[at] = words[at][:-1] + chance.choice("x=-\udc80")
        case _:
            words.append(words[at])


class _Torn(io.RawIOBase):
    """A standard file that fails as one may."""

    def __init__(self, number: int) -> None:
        self._number, self.said = number, b""

    def writable(self) -> bool:
        return True

    def write(self, data: Any, /) -> int:
        if self._number:
            raise OSError(self._number, os.strerror(self._number))
        self.said += bytes(data)
        return len(data)


def _stream(chance: random.Random) -> tuple[io.TextIOWrapper, _Torn]:
    fails = chance.choice([0, 0, 0, 5, 9, 28, 32])  # EIO, EBADF, ENOSPC, EPIPE
    encoding = chance.choice(["utf-8", "latin-1", "ascii", "koi8-r"])
    torn = _Torn(fails)
    return io.TextIOWrapper(io.BufferedWriter(torn), encoding, "tollbridge", line_buffering=True), torn


def _typed(chance: random.Random) -> Callable[[str], str]:
    def answer(prompt: str = "") -> str:
        if chance.random() < 0.3:
            raise EOFError
        if chance.random() < 0.03:
            os.kill(os.getpid(), chance.choice([2, 15]))
        return chance.choice([*VALUES, "tbx0 tbx1", "y", "-"]).replace("\udcff", "\ufffd")

    return answer


def said_wrong(words: list[str], chance: random.Random) -> str:
    """Runs one line; what is wrong with how it ended, "" if nothing."""
    (out, _), (err, told) = _stream(chance), _stream(chance)
    try:
        with mock.patch("sys.stdout", out), mock.patch("sys.stderr", err), mock.patch("builtins.input", _typed(chance)):
            status = entry.status_of(words)
    except BaseException:
        return f"{words!r}\n{traceback.format_exc(limit=-8)}"
    if status not in {*STATUSES, 130, 143}:
        return f"{words!r}: exit status {status}"
    odd = badly_told(told.said.decode("latin-1"))  # the codes that matter are the same in all four
    return f"{words!r}: {odd}" if odd else ""


def badly_told(text: str) -> str:
    """What is wrong with the lines that somebody is told: nobody's, twice the same, or what a terminal obeys."""
    lines = text.split("\n")[:-1]
    if control := [line for line in lines if re.search(r"[\x00-\x08\x0b-\x1f\x7f]", line)]:
        return f"control characters: {control[0]!r}"
    if twice := [line for line, number in Counter(lines).items() if number > 1 and line]:
        return f"told twice: {twice[0]!r}"
    nobodys = [line for line in lines if line and not line.startswith(_BEGINNINGS)]
    return f"whose line is it: {nobodys[0]!r}" if nobodys else ""


# Of what the command says beside its output: errors, the words of logging, argparse's usage, a question.
_BEGINNINGS = ("tollbridge", "usage: ", "WARNING: ", "ERROR: ", "INFO: ", " ")


# How a shell may give standard input, output and error to a command.
def _full(number: int) -> None:
    os.dup2(os.open("/dev/full", os.O_WRONLY), number)


def _read_by_nobody(number: int) -> None:
    read, write = os.pipe()
    os.close(read)
    os.dup2(write, number)


FILES_OF_A_SHELL: tuple[Callable[[int], None], ...] = (os.close, _full, _read_by_nobody, lambda _: None)


def forked(words: list[str], chance: random.Random) -> str:
    """The same in a process with real files, its standard error read if it is open."""
    out, err, closed = chance.choice(FILES_OF_A_SHELL), chance.choice(FILES_OF_A_SHELL), chance.random() < 0.3
    read, write = os.pipe()
    if not (pid := os.fork()):
        status = 70
        try:
            os.dup2(write, 2)
            null = os.open(os.devnull, os.O_RDWR)
            os.dup2(null, 0)
            os.dup2(null, 1)
            out(1)
            err(2)
            if closed:
                os.close(0)
            sys.stdin = sys.stdout = sys.stderr = None
            sys.argv = ["tollbridge", *words]
            status = entry.main()
        finally:
            os._exit(status)
    os.close(write)
    with os.fdopen(read, errors="replace") as file:
        text = file.read()
    status = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
    if "Traceback" in text or "Exception ignored" in text or status not in STATUSES:
        return f"{words!r}, {out} {err}: exit status {status}\n{text}"
    return ""


def main(lines: int, seed: int) -> int:
    """The number of lines at which the command misbehaved, the first ten of which are shown."""
    streams.open_standard()  # the parsers bind their verbs once: after the stubs
    chance, wrong = random.Random(seed), list[str]()
    with tempfile.TemporaryDirectory() as folder, stubbed():
        here = Path(folder)
        (here / "folder").mkdir()
        for name, content in FILES.items():
            (here / name).write_bytes(content)
        for number in range(lines):
            (here / "good.toml").write_text(VALID.format(here / "spool"))
            words = line(chance, here)
            way = forked if number * FORKS % lines < FORKS else said_wrong
            if found := way(words, chance):
                wrong.append(found)
    print("\n".join(wrong[:10]))
    print(f"{lines} command lines, seed {seed}: {len(wrong)} went wrong")
    return int(bool(wrong))


async def _no_answer(*_: object, **__: object) -> None:
    raise dns.resolver.NoNameservers


@contextmanager
def stubbed() -> Iterator[None]:
    """Nothing that builds a lab, waits, or asks others."""
    stubs = {
        "smtp_intercept.app.asking.demo": lambda _: 0,
        "smtp_intercept.app.hw.tune": lambda _: 0,
        "smtp_intercept.app.boot.PORTS_S": 0.0,
        "smtp_intercept.app.boot.LANE_S": 0.0,
        "smtp_intercept.app.setup.subprocess": SimpleNamespace(run=lambda *_, **__: subprocess.CompletedProcess([], 0)),
        "bridge.firewall.probe": lambda: False,
        "dns.asyncresolver.Resolver.resolve": _no_answer,
        "smtp_intercept.app.cli._parser": functools.cache(cli._parser),
    }
    with ExitStack() as stack:
        for name, stub in stubs.items():
            stack.enter_context(mock.patch(name, stub))
        yield


def in_a_namespace(lines: int, seed: int) -> subprocess.CompletedProcess[str]:
    """`main` where it can do no harm."""
    words = [sys.executable, "-m", "tests.fuzz.command_lines", str(lines), str(seed)]
    unshared = ["unshare", "--net", *([] if os.geteuid() == 0 else ["--map-root-user"])]
    with tempfile.TemporaryDirectory() as away:  # relative paths are among the words
        env = os.environ | {"PYTHONPATH": str(ROOT)}
        return subprocess.run([*unshared, *words], cwd=away, env=env, capture_output=True, text=True, check=False)


if __name__ == "__main__":
    sys.exit(main(int(sys.argv[1]), int(sys.argv[2])))
