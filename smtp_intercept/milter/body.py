"""The body that a filter has put in the place of the message's own.

One kind of I/O: as `Held`. Its lines end with CRLF, whatever the filter sent: a line end that servers read in different
ways would be a way to hide a second message.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator

from smtp_intercept.inspect.held import Held
from smtp_intercept.milter.packets import MilterError

_BARE = re.compile(rb"\r(?!\n)|(?<!\r)\n")


class NewBody:
    """``spill`` as `Held` has it; more than ``most_bytes`` is a `MilterError`."""

    def __init__(self, spill: Callable[[], int], most_bytes: int) -> None:
        self._held, self._most_bytes = Held(spill), most_bytes
        self._last = b""  # a CR whose LF may come
        self._whole = True  # the last line

    @property
    def size_bytes(self) -> int:
        return self._held.size_bytes

    def add(self, octets: bytes) -> None:
        """The next of it. OSError: there is no room."""
        octets, self._last = self._last + octets, b""
        if octets.endswith(b"\r"):
            octets, self._last = octets[:-1], b"\r"
        self._keep(_BARE.sub(b"\r\n", octets))

    def end(self) -> None:
        """It has come whole."""
        if self._last or not self._whole:
            self._keep(b"\r\n")
        self._last = b""

    def _keep(self, octets: bytes) -> None:
        if not octets:
            return
        if self._held.size_bytes + len(octets) > self._most_bytes:
            raise MilterError(f"a body of more than {self._most_bytes} octets")
        self._whole = octets.endswith(b"\n")
        self._held.add(octets)

    def octets(self) -> Iterator[bytes]:
        """In pieces; as often as it is asked for."""
        return self._held.octets()

    def close(self) -> None:
        self._held.close()
