"""Filters and the daemon at work: asked by live sessions and by the MTA, over a socket with a path and over the host's
loopback, wherever the wire has its network namespace; killed, started again, hung.

::

    client ── p0 │ interceptor (proxy, to .20)  ──┬── p1 ── server .20, .21
                 │ MTA (to .21)                 ──┘
                   └── unix:…/path/socket, 127.0.0.1:8899
"""

from __future__ import annotations

import json
import signal
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from smtp_intercept.app.lab.host import SOON_S, Process, patient
from smtp_intercept.app.lab.mail import MailServer
from smtp_intercept.app.lab.network import Lab
from tests.kernel.talking import said
from tests.milter.conftest import PROGRAM
from tests.tools import data, libraries

pytestmark = [pytest.mark.kernel, pytest.mark.usefixtures("lanes")]

PROXY, MTA = "192.0.2.20", "192.0.2.21"
CLIENT, BOX, PORT = "192.0.2.10", "192.0.2.2", 8899
DOMAINS = {PROXY: "example.com", MTA: "else.example"}
TEXT = b"Subject: x\r\n\r\ntext\r\n"
BY = pytest.mark.parametrize("server", [PROXY, MTA], ids=["proxy", "mta"])


@dataclass
class Town:
    """The lab, its servers, and the filters by name."""

    lab: Lab
    servers: dict[str, MailServer]
    filters: dict[str, Process] = field(default_factory=dict)
    plain_bytes: dict[str, int] = field(default_factory=dict)  # of a message that no filter has seen

    def place(self, name: str) -> Path:
        return self.lab.gateway.directory / name

    def start_filter(self, name: str) -> None:
        """It adds a header; its socket is for every user."""
        place = self.place(name)
        place.mkdir(exist_ok=True)
        (place / "orders").write_text(json.dumps({"edit": [["addheader", "X-Seen", name]]}))
        socket = str(place / "socket") if name == "path" else f"inet:{PORT}@127.0.0.1"
        environment = {**libraries(), "PYTHONPATH": str(data("usr/lib/python3/dist-packages/Milter")[0].parent)}
        words = [
            "env",
            *(f"{key}={value}" for key, value in environment.items()),
            "sh",
            "-c",
            'umask 0; exec "$@"',
            "-",
        ]
        words += ["/usr/bin/python3", str(PROGRAM), socket, str(place / "orders")]
        self.filters[name] = self.lab.gateway.spawn(words)
        listens = ["sh", "-c", f"ss -ltnH sport = {PORT}; ss -lxnH src {place}/socket"]
        wait(lambda: bool(self.lab.gateway.run(listens).stdout.strip()))

    def mail(self, server: str, name: str) -> tuple[Any, int]:
        """To a recipient whose mail goes through that filter: what the client hears, and the size that the server got
        (0: nothing)."""
        before = len(self.servers[server].messages())
        (heard,) = said(self.lab, ("a@c.example", [f"{name}@{DOMAINS[server]}"], TEXT), server=server)
        if heard != "accepted":
            return heard, 0
        wait(lambda: len(self.servers[server].messages()) > before)
        return heard, self.servers[server].messages()[before]["size_bytes"]

    def outcome(self, server: str, name: str) -> str:
        """What became of it: seen, unseen, or what the client heard."""
        heard, size = self.mail(server, name)
        if heard != "accepted":
            (code,) = heard.values()
            return str(code)
        more = size - self.plain_bytes[server]  # the MTA's own field has a number of the session, which grows
        return "seen" if more >= len(f"X-Seen: {name}\r\n") else "unseen"

    def page(self, server: str, name: str) -> dict[str, Any]:
        process = "mta" if server == MTA else "interceptor"
        (found,) = [
            each
            for each in self.lab.gateway.status()["filters"]
            if each["filter"] == name and each["process"] == process
        ]
        return dict(found)


def wait(true: Callable[[], bool]) -> None:
    deadline_at = time.monotonic() + patient(SOON_S)
    while not true():
        assert time.monotonic() < deadline_at
        time.sleep(0.1)


def settled(town: Town, server: str, name: str, wanted: str) -> None:
    """Until its state is that: a filter is left alone for `rest_s`, and a report comes every second."""
    wait(lambda: town.page(server, name)["state"] == wanted)


def configured(lab: Lab, namespace: str) -> dict[str, Any]:
    place = lab.gateway.directory
    common = {"connect_s": 1, "command_s": 1, "failures": 2, "rest_s": 1}
    return {
        "bridge": {"namespace": namespace, "management": [f"{BOX}/24"]},
        "intercept": {"outgoing": "mta"},
        "pickup": {"incoming": "intercept", "outgoing": "intercept"},
        "protected": [{"domain": "example.com", "servers": [PROXY]}],
        "mta": {
            "hostname": "box.test",
            "relay_from": [f"{CLIENT}/32"],
            "relay_from_ports": ["p0"],
            "spool": f"{place}/spool",
        },
        "relay": {"host": MTA},
        "inspect": {"directory": f"{place}/held"},
        "filter": [
            {"name": "path", "address": f"unix:{place}/path/socket", **common},
            {"name": "port", "address": f"127.0.0.1:{PORT}", "on_failure": "accept", **common},
        ],
        "rule": [
            {
                "name": f"by {name}",
                "when": {"recipient": [f"{name}@{domain}" for domain in DOMAINS.values()]},
                "then": {"filter": [name]},
            }
            for name in ("path", "port")
        ],
        "limits": {"drain_s": 2},
    }


@pytest.fixture(scope="module", params=["own", "host"])
def town(lanes: None, lab: Lab, request: pytest.FixtureRequest) -> Iterator[Town]:
    it = Town(lab, {})
    for name in ("path", "port"):
        it.start_filter(name)
    with lab.gateway.running(configured(lab, request.param)):
        it.servers = {address: MailServer.start(lab.host("server"), address) for address in DOMAINS}
        for server in it.servers:
            it.plain_bytes[server] = it.mail(server, "none")[1]
        yield it
        for running in it.servers.values():
            running.process.end()
    for process in it.filters.values():
        process.kill()


@BY
def test_both_are_reached(town: Town, server: str) -> None:
    for name in ("path", "port"):
        assert town.outcome(server, name) == "seen"
        heard = json.loads((town.place(name) / "heard").read_text())
        assert heard[0][-1] == CLIENT
        assert ["envfrom", "<a@c.example>"] in [each[:2] for each in heard]
        (message, *_) = reversed(town.lab.gateway.mail_log("message"))
        assert message["filters"] == {name: "changed"}
        wait(lambda name=name: town.page(server, name)["messages"] > 0)  # type: ignore[misc]
        page = town.page(server, name)
        assert (page["state"], page["failures"]) == ("works", 0)
        assert 0 <= page["median_ms"] <= page["slowest_ms"]


@BY
@pytest.mark.parametrize(("name", "without"), [("path", "451"), ("port", "unseen")])
def test_killed_and_started_again(town: Town, server: str, name: str, without: str) -> None:
    town.filters[name].kill()
    for _ in range(2):
        assert town.outcome(server, name) == without
    settled(town, server, name, "left alone")
    assert "no connection" in town.page(server, name)["last_error"]
    shown = town.lab.gateway.tollbridge("status", check=False).stdout
    assert "left alone" in shown
    town.start_filter(name)
    wait(lambda: town.outcome(server, name) == "seen")
    settled(town, server, name, "works")


@BY
def test_hung(town: Town, server: str) -> None:
    """It takes connections and says nothing: two wait for it, then nobody does."""
    town.filters["path"].signal(signal.SIGSTOP)
    try:
        for _ in range(2):
            assert town.outcome(server, "path") == "451"
        assert town.outcome(server, "port") == "seen", "the other one works"
        settled(town, server, "path", "left alone")
    finally:
        town.filters["path"].signal(signal.SIGCONT)
    wait(lambda: town.outcome(server, "path") == "seen")
