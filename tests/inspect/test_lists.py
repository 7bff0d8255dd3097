"""Lists in files: read as the rule's own entries are, again when they change, and never half."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from smtp_intercept.inspect import lists
from smtp_intercept.inspect.criteria import MAILBOXES, NETWORKS
from smtp_intercept.inspect.lists import ListError, Lists, read_list


def test_a_list(tmp_path: Path) -> None:
    file = tmp_path / "staff.txt"
    file.write_text("\ufeff# our people\n\n a@example.com  # Alice\r\nexample.net\na@example.com\n", "utf-8")
    assert read_list(str(file), MAILBOXES) == tuple(map(MAILBOXES.read, ["a@example.com", "example.net"]))


@pytest.mark.parametrize(
    ("octets", "said"),
    [
        (b"192.0.2.1\n10.0.0.1/8\n", ":2: 10.0.0.1/8 has host bits set; write it like"),
        (b"\xff\xfe", ": 'utf-8' codec can't decode"),
        (None, ": No such file or directory; make it, readable for everybody"),
    ],
)
def test_what_is_wrong_with_one(tmp_path: Path, octets: bytes | None, said: str) -> None:
    file = tmp_path / "x"
    if octets is not None:
        file.write_bytes(octets)
    with pytest.raises(ListError) as caught:
        read_list(str(file), NETWORKS)
    assert str(caught.value).startswith(f"{file}{said}")


def test_what_is_no_file(tmp_path: Path) -> None:
    """A named pipe is not waited for, a device not read for ever."""
    os.mkfifo(tmp_path / "pipe")
    for path in (tmp_path / "pipe", tmp_path, Path("/dev/zero")):
        with pytest.raises(ListError):
            read_list(str(path), NETWORKS)


def test_the_limits(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lists, "MAX_ENTRIES", 2)
    monkeypatch.setattr(lists, "MAX_LIST_BYTES", 40)
    file = tmp_path / "x"
    file.write_text("192.0.2.1\n192.0.2.2\n" + " " * 20)
    assert len(read_list(str(file), NETWORKS)) == 2
    file.write_text("192.0.2.1\n192.0.2.2\n192.0.2.3\n")
    with pytest.raises(ListError, match="more than 2 entries"):
        read_list(str(file), NETWORKS)
    file.write_text("192.0.2.1\n192.0.2.2\n" + " " * 21)
    with pytest.raises(ListError, match="more than 40 octets"):
        read_list(str(file), NETWORKS)


def test_it_is_read_again(tmp_path: Path) -> None:
    file, said = tmp_path / "x", list[str]()
    file.write_text("192.0.2.1\n")
    kept = Lists([(str(file), NETWORKS)], said.append)
    kept.load()
    assert not kept.refresh()
    (tmp_path / "new").write_text("192.0.2.2\n")
    (tmp_path / "new").rename(file)  # as editors write
    assert kept.refresh()
    assert kept.entries(str(file), NETWORKS) == (NETWORKS.read("192.0.2.2"),)
    assert not kept.refresh()
    assert said == [f"{file}: read again; entries: 1"]


@pytest.mark.parametrize("broken", ["nonsense\n", None])
def test_a_broken_one_stays_as_it_was(tmp_path: Path, broken: str | None) -> None:
    file, said = tmp_path / "x", list[str]()
    file.write_text("192.0.2.1\n")
    kept = Lists([(str(file), NETWORKS)], said.append)
    kept.load()
    file.write_text(broken) if broken else file.unlink()
    assert not kept.refresh()
    assert not kept.refresh()
    assert kept.entries(str(file), NETWORKS) == (NETWORKS.read("192.0.2.1"),)
    assert len(said) == len(kept.errors()) == 1
    assert str(file) in said[0]
    file.write_text("192.0.2.3\n")
    assert kept.refresh()
    assert not kept.errors()


def test_one_that_is_not_there_is_told_at_once(tmp_path: Path) -> None:
    with pytest.raises(ListError):
        Lists([(str(tmp_path / "x"), NETWORKS)]).load()
