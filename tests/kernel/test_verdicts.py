"""What becomes of a connection: four verdicts, two versions of IP, from either wire; and mail to the box itself.

::

              .10 intercept                          .20 intercept
    client    .11 drop        ── p0  gateway  p1 ──  .21 drop         server
              .12 reject              br0            .22 reject
              .13 pass             192.0.2.2         .23 pass

Both hosts send and receive; the address that a client dials from chooses the verdict.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from smtp_intercept.app.lab.capture import Frame, Way
from smtp_intercept.app.lab.host import Host, patient
from smtp_intercept.app.lab.mail import MailServer, send
from smtp_intercept.app.lab.network import Lab, Station, Wires
from tests.kernel.frames import counters, give_away, is_tcp
from tests.kernel.pace import slowness

VERDICTS = ("intercept", "drop", "reject", "pass")
VERSIONS = (4, 6)
AT_ONCE_S = patient(0.1)  # "connection refused at once"
DROP_WAIT_S = 1.3  # the first SYN and its repetition


def station(name: str, first: int) -> Station:
    numbers = range(first, first + len(VERDICTS))
    return Station(name, (*(f"192.0.2.{n}/24" for n in numbers), *(f"2001:db8::{n}/64" for n in numbers)))


WIRES: Wires = {"outside": (station("client", 10),), "inside": (station("server", 20),)}
CONFIG: dict[str, Any] = {
    "pickup": {
        "incoming": "intercept",
        "outgoing": "intercept",
        "rule": [
            {"client": client.format(first + VERDICTS.index(action)), "action": action}
            for action in VERDICTS
            for first in (10, 20)
            for client in ("192.0.2.{}", "2001:db8::{}")
        ],
    },
    "protected": [{"domain": "example.com", "servers": ["192.0.2.20", "2001:db8::20"]}],
}
ENDS = pytest.mark.parametrize(("client", "server"), [("client", "server"), ("server", "client")])
IP = pytest.mark.parametrize("version", VERSIONS)


@pytest.fixture(scope="module")
def servers(gateway_lab: Lab) -> dict[str, MailServer]:
    return {host.name: MailServer.start(host) for host in gateway_lab.hosts}


def post(lab: Lab, client: str, server: str, version: int, verdict: str, **settings: Any) -> dict[str, Any]:
    """Send one message under that verdict; the client's account of its only attempt, and who sent it."""
    source = lab.host(client).of_version(version)[VERDICTS.index(verdict)]
    sender = f"{verdict}-{client}-{version}@example.net"
    to = lab.host(server).of_version(version)[0]
    (delivery,) = send(lab.host(client), to, source=source, sender=sender, **settings)
    return {**delivery["attempts"][0], "sender": sender, "sha256": delivery["sha256"], "source": source}


@IP
@ENDS
def test_intercept(gateway_lab: Lab, servers: dict[str, MailServer], client: str, server: str, version: int) -> None:
    sent = post(gateway_lab, client, server, version, "intercept")
    assert sent["outcome"] == "accepted"
    (message,) = servers[server].messages(sender=sent["sender"])
    assert message["sha256"] == sent["sha256"]
    assert message["client"] == {"address": sent["source"], "port": sent["client_port"]}
    assert message["mac"] == {"source": gateway_lab.host(client).mac, "destination": gateway_lab.host(server).mac}
    (record,) = gateway_lab.gateway.wait_log(type="message", sender=sent["sender"])
    (session,) = gateway_lab.gateway.wait_log(type="session", session=record["session"])
    assert session["port"] == {"client": "p0", "server": "p1"}[client]
    assert session["direction"] == {"client": "incoming", "server": "outgoing"}[client]
    assert session["client"] == {
        "address": sent["source"],
        "port": sent["client_port"],
        "mac": gateway_lab.host(client).mac,
    }


@IP
@ENDS
def test_pass(gateway_lab: Lab, servers: dict[str, MailServer], client: str, server: str, version: int) -> None:
    """Not one packet of it leaves the bridge's path: nothing is turned inwards, our stack sends nothing."""
    before = counters(gateway_lab)
    sent = post(gateway_lab, client, server, version, "pass")
    after = counters(gateway_lab)
    assert sent["outcome"] == "accepted"
    (message,) = servers[server].messages(sender=sent["sender"])
    assert message["client"] == {"address": sent["source"], "port": sent["client_port"]}
    moved = {name: after[name] - before[name] for name in after if after[name] != before[name]}
    assert moved == {"queued": 1}
    assert not [r for r in gateway_lab.gateway.mail_log("session") if r["client"]["address"] == sent["source"]]


@IP
@ENDS
def test_drop(gateway_lab: Lab, servers: dict[str, MailServer], client: str, server: str, version: int) -> None:
    with gateway_lab.capture() as frames:
        sent = post(gateway_lab, client, server, version, "drop", timeout=DROP_WAIT_S)
    assert sent["outcome"] == "timeout"
    syns = [frame for frame in frames if is_tcp(frame) and sent["source"] in (frame.addresses or ())]
    assert {(frame.host, frame.way) for frame in syns} == {(client, Way.OUT), ("gateway", Way.IN)}
    first, *more = [frame.at for frame in syns if frame.host == client]
    assert len([at for at in more if at - first < DROP_WAIT_S]) == 1  # a client that is late repeats it once more
    assert give_away(gateway_lab, frames) == []


@IP
@ENDS
def test_reject(gateway_lab: Lab, servers: dict[str, MailServer], client: str, server: str, version: int) -> None:
    """The RST is the dialled server's in every respect that the client can see."""
    host, dialled = gateway_lab.host(client), gateway_lab.host(server)
    with gateway_lab.capture() as frames:
        sent = post(gateway_lab, client, server, version, "reject")
    assert sent["outcome"] == "refused"
    assert sent["seconds"] < AT_ONCE_S * slowness()
    syns, resets = told_apart([frame for frame in frames if frame.host == client and is_tcp(frame)])
    assert len(syns) == len(resets) == 1
    assert (resets[0].source, resets[0].destination) == (dialled.mac, host.mac)
    assert resets[0].addresses == (dialled.of_version(version)[0], sent["source"])
    reset, syn = resets[0].packet["TCP"], syns[0].packet["TCP"]
    assert (reset.sport, reset.dport, reset.flags) == (25, syn.sport, "RA")
    assert reset.ack == syn.seq + 1
    assert resets[0].ttl == 64
    assert not [frame for frame in frames if frame.host == server and is_tcp(frame)]
    assert give_away(gateway_lab, frames) == []


def test_a_rejected_client_whose_whereabouts_the_lane_forgot(gateway_lab: Lab, servers: dict[str, MailServer]) -> None:
    """The RST must not be flooded to the wire of the server in whose name it speaks."""
    for version in VERSIONS:
        post(gateway_lab, "client", "server", version, "reject")  # the hosts know each other's MACs
        with gateway_lab.capture() as frames:
            gateway_lab.gateway.room.run(["ip", "link", "set", "smtp0", "type", "bridge", "fdb_flush"])
            sent = post(gateway_lab, "client", "server", version, "reject")
        assert sent["outcome"] == "refused"
        assert give_away(gateway_lab, frames) == []


def told_apart(frames: list[Frame]) -> tuple[list[Frame], list[Frame]]:
    """(SYNs, RSTs)."""
    flags = [(frame, str(frame.packet["TCP"].flags)) for frame in frames]
    return [frame for frame, flag in flags if flag == "S"], [frame for frame, flag in flags if "R" in flag]


# --- mail to and from the box itself ------------------------------------------------------------------------------

BOX = {4: "192.0.2.2", 6: "2001:db8::2"}
# A service of the box's own; bound to the bridge, for the port on the lane is the interceptor's.
LISTEN = """
import socket, selectors, sys
selector = selectors.DefaultSelector()
for address in sys.argv[1:]:
    s = socket.socket(socket.AF_INET6 if ":" in address else socket.AF_INET)
    s.setsockopt(socket.SOL_SOCKET, socket.SO_BINDTODEVICE, b"tb0")
    s.bind((address, 25)), s.listen()
    selector.register(s, selectors.EVENT_READ)
print("ready")
while True:
    for key, _ in selector.select():
        connection, client = key.fileobj.accept()
        connection.sendall(b"220 the box itself " + client[0].encode() + b"\\r\\n")
        connection.close()
"""
DIAL = """
import socket, sys
source = (sys.argv[2], 0) if len(sys.argv) > 2 else None
try:
    print(socket.create_connection((sys.argv[1], 25), 1.3, source).recv(99).decode().strip())
except (TimeoutError, ConnectionRefusedError) as error:
    print(type(error).__name__)
"""


def dial(host: Host, *words: str) -> str:
    """The banner, or why there is none."""
    return host.python(DIAL, *words).stdout.strip()


@pytest.fixture(scope="module")
def managed(lanes: None) -> Iterator[Lab]:
    """The box has addresses; mail to it is dropped where it arrives on p1."""
    addresses = [f"{BOX[4]}/24", f"{BOX[6]}/64"]
    pickup = {**CONFIG["pickup"], "local": "allow", "port": {"p1": {"local": "drop"}}}
    with Lab(WIRES) as lab, lab.gateway.running({**CONFIG, "bridge": {"management": addresses}, "pickup": pickup}):
        yield lab


@pytest.fixture(scope="module")
def service(managed: Lab) -> Iterator[None]:
    process = managed.gateway.spawn([managed.gateway.interpreter, "-c", LISTEN, *BOX.values()])
    process.wait_for("ready")
    yield
    process.end()


@IP
def test_mail_to_the_box_without_a_service_is_refused_by_the_box(managed: Lab, version: int) -> None:
    assert dial(managed.host("client"), BOX[version]) == "ConnectionRefusedError"
    assert dial(managed.host("server"), BOX[version]) == "TimeoutError"


@IP
@pytest.mark.usefixtures("service")
def test_mail_to_the_box_where_it_is_allowed(managed: Lab, version: int) -> None:
    client = managed.host("client")
    for source in client.of_version(version):  # rules are about mail that crosses, not about the box's own
        before = counters(managed)
        assert dial(client, BOX[version], source) == f"220 the box itself {source}"
        after = counters(managed)
        assert after["local"] - before["local"] == 1
        assert [after[name] - before[name] for name in ("queued", "turned_inwards", "sent")] == [0, 0, 0]


@IP
@pytest.mark.usefixtures("service")
def test_mail_to_the_box_where_it_is_dropped(managed: Lab, version: int) -> None:
    before = counters(managed)
    with managed.capture("inside") as frames:
        assert dial(managed.host("server"), BOX[version]) == "TimeoutError"
    syns = [frame for frame in frames if (frame.host, frame.way) == ("server", Way.OUT) and is_tcp(frame)]
    assert counters(managed)["local_dropped"] - before["local_dropped"] == len(syns) > 1  # with its repetition


@IP
@pytest.mark.parametrize("server", ["client", "server"])
def test_mail_from_the_box_is_its_own_affair(managed: Lab, server: str, version: int) -> None:
    """Replies to it come to the bridge's MAC and stay on the plain bridge."""
    address = managed.host(server).of_version(version)[0]
    listener = MailServer.start(managed.host(server), address)
    try:
        before = counters(managed)
        (delivery,) = send(managed.gateway, address, sender="box@example.net")
        assert delivery["accepted"]
        assert listener.messages()[0]["client"]["address"] == BOX[version]
        after = counters(managed)
        assert [after[name] - before[name] for name in ("queued", "turned_inwards", "sent")] == [0, 0, 0]
    finally:
        listener.process.end()
