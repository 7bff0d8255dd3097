"""The built-in MTA: the server is away, its mail is accepted and kept, and delivered when the server is back."""

from __future__ import annotations

import time
from collections.abc import Iterator
from typing import Any

from smtp_intercept.app.lab.figure1 import CONFIG, PLAIN, USER, VERSIONS, Row, row
from smtp_intercept.app.lab.host import POLL_S
from smtp_intercept.app.lab.mail import MailServer, send
from smtp_intercept.app.lab.network import Lab

BACK_S = 10.0  # the first attempt after an administrator's word takes a second
BOX = "gateway.example.com"
SENDER = "kept{}@example.net"


def kept(lab: Lab, relay: MailServer) -> Iterator[Row]:
    """The gateway once more, as an MTA for incoming connections."""
    gateway = lab.gateway
    gateway.stop()
    gateway.configure(
        {
            **CONFIG,
            "bridge": {"management": ["192.0.2.2/24", "2001:db8::2/64"]},
            "intercept": {"incoming": "mta"},
            "mta": {"hostname": BOX, "spool": str(gateway.directory / "spool")},
        }
    )
    gateway.start()
    relay.process.end()
    sent = {version: offer(lab, version) for version in VERSIONS}
    waiting = len(gateway.tollbridge("queue", "list", "--json").json_lines())
    back = MailServer.start(lab.host("relay"))
    gateway.tollbridge("queue", "retry", "--all")
    for version, attempt in sent.items():
        taken = wait_for(back, SENDER.format(version))
        banner, outcome = str(attempt["banner"]), str(attempt["outcome"])
        holds = BOX in banner and outcome == "accepted" and waiting == len(VERSIONS) and len(taken) == 1
        seen = f"{outcome}, {waiting} in the queue, {len(taken)} delivered from {origin(taken)}"
        yield row(
            "MTA: the server is away", version, "accepted by the box, queued, delivered when it is back", seen, holds
        )


def offer(lab: Lab, version: int) -> dict[str, Any]:
    """One message to the relay that is away, as its client saw it."""
    client, relay = lab.host("mua"), lab.host("relay")
    source, server = client.of_version(version)[PLAIN], relay.of_version(version)[0]
    (report,) = send(client, server, USER, source=source, sender=SENDER.format(version))
    return {"banner": "", **report["attempts"][-1]}


def wait_for(server: MailServer, sender: str) -> list[dict[str, Any]]:
    """The messages from ``sender``, as soon as there is one."""
    deadline_at = time.monotonic() + BACK_S
    while not (found := server.messages(sender=sender)) and time.monotonic() < deadline_at:
        time.sleep(POLL_S)
    return found


def origin(taken: list[dict[str, Any]]) -> str:
    return str(taken[0]["client"]["address"]) if taken else "nobody"
