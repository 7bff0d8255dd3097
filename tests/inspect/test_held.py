"""Held content: the same octets come out, from memory or from a file, and an edited header between exact ones."""

from __future__ import annotations

import errno
import os
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from smtp_intercept.app.heldplace import held_place, unnamed
from smtp_intercept.inspect.held import MEMORY_BYTES, Held, nowhere


@pytest.mark.parametrize("size", [0, 1, MEMORY_BYTES, MEMORY_BYTES + 1, 1_000_000])
def test_what_goes_in_comes_out(tmp_path: Path, size: int) -> None:
    held, content = Held(held_place(tmp_path / "held", os.getuid(), os.getgid())), os.urandom(size)
    for at in range(0, size, 10_007):
        held.add(content[at : at + 10_007])
    assert held.memory_bytes == (size if size <= MEMORY_BYTES else 0)
    size_bytes, pieces = held.pieces()
    assert (size_bytes, b"".join(pieces)) == (size, content)
    assert list((tmp_path / "held").iterdir()) == []
    held.close()


def test_without_a_place_it_is_memory_or_nothing() -> None:
    held = Held(nowhere)
    held.add(b"x" * MEMORY_BYTES)
    with pytest.raises(OSError, match="no place"):
        held.add(b"x")
    assert held.memory_bytes == 0


def test_a_full_disk_is_told(tmp_path: Path) -> None:
    held = Held(lambda: os.open("/dev/full", os.O_RDWR))
    with pytest.raises(OSError, match="No space left"):
        held.add(b"x" * (MEMORY_BYTES + 1))


def test_a_directory_that_is_a_link_is_none(tmp_path: Path) -> None:
    (tmp_path / "held").symlink_to("/etc")
    with pytest.raises(NotADirectoryError):
        held_place(tmp_path / "held", os.getuid(), os.getgid())


def test_a_file_system_without_unnamed_files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    real = os.open

    def refusing(path: str, flags: int, mode: int = 0o777, *, dir_fd: int | None = None) -> int:
        if flags & os.O_TMPFILE == os.O_TMPFILE:
            raise OSError(errno.EOPNOTSUPP, "no")
        return real(path, flags, mode, dir_fd=dir_fd)

    at = real(tmp_path, os.O_RDONLY | os.O_DIRECTORY)
    monkeypatch.setattr(os, "open", refusing)
    file = unnamed(at)
    assert os.write(file, b"x") == 1
    assert list(tmp_path.iterdir()) == []
    os.close(file)
    os.close(at)


def shout(header: bytes) -> bytes:
    return b"..X: 1\r\n" + header.upper()


@pytest.mark.parametrize(
    ("content", "dotted", "edited"),
    [
        (b"a: b\r\n\r\n.body\r\n", False, b"..X: 1\r\nA: B\r\n\r\n.body\r\n"),
        (b"a: b\r\n\r\n..body\r\n.\r\n", True, b"...X: 1\r\nA: B\r\n\r\n..body\r\n.\r\n"),
        (b"a: b\r\n..c: d\r\n\r\n.\r\n", True, b"...X: 1\r\nA: B\r\n..C: D\r\n\r\n.\r\n"),
        (b"\r\nbody", False, b"..X: 1\r\n\r\nbody"),
        (b"\r\nbody\r\n.\r\n", True, b"...X: 1\r\n\r\nbody\r\n.\r\n"),
        (b"a: b\r\n", False, b"..X: 1\r\nA: B\r\n"),
        (b"a: b\r\n.\r\n", True, b"...X: 1\r\nA: B\r\n.\r\n"),
        (b".\r\n", True, b"...X: 1\r\n.\r\n"),
        (b"", False, b"..X: 1\r\n"),
    ],
)
def test_the_header_is_edited_and_nothing_else(content: bytes, dotted: bool, edited: bytes) -> None:
    held = Held(nowhere)
    for octet in content:
        held.add(bytes([octet]))
    size_bytes, pieces = held.pieces(shout, dotted=dotted)
    assert b"".join(pieces) == edited
    assert size_bytes == len(edited)


@given(st.lists(st.sampled_from([b"a: b\r\n", b"\r\n", b"..", b"x", b"\n", b"\xff\r\n"])), st.booleans())
def test_an_edit_that_changes_nothing(parts: list[bytes], dotted: bool) -> None:
    lines = b"".join(parts).split(b"\r\n")
    content = b"\r\n".join(b"." + line if dotted and line.startswith(b".") else line for line in lines)
    content += b"\r\n.\r\n" if dotted else b""
    held = Held(nowhere)
    held.add(content)
    size_bytes, pieces = held.pieces(lambda header: header, dotted=dotted)
    assert b"".join(pieces) == content
    assert size_bytes == len(content)
