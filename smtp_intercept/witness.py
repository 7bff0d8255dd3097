"""The MACs of a session, as its own SYN to the server left the box: the client's, and the next hop towards the server.

One packet socket, opened before privileges are dropped. It sees nothing but outgoing SYNs: a filter in the kernel
holds everything else back.
"""

from __future__ import annotations

import ctypes
import socket
import struct
from collections import OrderedDict
from typing import TypeAlias

from smtp_intercept.transparent import Address

# linux: asm-generic/socket.h, linux/if_ether.h, linux/filter.h.
_SO_ATTACH_FILTER = 26
_ETH_P_ALL = 0x0003
_SKF_AD_PKTTYPE = 0xFFFFF004  # SKF_AD_OFF + SKF_AD_PKTTYPE
_SNAPLEN = 128  # Ethernet, an IP header with options, and the TCP ports
_LDB, _LDH, _LDB_X, _LDX_IHL, _JEQ, _JSET, _AND, _RET = 0x30, 0x28, 0x50, 0xB1, 0x15, 0x45, 0x54, 0x06
_SYN, _SYN_ACK = 0x02, 0x12

# SYNs remembered until their session asks; it asks as soon as the server has answered, so this many are under way.
MAX_REMEMBERED = 16_384
# Frames that wait in the socket between two questions: 10,000 new connections a second for a tenth of one.
RECEIVE_BUFFER_BYTES = 1_048_576

# Each: code, operand, and for a jump the instruction to go on with if true and if false.
_NEXT, _IPV6, _TAKE, _DROP = -1, 12, 18, 19
_FILTER: tuple[tuple[int, int, int, int], ...] = (
    (_LDB, _SKF_AD_PKTTYPE, _NEXT, _NEXT),
    (_JEQ, socket.PACKET_OUTGOING, _NEXT, _DROP),
    (_LDH, 12, _NEXT, _NEXT),
    (_JEQ, 0x0800, _NEXT, _IPV6),
    (_LDB, 23, _NEXT, _NEXT),  # IPv4: the protocol,
    (_JEQ, socket.IPPROTO_TCP, _NEXT, _DROP),
    (_LDH, 20, _NEXT, _NEXT),  # not a later fragment,
    (_JSET, 0x1FFF, _DROP, _NEXT),
    (_LDX_IHL, 14, _NEXT, _NEXT),
    (_LDB_X, 14 + 13, _NEXT, _NEXT),  # the TCP flags behind the options
    (_AND, _SYN_ACK, _NEXT, _NEXT),
    (_JEQ, _SYN, _TAKE, _DROP),
    (_JEQ, 0x86DD, _NEXT, _DROP),
    (_LDB, 20, _NEXT, _NEXT),  # IPv6: the next header; our own SYNs have no extension headers
    (_JEQ, socket.IPPROTO_TCP, _NEXT, _DROP),
    (_LDB, 14 + 40 + 13, _NEXT, _NEXT),
    (_AND, _SYN_ACK, _NEXT, _NEXT),
    (_JEQ, _SYN, _TAKE, _DROP),
    (_RET, _SNAPLEN, _NEXT, _NEXT),
    (_RET, 0, _NEXT, _NEXT),
)

# Packed source and destination address, source and destination port.
Tuple4: TypeAlias = tuple[bytes, bytes, int, int]


class Witness:
    """Remembers the MACs of every TCP connection that this host opens through one device."""

    def __init__(self, device: str) -> None:
        """Needs CAP_NET_RAW now and never again. OSError if there is no such device."""
        self._seen: OrderedDict[Tuple4, tuple[str, str]] = OrderedDict()
        # Protocol 0 receives nothing: no frame comes in before the filter is there.
        self._socket = socket.socket(socket.AF_PACKET, socket.SOCK_RAW | socket.SOCK_NONBLOCK, 0)
        try:
            _attach(self._socket)
            self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, RECEIVE_BUFFER_BYTES)
            self._socket.bind((device, _ETH_P_ALL))
        except OSError:
            self._socket.close()
            raise

    def macs(self, client: Address, server: Address) -> tuple[str, str] | None:
        """(client's MAC, server's or router's MAC) of the connection dialled from ``client`` to ``server``, told
        once; None if its SYN was not seen."""
        self._drain()
        return self._seen.pop((_packed(client[0]), _packed(server[0]), client[1], server[1]), None)

    def close(self) -> None:
        """See no more."""
        self._socket.close()

    def _drain(self) -> None:
        while True:
            try:
                frame = self._socket.recv(_SNAPLEN)
            except BlockingIOError:
                return
            except OSError:  # ENETDOWN: the device went down; told once
                return
            if (key := _key(frame)) is not None:
                self._remember(key, (frame[6:12].hex(":"), frame[0:6].hex(":")))

    def _remember(self, key: Tuple4, macs: tuple[str, str]) -> None:
        self._seen[key] = macs
        self._seen.move_to_end(key)
        if len(self._seen) > MAX_REMEMBERED:
            self._seen.popitem(last=False)


def _attach(sock: socket.socket) -> None:
    code = b"".join(
        struct.pack("HBBI", operation, *(0 if to == _NEXT else to - here - 1 for to in (true, false)), operand)
        for here, (operation, operand, true, false) in enumerate(_FILTER)
    )
    buffer = ctypes.create_string_buffer(code)
    program = struct.pack("HP", len(_FILTER), ctypes.addressof(buffer))  # struct sock_fprog
    sock.setsockopt(socket.SOL_SOCKET, _SO_ATTACH_FILTER, program)


def _key(frame: bytes) -> Tuple4 | None:
    """The 4-tuple of a frame that the filter let through; None if it was cut short."""
    version = frame[14] >> 4 if len(frame) > 14 else 0
    ports_at = 14 + (40 if version == 6 else (frame[14] & 15) * 4 if version == 4 else len(frame))
    if len(frame) < ports_at + 4:
        return None
    source, destination = (frame[22:38], frame[38:54]) if version == 6 else (frame[26:30], frame[30:34])
    source_port, destination_port = struct.unpack_from("!HH", frame, ports_at)
    return source, destination, source_port, destination_port


def _packed(address: str) -> bytes:
    return socket.inet_pton(socket.AF_INET6 if ":" in address else socket.AF_INET, address.partition("%")[0])
