"""The process that looks into messages, over its channel: it answers, and who hears nothing does not wait for ever."""

from __future__ import annotations

import asyncio
import os
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from smtp_intercept.app import channel, consulting
from smtp_intercept.app.heldplace import held_place
from smtp_intercept.app.looking import AT_ONCE, Looking, take
from smtp_intercept.app.reader import ANSWER_BYTES, answer
from smtp_intercept.inspect.facts import Lookup, Reply, Source
from smtp_intercept.inspect.held import Held, nowhere
from smtp_intercept.inspect.parts import Parts
from smtp_intercept.policy import Question, Stage

ROOT = Path(__file__).parents[2]
CONTENT = b'Content-Type: application/x; name="evil.exe"\r\n\r\nMZ\r\n.\r\n'
# The process without its sandbox, which is the kernel tests' (test_sandbox).
RUN = """
import socket, sys
from smtp_intercept.app import channel, reader
end, reports = (channel.adopt(int(word)) for word in sys.argv[1:])
reader.Reader([end], reports).run()
"""


@contextmanager
def reading() -> Iterator[tuple[socket.socket, subprocess.Popen[bytes]]]:
    theirs, ours = consulting.pair()
    write, read = channel.pair()
    fds = (theirs.fileno(), write.fileno())
    process = subprocess.Popen([sys.executable, "-c", RUN, *map(str, fds)], pass_fds=fds, cwd=ROOT)
    try:
        yield ours, process
    finally:
        process.kill()
        process.wait()
        for end in (theirs, ours, write, read):
            end.close()


def files_open() -> int:
    return len([*Path("/proc/self/fd").iterdir()])


def held(content: bytes, spill: Callable[[], int] = nowhere) -> Held:
    made = Held(spill)
    made.add(content)
    return made


def looked(end: socket.socket, *contents: Callable[[], int] | None, wait_s: float = 60.0) -> list[Reply]:
    async def work() -> list[Reply]:
        looking = Looking(end)
        looking.start()
        told = [asyncio.get_running_loop().create_future() for _ in contents]
        for each, content in zip(told, contents, strict=True):
            question = Question(Stage.MESSAGE, lend=content, dotted=True)
            looking.look_in(question, Lookup(Source.PARTS, "content", wait_s), each.set_result)
        found: list[Reply] = list(await asyncio.gather(*told))
        asyncio.get_running_loop().remove_reader(end.fileno())
        assert looking.counts["looks_unanswered"] == found.count(None)
        return found

    return asyncio.run(work())


def test_from_memory_and_from_a_file(tmp_path: Path) -> None:
    small, large = (
        held(CONTENT),
        held(CONTENT + b"x\r\n" * 100_000, held_place(tmp_path / "h", os.getuid(), os.getgid())),
    )
    closed = held(CONTENT)
    closed.close()
    with reading() as (end, _):
        before = files_open()
        found = looked(end, *[small.lend, large.lend] * AT_ONCE, closed.lend, None)
        assert found == [("t:application/x", "n:evil.exe")] * 2 * AT_ONCE + [None, None]
        assert files_open() <= before


def test_lent_content_cannot_be_changed(tmp_path: Path) -> None:
    for each in (held(CONTENT), held(b"x" * 100_000, held_place(tmp_path / "h", os.getuid(), os.getgid()))):
        lent = each.lend()
        with pytest.raises(OSError, match=r"not permitted|Bad file"):
            os.write(lent, b"x")
        os.close(lent)


def test_who_hangs_or_has_gone_keeps_nobody_waiting() -> None:
    with reading() as (end, process):
        assert looked(end, held(CONTENT).lend) == [("t:application/x", "n:evil.exe")]
        process.kill()
        process.wait()
        assert looked(end, *[held(CONTENT).lend] * 3 * AT_ONCE, wait_s=0.3) == [None] * 3 * AT_ONCE


@pytest.mark.parametrize(
    ("said", "files"), [(b"{", [0]), (b"[]", [0]), (b"[]", []), (b'{"id": 1}', []), (b"\xff", [0, 1])]
)
def test_what_is_no_question(said: bytes, files: list[int]) -> None:
    theirs, ours = consulting.pair()
    before = files_open()
    socket.send_fds(ours, [said], files)
    assert take(theirs) is None
    assert take(theirs) is None
    assert files_open() == before
    theirs.close()
    ours.close()


def test_an_answer_fits_in_a_datagram() -> None:
    lines = answer(Parts(names={f"{number:0>500}": None for number in range(1_000)}))
    assert lines[0].startswith("?names of more than")
    assert sum(map(len, lines)) < ANSWER_BYTES
    assert answer(Parts(unreadable="x", types={"a/b": None})) == ["?x", "t:a/b"]
