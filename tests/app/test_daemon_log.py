"""The mail log as the daemon opens it: what stands in it stays, and a line that a power cut has torn ends there."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from smtp_intercept.app.daemon import StartError, open_log


@pytest.mark.parametrize(
    ("before", "after"),
    [
        (None, b"record\n"),
        (b"", b"record\n"),
        (b"whole\n", b"whole\nrecord\n"),
        (b"whole\nto", b"whole\nto\nrecord\n"),
        (b"whole\nto\0\0\0", b"whole\nto\0\0\0\nrecord\n"),
    ],
    ids=["none yet", "empty", "whole", "torn", "zeros of blocks that were not written"],
)
def test_the_next_record_has_a_line_of_its_own(tmp_path: Path, before: bytes | None, after: bytes) -> None:
    path = tmp_path / "log/mail.log"
    if before is not None:
        path.parent.mkdir()
        path.write_bytes(before)
    log = open_log(path)
    os.write(log, b"record\n")
    os.close(log)
    assert path.read_bytes() == after


def test_what_is_no_file_is_not_read(tmp_path: Path) -> None:
    os.close(open_log(Path("/dev/null")))


def test_a_directory_is_refused_by_name(tmp_path: Path) -> None:
    with pytest.raises(StartError, match=f"log.mail: cannot open {tmp_path}: Is a directory"):
        open_log(tmp_path)
