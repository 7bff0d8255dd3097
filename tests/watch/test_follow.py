"""The log is followed: rotated in any way, and however often the follower dies, each line comes once.

Real files, rotated as logrotate(8) does it.
"""

from __future__ import annotations

import gzip
import os
import shutil
from collections.abc import Iterable
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from smtp_intercept.app.lentlogs import logs
from smtp_intercept.watch import follow
from smtp_intercept.watch.follow import Follower, Log


class Lines:
    """An index that keeps lines."""

    def __init__(self) -> None:
        self.sources: dict[str, int] = {}
        self.lines: list[bytes] = []

    def add(self, lines: Iterable[bytes], sources: dict[str, int], now_ms: int) -> int:
        added = list(lines)
        self.lines += added
        self.sources |= sources
        return len(added)


class World:
    """A log that is written to, rotated and followed."""

    def __init__(self, directory: Path) -> None:
        self.path = directory / "mail.log"
        self.path.touch()
        self.log, self.written, self.kept = self._opened(), list[bytes](), Lines()
        self.follower = self._follower()
        self.clock = 1_700_000_000

    def _opened(self) -> int:
        return os.open(self.path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)

    def _follower(self) -> Follower:
        return Follower(self.kept, self._ask)

    def _ask(self) -> list[Log]:
        rotated = [log for log in logs(self.path) if not log.live]
        return [Log(os.open(f"/proc/self/fd/{self.log}", os.O_RDONLY), live=True), *rotated]

    def write(self, number: int = 1) -> None:
        for _ in range(number):
            line = b"line %d" % len(self.written)
            self.written.append(line)
            os.write(self.log, line + b"\n")

    def rotate(self, by: str = "copy", *, compress: bool = False) -> None:
        """``by``: "copy" as copytruncate, "name" as create."""
        if self.path.stat().st_size == 0:  # notifempty
            return
        for copy in sorted(self.path.parent.glob("mail.log.*"), key=_number, reverse=True):
            copy.rename(self.path.with_suffix(f".log.{_number(copy) + 1}{'.gz' * (copy.suffix == '.gz')}"))
        first = self.path.with_suffix(".log.1")
        if by == "copy":
            shutil.copyfile(self.path, first)
            os.truncate(self.path, 0)
        else:
            self.path.rename(first)
            os.close(self.log)
            self.log = self._opened()
            self.die()  # the gateway opens its log when it starts, and the follower is its child
        if compress:
            with gzip.open(f"{first}.gz", "wb") as packed:
                packed.write(first.read_bytes())
            first.unlink()
        self.clock += 1
        for each in self.path.parent.glob("mail.log.1*"):
            if _number(each) == 1:
                os.utime(each, (self.clock, self.clock))

    def follow(self) -> None:
        for _ in range(1000):
            if not self.follower.turn() and self.follower._logs:
                return
        raise AssertionError("it never comes to an end")

    def die(self) -> None:
        """In the middle of whatever it does; what is in the index stays."""
        self.follower.begin_anew()
        self.follower = self._follower()

    def close(self) -> None:
        self.follower.begin_anew()
        os.close(self.log)


def _number(path: Path) -> int:
    return int(path.name.removesuffix(".gz").rpartition(".")[2])


STEPS = st.lists(
    st.one_of(
        st.tuples(st.just("write"), st.integers(1, 5)),
        st.tuples(st.just("rotate"), st.sampled_from(["copy", "name"]), st.booleans()),
        st.tuples(st.just("follow")),
        st.tuples(st.just("turn")),
        st.tuples(st.just("die")),
    ),
    max_size=25,
)


@settings(max_examples=60, deadline=None)
@given(steps=STEPS)
def test_each_line_comes_once_and_in_order(
    steps: list[tuple[object, ...]], tmp_path_factory: pytest.TempPathFactory
) -> None:
    world = World(tmp_path_factory.mktemp("log"))
    try:
        for what, *how in steps:
            match what, how:
                case "write", [int(number)]:
                    world.write(number)
                case "rotate", [str(by), bool(compress)]:
                    world.rotate(by, compress=compress)
                case "turn", _:
                    world.follower.turn()
                case _:
                    getattr(world, str(what))()
        world.write()  # a log without a line has no name
        world.follow()
        assert sorted(world.kept.lines) == sorted(world.written)
        assert world.kept.lines == world.written
    finally:
        world.close()


def test_a_line_that_is_being_written_waits(tmp_path: Path) -> None:
    world = World(tmp_path)
    os.write(world.log, b"half a li")
    world.follower.turn()
    assert world.kept.lines == []
    os.write(world.log, b"ne\n")
    world.follow()
    assert world.kept.lines == [b"half a line"]


def test_a_log_rotated_and_longer_again_within_one_look(tmp_path: Path) -> None:
    """Its length alone would not tell."""
    world = World(tmp_path)
    world.write(2)
    world.follow()
    world.write(3)
    world.rotate()
    world.write(50)
    world.follow()
    assert world.kept.lines == world.written


def test_a_copy_that_was_taken_away_holds_no_room_on_the_disk(tmp_path: Path) -> None:
    """A file without a name is kept as long as somebody has it open."""
    world = World(tmp_path)
    for number in range(4):
        world.write(5)
        world.rotate("copy", compress=number == 2)
        world.follow()
    world.write()
    world.follow()
    for copy in tmp_path.glob("mail.log.*"):
        copy.unlink()
    held = [str(fd.readlink()) for fd in Path("/proc/self/fd").iterdir() if fd.is_symlink()]
    assert [name for name in held if name.startswith(str(tmp_path)) and name.endswith("(deleted)")] == []
    assert world.kept.lines == world.written
    world.close()


def test_a_day_that_comes_at_once_is_read_to_its_end(tmp_path: Path) -> None:
    world = World(tmp_path)
    world.write()
    world.follow()
    world.write(20_000)
    world.follow()
    assert world.kept.lines == world.written
    world.close()


def test_a_line_without_end_costs_its_line_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(follow, "CHUNK_OCTETS", 64)
    monkeypatch.setattr(follow, "LINE_OCTETS", 256)
    world = World(tmp_path)
    world.write()
    os.write(world.log, b"x" * 2000 + b"\n" + b"y" * 200 + b"\n")
    world.write(3)
    world.follow()
    assert world.kept.lines[0] == b"line 0"
    assert world.kept.lines[-4:] == [b"y" * 200, b"line 1", b"line 2", b"line 3"]


PACKED = gzip.compress("".join(f"line of old {number}\n" for number in range(20_000)).encode())


@pytest.mark.parametrize(
    "damage", [b"", b"no gzip", PACKED[:-9], PACKED[:9_000] + b"\xff" * 9 + PACKED[9_009:], PACKED[:-6] + b"\0" * 6]
)
def test_a_copy_that_is_damaged_stops_nothing(tmp_path: Path, damage: bytes, caplog: pytest.LogCaptureFixture) -> None:
    (tmp_path / "mail.log.2.gz").write_bytes(damage)
    world = World(tmp_path)
    world.write(3)
    world.follow()
    assert world.kept.lines[-3:] == world.written
    assert bool(damage) == ("tracking index lacks" in caplog.text)


def test_only_copies_of_this_log_are_read(tmp_path: Path) -> None:
    for name in ("mail.log.bak", "mail.log.1.old", "other.log.1", "mail.log.", "mail.log.1.gz.tmp"):
        (tmp_path / name).write_text("not of ours\n")
    (tmp_path / "mail.log.3").symlink_to("/etc/passwd")
    (tmp_path / "mail.log.4").mkdir()
    os.mkfifo(tmp_path / "mail.log.5")
    (tmp_path / "mail.log-20261129").write_text("ours\n")
    world = World(tmp_path)
    world.write()
    world.follow()
    assert world.kept.lines == [b"ours", b"line 0"]
