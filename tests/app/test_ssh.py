"""Which SSH sessions a process descends from: a /proc as sshd, sudo and `env -i` leave it, and this very host's.

::

    1 systemd ── 10 sshd [listens] ── 20 sshd [connection] ── 30 bash SSH_CONNECTION ── 40 sudo ── 50 bash ── 60
"""

from __future__ import annotations

import os
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from bridge.reach import Session
from smtp_intercept.app import ssh
from smtp_intercept.app.holder import connections
from tests.unshown import LITTLE_ENDIAN

TREE = {10: ("sshd", 1), 20: ("sshd-session", 10), 30: ("bash", 20), 40: ("sudo", 30), 50: ("bash", 40), 60: ("up", 50)}
SAID = "203.0.113.9 51514 198.51.100.2 22"
SESSION = Session("198.51.100.2", 22, "203.0.113.9", 51514)
# One connection of process 20, by an IPv6 socket that also listens for IPv4; one that is somebody else's.
TCP6 = """\
  sl  local_address                         remote_address                        st tx_queue rx_queue tr tm->when ...
   0: 0000000000000000FFFF0000026433C6:0016 0000000000000000FFFF0000097100CB:C93A 01 00000000:00000000 00:0 0 0 0 777
   1: 0000000000000000FFFF0000026433C6:0016 0000000000000000FFFF0000087100CB:C93A 01 00000000:00000000 00:0 0 0 0 778
"""


@pytest.fixture
def proc(tmp_path: Path) -> Path:
    for pid, (name, parent) in TREE.items():
        place = tmp_path / str(pid)
        (place / "fd").mkdir(parents=True)
        (place / "net").mkdir()
        (place / "comm").write_text(f"{name}\n")
        (place / "status").write_text(f"Name:\t{name}\nPPid:\t{parent}\n")
        (place / "environ").write_text("LANG=C\0")
    return tmp_path


def test_the_variable_of_the_shell_that_called_sudo(proc: Path) -> None:
    (proc / "30/environ").write_text(f"LANG=C\0SSH_CONNECTION={SAID}\0TERM=vt100\0")
    assert ssh.sessions(60, proc) == [SESSION]


@LITTLE_ENDIAN.mark
def test_the_connection_of_sshd_where_no_variable_is_left(proc: Path) -> None:
    (proc / "20/net/tcp6").write_text(TCP6)
    (proc / "20/fd/4").symlink_to("socket:[777]")
    assert ssh.sessions(60, proc) == [SESSION]


def test_a_session_inside_another_is_both(proc: Path) -> None:
    (proc / "30/environ").write_text(f"SSH_CONNECTION={SAID}\0")
    (proc / "50/environ").write_text("SSH_CONNECTION=fe80::9%p0 4000 fe80::2%p0 22\0")
    assert ssh.sessions(60, proc) == [Session("fe80::2", 22, "fe80::9", 4000), SESSION]


@pytest.mark.parametrize("value", ["", "here", "203.0.113.9 many 198.51.100.2 22", f"{SAID} 5"])
def test_nonsense_is_no_session(proc: Path, value: str) -> None:
    (proc / "30/environ").write_text(f"SSH_CONNECTION={value}\0")
    assert ssh.sessions(60, proc) == []


def test_on_the_console_there_is_none(proc: Path) -> None:
    assert ssh.sessions(60, proc) == []


def test_of_this_host() -> None:
    """A child without the variable, of a process that has it, as under `sudo -i`."""
    code = "from smtp_intercept.app import ssh; print(ssh.sessions()[0])"
    environment = {"PATH": os.environ["PATH"], "PYTHONPATH": os.environ.get("PYTHONPATH", ""), "SSH_CONNECTION": SAID}
    shell = 'env -u SSH_CONNECTION "$@"; exit $?'
    words = ["sh", "-c", shell, "sh", sys.executable, "-c", code]
    done = subprocess.run(words, env=environment, capture_output=True, text=True, check=False, timeout=60)
    assert done.stdout == f"{SESSION}\n", done.stderr


def test_connections_of_this_process() -> None:
    with socket.create_server(("127.0.0.1", 0)) as server, socket.create_connection(server.getsockname()) as client:
        ends = {(client.getsockname()[1], client.getpeername()[1])}
        found = connections(Path("/proc/self"))
        assert ends <= {(connection.local_port, connection.remote_port) for connection in found}
