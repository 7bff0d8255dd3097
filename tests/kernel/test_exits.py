"""Every verb of the command, as a process of its own on a box, ends by the one table of exit statuses.

::

    misuse   each with an option that it has not       2
    failed   each with what cannot be                  1
    done     a box's life, from setup to down          0; `status` 3 before `run`; `run` as it is asked to end: 130

The verbs are the parser's own: one that is new and has no row here fails.
"""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor

import pytest

from smtp_intercept.app import cli
from smtp_intercept.app.exits import Exit
from smtp_intercept.app.lab.gateway import Gateway
from smtp_intercept.app.lab.host import patient
from smtp_intercept.app.lab.network import Lab
from smtp_intercept.app.signals import ASKS
from smtp_intercept.watch.index import LOCK
from tests.app.test_cli import leaves
from tests.kernel.relay_card import Card
from tests.mta.spools import put, spool_in, wait
from tests.unshown import NOBODY

pytestmark = [pytest.mark.kernel, pytest.mark.usefixtures("lanes")]

VERBS = {" ".join(path) for path in leaves(cli._parser())}
NEEDED = {
    "explain": "--from 192.0.2.10 --to 192.0.2.20",
    "queue show": "X",
    "queue reroute": "--via mx.test",
    "filter test": "a-filter",
    "tls test": "192.0.2.20",
    "rules test": "{eml} --from 192.0.2.10 --to 192.0.2.20",
}
AS_NOBODY = {"demo", "guard", "hw tune"}  # who may not
# What cannot be: no such file, no such message, nothing that waits, no directory below a file.
FAILED: Mapping[str, str] = {
    "setup": "--answers {none}",
    **dict.fromkeys(("check", "plan", "up", "run", "explain", "rules test", "rules replay"), "--config {none}"),
    **dict.fromkeys(("filter test", "trace", "reindex", "tls show", "tls test"), "--config {none}"),
    "support": "--output {file}/x",
    "tls authority create": "--certificate {file}/x --key {file}/y",
    "confirm": "",
    "down": "--run-dir {file}/x",
    "status": "--run-dir {file}",
    "demo": "",
    "guard": "--token x",
    **{f"queue {verb}": "--spool {none}" for verb in ("list", "show")},
    **{f"queue {verb}": "--spool {none} --all" for verb in ("hold", "release", "retry", "delete", "reroute")},
    **dict.fromkeys(("hw facts", "hw detect", "hw show"), "--facts {none}"),
    **dict.fromkeys(("hw plan", "hw apply", "hw bypass", "hw arm"), "--config {none}"),
    "hw keep": "--run-dir {file}/x",
    "hw tune": "",
    "hw revert": "--run-dir {file}/x",
}
BEFORE = (
    "setup --yes --answers {answers} --config {fresh}",
    *("check", "plan", "explain", "hw facts", "hw detect", "hw show", "hw plan", "hw apply", "hw revert", "up"),
    *("rules test", "support --output {fresh}.tar.gz"),
    *("tls authority create --certificate {fresh}.crt --key {fresh}.key", "tls show"),
    *("hw keep", "hw bypass", "hw arm", "up --confirm 3600", "confirm"),
    *("queue list", "queue show {id}", "queue hold {id}", "queue release {id}", "queue retry --all"),
    *("queue reroute --all --via mx.test", "queue delete --all --yes", "guard --token of-nobody"),
)
RUNNING = ("status", "explain --running", "rules replay", "trace", "reindex", "down")  # there is a log then
COMMAND = (sys.executable, "-m", "smtp_intercept.app")
# Their ends are shown where there are minutes, a filter, a server: `make demo`, test_tune.py, tests/milter, tests/app.
DOCTOR = {"doctor"}  # says by its status what it has found: tests/kernel/test_doctor.py
ELSEWHERE = {"demo", "hw tune", "filter test", "tls test"}


@pytest.fixture(scope="module")
def box() -> Iterator[Gateway]:
    with Lab() as lab:
        card = Card(lab)
        relay = {"ports": ["p0", "p1"], "kind": "silicom", "driven_by": str(card.program), "watchdog_ms": 60_000}
        spool = lab.gateway.directory / "spool"
        tracking = {"tracking": {"index": str(lab.gateway.directory / "index")}}
        protected = {"domain": "example.com", "servers": ["192.0.2.20"]}
        lab.gateway.configure({"protected": [protected], "mta": {"spool": str(spool)}, "bypass": [relay], **tracking})
        yield lab.gateway
        lab.gateway.stop()
        card.close()


def line(box: Gateway, words: str) -> list[str]:
    """The command line; what stands in braces is a path of the box's, and what the verb needs is there."""
    verb = max((verb for verb in VERBS if f"{words} ".startswith(f"{verb} ")), key=len)
    needed = "" if (words.startswith("queue re") and "--via" in words) or "{id}" in words else NEEDED.get(verb, "")
    (box.directory / "file").touch()
    (box.directory / "eml").write_text("To: user@example.com\nSubject: a\n\nb\n")
    names = {name: str(box.directory / name) for name in ("none", "file", "fresh", "answers", "eml")}
    spool = box.directory / "queue"
    given = f"{words} {needed}".format(**names, id=next(iter(IDS), ""))
    own = ["--spool", str(spool)] if verb.startswith("queue ") and "--spool" not in words else []
    return box.command(*given.split(), *own)


IDS: list[str] = []


def test_every_verb_has_a_row() -> None:
    assert FAILED.keys() == VERBS - DOCTOR
    lines = (*BEFORE, *RUNNING)
    shown = {max((verb for verb in VERBS if f"{words} ".startswith(f"{verb} ")), key=len) for words in lines}
    assert shown | {"run"} | ELSEWHERE | DOCTOR == VERBS


def test_misuse() -> None:
    """Of every verb, and of what has verbs; nothing of the box is asked."""
    groups = {verb.split()[0] for verb in VERBS if " " in verb}
    lines = [f"{verb} {NEEDED.get(verb, '')} --nonsense".split() for verb in VERBS] + [[group] for group in groups]

    def ended(words: list[str]) -> tuple[int, bool]:
        done = subprocess.run([*COMMAND, *words], capture_output=True, text=True, check=False, timeout=120)
        return done.returncode, "error: " in done.stderr

    with ThreadPoolExecutor(os.cpu_count()) as pool:
        statuses = dict(zip(map(" ".join, lines), pool.map(ended, lines), strict=True))
    assert {words: how for words, how in statuses.items() if how != (Exit.MISUSE, True)} == {}


def test_failed(box: Gateway) -> None:
    for verb in FAILED:
        words = line(box, f"{verb} {FAILED[verb]}")
        if verb in AS_NOBODY:
            words = ["setpriv", f"--reuid={NOBODY}", *words]
        result = box.run(words, check=False)
        assert (verb, result.returncode) == (verb, Exit.FAILED), result.stderr
        assert all(said.startswith("tollbridge: ") for said in result.stderr.splitlines()), result.stderr
        assert result.stderr, verb


def test_done(box: Gateway) -> None:
    (box.directory / "answers").write_text('domain = "example.com"\nservers = ["192.0.2.20"]\nports = ["p0", "p1"]\n')
    with spool_in(box.directory / "queue") as queue:
        IDS[:] = [wait(put(queue, now=time.time())) for _ in range(2)][:1]
    assert box.run(line(box, "status"), check=False).returncode == Exit.NOT_INSPECTING
    for words in BEFORE:
        result = box.run(line(box, words), check=False)
        assert (words, result.returncode) == (words, Exit.DONE), result.stderr + result.stdout
    assert box.run(line(box, "status"), check=False).returncode == Exit.NOT_INSPECTING
    daemon = box.spawn_daemon()
    deadline_at = time.monotonic() + patient(10.0)
    while not (box.directory / "index" / LOCK).exists():  # the tracker begins behind all others
        assert time.monotonic() < deadline_at, daemon.stderr
        time.sleep(0.1)
    for words in RUNNING:
        result = box.run(line(box, words), check=False)
        assert (words, result.returncode) == (words, Exit.DONE), result.stderr + result.stdout
    assert daemon.wait().returncode == 128 + ASKS
