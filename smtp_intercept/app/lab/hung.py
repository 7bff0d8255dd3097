"""A hung interceptor under load: what becomes of every single message while it is stopped, and afterwards."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable, Iterator
from itertools import pairwise
from typing import Any

from smtp_intercept.app.lab.figure1 import PLAIN, VERSIONS, Row, row
from smtp_intercept.app.lab.host import SOON_S, LabError, Process, patient
from smtp_intercept.app.lab.mail import MailServer, deliveries, sending
from smtp_intercept.app.lab.network import Lab

ATTEMPT_S = 1.0  # a client that waits longer for a banner only measures itself
STOPPED_S = 6.0
GAP_S = 5.0  # the switch opens after 2 s; one attempt may begin just before and one just after
AGAIN_S = 8.0


def stopped(lab: Lab, relay: MailServer) -> Iterator[Row]:
    """SIGSTOP while mail flows, SIGCONT, and what became of every single message."""
    loads = {version: load(lab, version) for version in VERSIONS}
    wait_until(lambda: all(len(deliveries(client)) >= 5 for client in loads.values()), "mail flows")
    stopped_at = pause(lab.gateway.pids()["interceptor"])
    continued_at = time.time()
    wait_until(lambda: all(inspected_since(lab, *load, continued_at) for load in loads.items()), "", AGAIN_S)
    for version, client in loads.items():
        client.end(grace_s=10)
        sent = deliveries(client)
        yield gap_row(version, sent)
        yield unseen_row(lab, relay, version, [entry for entry in sent if within(entry, stopped_at, continued_at)])
        yield again_row(version, [entry for entry in sent if entry["sender"] in inspected(lab, version)], continued_at)


def accepted_at(entry: dict[str, Any]) -> float:
    """When the client heard 250."""
    return float(entry["attempts"][-1]["at"])


def within(entry: dict[str, Any], stopped_at: float, continued_at: float) -> bool:
    """Begun and accepted while the interceptor stood still."""
    return stopped_at < entry["began_at"] and accepted_at(entry) < continued_at


def gap_row(version: int, sent: list[dict[str, Any]]) -> Row:
    """The longest time without an accepted message, and the messages that no retry brought through."""
    lost = sum(not entry["accepted"] for entry in sent)
    gap_s = max(later - earlier for earlier, later in pairwise(accepted_at(entry) for entry in sent))
    retries = sum(len(entry["attempts"]) - 1 for entry in sent)
    seen = f"gap {gap_s:.1f} s, lost {lost} of {len(sent)} ({retries} retries)"
    return row(
        "interceptor stopped (SIGSTOP)", version, f"gap below {GAP_S:.0f} s, lost 0", seen, gap_s < GAP_S and not lost
    )


def unseen_row(lab: Lab, relay: MailServer, version: int, meanwhile: list[dict[str, Any]]) -> Row:
    """Mail that flowed while it was stopped: at the server, and not in the mail log."""
    logged, taken = inspected(lab, version), {entry["sender"] for entry in relay.record("message")}
    flowed = [entry["sender"] for entry in meanwhile if entry["sender"] in taken]
    seen = f"{len(flowed)} messages, {len(logged & set(flowed))} inspected"
    return row(
        "mail meanwhile", version, "1 message or more, 0 inspected", seen, bool(flowed) and not logged & set(flowed)
    )


def again_row(version: int, logged: list[dict[str, Any]], continued_at: float) -> Row:
    """The first message that was begun after SIGCONT and inspected."""
    times = [entry["began_at"] - continued_at for entry in logged if entry["began_at"] > continued_at]
    seen = f"inspected again after {min(times):.1f} s" if times else f"not inspected within {AGAIN_S:.0f} s"
    return row("interceptor continued (SIGCONT)", version, f"inspected again within {AGAIN_S:.0f} s", seen, bool(times))


def load(lab: Lab, version: int) -> Process:
    """A client that sends one message after the other and retries at once."""
    client, relay = lab.host("mua"), lab.host("relay")
    return sending(
        client,
        relay.of_version(version)[0],
        source=client.of_version(version)[PLAIN],
        sender=f"load{version}-{{n}}@example.net",
        count=0,
        interval=0.05,
        timeout=ATTEMPT_S,
        retries=20,
    )


def pause(pid: int) -> float:
    """Stop a process for a while; when that began. It is continued whatever happens meanwhile."""
    os.kill(pid, signal.SIGSTOP)
    stopped_at = time.time()
    try:
        time.sleep(STOPPED_S)
    finally:
        os.kill(pid, signal.SIGCONT)
    return stopped_at


def wait_until(true: Callable[[], bool], what: str, timeout_s: float = SOON_S) -> None:
    """Wait; `LabError` if it takes too long and ``what`` names it (else the row will tell)."""
    deadline_at = time.monotonic() + patient(timeout_s)
    while not true():
        if time.monotonic() > deadline_at:
            if what:
                raise LabError(f"not within {timeout_s} s: {what}")
            return
        time.sleep(0.05)


def inspected(lab: Lab, version: int) -> set[str]:
    """The senders of the load that the gateway logged as accepted."""
    return {
        entry["sender"]
        for entry in lab.gateway.mail_log("message")
        if entry["sender"].startswith(f"load{version}-") and entry["outcome"] == "accepted"
    }


def inspected_since(lab: Lab, version: int, client: Process, since: float) -> list[str]:
    """The senders of messages that were begun after ``since`` and logged."""
    logged = inspected(lab, version)
    return [entry["sender"] for entry in deliveries(client) if entry["began_at"] > since and entry["sender"] in logged]
