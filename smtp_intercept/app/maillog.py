"""The mail log: one JSON line a record. One kind of I/O: it appends to a file that was opened with privilege."""

from __future__ import annotations

import json
import os
from typing import Any

_ENCODE = json.JSONEncoder(ensure_ascii=False, separators=(",", ":")).encode


class MailLog:
    """One JSON line a record, to a file opened with privilege. A full disk loses lines and counts them, never mail."""

    def __init__(self, fd: int) -> None:
        self._fd = fd
        self.lost = 0

    def __call__(self, record: dict[str, Any]) -> None:
        line = _ENCODE(record) + "\n"
        try:
            os.write(self._fd, line.encode("utf-8", "backslashreplace"))
        except OSError:
            self.lost += 1
