"""The tracker beside a running gateway: mail is found as it comes; whatever becomes of the tracker, mail goes on."""

from __future__ import annotations

import json
import os
import signal
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from smtp_intercept.app.accounts import account
from smtp_intercept.app.lab.host import SOON_S, patient
from smtp_intercept.app.lab.mail import MailServer, send
from smtp_intercept.app.lab.network import Lab

pytestmark = [pytest.mark.kernel, pytest.mark.usefixtures("lanes")]

SERVER = "192.0.2.20"


@pytest.fixture(scope="module")
def lab() -> Iterator[Lab]:
    with Lab() as lab:
        MailServer.start(lab.host("server"))
        tracking = {"index": str(lab.gateway.directory / "index")}
        lab.gateway.configure(
            {
                "protected": [{"domain": "example.com", "servers": [SERVER]}],
                "tracking": tracking,
                "limits": {"drain_s": 2},
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


def test_it_has_a_sandbox_and_a_user_of_its_own(lab: Lab) -> None:
    pid, directory = lab.gateway.pids()["tracker"], lab.gateway.directory / "index"
    status = dict(
        line.split(":\t", 1) for line in Path(f"/proc/{pid}/status").read_text().splitlines() if ":\t" in line
    )
    uid, gid = account("tracker")
    assert {*status["Uid"].split(), *status["Gid"].split()} == {str(uid), str(gid)}
    assert (status["Seccomp"], status["NoNewPrivs"], int(status["CapBnd"], 16)) == ("2", "1", 0)
    mounts = [line.split()[4:6] for line in Path(f"/proc/{pid}/mountinfo").read_text().splitlines()]
    assert {where for where, options in mounts if "rw" in options.split(",")} == {str(directory)}
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
def test_mail_goes_on_without_it(lab: Lab, number: signal.Signals) -> None:
    gateway, sender = lab.gateway, f"{number.name.lower()}@example.org"
    before = gateway.pids()
    os.kill(before["tracker"], number)
    post(lab, sender)
    page = gateway.status()
    assert page["ready"]
    assert page["live"]
    if number == signal.SIGSTOP:
        os.kill(before["tracker"], signal.SIGCONT)
    assert len(trace(lab, "--from", sender)) == 1, "what came meanwhile is indexed then"
    after = gateway.pids()
    assert {name: pid for name, pid in after.items() if name != "tracker"} == {
        name: pid for name, pid in before.items() if name != "tracker"
    }


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
