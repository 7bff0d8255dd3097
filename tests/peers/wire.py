"""TCP streams put together again from captured frames: what each end of each connection sent and got.

Takes what was repeated once; `ValueError` for a gap. No extension headers or options of IP: these wires have none.
"""

from __future__ import annotations

import struct
from collections import defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

from smtp_intercept.app.lab.capture import Frame

SYN = 0x02
TCP = 6
IPV4_HEAD, IPV6_HEAD = 20, 40  # octets


@dataclass(frozen=True, slots=True, order=True)
class Ends:
    """One direction of a connection."""

    source: str
    source_port: int
    destination: str
    destination_port: int

    @property
    def back(self) -> Ends:
        return Ends(self.destination, self.destination_port, self.source, self.source_port)


@dataclass(slots=True)
class _Direction:
    first: int  # sequence number of the first octet
    parts: dict[int, bytes] = field(default_factory=dict)  # by offset

    def add(self, sequence: int, payload: bytes) -> None:
        offset = (sequence - self.first) & 0xFFFFFFFF
        if len(payload) > len(self.parts.get(offset, b"")):
            self.parts[offset] = payload

    def joined(self) -> bytes:
        whole = bytearray()
        for offset in sorted(self.parts):
            if offset > len(whole):
                raise ValueError(f"{offset - len(whole)} octets are missing at {len(whole)}")
            whole += self.parts[offset][len(whole) - offset :]
        return bytes(whole)


@dataclass(frozen=True, slots=True)
class Transcript:
    """One connection as one end's wire carried it."""

    client: bytes
    server: bytes


Connection = tuple[Ends, int]  # the client's direction, and which of those with the same ports


def transcripts(frames: Iterable[Frame], host: str, port: int = 25) -> Mapping[Connection, Transcript]:
    """The connections to ``port`` as the wire of ``host`` carried them."""
    seen: dict[Ends, list[_Direction]] = defaultdict(list)
    for frame in frames:
        if frame.host == host:
            _add(seen, frame)
    return {
        (ends, number): Transcript(client.joined(), server.joined())
        for ends in list(seen)
        if ends.destination_port == port
        for number, (client, server) in enumerate(zip(seen[ends], seen[ends.back], strict=True))
    }


def _add(seen: dict[Ends, list[_Direction]], frame: Frame) -> None:
    data = frame.data
    match frame.ethertype:
        case 0x0800 if data[23] == TCP:
            head, end = 14 + IPV4_HEAD, 14 + struct.unpack_from("!H", data, 16)[0]
        case 0x86DD if data[20] == TCP:
            head, end = 14 + IPV6_HEAD, 14 + IPV6_HEAD + struct.unpack_from("!H", data, 18)[0]
        case _:
            return
    assert frame.addresses
    source, destination = frame.addresses
    ports = struct.unpack_from("!HH", data, head)
    sequence, offset, flags = struct.unpack_from("!I4xBB", data, head + 4)
    ends = Ends(source, ports[0], destination, ports[1])
    if flags & SYN:
        first = (sequence + 1) & 0xFFFFFFFF
        if not seen[ends] or seen[ends][-1].first != first:  # not a SYN repeated
            seen[ends].append(_Direction(first))
    elif seen[ends] and (payload := data[head + (offset >> 4) * 4 : end]):
        seen[ends][-1].add(sequence, payload)
