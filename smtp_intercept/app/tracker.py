"""The unprivileged process that keeps the tracking index: it follows the mail log, and nobody waits for it.

Dies, hangs and fills its part of the disk without mail being the worse for it. Behind all others for a processor.
"""

from __future__ import annotations

import fcntl
import logging
import os
import signal
import sqlite3
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from smtp_intercept.app import channel, config, processlog
from smtp_intercept.app.child import read_arguments, settle_in
from smtp_intercept.app.lentlogs import Borrowed
from smtp_intercept.app.sandbox import myself
from smtp_intercept.watch.follow import Ask, Follower
from smtp_intercept.watch.index import LOCK, Keep, Writer, remove, volumes_in

NICE = 15
IDLE_S = 0.25  # between two looks at a log to which nothing was added
AGAIN_S = 5.0  # a disk that is full is asked again so often
TIDY_S = 10.0
REBUILD = "rebuild"  # a file in the index's directory
_DAMAGED = frozenset({sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB})
_LOG = logging.getLogger("tollbridge")


class TakenError(Exception):
    """Another process writes to this index."""


class Tracker:
    """Of one directory. ``ask`` gives the logs; ``reserve_bytes`` of its disk stay free."""

    def __init__(self, directory: Path, keep: Keep, reserve_bytes: int, ask: Ask) -> None:
        self._directory, self._keep, self._reserve = directory, keep, reserve_bytes
        self._lock = _locked(directory)
        self._ask = ask
        self.why = ""  # it stands still
        self._tidied_at = self._again_at = float("-inf")
        self._open()

    def _open(self) -> None:
        self._index = Writer(self._directory, self._keep)
        self._follower = Follower(self._index, self._ask)

    def turn(self, now: float) -> float:
        """Some of the work; in how many seconds there may be more."""
        if now < self._again_at:
            return IDLE_S
        try:
            if (self._directory / REBUILD).exists():
                self._begin_anew()
            if now - self._tidied_at >= TIDY_S:
                self._tidied_at = now
                self._index.give_up(round(time.time() * 1000))
            if why := self._no_room():
                return self._stands(why)
            worked = self._follower.turn()
        except sqlite3.DatabaseError as error:
            return self._failed(error)
        except OSError as error:
            return self._stands(str(error))
        self.why = ""
        return 0.0 if worked else IDLE_S

    def _begin_anew(self) -> None:
        _LOG.info("the tracking index is made anew")
        self._follower.begin_anew()
        self._index.clear()
        (self._directory / REBUILD).unlink()

    def _no_room(self) -> str:
        disk = os.statvfs(self._directory)
        free = disk.f_bavail * disk.f_frsize
        return f"its disk has less than log.reserve_bytes free ({free})" if free < self._reserve else ""

    def _failed(self, error: sqlite3.DatabaseError) -> float:
        """A damaged volume is made again from the log, as far back as that goes."""
        if error.sqlite_errorcode & 0xFF in _DAMAGED and (volumes := volumes_in(self._directory)):
            newest = volumes[max(volumes)]
            _LOG.error("the tracking index: %s is given up: %s", newest, error)
            self._follower.begin_anew()
            self._index.close()
            remove(newest)
            self._open()
        return self._stands(str(error))

    def _stands(self, why: str) -> float:
        if why != self.why:
            _LOG.error("the tracking index stands still: %s", why)
        self.why, self._again_at = why, time.monotonic() + AGAIN_S
        return IDLE_S

    def report(self) -> dict[str, Any]:
        return {
            "records": self._follower.records,
            "behind_bytes": self._follower.behind_bytes,
            "size_bytes": self._index.size_bytes,
            "stands": self.why,
        }

    def close(self) -> None:
        self._follower.begin_anew()
        self._index.close()
        os.close(self._lock)


def tracker_of(settings: config.Config, ask: Ask) -> Tracker:
    """The configured one; `TakenError`."""
    given = settings.tracking
    assert given.index is not None
    keep = Keep(given.days, given.size_bytes)
    return Tracker(Path(given.index), keep, settings.log.reserve_bytes, ask)


def make_directory(directory: Path, uid: int, gid: int) -> None:
    """As root, for that user alone; one that holds something keeps its owner. OSError."""
    directory.mkdir(mode=0o700, exist_ok=True)
    if directory.stat().st_uid != uid and not any(directory.iterdir()):
        os.chown(directory, uid, gid)


def _locked(directory: Path) -> int:
    lock = os.open(directory / LOCK, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(lock)
        raise TakenError(f"tracking.index: {directory} is written to by another process") from None
    return lock


def follow(tracker: Tracker, over: Callable[[], bool], report: Callable[[], None]) -> None:
    """Until then."""
    reported_at = float("-inf")
    while not over():
        wait_s = tracker.turn(now := time.monotonic())
        if now - reported_at >= channel.REPORT_EVERY_S:
            reported_at = now
            report()
        time.sleep(min(wait_s, IDLE_S))


def main(argv: list[str] | None = None) -> int:
    """Started by the daemon, with the ends of its channels."""
    processlog.begin()
    arguments = read_arguments("tracker", argv, "logs")
    settings = config.load(arguments.effective)
    stopping, reports = list[int](), channel.adopt(arguments.reports)
    signal.signal(signal.SIGTERM, lambda number, _: stopping.append(number))
    try:
        make_directory(Path(str(settings.tracking.index)), arguments.uid, arguments.gid)
        os.nice(NICE)
        os.environ["SQLITE_TMPDIR"] = str(settings.tracking.index)  # its view has no other place to write
        settle_in("tracker", arguments, settings)
        tracker = tracker_of(settings, Borrowed(channel.adopt(arguments.logs)).ask)
    except (OSError, TakenError, sqlite3.Error) as error:
        _LOG.error("tracking.index: %s", error)
        return 1
    follow(tracker, lambda: bool(stopping), lambda: channel.report(reports, {**myself(), "index": tracker.report()}))
    tracker.close()
    return 0


if __name__ == "__main__":
    sys.exit(main())
