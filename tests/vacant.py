"""Ports that are free, and stay so until who was given one has it: the kernel gives none of them away by itself."""

from __future__ import annotations

import random
import socket
from pathlib import Path

RANGE = Path("/proc/sys/net/ipv4/ip_local_port_range")  # which it takes from for who asks for any port
FIRST = 10_240
_CHANCE = random.SystemRandom()  # tests that run beside each other choose differently


def port(address: str = "127.0.0.1") -> int:
    """One that nobody has at this moment, by UDP or TCP."""
    last = int(RANGE.read_text().split()[0])
    while True:
        number = _CHANCE.randrange(FIRST, last)
        with socket.socket(type=socket.SOCK_DGRAM) as datagrams, socket.socket() as streams:
            try:
                datagrams.bind((address, number))
                streams.bind((address, number))
            except OSError:
                continue
        return number
