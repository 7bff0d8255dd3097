"""The run directory: where each file of a running gateway lies, and the lock that keeps a second daemon out."""

from __future__ import annotations

import fcntl
import hashlib
import json
import logging
import os
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

from smtp_intercept.app.defaults import RUN_DIR

_LOG = logging.getLogger("tollbridge")
ROOM = "tollbridge"
WATCH_S = 10.0  # who types `up` or `down` waits so long for the daemon's own repair of what others have done
ASKED_S = 0.2  # who only asks for the holder holds the lock too, for a moment


# lock → what its holder is
LOCKS = {
    "run": "a tollbridge daemon is already running",
    "up": "another `tollbridge up` or `down` is at work",
    "relay": "the bypass relays are kept already",
}


class AlreadyRunningError(Exception):
    """Another process holds the lock; ``pid`` is what it wrote there (0 if nothing)."""

    def __init__(self, name: str, pid: int) -> None:
        super().__init__(f"{LOCKS[name]} (process {pid})")
        self.pid = pid


@dataclass(frozen=True, slots=True)
class RunDir:
    """Paths below one directory, which is root's alone to write."""

    path: Path

    @property
    def ledger(self) -> Path:
        """What undoes `up`."""
        return self.path / "ledger.jsonl"

    @property
    def plan(self) -> Path:
        """What the last `up` made, for the daemon to keep as it is."""
        return self.path / "plan.json"

    @property
    def effective(self) -> Path:
        """The configuration that the running daemon was started with."""
        return self.path / "effective.toml"

    @property
    def running(self) -> Path:
        """The text that the running daemon was started with."""
        return self.path / "running.toml"

    @property
    def made(self) -> Path:
        """The text that the last `up` was made from."""
        return self.path / "made.toml"

    @property
    def status(self) -> Path:
        return self.path / "status.json"

    @property
    def pending(self) -> Path:
        """There while an `up --confirm` waits for its `confirm`."""
        return self.path / "pending.json"

    @property
    def unfinished(self) -> Path:
        """There while `up` or `down` has begun and not ended."""
        return self.path / "unfinished.json"

    @property
    def labels(self) -> Path:
        """What is printed beside the ports of the running daemon: link → label."""
        return self.path / "labels.json"

    @property
    def relays(self) -> Path:
        """What the keeper of the bypass relays says of them."""
        return self.path / "relays.json"

    @property
    def relays_before(self) -> Path:
        """What the relays were before the first `up`."""
        return self.path / "relays-before.json"

    @property
    def bypassed(self) -> Path:
        """There while the relays are to join their ports, whatever the box does."""
        return self.path / "bypassed"

    @property
    def instead(self) -> Path:
        """There while the last good configuration is in force instead of the one that was asked for, and why."""
        return self.path / "instead.json"

    @property
    def room(self) -> str:
        """The network namespace that this gateway's wire lives in, if it has one of its own: ip-netns(8) lists it."""
        if self.path == RUN_DIR:
            return ROOM
        return f"{ROOM}-{hashlib.sha256(os.fsencode(self.path.absolute())).hexdigest()[:8]}"

    def make(self) -> None:
        self.path.mkdir(mode=0o755, parents=True, exist_ok=True)

    @contextmanager
    def lock(self, name: str) -> Iterator[None]:
        """Held by one process at a time, and let go by the kernel however it ends. Raises `AlreadyRunningError`."""
        self.make()
        with (self.path / f"{name}.lock").open("a+", encoding="ascii") as file:
            if not _locked(file) and not (self._passing(name) and _locked(file, WATCH_S)):
                raise AlreadyRunningError(name, self.holder(name))
            file.truncate(0)
            with suppress(OSError):  # whose it is is not worth failing for on a full disk
                os.write(file.fileno(), str(os.getpid()).encode())
            yield
            file.truncate(0)

    def _passing(self, name: str) -> bool:
        """Who holds the lock lets go of it soon: one that only asks for the holder, and stands still meanwhile; or the
        daemon that of `up`, for as long as putting something right takes."""
        holder = self.holder(name)
        return not holder or (name == "up" and holder == self.holder("run") != os.getpid())

    def holder(self, name: str) -> int:
        """The process that holds the lock, or 0. A number left by a dead one is not believed."""
        try:
            with (self.path / f"{name}.lock").open("r", encoding="ascii") as file:
                pid = int(file.read() or 0)
                try:
                    fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
                except BlockingIOError:
                    return pid
        except (OSError, ValueError):
            pass
        return 0


def _locked(file: IO[str], wait_s: float = ASKED_S) -> bool:
    deadline = time.monotonic() + wait_s
    while True:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            return True
        except BlockingIOError:
            if time.monotonic() > deadline:
                return False
        time.sleep(ASKED_S / 100)


def write_json(path: Path, data: Any, mode: int = 0o644) -> None:
    """All or nothing: readers see the old file or the new one."""
    fresh = path.with_suffix(".new")
    fresh.unlink(missing_ok=True)  # one that a killed process left may be readable to more than ``mode`` says
    try:
        fresh.touch(mode)
        fresh.write_text(json.dumps(data) + "\n", encoding="utf-8")
        fresh.replace(path)
    except BaseException:
        fresh.unlink(missing_ok=True)  # a full disk does not keep half of it
        raise


@dataclass(slots=True)
class Page:
    """A file that tells of a process again and again. That it cannot be written is logged once, and ends nothing."""

    path: Path
    _failure: str = ""

    def write(self, data: Any) -> None:
        failure = ""
        try:
            write_json(self.path, data)
        except OSError as error:
            failure = f"{self.path} cannot be written, and `tollbridge status` has old news: {error.strerror}"
        if failure and failure != self._failure:
            _LOG.error("%s", failure)
        self._failure = failure


def read_json(path: Path) -> Any:
    """None if the file is not there or not whole."""
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
