"""sd_notify(3) as systemd hears it: on a real socket, by path and abstract, and silence where nobody asked.

systemd                              tollbridge run
NOTIFY_SOCKET, WATCHDOG_USEC=2 s ──▶
                                ◀── READY=1       both processes work, the switch is closed
                                ◀── WATCHDOG=1    twice in each WATCHDOG_USEC, while both report
                                ◀── STOPPING=1    before the sessions are drained, with the time that this may take
"""

from __future__ import annotations

import os
import socket
from collections.abc import Iterator
from pathlib import Path

import pytest

from smtp_intercept.app.notify import Notify


@pytest.fixture(params=["path", "abstract"])
def systemd(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[socket.socket]:
    name = str(tmp_path / "notify") if request.param == "path" else f"@tollbridge-test-{os.getpid()}"
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as listening:
        listening.bind("\0" + name[1:] if name.startswith("@") else name)
        listening.setblocking(False)
        monkeypatch.setenv("NOTIFY_SOCKET", name)
        monkeypatch.setenv("WATCHDOG_USEC", "2000000")
        yield listening


def heard(systemd: socket.socket) -> list[str]:
    messages = []
    while True:
        try:
            messages.append(systemd.recv(100).decode())
        except BlockingIOError:
            return messages


def test_ready_alive_and_stopping(systemd: socket.socket) -> None:
    notify = Notify()
    notify.ready()
    notify.watchdog(100.0)
    notify.stopping(within_s=45.0)
    assert heard(systemd) == ["READY=1", "WATCHDOG=1", "STOPPING=1\nEXTEND_TIMEOUT_USEC=45000000"]


def test_alive_twice_in_each_period_and_no_more_often(systemd: socket.socket) -> None:
    notify = Notify()
    for tenth in range(40):
        notify.watchdog(50.0 + tenth / 10)
    assert heard(systemd) == ["WATCHDOG=1"] * 4


def test_children_do_not_inherit_the_socket(systemd: socket.socket) -> None:
    Notify()
    assert not {"NOTIFY_SOCKET", "WATCHDOG_USEC"} & set(os.environ)


def test_nobody_asked(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("NOTIFY_SOCKET", raising=False)
    monkeypatch.delenv("WATCHDOG_USEC", raising=False)
    notify = Notify()
    notify.ready()
    notify.watchdog(1.0)
    notify.stopping(1.0)


def test_a_socket_that_is_gone_is_no_error(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("NOTIFY_SOCKET", str(tmp_path / "nobody"))
    Notify().ready()
