"""What systemd is told (sd_notify(3)): ready, alive, stopping. Says nothing where nobody asked."""

from __future__ import annotations

import contextlib
import os
import socket


class Notify:
    """Reads NOTIFY_SOCKET and WATCHDOG_USEC of the environment once."""

    def __init__(self) -> None:
        self._address = os.environ.pop("NOTIFY_SOCKET", "")
        self._every_s = int(os.environ.pop("WATCHDOG_USEC", "0") or 0) / 1e6 / 2
        self._at = float("-inf")
        # Now: an abstract address is one of the network namespace that the socket was made in.
        self._end = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_NONBLOCK) if self._address else None

    def ready(self, status: str = "") -> None:
        """``status``: a line for `systemctl status`."""
        self._tell(f"READY=1\nSTATUS={status}" if status else "READY=1")

    def stopping(self, within_s: float) -> None:
        """It may take so long, whatever TimeoutStopSec of the unit says."""
        self._tell(f"STOPPING=1\nEXTEND_TIMEOUT_USEC={round(within_s * 1e6)}")

    def watchdog(self, now: float) -> None:
        """Call it as often as you like, while all is well."""
        if self._every_s and now - self._at >= self._every_s:
            self._at = now
            self._tell("WATCHDOG=1")

    def _tell(self, message: str) -> None:
        if self._end is None:
            return
        address = "\0" + self._address[1:] if self._address.startswith("@") else self._address
        with contextlib.suppress(OSError):
            self._end.sendto(message.encode(), address)
