"""``on_overload = "defer"``: beyond the limits a client is told to come again, and its server hears nothing of it.

::

    client .10 ┐                                                         sessions = 3
           .11 ┴── p0 [ gateway ] p1 ── server 192.0.2.20    sessions_per_client = 2

    .10 .10 | .10        | .11 | .11        | one ends, .11
    220 220 | 421 4.7.0  | 220 | 421 4.3.2  | 220
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from smtp_intercept.app.lab import hung
from smtp_intercept.app.lab.mail import MailServer, send
from smtp_intercept.app.lab.network import Lab

SERVER, ONE, OTHER = "192.0.2.20", "192.0.2.10", "192.0.2.11"
CONFIG: dict[str, Any] = {
    "intercept": {"on_overload": "defer"},
    "protected": [{"domain": "example.com", "servers": [SERVER, "2001:db8::20"]}],
    "limits": {"sessions": 3, "sessions_per_client": 2},
}
DIALS = """
import signal, socket, sys
held = []
for source in sys.argv[2:]:
    held.append(socket.create_connection((sys.argv[1], 25), 10, (source, 0)))
    print(source, held[-1].recv(999).decode().strip()[:9], flush=True)
print("held", flush=True)
signal.pause()
"""


def deferred(lab: Lab) -> list[str]:
    return [session["reason"] for session in lab.gateway.mail_log("session") if session["outcome"] == "deferred"]


def sessions(lab: Lab) -> int:
    return int(lab.gateway.status()["sessions"])


@pytest.fixture(scope="module", params=[1, 3])
def workers(request: pytest.FixtureRequest) -> int:
    """Of several interceptors none has a limit of its own."""
    return int(request.param)


@pytest.fixture(scope="module")
def lab(workers: int, namespaces: None) -> Iterator[Lab]:
    with Lab() as lab:
        yield lab


@pytest.fixture(scope="module")
def gateway_lab(workers: int, lanes: None, lab: Lab) -> Iterator[Lab]:
    with lab.gateway.running({**CONFIG, "interceptor": {"workers": workers}}):
        yield lab


@pytest.fixture(scope="module")
def crowd(gateway_lab: Lab, server: MailServer) -> list[str]:
    """What each of five heard, while three of them stay; they leave at the end."""
    client = gateway_lab.host("client")
    dials = client.spawn([client.interpreter, "-c", DIALS, SERVER, ONE, ONE, ONE, OTHER, OTHER])
    dials.wait_for("held")
    assert len(deferred(gateway_lab)) == 2
    hung.wait_until(lambda: sessions(gateway_lab) == 3, "three sessions")
    refused = send(client, SERVER, source=OTHER, sender="late@example.net")
    assert not any(entry["accepted"] for entry in refused)
    dials.end()
    hung.wait_until(lambda: sessions(gateway_lab) == 0, "no session")
    return dials.stdout.splitlines()[:-1]


def test_those_beyond_a_limit_hear_421(crowd: list[str]) -> None:
    assert crowd == [
        f"{ONE} 220 serve", f"{ONE} 220 serve", f"{ONE} 421 4.7.0", f"{OTHER} 220 serve", f"{OTHER} 421 4.3.2",
    ]  # fmt: skip


def test_their_server_hears_nothing(crowd: list[str], server: MailServer) -> None:
    assert len(server.sessions(3)) == 3
    assert not server.messages(sender="late@example.net")


def test_they_are_counted_and_told(gateway_lab: Lab, crowd: list[str]) -> None:
    texts = deferred(gateway_lab)
    hung.wait_until(lambda: gateway_lab.gateway.status()["mail"]["deferred"] >= 3, "each worker has told of its own")
    assert [text[:9] for text in texts] == ["421 4.7.0", "421 4.3.2", "421 4.3.2"]
    status = gateway_lab.gateway.status()
    assert status["mail"]["deferred"] == 3
    assert "interceptor_full" not in status["not_inspected"]


def test_who_comes_again_gets_through(gateway_lab: Lab, crowd: list[str], server: MailServer) -> None:
    for version, source in ((SERVER, OTHER), ("2001:db8::20", "2001:db8::11")):
        (entry,) = send(gateway_lab.host("client"), version, source=source, sender="again@example.net")
        assert entry["accepted"]
    assert len(server.messages(sender="again@example.net")) == 2
    assert len(gateway_lab.gateway.wait_log(type="message", sender="again@example.net")) == 2
