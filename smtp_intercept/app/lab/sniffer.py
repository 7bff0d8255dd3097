"""Records interfaces of the host it runs on into one pcapng file, direction included, until SIGTERM.

Prints ``ready`` when it sees every frame, and at its end ``{"frames": N, "lost": N}``. Changes nothing, drops nothing
knowingly: what the kernel could not hand over is counted as lost.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import selectors
import signal
import socket
import struct
import sys
import time
from pathlib import Path
from typing import BinaryIO

ETH_P_ALL = 3
SOL_PACKET, PACKET_STATISTICS, PACKET_AUXDATA = 263, 6, 8
SO_RCVBUFFORCE, SO_TIMESTAMPNS = 33, 35
RECEIVE_BUFFER_BYTES = 64 << 20  # a burst of 5,000 connections while this process is not scheduled
SNAP_BYTES = 1 << 17  # more than any GSO super-frame
VLAN_VALID = 0x10  # TP_STATUS_VLAN_VALID
INBOUND, OUTBOUND = 1, 2  # epb_flags, draft-ietf-opsawg-pcapng §4.3
IDLE_S = 0.2


def block(kind: int, body: bytes) -> bytes:
    """One pcapng block: type, length, body padded to 32 bits, length again."""
    body += bytes(-len(body) % 4)
    return struct.pack("<II", kind, len(body) + 12) + body + struct.pack("<I", len(body) + 12)


def option(code: int, value: bytes) -> bytes:
    """One pcapng option."""
    return struct.pack("<HH", code, len(value)) + value + bytes(-len(value) % 4)


def head(interfaces: list[str]) -> bytes:
    """Section header and one interface description each; time stamps in nanoseconds."""
    section = block(0x0A0D0D0A, struct.pack("<IHHq", 0x1A2B3C4D, 1, 0, -1))
    return section + b"".join(
        block(1, struct.pack("<HHI", 1, 0, 0) + option(2, name.encode()) + option(9, b"\x09") + option(0, b""))
        for name in interfaces
    )


def record(interface: int, at_ns: int, direction: int, frame: bytes) -> bytes:
    """One enhanced packet block."""
    fixed = struct.pack("<IIIII", interface, at_ns >> 32, at_ns & 0xFFFFFFFF, len(frame), len(frame))
    padding = bytes(-len(frame) % 4)
    return block(6, fixed + frame + padding + option(2, struct.pack("<I", direction)) + option(0, b""))


def listen(interface: str) -> socket.socket:
    """A packet socket that sees both directions of one interface, with time stamps and VLAN tags."""
    sock = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, 0)
    sock.setsockopt(socket.SOL_SOCKET, SO_RCVBUFFORCE, RECEIVE_BUFFER_BYTES)
    sock.setsockopt(socket.SOL_SOCKET, SO_TIMESTAMPNS, 1)
    sock.setsockopt(SOL_PACKET, PACKET_AUXDATA, 1)
    sock.setblocking(False)
    sock.bind((interface, ETH_P_ALL))
    return sock


def read(sock: socket.socket) -> tuple[int, int, bytes]:
    """(time in ns, direction, frame). The kernel takes a VLAN tag out of the frame: it is put back."""
    frame, ancillary, _, address = sock.recvmsg(SNAP_BYTES, 256)
    at_ns = time.time_ns()
    for level, kind, value in ancillary:
        if (level, kind) == (socket.SOL_SOCKET, SO_TIMESTAMPNS):
            seconds, nanoseconds = struct.unpack_from("=qq", value)
            at_ns = seconds * 10**9 + nanoseconds
        elif (level, kind) == (SOL_PACKET, PACKET_AUXDATA):
            status, _, _, _, _, tci, tpid = struct.unpack_from("=IIIHHHH", value)
            if status & VLAN_VALID:
                frame = frame[:12] + struct.pack("!HH", tpid or 0x8100, tci) + frame[12:]
    direction = OUTBOUND if address[2] == socket.PACKET_OUTGOING else INBOUND
    return at_ns, direction, frame


def drain(sock: socket.socket, interface: int, out: BinaryIO) -> int:
    """Write all that waits in a socket; the number of frames."""
    for frames in range(sys.maxsize):
        try:
            at_ns, direction, frame = read(sock)
        except BlockingIOError:
            return frames
        except OSError:  # the link went down or away: nothing to read there
            return frames
        out.write(record(interface, at_ns, direction, frame))
    return 0


def sniff(interfaces: list[str], out: BinaryIO) -> dict[str, int]:
    """Record until SIGTERM, then what is left; frames written and frames lost."""
    ending: list[int] = []
    signal.signal(signal.SIGTERM, lambda number, _: ending.append(number))
    sockets = [listen(name) for name in interfaces]
    out.write(head(interfaces))
    print("ready", flush=True)
    frames = 0
    with selectors.DefaultSelector() as selector:
        for index, sock in enumerate(sockets):
            selector.register(sock, selectors.EVENT_READ, index)
        while not ending:
            with contextlib.suppress(InterruptedError):
                for key, _ in selector.select(IDLE_S):
                    frames += drain(sockets[key.data], key.data, out)
    frames += sum(drain(sock, index, out) for index, sock in enumerate(sockets))
    return {"frames": frames, "lost": sum(lost(sock) for sock in sockets)}


def lost(sock: socket.socket) -> int:
    """Frames that the kernel had to drop because this process was too slow."""
    return int(struct.unpack("=II", sock.getsockopt(SOL_PACKET, PACKET_STATISTICS, 8))[1])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("interfaces", nargs="+")
    arguments = parser.parse_args()
    with arguments.out.open("wb") as out:
        seen = sniff(arguments.interfaces, out)
    print(json.dumps(seen))


if __name__ == "__main__":
    main()
