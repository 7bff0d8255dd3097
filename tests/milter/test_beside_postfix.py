"""The same message, the same filter: once through Postfix (smtpd_milters), once through the gateway. What the filter
hears, what the client hears, and what the next server has are the same.

::

    client ──> Postfix ──┬──> sink        client ──> Gateway ──┬──> server
                         └── filter                            └── filter
"""

from __future__ import annotations

import asyncio
import re
import signal
import socket
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import uvloop

from smtp_intercept.app.lab.host import Host, patient
from smtp_intercept.milter.client import Settings
from tests.milter.conftest import PyMilter
from tests.milter.town import Client, Stored, Town, rule, serve, town
from tests.peers.jail import SPOOL, jailed
from tests.peers.postfix import PLACES

HEADER = b"Date: Mon, 2 Nov 2026 10:00:00 +0000\r\nMessage-ID: <1@c.example>\r\nFrom: <a@c.example>\r\n"
TEXT = HEADER + b"Subject:  two spaces\r\nX-One: 1\r\nX-One:\t2\r\n folded\r\n\r\n.dot\r\n\xff\r\n..two\r\n"
MAIN = (
    PLACES
    + """\
myhostname = box.example
mydestination =
inet_interfaces = 127.0.0.1
inet_protocols = ipv4
mynetworks = 127.0.0.0/8
smtpd_peername_lookup = no
smtpd_error_sleep_time = 0
smtpd_milters = unix:/run/filter/socket
milter_default_action = tempfail
smtp_tls_security_level = none
smtp_dns_support_level = disabled
smtp_host_lookup = native
smtp_discard_ehlo_keywords = chunking
alias_maps =
alias_database =
local_header_rewrite_clients =
local_recipient_maps =
default_transport = smtp:[127.0.0.1]:{sink}
relay_transport = smtp:[127.0.0.1]:{sink}
"""
)
MASTER = """
127.0.0.1:{port} inet n - n - - smtpd
cleanup   unix  n - n -   0  cleanup
qmgr      unix  n - n 300 1  qmgr
rewrite   unix  - - n -   -  trivial-rewrite
bounce    unix  - - n -   0  bounce
defer     unix  - - n -   0  bounce
trace     unix  - - n -   0  bounce
proxymap  unix  - - n -   -  proxymap
smtp      unix  - - n -   -  smtp
retry     unix  - - n -   -  error
discard   unix  - - n -   -  discard
anvil     unix  - - n -   1  anvil
tlsmgr    unix  - - n 1000? 1 tlsmgr
postlog   unix-dgram n - n - 1 postlogd
"""


@dataclass(frozen=True)
class Postfix:
    """At work on loopback; delivers to ``sink``."""

    port: int
    sink: int


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as found:
        return int(found.getsockname()[1])


@pytest.fixture(scope="module")
def postfix(pymilter: PyMilter, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Postfix]:
    it, host = Postfix(free_port(), free_port()), Host("box", (), tmp_path_factory.mktemp("postfix"))
    files = {
        "postfix/main.cf": MAIN.format(spool=SPOOL, sink=it.sink),
        "postfix/master.cf": MASTER.format(port=it.port),
    }
    pymilter.directory.chmod(0o711)
    Path(pymilter.address).chmod(0o666)
    prepare = [
        f"install -d {SPOOL}/postfix {SPOOL}/postfix/pid /run/filter",
        "install -d -o postfix /var/lib/postfix",
        f"mount --bind {pymilter.directory} /run/filter",
    ]
    prepare.append("postfix check")
    process = jailed(host, "postfix", files, prepare, ["/usr/lib/postfix/sbin/master", "-s"])  # it hears SIGTERM
    deadline_at = time.monotonic() + patient(30.0)
    while True:
        try:
            socket.create_connection(("127.0.0.1", it.port)).close()
            break
        except ConnectionRefusedError:
            assert process.running, process.stdout + process.stderr
            assert time.monotonic() < deadline_at, process.stdout + process.stderr
            time.sleep(0.1)
    yield it
    process.signal(signal.SIGTERM)
    process.wait()


@dataclass
class Outcome:
    """Of one message."""

    heard: list[str]  # Postfix tells of the sender at MAIL, we at RCPT
    told: list[Any]
    stored: list[Stored]


def told(pymilter: PyMilter) -> list[Any]:
    """What the filter heard of it, but for the connection, whose macros are each server's own."""
    if not (pymilter.directory / "heard").exists():
        return []
    return [each for each in pymilter.heard() if each[0] != "connect"]


async def through_postfix(postfix: Postfix, pymilter: PyMilter, recipients: list[str], *, goes_on: bool) -> Outcome:
    sink = Town({})
    async with await asyncio.start_server(lambda r, w: serve(sink, r, w), "127.0.0.1", postfix.sink):
        client = Client(*await asyncio.open_connection("127.0.0.1", postfix.port))
        heard = await client.mail(TEXT, recipients)
        await client.leave()
        async with asyncio.timeout(patient(20.0)):
            while goes_on and not sink.stored:
                await asyncio.sleep(0.05)
    stored = [Stored(each.sender, each.recipients, plain(each.content)) for each in sink.stored]
    return Outcome([client.at_mail, *heard], told(pymilter), stored)


async def through_gateway(tmp_path: Path, pymilter: PyMilter, recipients: list[str]) -> Outcome:
    async with town(tmp_path, [rule("f")], Settings("f", pymilter.address)) as it:
        heard = await it.mail(TEXT, recipients)
    return Outcome(heard, told(pymilter), it.stored)


def plain(content: bytes) -> bytes:
    """Without what Postfix adds for itself."""
    return re.sub(rb"(?m)^Received: .*\r\n([ \t].*\r\n)+", b"", content, count=1)


EDITS: dict[str, list[list[Any]]] = {
    "nothing": [],
    "headers": [
        ["addheader", "X-Added", "last\n\tand folded"],
        ["chgheader", "X-One", 2, "changed"],
        ["chgheader", "X-One", 1, ""],
        ["chgheader", "X-New", 1, "new"],
        ["chgheader", "X-One", 7, "beyond"],
        ["chgheader", "X-None", 1, ""],
    ],
    "first": [["addheader", "X-First", "first", 0], ["addheader", "X-Third", "third", 2]],
    "far": [["addheader", "X-Far", "far", 99]],
    "envelope": [["chgfrom", "<other@c.example>"], ["addrcpt", "<more@example.com>"], ["delrcpt", "<b@example.com>"]],
    "again": [["addrcpt", "<b@example.com>"], ["delrcpt", "<nobody@example.com>"]],
    "body": [["replacebody", ".another\n"], ["replacebody", "body \xff\r\n."]],
    "empty": [["replacebody", ""]],
    "all": [["addheader", "X-A", "a"], ["chgfrom", "<>"], ["replacebody", "short\n"], ["delrcpt", "<c@example.com>"]],
}


def check(tmp_path: Path, postfix: Postfix, pymilter: PyMilter, *, goes_on: bool) -> tuple[Outcome, Outcome]:
    recipients = ["b@example.com", "c@example.com"]

    async def both() -> tuple[Outcome, Outcome]:
        theirs = await through_postfix(postfix, pymilter, recipients, goes_on=goes_on)
        (pymilter.directory / "heard").unlink(missing_ok=True)
        return theirs, await through_gateway(tmp_path, pymilter, recipients)

    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        return runner.run(both())


@pytest.mark.parametrize("edit", EDITS)
def test_the_same_message(tmp_path: Path, postfix: Postfix, pymilter: PyMilter, edit: str) -> None:
    pymilter.order(edit=EDITS[edit])
    theirs, ours = check(tmp_path, postfix, pymilter, goes_on=True)
    (mine,), (its,) = ours.stored, theirs.stored
    assert mine.content == its.content
    # Postfix sends twice to who was a recipient already.
    assert (mine.sender, sorted(mine.recipients)) == (its.sender, sorted(set(its.recipients)))
    assert ours.told == theirs.told
    assert [line[:3] for line in ours.heard] == [line[:3] for line in theirs.heard[1:]]


SAYS: dict[str, dict[str, Any]] = {
    f"{event} {said if isinstance(said, str) else said[0]}": {event: said}
    for event in ("envfrom", "envrcpt", "data", "header", "eoh", "eom")
    for said in ("reject", "tempfail", ["554", "5.7.1", "not this"])
}


@pytest.mark.parametrize("say", SAYS)
def test_the_same_answer(tmp_path: Path, postfix: Postfix, pymilter: PyMilter, say: str) -> None:
    """In words too."""
    pymilter.order(say=SAYS[say])
    theirs, ours = check(tmp_path, postfix, pymilter, goes_on=False)
    first, its_first = (next(line for line in it.heard if line[0] in "45") for it in (ours, theirs))
    assert first == its_first
    assert ours.stored == theirs.stored == []
