"""Network namespaces: made and kept by the kernel under a name (as `ip netns` does), entered, looked into, removed.

Whoever enters stays what it is in all else. Runs no program.
"""

from __future__ import annotations

import errno
import os
import pickle
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, TypeVar

from bridge.libc import BIND, NEW_MOUNTS, NEW_NET, QUIET, REC, SHARED, SLAVE, fail, libc, mount

NAMES = Path("/run/netns")  # where ip-netns(8) has them
_HERE = "/proc/thread-self/ns/net"
_DETACH = 2  # MNT_DETACH
_T = TypeVar("_T")


class Namespace:
    """One network namespace, by an open descriptor that keeps it while it is open."""

    def __init__(self, fd: int) -> None:
        self.fd = fd

    @classmethod
    def here(cls) -> Namespace:
        """That of the calling thread."""
        return cls(os.open(_HERE, os.O_RDONLY | os.O_CLOEXEC))

    @classmethod
    def named(cls, name: str) -> Namespace | None:
        """None if there is none of that name."""
        return cls(os.open(NAMES / name, os.O_RDONLY | os.O_CLOEXEC)) if exists(name) else None

    @classmethod
    def of(cls, pid: int) -> Namespace | None:
        """That of a process; None if it has ended."""
        try:
            return cls(os.open(f"/proc/{pid}/ns/net", os.O_RDONLY | os.O_CLOEXEC)) if pid else None
        except FileNotFoundError:
            return None

    def again(self) -> Namespace:
        """One more descriptor of it."""
        return Namespace(os.dup(self.fd))

    @property
    def identity(self) -> tuple[int, int]:
        """The same for all descriptors of one namespace, and of no other that is there."""
        found = os.fstat(self.fd)
        return found.st_dev, found.st_ino

    def close(self) -> None:
        os.close(self.fd)

    def enter(self) -> None:
        """The calling thread; sockets, /proc/sys/net and programs that it starts are in there from now on, and sysfs is
        not (`live_in`). OSError without CAP_SYS_ADMIN."""
        if libc.setns(self.fd, NEW_NET):
            fail("setns")

    @contextmanager
    def entered(self) -> Iterator[None]:
        """The calling thread, while the context lasts."""
        before = Namespace.here()
        try:
            self.enter()
            yield
        finally:
            before.enter()
            before.close()

    def live_in(self) -> None:
        """This process, for good, and sysfs with it: a mount of that shows the namespace that it was made in."""
        self.enter()
        if libc.unshare(NEW_MOUNTS):
            fail("unshare")
        mount(None, Path("/"), None, REC | SLAVE)  # nobody else sees what is mounted here
        mount("sysfs", Path("/sys"), "sysfs", QUIET)

    def ask(self, work: Callable[[], _T]) -> _T:
        """What ``work`` returns or raises in a process of its own that lives in there."""

        def inside() -> _T:
            self.live_in()
            return work()

        return _apart(inside)


def exists(name: str) -> bool:
    """A plain file is none: it is left over from a machine that went down, or somebody else's."""
    with suppress(OSError):
        return (NAMES / name).stat().st_dev != NAMES.stat().st_dev
    return False


def make(name: str, kept: Namespace | None = None) -> None:
    """Named, empty, its loopback down; or this one, whose name was lost. OSError."""

    def work() -> None:
        if kept is not None:
            kept.enter()
        elif libc.unshare(NEW_NET):
            fail("unshare")
        _among_all_mounts()
        _shared_directory()
        (NAMES / name).touch(mode=0o444)
        try:
            mount("/proc/self/ns/net", NAMES / name, None, BIND)
        except OSError:
            (NAMES / name).unlink(missing_ok=True)
            raise

    _apart(work)


def remove(name: str) -> None:
    """The name; the namespace goes with the last process and the last descriptor in it. The kernel gives NICs that are
    still there to the machine's first namespace, and deletes links that are no hardware. OSError."""

    def work() -> None:
        _among_all_mounts()
        if exists(name) and libc.umount2(os.fsencode(NAMES / name), _DETACH):
            fail(f"umount {NAMES / name}")
        (NAMES / name).unlink(missing_ok=True)

    _apart(work)


def _among_all_mounts() -> None:
    """Where a mount is seen by all: a unit's sandbox, or `ip netns exec`, has mounts of its own that go with it. Those
    of the first process that lets itself be looked at, from the machine's down to our parent."""
    own = Path("/proc/self/ns/mnt").stat().st_ino
    for pid in reversed([*_ancestry(os.getppid())]):
        with suppress(OSError):
            mounts = os.open(f"/proc/{pid}/ns/mnt", os.O_RDONLY | os.O_CLOEXEC)
            try:
                if os.fstat(mounts).st_ino != own and libc.setns(mounts, NEW_MOUNTS):
                    fail("setns")
            finally:
                os.close(mounts)
            return


def _ancestry(pid: int) -> Iterator[int]:
    while pid:
        yield pid
        pid = int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[1])


def ask_fresh(work: Callable[[], _T]) -> _T:
    """What ``work`` returns or raises in a process with a network namespace that nobody else has and that goes with
    it."""

    def inside() -> _T:
        if libc.unshare(NEW_NET):
            fail("unshare")
        return work()

    return _apart(inside)


def _shared_directory() -> None:
    """As ip-netns(8): what is mounted below is seen by those who have a copy of the mounts."""
    NAMES.mkdir(mode=0o755, parents=True, exist_ok=True)
    try:
        mount(None, NAMES, None, SHARED | REC)
    except OSError as error:
        if error.errno != errno.EINVAL:  # not a mount point yet
            raise
        mount(str(NAMES), NAMES, None, BIND | REC)
        mount(None, NAMES, None, SHARED | REC)


def _apart(work: Callable[[], _T]) -> _T:
    """In a child: its outcome comes back through a pipe. OSError if it dies without one."""
    reading, writing = os.pipe()
    if not (pid := os.fork()):
        with suppress(BaseException):
            _write(writing, _outcome(work))
        os._exit(0)
    os.close(writing)
    with os.fdopen(reading, "rb") as pipe:
        said = pipe.read()
    os.waitpid(pid, 0)
    if not said:
        raise OSError(errno.ECHILD, "the process in the network namespace ended without a word")
    value, error = pickle.loads(said)  # noqa: S301 - our own child's
    if error is not None:
        raise error
    return value  # type: ignore[no-any-return]


def _outcome(work: Callable[[], Any]) -> bytes:
    try:
        return pickle.dumps((work(), None))
    except Exception as error:
        return pickle.dumps((None, error))


def _write(fd: int, data: bytes) -> None:
    with os.fdopen(fd, "wb") as pipe:
        pipe.write(data)
