"""The spool's files, and a message's content on its way into the queue.

Content up to `SMALL_BYTES` goes into the database, where messages share one fsync; more into a file of its own:
drafts/NAME while it grows, content/NAME once it is whole and fsynced. From 1, 10, 50 callers at once, two cores and a
virtual disk took 2800, 8200, 10900 messages of 4 KB a second in the database, 420, 2200, 2900 as files; of 64 KB
1500, 2700, 2400 and 600, 1400, 1800.
"""

from __future__ import annotations

import io
import os
import secrets
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

from smtp_intercept.mta import database, faults
from smtp_intercept.mta.faults import SpoolError
from smtp_intercept.mta.room import Room

SMALL_BYTES = 64 << 10  # also what a draft holds in memory
_DIRECTORIES = ("drafts", "content")


@dataclass(frozen=True, slots=True)
class Layout:
    """Where things are."""

    directory: Path

    @property
    def database(self) -> Path:
        return self.directory / database.NAME

    def draft(self, name: str) -> Path:
        return self.directory / "drafts" / name

    def content(self, name: str) -> Path:
        return self.directory / "content" / name

    def make(self) -> None:
        """The directories that are missing, for the owner alone: mail is private."""
        for name in _DIRECTORIES:
            (self.directory / name).mkdir(mode=0o700, exist_ok=True)

    def files(self, kind: str) -> Iterator[Path]:
        """Those of "drafts" or "content"."""
        with os.scandir(self.directory / kind) as found:
            yield from (Path(entry.path) for entry in found)


class Draft:
    """Content being written. After `SpoolError` it is good for nothing but `abandon`."""

    def __init__(self, layout: Layout, room: Room) -> None:
        self.size_bytes = 0
        self.name = ""  # of its file, once it has one
        self._layout, self._room = layout, room
        self._buffer = bytearray()
        self._fd = -1
        self._handed_over = False

    def write(self, data: bytes) -> None:
        """May wait for the disk once there is more than `SMALL_BYTES`. `SpoolFullError` or another temporary
        `SpoolError`."""
        self._buffer += data
        self.size_bytes += len(data)
        if len(self._buffer) > SMALL_BYTES:
            self._flush()

    def small(self) -> bytes | None:
        """The whole content, None if it has a file."""
        return None if self.name else bytes(self._buffer)

    def content(self) -> BinaryIO:
        """What was written, from its first octet; close it. For a message that may not have to be kept."""
        if not self.name:
            return io.BytesIO(self._buffer)
        self._flush()
        try:
            return self._layout.draft(self.name).open("rb")
        except OSError as error:
            raise faults.of_system(error, self._layout.draft(self.name)) from error

    def sync(self) -> None:
        """Put a file's content on the disk. Waits for it."""
        self._flush()
        try:
            os.fsync(self._fd)
        except OSError as error:
            raise faults.of_system(error, self._layout.draft(self.name)) from error
        os.close(self._fd)
        self._fd = -1

    def hand_over(self) -> None:
        """From now on it is the queue's: a message that was accepted must not go with what its writer leaves."""
        self._handed_over = True

    def place(self) -> None:
        """Move the file to content/, if it is not there already."""
        with suppress(FileNotFoundError):
            self._layout.draft(self.name).rename(self._layout.content(self.name))

    def abandon(self) -> None:
        """Its writer wants nothing left of it. Safe to repeat, and without effect once the queue has it:
        `Spool.enqueue` and `settle` use a draft up."""
        if not self._handed_over:
            self.discard()

    def discard(self) -> None:
        """Nothing is left of it. Safe to repeat."""
        self._buffer = bytearray()
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1
        if self.name:
            for path in (self._layout.draft(self.name), self._layout.content(self.name)):
                with suppress(OSError):  # not there, or not to be removed now: the next start does it
                    path.unlink()
            self.name = ""

    def _flush(self) -> None:
        self._room.need()
        try:
            if not self.name:
                name = secrets.token_hex(8)
                self._fd = os.open(self._layout.draft(name), os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
                self.name = name
            view = memoryview(self._buffer)
            while view:
                view = view[os.write(self._fd, view) :]
        except OSError as error:
            raise faults.of_system(error, self._layout.directory / "drafts") from error
        self._buffer = bytearray()


def sync_directory(path: Path) -> None:
    """Until then a crash may forget a renamed file's name."""
    fd = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)


def make(directory: Path, uid: int, gid: int) -> None:
    """As root, before the MTA starts as somebody else. A directory that holds something keeps its owner, for so does
    all in it."""
    try:
        directory.mkdir(mode=0o700, exist_ok=True)
        # Root without its power over others' files cannot look into what is theirs, and need not.
        if directory.stat().st_uid != uid and not any(directory.iterdir()):
            os.chown(directory, uid, gid)
    except OSError as error:
        raise faults.of_system(error, directory) from error


def check_owner(directory: Path) -> None:
    """`SpoolError` unless it is this user's; then nobody else's from now on."""
    try:
        owner = directory.stat().st_uid
        if owner == os.geteuid():
            directory.chmod(0o700)
    except OSError as error:
        raise faults.of_system(error, directory) from error
    if owner != os.geteuid():
        raise SpoolError(
            f"{directory}: belongs to user {owner}, Tollbridge's mail is kept by user {os.geteuid()}; "
            f"stop Tollbridge, then `chown -R {os.geteuid()} {directory}`"
        )
