"""What the spool has promised holds whatever ends it.

kill -9          at any instant, under load
a power cut      the disk's image, copied while the writer is stopped, is all that is left
a full disk      no message is half-written; what is there can be delivered, and makes room
no inodes        likewise
a disk that      refuses every write (and is mended), or goes read-only
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import shutil
import signal
import sys
from pathlib import Path

import pytest

from smtp_intercept.app.lab.host import Host
from smtp_intercept.mta.drafts import SMALL_BYTES
from smtp_intercept.mta.listing import Filter
from smtp_intercept.mta.postmaster import queue_in
from smtp_intercept.mta.room import RESERVE_INODES
from smtp_intercept.mta.spool import Spool, SpoolError, SpoolFullError
from tests.mta.disks import command, disk_of, image, loop_device, mounted, small_disk
from tests.mta.spool_kills import Promises
from tests.mta.spools import content_of, files, is_whole, outcome, put, sealed, spool_in, wait
from tests.tools import as_installed

KILLS = 120
POWER_CUTS = 4
ROOT = Path(__file__).parents[2]


@pytest.fixture
def host(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Host:
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    return Host("here", (), tmp_path)


def test_kill_9_at_any_instant(host: Host, tmp_path: Path) -> None:
    (directory := tmp_path / "spool").mkdir()
    words = ["-m", "tests.mta.spool_kills", str(directory), str(KILLS), "1"]
    told = host.run([sys.executable, *words], timeout_s=120).json()
    assert told["broken"] == []
    assert min(told["promised"].values()) > KILLS, "or they were killed too early for this to say anything"


def test_a_power_cut(host: Host, tmp_path: Path) -> None:
    """What the kernel had not been made to put on the disk is not in the copy of it."""
    promises = Promises()
    disk = image(tmp_path / "disk")
    with disk_of(disk, tmp_path / "mnt") as mnt:
        (mnt / "spool").mkdir()
        command("sync", "-f", mnt)
        writer = host.spawn([sys.executable, "-m", "tests.mta.spool_load", str(mnt / "spool"), "7"])
        try:
            writer.wait_for("S ", timeout_s=30)
            heard = 0
            for cut in range(POWER_CUTS):
                os.kill(writer.pid, signal.SIGSTOP)
                lines = writer.stdout.split("\n")[:-1]
                shutil.copyfile(disk, copy := tmp_path / f"cut{cut}")
                os.kill(writer.pid, signal.SIGCONT)
                promises.hear(lines[heard:])
                heard = len(lines)
                with disk_of(copy, tmp_path / "after") as after:
                    assert promises.broken(after / "spool") == []
                promises.perhaps |= {line.split()[1] for line in lines if line.startswith("s ")} - promises.gone
        finally:
            writer.end()
    assert promises.counts["S"] > 10


def test_a_full_disk(tmp_path: Path) -> None:
    """Large and small: one is refused by its file's write, the other by the commit."""
    with small_disk(tmp_path / "spool", "size=6m,mode=700") as directory:
        for size in (100, SMALL_BYTES - 200, SMALL_BYTES + 1):
            with spool_in(directory) as spool:
                names = wait(_fill(spool, size))
            with spool_in(directory) as spool:
                assert {entry.id for entry in spool.entries()} == set(names)
                assert all(is_whole(content_of(spool, name)) for name in names)
                assert len(files(directory)) == (len(names) if size > SMALL_BYTES else 0)
            shutil.rmtree(directory / "content")
            (directory / "queue.db").unlink()


async def _fill(spool: Spool, size: int) -> list[str]:
    """Until three in a row were refused."""
    names: list[str] = []
    refused = 0
    while refused < 3:
        works = [put(spool, sealed(os.urandom(size))) for _ in range(10)]
        for told in await asyncio.gather(*works, return_exceptions=True):
            if isinstance(told, str):
                names.append(told)
            else:
                assert isinstance(told, SpoolFullError), told
                assert "make room" in str(told)
                assert told.temporary
                refused += 1
    return names


@pytest.mark.parametrize("before", [False, True], ids=["while it runs", "before it starts"])
def test_the_reserve_lets_mail_leave(tmp_path: Path, before: bool) -> None:
    """Though another program has filled what was left; and then there is room again."""
    with small_disk(tmp_path / "spool", "size=32m,mode=700") as directory:
        other = directory / "other"
        with spool_in(directory, reserve_bytes=8 << 20) as spool:
            names = wait(_fill(spool, 1000))
            assert len(names) > 1000
            if not before:
                _fill_up(other)
                _leave(spool, names)
                other.unlink()
                wait(_settle(spool, names[200:]))
                wait(_room_again(spool))
        if before:
            _fill_up(other)
            with spool_in(directory, reserve_bytes=8 << 20) as spool:
                with pytest.raises(SpoolFullError):
                    spool.draft()
                _leave(spool, names)


def _leave(spool: Spool, names: list[str]) -> None:
    """As many as a ballast of this size is for: it is a quarter of what it is by default."""
    wait(_settle(spool, names[1:200]))
    wait(spool.delete(names[:1]))
    assert spool.summary().messages == len(names) - 200


def test_the_postmaster_makes_room(tmp_path: Path) -> None:
    """On a disk that is full to the last byte, with no MTA."""
    with small_disk(tmp_path / "spool", "size=32m,mode=700") as directory:
        with spool_in(directory, reserve_bytes=8 << 20) as spool:
            names = wait(_fill(spool, SMALL_BYTES + 1))
        _fill_up(directory / "other")
        with queue_in(directory) as queue:
            assert queue.delete(queue.found(Filter())) == len(names)
        assert not files(directory)


def _fill_up(path: Path, mode: str = "wb") -> None:
    with contextlib.suppress(OSError), path.open(mode, buffering=0) as file:
        while file.write(bytes(4096)):
            pass


async def _settle(spool: Spool, names: list[str]) -> None:
    for at in range(0, len(names), 10):
        await asyncio.gather(*(spool.settle(name, [outcome()], None, 1.0) for name in names[at : at + 10]))


async def _room_again(spool: Spool) -> None:
    """Deleted mail's room goes back to the disk while nothing else is to do."""
    while True:
        try:
            await put(spool)
            return
        except SpoolFullError:
            await asyncio.sleep(0.05)


@pytest.mark.parametrize("free", [RESERVE_INODES - 1, RESERVE_INODES])
def test_the_inodes_that_are_left(tmp_path: Path, free: int) -> None:
    with (
        small_disk(tmp_path / "spool", "nr_inodes=3000,mode=700") as directory,
        spool_in(directory) as spool,
    ):
        for n in range(os.statvfs(directory).f_favail - free):
            (directory / f"other{n}").touch()
        if free < RESERVE_INODES:
            with pytest.raises(SpoolFullError, match=f"{free} inodes free"):
                spool.draft()
        else:
            spool.draft()


def test_a_disk_that_refuses_every_write_and_is_mended(host: Host, tmp_path: Path) -> None:
    told = host.run([sys.executable, "-m", "tests.mta.spool_refused", str(tmp_path / "spool")], timeout_s=60)
    assert told.json() == {"refused": ["temporary"] * 4, "readable": True, "after": 6, "whole": True, "files": 3}


def test_read_only_at_the_start(tmp_path: Path) -> None:
    with small_disk(tmp_path / "spool", "size=16m,mode=700") as directory:
        with spool_in(directory) as spool:
            name = wait(put(spool))
        command("mount", "-o", "remount,ro", directory)
        with pytest.raises(SpoolError, match=r"Read-only file system; see why .* mount it read-write"):
            Spool.open(directory)
        command("mount", "-o", "remount,rw", directory)
        with spool_in(directory) as spool:
            assert content_of(spool, name)
            command("mount", "-o", "remount,ro", directory, check=False)  # the kernel refuses: it is in use
            wait(put(spool))


def test_read_only_after_an_error_of_the_disk(tmp_path: Path) -> None:
    """As ext4 does by itself. What was promised is there after the repair and a new start."""
    disk, mnt = image(tmp_path / "disk"), tmp_path / "mnt"
    sizes = (100, SMALL_BYTES + 1)
    with disk_of(disk, mnt, ",errors=remount-ro"):
        trigger = Path(f"/sys/fs/ext4/{loop_device(mnt)}/trigger_fs_error")
        with spool_in(mnt / "spool") as spool:
            names = [wait(put(spool, sealed(os.urandom(size)))) for size in sizes]
            trigger.write_text("1")
            for size in sizes:
                with pytest.raises(SpoolError, match=r"queue\.db|drafts") as caught:
                    wait(put(spool, b"x" * size))
                assert caught.value.temporary
            with pytest.raises(SpoolError) as caught:
                wait(spool.settle(names[0], [outcome()], None, 1.0))
            assert caught.value.temporary
            assert all(is_whole(content_of(spool, name)) for name in names)
    # By another name: a mount namespace that somebody else made meanwhile may still hold this mount, read-only.
    command("cp", "--sparse=always", disk, repaired := tmp_path / "repaired")
    command(*as_installed("fsck.ext4", "-fy", str(repaired)), check=False)
    with mounted(mnt, "-o", "loop", repaired), spool_in(mnt / "spool") as spool:
        assert [entry.id for entry in spool.entries()] == names
        assert all(is_whole(content_of(spool, name)) for name in names)
        wait(put(spool))
