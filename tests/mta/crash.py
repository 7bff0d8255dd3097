"""A program: ends the MTA under load in one of three ways; prints one JSON object, what was seen and what was broken.

python -m tests.mta.crash kills|full|read-only DIRECTORY HOW-OFTEN SEED
"""

from __future__ import annotations

import argparse
import json
import os
import random
import signal
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from tests.mta.crash_ledger import Verdict
from tests.mta.crash_rig import END_S, REFUSED, Rig, ended
from tests.mta.disks import command, disk_of, image, loop_device, small_disk

LONGEST_S = 0.3  # of a life; the shortest end before the spool is open
FULL_S = READ_ONLY_S = 0.4  # the disk is well, or not, at most
RESERVE_BYTES = 16 << 20


def kills(directory: Path, many: int, seed: int) -> Verdict:
    """At so many random instants."""
    (spool := directory / "spool").mkdir()
    chance, rig = random.Random(seed), Rig(directory, seed, spool)
    for _ in range(many):
        pid = rig.start()
        time.sleep(chance.uniform(0, LONGEST_S))
        rig.kill(pid)
    return rig.finish()


def full_disk(directory: Path, many: int, seed: int) -> Verdict:
    """The spool's own disk is filled by another program and emptied again, so many times; every third time the MTA is
    killed while it is full."""
    with small_disk(directory / "spool", "size=64m,mode=700") as spool:
        return _filled(Rig(directory, seed, spool, reserve_bytes=RESERVE_BYTES), many, random.Random(seed))


def _filled(rig: Rig, many: int, chance: random.Random) -> Verdict:
    other, pid = rig.spool / "other", rig.start()
    for number in range(many):
        time.sleep(chance.uniform(0, FULL_S))
        _fill_up(other)
        time.sleep(chance.uniform(0, FULL_S))
        if number % 3 == 2:
            rig.kill(pid)
            pid = rig.start()
            time.sleep(chance.uniform(0, FULL_S))
        other.unlink()
    time.sleep(FULL_S)
    rig.kill(pid)
    return rig.finish()


def _fill_up(path: Path) -> None:
    with suppress(OSError), path.open("wb", buffering=0) as file:
        while file.write(bytes(1 << 16)):
            pass
    with suppress(OSError), path.open("ab", buffering=0) as file:
        while file.write(bytes(512)):
            pass


def read_only(directory: Path, many: int, seed: int) -> Verdict:
    """The disk goes read-only under load, as ext4 makes it after an error, so many times: the MTA refuses, is killed,
    and does not start before the disk has been repaired."""
    chance, disk, mnt = random.Random(seed), image(directory / "disk"), directory / "mnt"
    refused = 0
    with disk_of(disk, mnt):
        (mnt / "spool").mkdir()
    rig = Rig(directory, seed, mnt / "spool", reserve_bytes=0)
    for number in range(many):
        with disk_of(disk, mnt, ",errors=remount-ro"):
            pid = rig.start()
            time.sleep(chance.uniform(0.1, READ_ONLY_S))
            with _standing_still(pid):
                Path(f"/sys/fs/ext4/{loop_device(mnt)}/trigger_fs_error").write_text("1")
            time.sleep(chance.uniform(0, READ_ONLY_S))
            rig.kill(pid, REFUSED)
            refused += ended(rig.start(), END_S) == REFUSED
        disk = _repaired(disk, directory / f"disk{number}")
    with disk_of(disk, mnt):
        verdict = rig.finish()
    verdict.counts["refused to start"] = refused
    return verdict


@contextmanager
def _standing_still(pid: int) -> Iterator[None]:
    """Between two system calls. An fsync that ext4's abort cuts off may say that it succeeded, whoever calls it (any
    loop of write and fsync shows it): what was promised then is the kernel's to answer for."""
    os.kill(pid, signal.SIGSTOP)
    os.waitpid(pid, os.WUNTRACED)  # when the last of its threads has stopped; or ended
    try:
        yield
    finally:
        with suppress(ProcessLookupError):
            os.kill(pid, signal.SIGCONT)


def _repaired(disk: Path, copy: Path) -> Path:
    """Of the image by another name: a mount namespace of somebody else's may still hold the mount."""
    command("cp", "--sparse=always", disk, copy)
    command("fsck.ext4", "-fy", copy, check=False)
    disk.unlink()
    return copy


WAYS = {"kills": kills, "full": full_disk, "read-only": read_only}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("way", choices=WAYS)
    parser.add_argument("directory", type=Path)
    parser.add_argument("many", type=int)
    parser.add_argument("seed", type=int)
    of = parser.parse_args()
    verdict = WAYS[of.way](of.directory, of.many, of.seed)
    print(json.dumps({"counts": verdict.counts, "broken": verdict.broken}))


if __name__ == "__main__":
    main()
