"""What the witness of MACs keeps and for how long; what it sees on a wire is a kernel test."""

from __future__ import annotations

import os

import pytest

from smtp_intercept import witness
from smtp_intercept.witness import _key

packet_socket = pytest.mark.skipif(os.geteuid() != 0, reason="a packet socket needs root")


@packet_socket
def test_a_device_that_is_not_there_is_an_error() -> None:
    with pytest.raises(OSError, match="No such device"):
        witness.Witness("tw-none")


@packet_socket
def test_the_oldest_is_forgotten_first(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(witness, "MAX_REMEMBERED", 2)
    watcher = witness.Witness("lo")
    for port in (1, 2, 1, 3):
        watcher._remember((b"\x7f\0\0\1", b"\x7f\0\0\2", port, 25), (f"client {port}", "server"))
    told = [watcher.macs(("127.0.0.1", port), ("127.0.0.2", 25)) for port in (1, 2, 3)]
    assert told == [("client 1", "server"), None, ("client 3", "server")]
    watcher.close()


@pytest.mark.parametrize("length", range(58))
def test_a_frame_cut_short_is_no_witness(length: int) -> None:
    frame = bytes(12) + b"\x86\xdd" + b"\x60" + bytes(60)
    assert _key(frame[:length]) is None
    assert _key(frame) is not None
