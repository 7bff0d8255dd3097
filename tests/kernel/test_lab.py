"""The lab itself, on a bare bridge: what it builds works, what it records is there, and nothing of it stays."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from smtp_intercept.app.lab import hung
from smtp_intercept.app.lab import namespaces as kernel
from smtp_intercept.app.lab.capture import Way
from smtp_intercept.app.lab.gateway import toml
from smtp_intercept.app.lab.host import Host, LabError
from smtp_intercept.app.lab.mail import MailServer, deliveries, send, sending
from smtp_intercept.app.lab.network import THREE_WIRES, Lab, Station
from smtp_intercept.app.lab.onlookers import own_frames

VERSIONS = (4, 6)


@pytest.mark.parametrize("version", VERSIONS)
def test_ping_crosses_the_bare_bridge(bare: Lab, version: int) -> None:
    client, server = bare.host("client"), bare.host("server")
    ping = client.run(client.program("traffic", "ping", server.of_version(version)[0])).json()
    assert (ping["sent"], ping["unchanged"], set(ping["ttls"])) == (3, 3, {64})


@pytest.mark.parametrize("version", VERSIONS)
def test_ping_does_not_reach_an_address_that_nobody_has(bare: Lab, version: int) -> None:
    client, nobody = bare.host("client"), {4: "192.0.2.99", 6: "2001:db8::99"}[version]
    ping = client.run(client.program("traffic", "ping", nobody, "--count", "1", "--timeout", "0.3")).json()
    assert ping["received"] == 0


@pytest.mark.parametrize("version", VERSIONS)
def test_a_stream_comes_back_as_it_was_sent(bare: Lab, version: int) -> None:
    client, server = bare.host("client"), bare.host("server")
    address = server.of_version(version)[0]
    echo = server.spawn(server.program("traffic", "serve", address))
    echo.wait_for("ready")
    try:
        stream = client.run(client.program("traffic", "stream", address)).json()
    finally:
        echo.end()
    assert stream["bytes"] == 1 << 20
    assert stream["sent_sha256"] == stream["received_sha256"]


@pytest.mark.parametrize("version", VERSIONS)
def test_the_mail_server_records_who_sent_what(bare: Lab, server: MailServer, version: int) -> None:
    client, host = bare.host("client"), bare.host("server")
    source, dialled = client.of_version(version)[3], host.of_version(version)[1]
    recipients = ["a@example.com", "b@example.org"]
    (delivery,) = send(
        client, dialled, recipients, source=source, helo="mua.example.net", sender=f"{version}@example.net"
    )
    (message,) = server.messages(sender=f"{version}@example.net")
    assert delivery["accepted"]
    assert message["client"] == {"address": source, "port": delivery["attempts"][0]["client_port"]}
    assert message["server"] == {"address": dialled, "port": 25}
    assert message["mac"] == {"source": client.mac, "destination": host.mac}
    assert message["helo"] == "mua.example.net"
    assert message["recipients"] == recipients
    assert (message["sha256"], message["size_bytes"]) == (delivery["sha256"], delivery["size_bytes"])


def test_a_session_without_a_message_is_recorded_too(bare: Lab, server: MailServer) -> None:
    before = len(server.sessions())
    dial = "import socket, sys; socket.create_connection((sys.argv[1], 25)).recv(99)"
    bare.host("client").python(dial, bare.host("server").ipv4)
    assert server.sessions(before + 1)[-1]["messages"] == 0


def test_a_refused_recipient_and_the_others(bare: Lab) -> None:
    client, host = bare.host("client"), bare.host("server")
    server = MailServer.start(host, host.ipv4, port=2525, refuse=["nobody@example.com"])
    (delivery,) = send(client, host.ipv4, ["user@example.com", "nobody@example.com"], port=2525)
    assert delivery["attempts"][0]["refused"] == {"nobody@example.com": [550, "5.1.1 No such user here"]}
    assert server.messages()[0]["recipients"] == ["user@example.com"]


def test_a_server_may_keep_its_client_waiting_for_the_banner(bare: Lab) -> None:
    host = bare.host("server")
    MailServer.start(host, host.ipv4, port=2527, banner_after=0.4)
    (delivery,) = send(bare.host("client"), host.ipv4, port=2527)
    assert delivery["accepted"]
    assert delivery["attempts"][0]["connect_s"] < 0.4 <= delivery["attempts"][0]["banner_s"]


def test_a_message_file_arrives_byte_for_byte(bare: Lab, server: MailServer, tmp_path: Path) -> None:
    message = (
        b"Subject: dots\r\n\r\n.\r\n..\r\n.a\r\n" + bytes(range(128, 256)) + b"\r\n" + (b"x" * 998 + b"\r\n") * 2000
    )
    path = tmp_path / "message"
    path.write_bytes(message)
    (delivery,) = send(bare.host("client"), bare.host("server").ipv4, message=path, sender="bytes@example.net")
    (taken,) = server.messages(sender="bytes@example.net")
    assert (taken["size_bytes"], taken["sha256"]) == (len(message), delivery["sha256"])


def test_a_refused_connection_is_told_from_a_silent_one(bare: Lab) -> None:
    client, host = bare.host("client"), bare.host("server")
    (refused,) = send(client, host.ipv4, port=26)
    (silent,) = send(client, "192.0.2.98", timeout=0.5)
    assert [refused["attempts"][0]["outcome"], silent["attempts"][0]["outcome"]] == ["refused", "timeout"]
    assert not refused["accepted"]
    assert not silent["accepted"]


def test_a_client_retries_until_a_server_is_there(bare: Lab) -> None:
    client, host = bare.host("client"), bare.host("server")
    refused = resets(host)
    process = sending(client, host.ipv4, port=2526, retries=2000, pause=0.05, count=1)
    hung.wait_until(lambda: resets(host) > refused, "the client has tried")
    MailServer.start(host, host.ipv4, port=2526)
    process.wait().check()
    (delivery,) = deliveries(process)
    assert delivery["accepted"]
    assert delivery["attempts"][0]["outcome"] == "refused"
    assert len(delivery["attempts"]) > 1


def resets(host: Host) -> int:
    """RSTs that the host has sent (RFC 4022, tcpOutRsts)."""
    names, values = (
        line.split() for line in host.run(["cat", "/proc/net/snmp"]).stdout.splitlines() if line.startswith("Tcp:")
    )
    return int(values[names.index("OutRsts")])


def test_a_capture_sees_each_crossing_at_every_end_and_both_ways(bare: Lab) -> None:
    client, server = bare.host("client"), bare.host("server")
    client.run(client.program("traffic", "ping", server.ipv4))  # ARP is done with
    with bare.capture() as frames:
        client.run(client.program("traffic", "ping", server.ipv4, "--count", "1"))
    pings = [frame for frame in frames if frame.addresses == (client.ipv4, server.ipv4)]
    assert [(frame.host, frame.interface, frame.way) for frame in pings] == [
        ("client", "eth0", Way.OUT),
        ("gateway", "p0", Way.IN),
        ("gateway", "p1", Way.OUT),
        ("server", "eth0", Way.IN),
    ]
    assert len({frame.data for frame in pings}) == 1
    assert {(frame.source, frame.destination, frame.ttl) for frame in pings} == {(client.mac, server.mac, 64)}
    assert pings[0].packet["ICMP"].type == 8
    assert len([frame for frame in frames if frame.addresses == (server.ipv4, client.ipv4)]) == 4


def test_a_capture_of_one_wire_sees_only_that_wire(bare: Lab) -> None:
    client, server = bare.host("client"), bare.host("server")
    with bare.capture("inside") as frames:
        client.run(client.program("traffic", "ping", server.ipv4, "--count", "1"))
    assert {(frame.host, frame.interface) for frame in frames} == {("server", "eth0"), ("gateway", "p1")}


TAGGED = """
import socket, sys
s = socket.socket(socket.AF_PACKET, socket.SOCK_RAW)
s.bind(("eth0", 0))
s.send(bytes.fromhex(sys.argv[1]))
"""


def test_a_capture_keeps_vlan_tags(bare: Lab) -> None:
    client, server = bare.host("client"), bare.host("server")
    frame = bytes.fromhex((server.mac + client.mac + "8100002a88b5").replace(":", "")) + b"tagged" * 10
    with bare.capture() as frames:
        client.python(TAGGED, frame.hex())
    assert [(seen.host, seen.way) for seen in frames if seen.data == frame] == [
        ("client", Way.OUT),
        ("gateway", Way.IN),
        ("gateway", Way.OUT),
        ("server", Way.IN),
    ]


@pytest.mark.usefixtures("namespaces")
def test_a_plain_bridge_gives_itself_away() -> None:
    """The check for frames of the box finds those that a new Linux bridge sends, and takes no host's for them."""
    with Lab() as lab:
        with lab.capture() as frames:
            lab.gateway.bridge_bare()
            lab.host("client").run(lab.host("client").program("traffic", "ping", lab.host("server").ipv4))
        judged, own = own_frames(lab, frames)
    assert judged > len(own) > 0
    assert {frame.source for frame in own} <= {"00:00:5e:00:53:f0", "00:00:5e:00:53:f1"}


@pytest.fixture
def jumbo() -> Iterator[Lab]:
    wires = {
        **THREE_WIRES,
        "outside": (*THREE_WIRES["outside"], Station("second", ("192.0.2.40/24", "2001:db8::40/64"))),
    }
    with Lab(wires, mtu=9000, offload=False) as lab:
        lab.gateway.bridge_bare()
        yield lab


@pytest.mark.usefixtures("namespaces")
def test_three_wires_a_switch_and_jumbo_frames(jumbo: Lab) -> None:
    hosts = [jumbo.host(name) for name in ("client", "second", "server", "other")]
    with jumbo.capture("outside") as frames:
        for client in hosts:
            for server in hosts:
                for address in (server.ipv4, server.ipv6):
                    ping = client.run(
                        client.program("traffic", "ping", address, "--count", "1", "--size", "8900")
                    ).json()
                    assert ping["unchanged"] == 1, (client.name, address)
    assert max(len(frame.data) for frame in frames) == 14 + 40 + 8 + 8900
    assert {(frame.host, frame.interface) for frame in frames} == {
        ("client", "eth0"),
        ("second", "eth0"),
        ("gateway", "p0"),
    }
    assert str(jumbo).count("p2") == 1


def test_a_program_that_fails_or_hangs_is_an_error_with_its_output(bare: Lab) -> None:
    client = bare.host("client")
    with pytest.raises(LabError, match="exit status 3\nsaid so"):
        client.python("import sys; print('said so'); sys.exit(3)")
    with pytest.raises(LabError, match=r"still running after 0.3 s"):
        client.run(["sleep", "60"], timeout_s=0.3)
    assert client.python("import sys; sys.exit(3)", check=False).returncode == 3


def test_a_stopped_program_is_ended_too(bare: Lab) -> None:
    process = bare.host("client").spawn(["sleep", "60"])
    process.signal(signal.SIGSTOP)
    assert process.end().returncode == -signal.SIGTERM


def left(prefix: str) -> list[str]:
    """What the machine still has of a lab."""
    places = [*kernel.NAMESPACES.glob(f"{prefix}-*"), kernel.REGISTRY / prefix, *Path("/tmp").glob(f"{prefix}-*")]
    return [str(path) for path in places if path.exists()]


@pytest.mark.usefixtures("namespaces")
@pytest.mark.parametrize("failing", [False, True], ids=["success", "failure"])
def test_nothing_stays(failing: bool) -> None:
    orphan = "import os, time; os.fork() and os._exit(0); os.setsid(); time.sleep(60)"
    try:
        with Lab() as lab:
            lab.host("client").spawn(["sleep", "60"])
            lab.host("server").python(orphan)  # its parent has ended: only the namespace knows it
            names = [path.name for path in kernel.NAMESPACES.glob(f"{lab.prefix}-*")]
            hung.wait_until(lambda: len(set(kernel.processes(names))) == 2, "both are in their namespaces")
            pids = set(kernel.processes(names))
            assert len(left(lab.prefix)) == 5
            if failing:
                raise ZeroDivisionError
    except ZeroDivisionError:
        assert failing
    assert left(lab.prefix) == []
    assert not [pid for pid in pids if Path(f"/proc/{pid}/exe").exists()]  # a zombie, init's to bury, has no program


BUILD_AND_WAIT = """
import time
from smtp_intercept.app.lab.network import Lab
with Lab() as lab:
    lab.host("client").spawn(["sleep", "60"])
    print(lab.prefix, flush=True)
    time.sleep(60)
"""


def lab_process() -> tuple[subprocess.Popen[str], str]:
    """A process with a lab, and the lab's prefix."""
    # A test run in the background of a script, or under nohup, has signals ignored, and its children inherit that.
    ordinary = ["env", "--default-signal=INT,HUP,TERM", sys.executable, "-c", BUILD_AND_WAIT]
    process = subprocess.Popen(ordinary, stdout=subprocess.PIPE, text=True)
    assert process.stdout
    return process, process.stdout.readline().strip()


@pytest.mark.usefixtures("namespaces")
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_nothing_stays_after_a_signal(number: signal.Signals) -> None:
    process, prefix = lab_process()
    assert left(prefix)
    process.send_signal(number)
    time.sleep(0.02)
    process.send_signal(number)  # impatience must not stop the cleaning
    process.wait()
    assert left(prefix) == []


@pytest.mark.usefixtures("namespaces")
def test_the_next_lab_removes_what_a_killed_one_left_and_no_other() -> None:
    victim, gone = lab_process()
    survivor, alive = lab_process()
    victim.kill()
    victim.wait()
    assert left(gone)
    with Lab():
        assert left(gone) == []
        assert left(alive)
    survivor.terminate()
    survivor.wait()
    assert left(alive) == []


@pytest.mark.usefixtures("namespaces")
def test_a_fork_of_the_process_removes_nothing() -> None:
    with Lab() as lab:
        child = os.fork()
        if not child:
            try:
                lab.__exit__(None, None, None)
            finally:
                os._exit(0)
        os.waitpid(child, 0)
        assert len(left(lab.prefix)) == 5
        assert lab.host("client").run(["true"]).returncode == 0


def test_configuration_is_written_as_toml() -> None:
    import tomllib

    config = {
        "bridge": {"ports": ["p0", "p1"], "stp": False},
        "pickup": {"port": {"p1": {"outgoing": "intercept"}}, "rule": [{"client": "192.0.2.1", "action": "drop"}]},
        "protected": [{"domain": "example.com", "servers": ["mx", 'q"\\']}, {"domain": "example.org"}],
    }
    assert tomllib.loads(toml(config)) == config
