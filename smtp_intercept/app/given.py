"""The text of a file that an administrator names: read whole, without waiting for anybody, never more than it may be.

Pipes that somebody writes to are fine (``<(…)``, /dev/stdin); devices are not.
"""

from __future__ import annotations

import os
import stat
from pathlib import Path

from smtp_intercept.app.refusals import remedy

_REFUSED = {
    stat.S_IFCHR: "is a device",
    stat.S_IFBLK: "is a device",
    stat.S_IFSOCK: "is a socket",
    stat.S_IFDIR: "is a directory",
}


class GivenError(ValueError):
    """``reason`` and ``remedy`` ("" if it goes without saying), for who knows what the file is for; ``line`` from 1."""

    def __init__(self, reason: str, remedy: str = "", line: int | None = None) -> None:
        super().__init__(f"{reason}; {remedy}" if remedy else reason)
        self.reason, self.remedy, self.line = reason, remedy, line


def text(path: Path, most_bytes: int) -> str:
    """Without a byte order mark, which some editors begin with. Raises `GivenError`."""
    content = octets(path, most_bytes)
    try:
        found = content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = content.count(b"\n", 0, error.start) + 1
        raise GivenError(f"byte {content[error.start]:#04x} is not UTF-8", "save it as UTF-8", line) from None
    if (at := content.find(b"\0")) >= 0:  # which neither TOML nor JSON has
        line = content.count(b"\n", 0, at) + 1
        raise GivenError("byte 0x00 is no text: it is UTF-16, or was not written whole", "save it as UTF-8", line)
    return found


def octets(path: Path, most_bytes: int) -> bytes:
    """As they are. Raises `GivenError`, also for more than so many."""
    try:
        content = _content(path, most_bytes)
    except OSError as error:
        raise GivenError(f"cannot be read: {error.strerror}", remedy(error)) from None
    if len(content) > most_bytes:
        raise GivenError(f"is larger than {most_bytes} bytes", "is it the right file?")
    return content


def _content(path: Path, most_bytes: int) -> bytes:
    """To open a pipe would wait for whoever writes to it; some devices do things when they are opened."""
    if (refused := _REFUSED.get(stat.S_IFMT(path.stat().st_mode))) is not None:
        raise GivenError(refused, "name a file")
    with os.fdopen(os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_NOCTTY), "rb") as file:
        os.set_blocking(file.fileno(), True)
        content = file.read(most_bytes + 1)
        if not content and stat.S_ISFIFO(os.fstat(file.fileno()).st_mode):
            raise GivenError("is a pipe that nobody writes to, or that was read already", "name a file")
        return content
