"""A message's content on its way into the queue."""

from __future__ import annotations


class Draft:
    """Content being written. Up to `SMALL_BYTES` are kept in memory, more in a file of ``spool/drafts``."""

    size_bytes: int = 0

    def write(self, data: bytes) -> None:
        """May wait for the disk. `SpoolFullError` or another temporary `SpoolError`: abandon it."""
        raise NotImplementedError

    def abandon(self) -> None:
        """Nothing is left of it. Safe to repeat, and after `Spool.enqueue`, which uses the draft up."""
        raise NotImplementedError
