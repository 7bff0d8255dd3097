"""The dialogues of tests/smtp/dialogues on the wire, through the running gateway, with its own mail log for a witness.

::

    scripted client 192.0.2.10 ── p0 [ gateway ] p1 ── scripted server 192.0.2.20

One gateway for each configuration that some dialogue asks for. Those with a policy, or with a limit that the
configuration does not allow, run on loopback only (`tests/smtp/test_dialogues_live.py`).
"""

from __future__ import annotations

import asyncio
import ctypes
import json
import os
import socket
import threading
from collections.abc import Callable, Iterator
from typing import Any, TypeVar

import pytest

from smtp_intercept.app import config
from smtp_intercept.app.lab import namespaces
from smtp_intercept.app.lab.gateway import toml
from smtp_intercept.app.lab.host import Host
from smtp_intercept.app.lab.network import Lab
from tests.smtp.replay import check_live, check_log
from tests.smtp.script import FILES, Script, read_script

pytestmark = pytest.mark.kernel

CLONE_NEWNET = 0x40000000  # linux/sched.h
CLIENT, SERVER = "192.0.2.10", "192.0.2.20"
TIMEOUT_S = 120.0
Made = TypeVar("Made")


def tables(script: Script) -> dict[str, Any]:
    """The configuration that a dialogue asks for; whatever it does not name is off."""
    quick = {"error_delay_s": 0, "error_delay_step_s": 0} if script.pauses else {}
    return {
        "intercept": {"bare_newline": "pass", **script.settings},
        "protected": [{"domain": "example.com"}, {"servers": [SERVER]}],
        "limits": {**script.limits, **quick},
    }


def possible(script: Script) -> bool:
    """The running gateway can be configured so."""
    try:
        config.parse(toml({"bridge": {"ports": ["p0", "p1"]}, **tables(script)}))
    except config.ConfigErrors:
        return False
    return not script.rulings


SCRIPTS = {path.stem: read_script(path) for path in FILES}
GROUPS: dict[str, list[str]] = {}
for name, script in SCRIPTS.items():
    if possible(script):
        GROUPS.setdefault(json.dumps(tables(script)), []).append(name)


def inside(host: Host, make: Callable[[], Made]) -> Made:
    """Run in the host's network namespace, on a thread of its own: sockets keep the namespace they are made in."""
    made: list[Made] = []

    def work() -> None:
        libc = ctypes.CDLL(None, use_errno=True)
        with (namespaces.NAMESPACES / host.enter[-1]).open() as place:
            if libc.setns(place.fileno(), CLONE_NEWNET):
                raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))
        made.append(make())

    thread = threading.Thread(target=work, daemon=True)
    thread.start()
    thread.join(2 * TIMEOUT_S)
    return made[0]


def dial() -> socket.socket:
    return socket.create_connection((SERVER, 25), timeout=TIMEOUT_S, source_address=(CLIENT, 0))


@pytest.fixture(scope="module")
def listener(lab: Lab, lanes: None) -> Iterator[socket.socket]:
    with inside(lab.host("server"), lambda: socket.create_server((SERVER, 25))) as listener:
        listener.settimeout(TIMEOUT_S)
        yield listener


@pytest.mark.parametrize("wanted", GROUPS, ids=lambda wanted: "-".join(GROUPS[wanted])[:60])
def test_dialogues(lab: Lab, listener: socket.socket, wanted: str) -> None:
    with lab.gateway.running(json.loads(wanted)):
        for name in GROUPS[wanted]:
            replay(lab, listener, SCRIPTS[name], name)


def replay(lab: Lab, listener: socket.socket, script: Script, name: str) -> None:
    before = len(lab.gateway.mail_log("session"))
    client = inside(lab.host("client"), dial)
    server, (address, _) = listener.accept()
    assert address == CLIENT, name
    for sock in (client, server):
        sock.setblocking(False)
    asyncio.run(check_live(script, client, server))
    (session,) = lab.gateway.wait_sessions(before)
    told = [record for record in lab.gateway.mail_log("message") if record["session"] == session["session"]]
    check_log(script, told, session)


def test_most_dialogues_can_be_run() -> None:
    assert sum(map(len, GROUPS.values())) >= 45
