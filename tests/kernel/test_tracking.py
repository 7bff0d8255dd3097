"""Tracker and exporter beside a running gateway: mail is found as it comes, figures are shown; whatever becomes of the
two, mail goes on."""

from __future__ import annotations

import json
import os
import re
import signal
import socket
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from smtp_intercept.app.accounts import BESIDE, account
from smtp_intercept.app.lab.host import SOON_S, patient
from smtp_intercept.app.lab.mail import MailServer, send
from smtp_intercept.app.lab.network import Lab

pytestmark = [pytest.mark.kernel, pytest.mark.usefixtures("lanes")]

SERVER = "192.0.2.20"


RULES = [
    {"name": "On Trial", "mode": "observe", "when": {"sender": ["tried@example.org"]}, "then": {"refuse": "550 no"}},
    {"name": 'not "wanted"', "when": {"sender": ["unwanted@example.org"]}, "then": {"discard": True}},
]


@pytest.fixture(scope="module")
def lab() -> Iterator[Lab]:
    with Lab() as lab:
        MailServer.start(lab.host("server"))
        tracking = {"index": str(lab.gateway.directory / "index")}
        lab.gateway.configure(
            {
                "protected": [{"domain": "example.com", "servers": [SERVER]}],
                "tracking": tracking,
                "metrics": {"listen": str(lab.gateway.directory / "metrics.sock")},
                "limits": {"drain_s": 2},
                "rule": RULES,
            }
        )
        lab.gateway.start()
        yield lab


def post(lab: Lab, sender: str) -> None:
    (entry,) = send(lab.host("client"), SERVER, ["user@example.com"], sender=sender)
    assert entry["accepted"], entry
    assert lab.gateway.wait_log(sender=sender), "inspected"


def trace(lab: Lab, *words: str, at_least: int = 1) -> list[dict[str, Any]]:
    """As soon as there are so many."""
    deadline_at = time.monotonic() + patient(SOON_S)
    while True:
        done = lab.gateway.tollbridge("trace", "--json", *words, check=False)
        found = [json.loads(line) for line in done.stdout.splitlines()]
        if len(found) >= at_least or time.monotonic() > deadline_at:
            return found
        time.sleep(0.1)


def until(what: Any) -> bool:
    deadline_at = time.monotonic() + patient(SOON_S)
    while not what() and time.monotonic() < deadline_at:
        time.sleep(0.1)
    return bool(what())


def test_mail_is_found_by_whom_it_is_of_and_whole(lab: Lab) -> None:
    post(lab, "first@example.org")
    (mail,) = trace(lab, "--from", "first@example.org", "--client", "192.0.2.10")
    assert [record["type"] for record in mail["records"]] == ["message", "session"]
    assert mail["state"] == "accepted"


def figures(lab: Lab) -> str:
    """As a scraper reads them."""
    with socket.socket(socket.AF_UNIX) as asking:
        asking.settimeout(patient(SOON_S))
        asking.connect(str(lab.gateway.directory / "metrics.sock"))
        asking.sendall(b"GET /metrics HTTP/1.0\r\n\r\n")
        return b"".join(iter(lambda: asking.recv(65536), b"")).decode()


def shows(lab: Lab, line: str) -> bool:
    """Sooner or later; a regular expression for a whole line."""
    return until(lambda: re.search(f"^{line}$", figures(lab), re.MULTILINE))


def test_figures_are_shown(lab: Lab) -> None:
    post(lab, "counted@example.org")
    assert shows(lab, r"tollbridge_inspecting 1\.0")
    assert shows(lab, r'tollbridge_process_up\{process="tracker"\} 1\.0')
    assert shows(lab, r"tollbridge_messages_total [1-9].*")
    assert shows(lab, r'tollbridge_connections_total\{action="incoming.intercept"\} .*')
    assert shows(lab, r'tollbridge_not_inspected_total\{reason="not_live"\} .*'), "the kernel's too"


def test_what_rules_did_and_would_have_done(lab: Lab) -> None:
    post(lab, "tried@example.org")
    post(lab, "unwanted@example.org")
    (tried,) = trace(lab, "--rule", "on trial")
    assert (tried["records"][0]["would"], tried["state"]) == (["On Trial"], "accepted")
    (gone,) = trace(lab, "--rule", 'not "wanted"')
    assert (gone["records"][0]["rules"], gone["state"]) == (['not "wanted"'], "discarded")
    assert gone["records"][0]["recipients"][0]["discarded"]
    assert "thrown away by a rule" in lab.gateway.tollbridge("trace", "--rule", 'not "wanted"').stdout
    assert shows(lab, r'tollbridge_rule_observed_hits_total\{rule="On Trial"\} 1\.0')
    assert shows(lab, r'tollbridge_rule_hits_total\{rule="not \\"wanted\\""\} 1\.0')


@pytest.mark.parametrize(("kind", "own"), [("tracker", ["index"]), ("exporter", [])])
def test_each_has_a_sandbox_and_a_user_of_its_own(lab: Lab, kind: str, own: list[str]) -> None:
    pid, written = lab.gateway.pids()[kind], {str(lab.gateway.directory / name) for name in own}
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    status = dict(line.split(":\t", 1) for line in lines if ":\t" in line)
    uid, gid = account(kind)
    assert {*status["Uid"].split(), *status["Gid"].split()} == {str(uid), str(gid)}
    assert (status["Seccomp"], status["NoNewPrivs"], int(status["CapBnd"], 16)) == ("2", "1", 0)
    mounts = [line.split()[4:6] for line in Path(f"/proc/{pid}/mountinfo").read_text().splitlines()]
    assert {where for where, options in mounts if "rw" in options.split(",")} == written


def test_the_index_is_its_own_and_no_log_is(lab: Lab) -> None:
    pid, directory, uid = lab.gateway.pids()["tracker"], lab.gateway.directory / "index", account("tracker")[0]
    root = Path(f"/proc/{pid}/root")
    assert not root.joinpath(*lab.gateway.log.parts[1:]).exists(), "it reads what it is lent, and opens no log"
    assert (directory.stat().st_uid, directory.stat().st_mode & 0o777) == (uid, 0o700)
    assert lab.gateway.status()["unguarded"] == {}


def test_rotated_as_logrotate_does_it(lab: Lab) -> None:
    gateway = lab.gateway
    post(lab, "before@example.org")
    gateway.log.with_name("mail.log.1").write_bytes(gateway.log.read_bytes())
    os.truncate(gateway.log, 0)
    post(lab, "after@example.org")
    assert trace(lab, "--from", "after@example.org")
    assert len(trace(lab, "--from", "before@example.org")) == 1


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGSTOP])
def test_mail_goes_on_without_them(lab: Lab, number: signal.Signals) -> None:
    gateway, sender = lab.gateway, f"{number.name.lower()}@example.org"
    before = gateway.pids()
    for kind in BESIDE:
        os.kill(before[kind], number)
    post(lab, sender)
    page = gateway.status()
    assert page["ready"]
    assert page["live"]
    if number == signal.SIGSTOP:
        for kind in BESIDE:
            os.kill(before[kind], signal.SIGCONT)
    assert len(trace(lab, "--from", sender)) == 1, "what came meanwhile is indexed then"
    assert until(lambda: gateway.pids().keys() == before.keys())
    others = before.keys() - BESIDE
    assert {name: gateway.pids()[name] for name in others} == {name: before[name] for name in others}
    assert shows(lab, r"tollbridge_up 1\.0")


def test_made_anew_beside_the_gateway(lab: Lab) -> None:
    known = {mail["mail"] for mail in trace(lab)}
    assert known
    assert "running tracker" in lab.gateway.tollbridge("reindex").stdout
    assert until(lambda: {mail["mail"] for mail in trace(lab)} == known)


def test_an_index_that_cannot_be_is_said_and_mail_is_inspected(lab: Lab) -> None:
    """The last of this lab's: a file stands in the directory's place."""
    gateway = lab.gateway
    gateway.stop(down=False)
    directory = gateway.directory / "index"
    directory.rename(directory.with_name("elsewhere"))
    directory.write_text("")
    assert "tracking.index" in gateway.tollbridge("check").stderr
    gateway.spawn_daemon()
    post(lab, "last@example.org")
    assert until(lambda: any("tracker has ended" in line for line in gateway.tollbridge("status").stdout.splitlines()))
    assert gateway.status()["ready"]
