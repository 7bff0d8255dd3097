"""Frames for the kernel tests: send them as they are, find every crossing of them, read the kernel's counters."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Sequence

from smtp_intercept.app.lab.capture import Frame, Way
from smtp_intercept.app.lab.host import Host
from smtp_intercept.app.lab.network import Lab
from smtp_intercept.app.lab.onlookers import own_frames

SEND = """
import pathlib, socket, sys, time
s = socket.socket(socket.AF_PACKET, socket.SOCK_RAW)
s.bind(("eth0", 0))
for line in pathlib.Path(sys.argv[1]).read_text().split():
    s.send(bytes.fromhex(line))
    time.sleep(0.002)
"""


def inject(host: Host, frames: Sequence[bytes]) -> None:
    """Put the frames on the host's wire, one after the other."""
    path = host.directory / "inject.hex"
    path.write_text("\n".join(frame.hex() for frame in frames))
    host.python(SEND, str(path))


Place = tuple[str, str, Way]


def crossing(sender: Host, receiver: Host, lab: Lab) -> Counter[Place]:
    """Where a frame is seen that crosses the box once: once at both hosts and on both ports."""
    ports = {host.name: wire.port for wire in lab.wires for host, _ in wire.ends}
    return Counter(
        [
            (sender.name, "eth0", Way.OUT),
            ("gateway", ports[sender.name], Way.IN),
            ("gateway", ports[receiver.name], Way.OUT),
            (receiver.name, "eth0", Way.IN),
        ]
    )


def sightings(frames: Sequence[Frame], data: bytes) -> Counter[Place]:
    """Where exactly this frame was seen, and how often. Not in what order: a frame that is sent on may be stamped after
    it was received behind the next wire."""
    return Counter((frame.host, frame.interface, frame.way) for frame in frames if frame.data == data)


def is_tcp(frame: Frame) -> bool:
    """TCP over IP without options or extension headers."""
    where = {0x0800: 23, 0x86DD: 20}.get(frame.ethertype)
    return where is not None and frame.data[where] == 6


def counters(lab: Lab) -> dict[str, int]:
    """Packets by the name of the kernel's counter."""
    listed = lab.gateway.room.run(["nft", "-j", "list", "counters"]).json()["nftables"]
    return {item["counter"]["name"]: item["counter"]["packets"] for item in listed if "counter" in item}


def entries(lab: Lab, family: str, kind: str, name: str) -> int:
    """How many elements a "map" or "set" of the product holds at this moment."""
    listed = lab.gateway.room.run(["nft", "-j", "list", kind, family, "tollbridge", name]).json()["nftables"]
    return sum(len(item[kind].get("elem", ())) for item in listed if kind in item)


def give_away(lab: Lab, frames: Sequence[Frame]) -> list[str]:
    """`own_frames` in words, and frames to a MAC that nobody on the wires has."""
    _, own = own_frames(lab, frames)
    hosts = {host.mac for host in lab.hosts}
    nobodys = [frame for frame in frames if not frame.data[0] & 1 and frame.destination not in hosts]
    return [json.dumps([frame.host, frame.interface, frame.way.name, frame.data[:80].hex()]) for frame in own + nobodys]
