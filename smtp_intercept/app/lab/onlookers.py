"""What everybody else on the wires sees of the box: untouched ping and TCP, and not one frame of its own."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from smtp_intercept.app.lab.capture import Frame, Way
from smtp_intercept.app.lab.figure1 import PLAIN, VERSIONS, Row, row
from smtp_intercept.app.lab.network import Lab

PINGS = 3
STREAM_BYTES = 8 << 20
TTL = 64  # what every host of the lab sends


def other_traffic(lab: Lab) -> Iterator[Row]:
    """Ping and a TCP stream between the outside and the inside wire."""
    client, server = lab.host("mua"), lab.host("user")
    echo = server.spawn(server.program("traffic", "serve", server.ipv4, server.ipv6))
    echo.wait_for("ready")
    for version in VERSIONS:
        ends = (server.of_version(version)[0], "--source", client.of_version(version)[PLAIN])
        yield ping_row(client.run(client.program("traffic", "ping", *ends)).json(), version)
        stream = client.run(client.program("traffic", "stream", *ends, "--size", str(STREAM_BYTES))).json()
        yield stream_row(stream, version)


def ping_row(ping: dict[str, object], version: int) -> Row:
    """Every ping came back, with the same octets and the TTL that a neighbour's reply has."""
    expected = {"sent": PINGS, "received": PINGS, "unchanged": PINGS, "ttls": [TTL] * PINGS}
    seen = {name: ping[name] for name in expected}
    return row("ping", version, _words(expected), _words(seen), seen == expected)


def stream_row(stream: dict[str, object], version: int) -> Row:
    """The echo is what was sent."""
    same = stream["sent_sha256"] == stream["received_sha256"] and stream["bytes"] == STREAM_BYTES
    seen = f"{stream['bytes']} bytes and back, hashes {'equal' if same else 'different'}"
    return row("TCP stream", version, f"{STREAM_BYTES} bytes and back, hashes equal", seen, same)


def _words(counts: dict[str, object]) -> str:
    return ", ".join(f"{name} {value}" for name, value in counts.items())


def path_row(lab: Lab, frames: Sequence[Frame], version: int) -> Row:
    """MACs and TTL of ping and stream as they were sent and as they arrived."""
    client, server = lab.host("mua"), lab.host("user")
    pair = {client.of_version(version)[PLAIN], server.of_version(version)[0]}
    traces = {
        way: {
            (frame.source, frame.destination, frame.ttl)
            for frame in frames
            if frame.way is way and frame.host != "gateway" and set(frame.addresses or ()) == pair and frame.ttl == TTL
        }
        for way in Way
    }
    expected = {(client.mac, server.mac, TTL), (server.mac, client.mac, TTL)}
    holds = traces[Way.OUT] == traces[Way.IN] == expected
    seen = "the same at both ends" if holds else f"{sorted(traces[Way.OUT])} became {sorted(traces[Way.IN])}"
    return row("MACs and TTL of ping and stream", version, "the same at both ends", seen, holds)


def own_frames(lab: Lab, frames: Sequence[Frame]) -> tuple[int, list[Frame]]:
    """How many frames were judged, and those that give the box away.

    Judged is what leaves the gateway's ports and what arrives at hosts. A frame gives the box away if a MAC or IP
    address in it is the box's, if its source MAC is no host's, or if it leaves by the port that its source lives on:
    a switch there would believe that the host has moved, and send the host's frames to the box.
    """
    hosts = {host.mac for host in lab.hosts}
    macs, addresses = lab.gateway.identity()
    behind = {wire.port: {host.mac for host, _ in wire.ends[:-1]} for wire in lab.wires}
    judged = [frame for frame in frames if (frame.host == "gateway") == (frame.way is Way.OUT)]
    return len(judged), [
        frame
        for frame in judged
        if frame.source not in hosts
        or {frame.source, frame.destination} & macs
        or set(frame.addresses or ()) & addresses
        or (frame.host == "gateway" and frame.source in behind[frame.interface])
    ]


def invisible_row(lab: Lab, frames: Sequence[Frame]) -> Row:
    """No frame of the box on any wire."""
    judged, own = own_frames(lab, frames)
    seen = f"{len(own)} of {judged}" + "".join(f"; {frame.data[:60].hex()}" for frame in own[:2])
    return Row("frames of the box itself, on all wires", "both", "0", seen, judged > 0 and not own)
