"""The memory in which several interceptors count their sessions together: made by the daemon, handed down open."""

from __future__ import annotations

import mmap
import os
import secrets

from smtp_intercept import headcount


class Seats:
    """Gone with the last process that has it."""

    def __init__(self, fd: int, workers: int) -> None:
        self.fd, self.workers = fd, workers
        self._memory = memoryview(mmap.mmap(fd, headcount.size_bytes(workers)))

    @classmethod
    def make(cls, workers: int) -> Seats:
        """OSError."""
        fd = os.memfd_create("tollbridge-seats", os.MFD_CLOEXEC)
        os.ftruncate(fd, headcount.size_bytes(workers))
        seats = cls(fd, workers)
        headcount.set_key(seats._memory, secrets.token_bytes(16))
        return seats

    def of(self, worker: int) -> headcount.Shared:
        return headcount.Shared(self._memory, self.workers, worker)

    def clear(self, worker: int) -> None:
        """It has ended, and its sessions with it."""
        headcount.clear(self._memory, worker)
