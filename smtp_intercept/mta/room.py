"""How much of the disk is left for new mail, and a file that keeps some for what must be written when there is none."""

from __future__ import annotations

import os
import threading
from pathlib import Path

from smtp_intercept.mta import faults
from smtp_intercept.mta.faults import SpoolFullError

RESERVE_BYTES = 64 << 20  # below this new mail waits at its sender's: what is queued must still be settled
RESERVE_INODES = 1000  # the database's files and other programs want some, too
_BALLAST = "ballast"
BALLAST_BYTES = 16 << 20  # half of the reserve at most: the write-ahead log between two checkpoints, four times


class Room:
    """``reserve_bytes`` stay free of new mail. Other programs may fill the disk all the same: then the ballast is
    given up, so that mail that has been delivered can be taken off the queue and is not delivered again. Nothing new
    is begun until it is back."""

    def __init__(self, directory: Path, reserve_bytes: int) -> None:
        self._directory = directory
        self._reserve_bytes = reserve_bytes
        self._ballast_bytes = min(BALLAST_BYTES, reserve_bytes // 2)
        self._lock = threading.Lock()
        self._fill()

    @property
    def spent(self) -> bool:
        """Whether the ballast was given up, here or by the command."""
        return bool(self._ballast_bytes) and not (self._directory / _BALLAST).exists()

    def need(self) -> None:
        """`SpoolFullError` if there is no room for new mail. Some microseconds."""
        if self.spent:
            self._fill()
        free_bytes, free_inodes = self._free()
        if self.spent or free_bytes + self._ballast_bytes < self._reserve_bytes:
            raise SpoolFullError(
                f"{self._directory}: {free_bytes >> 20} MiB free, less than mta.reserve_bytes; make room on its disk"
            )
        if free_inodes < RESERVE_INODES:
            raise SpoolFullError(f"{self._directory}: {free_inodes} inodes free; remove files from its disk")

    @property
    def left_bytes(self) -> int:
        """What new mail may take before there is no room; 0 if there is none."""
        return 0 if self.spent else max(0, self._free()[0] + self._ballast_bytes - self._reserve_bytes)

    def is_scarce(self) -> bool:
        """Whether what the database does not use should go back to the disk."""
        return self._free()[0] < 2 * self._reserve_bytes

    def _fill(self) -> None:
        """Make the ballast, unless it is there or would take what is left."""
        path = self._directory / _BALLAST
        with self._lock:
            if self.spent and self._free()[0] >= self._reserve_bytes:
                try:
                    with path.open("wb") as file:
                        os.posix_fallocate(file.fileno(), 0, self._ballast_bytes)
                except OSError:
                    path.unlink(missing_ok=True)

    def _free(self) -> tuple[int, int]:
        """Bytes and inodes, for an ordinary user; some file systems do not count inodes."""
        try:
            disk = os.statvfs(self._directory)
        except OSError as error:
            raise faults.of_system(error, self._directory) from error
        return disk.f_bavail * disk.f_frsize, disk.f_favail if disk.f_files else RESERVE_INODES


def spend(directory: Path) -> bool:
    """Give the ballast up; whether there was one."""
    try:
        (directory / _BALLAST).unlink()
    except OSError:
        return False
    return True
