"""Who listens on a port: from the kernel's table as it is written, and from this very host."""

from __future__ import annotations

import os
import socket
from collections.abc import Iterator
from ipaddress import ip_address
from pathlib import Path

import pytest

from smtp_intercept.app.holder import Holder, Listener, holders, listeners
from tests.unshown import LITTLE_ENDIAN

# As /proc/net/tcp and tcp6 of a little-endian machine show them: listening (0A), established (01), TIME_WAIT (06).
TCP = """\
  sl  local_address rem_address   st tx_queue rx_queue tr tm->when retrnsmt   uid  timeout inode
   0: 0100007F:0019 00000000:0000 0A 00000000:00000000 00:00000000 00000000     0        0 48117 1 0000 100 0 0 10 0
   1: 00000000:0016 00000000:0000 0A 00000000:00000000 00:00000000 00000000     0        0 21006 1 0000 100 0 0 10 0
   2: 140200C0:0019 0A0200C0:C350 01 00000000:00000000 00:00000000 00000000     0        0 48119 1 0000 100 0 0 10 0
   3: 140200C0:0019 0A0200C0:C351 06 00000000:00000000 03:00001770 00000000     0        0 0 3 0000
"""
TCP6 = """\
  sl  local_address                         remote_address                        st tx_queue rx_queue tr tm->when ...
   0: 00000000000000000000000001000000:0019 00000000000000000000000000000000:0000 0A 00000000:00000000 00:0 0 0 0 48118
   1: B80D0120000000000000000020000000:024B 00000000000000000000000000000000:0000 0A 00000000:00000000 00:0 0 0 0 48120
"""


@LITTLE_ENDIAN.mark
@pytest.mark.parametrize(
    ("table", "ports", "found"),
    [
        (TCP, {25}, [Listener(ip_address("127.0.0.1"), 25, 48117)]),
        (TCP, {25, 22}, [Listener(ip_address("127.0.0.1"), 25, 48117), Listener(ip_address("0.0.0.0"), 22, 21006)]),
        (TCP, {587}, []),
        (TCP6, {25}, [Listener(ip_address("::1"), 25, 48118)]),
        (TCP6, {587}, [Listener(ip_address("2001:db8::20"), 587, 48120)]),
        ("", {25}, []),
    ],
)
def test_listeners_of_a_table(table: str, ports: set[int], found: list[Listener]) -> None:
    assert list(listeners(table, ports)) == found


def ours(port: int) -> list[Holder]:
    return [holder for holder in holders({port}) if holder.pid == os.getpid()]


@pytest.mark.parametrize(("address", "said"), [("127.0.0.1", "127.0.0.1:{}"), ("::1", "[::1]:{}")])
def test_a_listener_of_this_process(address: str, said: str) -> None:
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    with socket.create_server((address, 0), family=family) as server:
        port = server.getsockname()[1]
        (holder,) = ours(port)  # another program may have that port of another address
        assert str(holder) == f"{holder.program} (process {os.getpid()}) listens on {said.format(port)}"
    assert ours(port) == []


def test_a_process_that_is_not_to_be_seen(tmp_path: Path) -> None:
    """Another container's, say: the socket is in the table, and no descriptor here."""
    (tmp_path / "self/net").mkdir(parents=True)
    (tmp_path / "self/net/tcp").write_text(TCP)
    (holder,) = holders({25}, tmp_path)
    assert (holder, str(holder)[:9]) == (Holder(holder.listener), "a process")


def test_a_process_that_ends_while_it_is_looked_at(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Between the sight of its directory and the reading of it; not an error of ours."""
    (tmp_path / "self/net").mkdir(parents=True)
    (tmp_path / "self/net/tcp").write_text(TCP)
    ends = tmp_path / "1234/fd"
    ends.mkdir(parents=True)
    read = os.scandir

    def too_late(path: Path) -> Iterator[os.DirEntry[str]]:
        if Path(path) == ends and ends.exists():
            ends.rmdir()
        return read(path)

    monkeypatch.setattr(os, "scandir", too_late)
    assert [holder.pid for holder in holders({25}, tmp_path)] == [0]
    assert not ends.exists(), "it was looked at"
