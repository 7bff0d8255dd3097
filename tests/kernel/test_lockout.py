"""`up` over SSH does not cut the branch that it sits on: refused where it would, unless it undoes itself.

::

    client 192.0.2.10 ── SSH ── p0 192.0.2.222 [box] p1 ── server

The session is a TCP connection that the box serves, and SSH_CONNECTION as sshd sets it; the same with a real sshd is
in tests/packaging.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator

import pytest

from smtp_intercept.app.lab.host import Result
from smtp_intercept.app.lab.network import Lab
from smtp_intercept.app.lab.snapshot import snapshot

pytestmark = [pytest.mark.kernel, pytest.mark.usefixtures("lanes")]

ADDRESS = "192.0.2.222"
OTHER = "198.51.100.7"  # of a port for management alone
SETTINGS = (
    "ip link set p0 up",
    f"ip addr add {ADDRESS}/24 dev p0",
    "ip route add default via 192.0.2.1",
    "ip link add eth9 type veth peer name far9",
    "ip link set far9 up",
    f"ip addr add {OTHER}/24 dev eth9",
    "ip link set eth9 up",
)
# Answers each line that it is sent, for as long as it is asked.
ECHO = """\
import socket
with socket.create_server(("192.0.2.222", 22)) as server:
    print("listening", flush=True)
    end, _ = server.accept()
    while data := end.recv(100):
        end.sendall(data)
"""
# Says its own port; then for every file in the directory that it is told, sends a line and waits for it.
SESSION = """\
import pathlib, socket, sys, time
end = socket.create_connection(("192.0.2.222", 22), timeout=20)
print(end.getsockname()[1], flush=True)
for number in range(2):
    deadline = time.monotonic() + 60
    while not pathlib.Path(sys.argv[1], str(number)).exists() and time.monotonic() < deadline:
        time.sleep(0.05)
    end.sendall(b"alive")
    print(end.recv(100).decode(), flush=True)
"""


@pytest.fixture
def box() -> Iterator[Lab]:
    with Lab() as lab:
        for command in SETTINGS:
            lab.gateway.run(command.split())
        lab.gateway.configure({"bridge": {"management": [f"{ADDRESS}/24"], "gateway": "192.0.2.1"}})
        yield lab
        lab.gateway.tollbridge("down")


def up(lab: Lab, *words: str, local: str = ADDRESS, port: int = 51514, remote: str = "192.0.2.10") -> Result:
    """As typed in a session: the variable is the shell's, and gone from the command, as with `sudo -i`."""
    command = lab.gateway.command("up", *words)
    shell = 'env -u SSH_CONNECTION "$@"; exit $?'
    variable = f"SSH_CONNECTION={remote} {port} {local} 22"
    return lab.gateway.run(["env", variable, "sh", "-c", shell, "sh", *command], check=False, timeout_s=60.0)


def test_refused_and_nothing_touched(box: Lab) -> None:
    before = snapshot(box.gateway.namespace)
    done = up(box)
    assert done.returncode == 1
    assert done.stderr.splitlines() == [
        "tollbridge: warning: p0 carries the default route: it goes to tb0; "
        "`up --confirm SECONDS` undoes itself if it does not work",
        "tollbridge: not without --confirm: your SSH session (from 192.0.2.10 port 51514 to 192.0.2.222 port 22) comes "
        "in by p0, and this would take 192.0.2.222 from p0; if that goes wrong you are locked out. "
        "Take it with a net: tollbridge up --confirm 120, and then, from this session or a new one, tollbridge "
        "confirm; without that it is undone by itself. Or type it on the console",
    ]
    assert snapshot(box.gateway.namespace) == before
    assert not (box.gateway.run_dir / "ledger.jsonl").exists()


def test_with_a_net_it_goes_and_the_session_lives(box: Lab) -> None:
    """Again it has nothing to do; moving into the host would take the address along."""
    client, marks = box.host("client"), box.host("client").directory
    box.gateway.spawn([sys.executable, "-c", ECHO]).wait_for("listening")
    session = client.spawn([sys.executable, "-c", SESSION, str(marks)])
    session.wait_for("\n")
    port = int(session.stdout)
    (marks / "0").touch()
    session.wait_for("alive")
    assert up(box, port=port).returncode == 1
    assert up(box, "--confirm", "600", port=port).returncode == 0
    box.gateway.tollbridge("confirm")
    (marks / "1").touch()
    assert session.wait().stdout.split() == [str(port), "alive", "alive"]
    assert up(box, port=port).returncode == 0, "nothing is left to do"
    box.gateway.configure({"bridge": {"namespace": "host", "management": [f"{ADDRESS}/24"]}})
    assert "take 192.0.2.222 from tb0" in up(box, port=port).stderr


@pytest.mark.parametrize(
    ("words", "local", "remote"),
    [
        (("--boot",), ADDRESS, "192.0.2.10"),
        ((), OTHER, "198.51.100.9"),
        ((), "203.0.113.99", "192.0.2.10"),
    ],
    ids=["at boot nobody is asked", "by a port of its own", "a session of another network namespace"],
)
def test_what_cuts_nobody_off_is_not_refused(box: Lab, words: tuple[str, ...], local: str, remote: str) -> None:
    done = up(box, *words, local=local, remote=remote)
    assert (done.returncode, "up: br0" in done.stdout) == (0, True), done.stderr


def test_a_default_route_that_would_take_the_answers_away(box: Lab) -> None:
    """The session comes by a port of its own, from afar, and answers would leave by the bridge."""
    box.gateway.run(["ip", "route", "del", "default"])
    box.gateway.run(["ip", "route", "add", "default", "via", "198.51.100.1", "metric", "100"])
    done = up(box, local=OTHER, remote="203.0.113.9")
    assert done.returncode == 1
    assert "send answers to 203.0.113.9 by tb0 in place of eth9" in done.stderr


def test_the_plan_says_what_will_be_moved(box: Lab) -> None:
    said = box.gateway.tollbridge("plan").stderr
    assert "p0 carries the default route" in said
