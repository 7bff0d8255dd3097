"""Whose messages wait in a spool is read from its files as Postfix and Exim write them."""

from __future__ import annotations

from pathlib import Path

import pytest

from smtp_intercept.app.lab.host import Host
from tests.soak.mtas import Mta
from tests.soak.trips import EXIM, POSTFIX, SERVER


def postfix(sender: bytes) -> bytes:
    """The records before the message: size, time, sender, recipient, each with its length."""
    records = {
        b"C": b"  711  214   1   0  711   0",
        b"T": b"1796072208 1",
        b"S": sender,
        b"R": b"other9@senders.example",
    }
    return b"".join(kind + bytes([len(text)]) + text for kind, text in records.items())


def exim(sender: bytes) -> bytes:
    return b"1xY8QY-0000sX-1w-H\nDebian-exim 102 102\n<%s>\n1796072208 0\n1\nother9@senders.example\n\n" % sender


@pytest.mark.parametrize(
    ("name", "file", "mode", "content", "queued"),
    [
        (POSTFIX, "postfix/deferred/6/615E3A4", 0o700, postfix(b"live7@senders.example"), {"live7"}),
        (POSTFIX, "postfix/active/615E3A4", 0o700, postfix(b""), {""}),  # a notice, though its reader has a name
        (POSTFIX, "postfix/incoming/615E3A4", 0o600, postfix(b"live7@senders.example"), set()),  # not accepted yet
        (POSTFIX, "postfix/defer/6/615E3A4", 0o600, b"<other9@senders.example>: why", set()),
        (EXIM, "exim4/input/1xY8QY-0000sX-1w-H", 0o640, exim(b"live7@senders.example"), {"live7"}),
        (EXIM, "exim4/input/1xY8QY-0000sX-1w-H", 0o640, exim(b""), {""}),
        (EXIM, "exim4/input/1xY8QY-0000sX-1w-D", 0o640, b"<live7@senders.example>\n", set()),
    ],
)
def test_who_waits(tmp_path: Path, name: str, file: str, mode: int, content: bytes, queued: set[str]) -> None:
    path = tmp_path / file
    path.parent.mkdir(parents=True)
    path.write_bytes(content)
    path.chmod(mode)
    assert Mta(name, Host(SERVER, (), tmp_path), tmp_path, tmp_path).queued() == queued
