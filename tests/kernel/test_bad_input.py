"""What an administrator can get wrong gets one clear line, exit status 1 (2 for misuse), and nothing half-applied.

Each row of `MISTAKES`: what the host is like, the configuration, the verb, and the words that must be said. After each
of them the host's whole `snapshot` is what it was.
"""

from __future__ import annotations

import re
import shutil
import stat
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from smtp_intercept.app.exits import Exit
from smtp_intercept.app.lab.host import Result
from smtp_intercept.app.lab.mail import MailServer, send
from smtp_intercept.app.lab.network import Lab
from smtp_intercept.app.lab.snapshot import settled_difference, snapshot
from tests.mta.spools import put, spool_in, wait
from tests.unshown import CHECKOUT, NOBODY

pytestmark = [pytest.mark.kernel, pytest.mark.usefixtures("lanes")]


@dataclass(frozen=True)
class Mistake:
    """``says`` are regular expressions, each of which one line of the error must match."""

    says: tuple[str, ...]
    host: tuple[str, ...] = ()
    config: dict[str, Any] | str = field(default_factory=dict)
    verb: str = "up"


IN_HOST = {"bridge": {"namespace": "host"}}
MISTAKES = {
    "no such interface": Mistake(
        (r"bridge\.ports: there is no interface eth9; present are: p0, p1",),
        config={"bridge": {"ports": ["p0", "eth9"]}},
    ),
    "in another bridge": Mistake(
        (r"bridge\.ports: p1 is already a port of other; take it out: ip link set p1 nomaster",),
        host=("ip link add other type bridge", "ip link set p1 master other"),
    ),
    "an address that management does not name": Mistake(
        (r"bridge\.ports: p0 carries 198\.51\.100\.3/24, .*; list it in bridge\.management to move it",),
        host=("ip link set p0 up", "ip addr add 198.51.100.2/24 dev p0", "ip addr add 198.51.100.3/24 dev p0"),
        config={"bridge": {"management": ["198.51.100.2/24"]}},
    ),
    "the same port twice": Mistake(
        (
            r"bridge\.ports\[1\]: 'p0' is named twice; name each port once",
            r"bridge\.ports: has 1 of at least 2 ports; a bridge joins two or more",
        ),
        config={"bridge": {"ports": ["p0", "00:00:5e:00:53:f0"]}},
    ),
    "nothing to adopt": Mistake(
        (r"bridge\.adopt: there is no bridge br0 to adopt; make it, or set bridge\.adopt = false",),
        config={"bridge": {"adopt": True, "namespace": "host"}},
    ),
    "adopted, and moved": Mistake(
        (r'bridge\.adopt: an adopted bridge stays in the network .*; set bridge\.namespace = "host"',),
        config={"bridge": {"adopt": True}},
    ),
    "a foreign link where the host's leg is to be": Mistake(
        (r"bridge\.management: there is a link tb0 that Tollbridge did not make; rename it: the box is to be reached",),
        host=("ip link add tb0 type bridge",),
        config={"bridge": {"management": ["198.51.100.2/24"]}},
    ),
    "a foreign bridge of that name": Mistake(
        (r"bridge\.name: there is a link br0 that Tollbridge did not make; choose another name, or set bridge\.adopt",),
        host=("ip link add br0 type bridge",),
        config=IN_HOST,
    ),
    "a foreign smtp0": Mistake(
        (r"there is a link smtp0 that Tollbridge did not make; rename it: the mail lanes have it",),
        host=("ip link add smtp0 type bridge",),
        config=IN_HOST,
    ),
    "a foreign leg": Mistake(
        (r"there is a link smtp0l1 that Tollbridge did not make; rename it",),
        host=("ip link add smtp0l1 type bridge",),
        config=IN_HOST,
    ),
    "run without up": Mistake(
        (r"there is no mail lane \(smtp0\) in the network namespace tollbridge-\w+; make it first: tollbridge up",),
        verb="run",
    ),
    "run without up in the host": Mistake(
        (r"there is no mail lane \(smtp0\); make it first: tollbridge up",), config=IN_HOST, verb="run"
    ),
    "run without up, though there is a foreign smtp0": Mistake(
        (r"that Tollbridge did not make",), host=("ip link add smtp0 type bridge",), config=IN_HOST, verb="run"
    ),
    "several mistakes in the file": Mistake(
        (
            r"tollbridge\.toml:2: bridge\.ports: has 1 of at least 2 ports; a bridge joins two or more",
            r"tollbridge\.toml:4: pickup\.incomming: is not a known key; did you mean incoming\?",
            r"tollbridge\.toml:5: pickup\.outgoing: 'pas' is not one of intercept, pass, drop, reject; .*",
        ),
        config='[bridge]\nports = ["p0"]\n[pickup]\nincomming = "pass"\noutgoing = "pas"\n',
    ),
}


@pytest.fixture
def box() -> Iterator[Lab]:
    with Lab() as lab:
        yield lab


@pytest.mark.parametrize("name", MISTAKES)
def test_one_clear_line_and_nothing_half_applied(box: Lab, name: str) -> None:
    mistake, gateway = MISTAKES[name], box.gateway
    for command in mistake.host:
        gateway.run(command.split())
    gateway.configure(mistake.config)
    before = snapshot(gateway.namespace)
    result = gateway.tollbridge(mistake.verb, check=False)
    assert_said(result, *mistake.says)
    assert result.stdout == ""
    assert settled_difference(gateway.namespace, before) == []
    assert not (gateway.run_dir / "ledger.jsonl").exists()


def assert_said(result: Result, *patterns: str) -> None:
    lines = result.stderr.splitlines()
    assert result.returncode == 1, result.stderr
    assert all(line.startswith("tollbridge: ") for line in lines), result.stderr
    assert len(lines) == len(patterns), result.stderr
    for pattern in patterns:
        assert any(re.search(pattern, line) for line in lines), (pattern, result.stderr)


def unprivileged(box: Lab) -> list[str]:
    """What runs a program as somebody else, who may at least read it, unlike in root's home."""
    CHECKOUT.skip()
    return ["setpriv", f"--reuid={NOBODY}"]


@pytest.mark.parametrize("verb", ["up", "down", "run", "status", "plan", "confirm"])
def test_without_privilege(box: Lab, verb: str) -> None:
    box.gateway.configure()
    before = snapshot(box.gateway.namespace)
    result = box.gateway.run([*unprivileged(box), *box.gateway.command(verb)], check=False)
    assert_said(result, f"tollbridge {verb} needs root: sudo tollbridge {verb}")
    assert settled_difference(box.gateway.namespace, before) == []


def test_check_and_explain_need_no_privilege(box: Lab) -> None:
    box.gateway.configure()
    for verb in (["check"], ["explain", "--from", "192.0.2.10", "--to", "192.0.2.20"]):
        box.gateway.run([*unprivileged(box), *box.gateway.command(*verb)])


# --- what the kernel or the system lacks -----------------------------------------------------------------------------

# Runs the command with another directory for programs than the system's.
WITH_PROGRAMS = """
import sys
from bridge import firewall
from smtp_intercept.app import cli
firewall._PATH = sys.argv[1]
sys.exit(cli.main(sys.argv[2:]))
"""
# nft as this kernel would answer without one expression, given as a regular expression.
FAKE_NFT = """#!/bin/sh
text=$(cat)
if printf %s "$text" | grep -Eq '{expression}'; then
    echo 'Error: Could not process rule: No such file or directory' >&2
    exit 1
fi
printf '%s\\n' "$text" | exec {nft} "$@"
"""


def tool(name: str) -> str:
    path = shutil.which(name, path="/usr/sbin:/sbin:/usr/bin:/bin")
    assert path
    return path


def up_with(lab: Lab, programs: Path) -> Result:
    arguments = lab.gateway.command("up")[3:]
    before = snapshot(lab.gateway.namespace)
    result = lab.gateway.python(WITH_PROGRAMS, str(programs), *arguments, check=False)
    assert settled_difference(lab.gateway.namespace, before) == []
    return result


def test_nft_is_not_installed(box: Lab, tmp_path: Path) -> None:
    box.gateway.configure()
    assert_said(up_with(box, tmp_path), "the program nft is missing; install it: apt-get install nftables")


@pytest.mark.parametrize(
    ("expression", "named"),
    [
        ("fwd to", r"this kernel lacks: netdev fwd \(module nft_fwd_netdev \(CONFIG_NFT_FWD_NETDEV\)\)$"),
        ("socket transparent", r"lacks: socket match \(module nft_socket \(CONFIG_NFT_SOCKET\)\)$"),
        ("egress|tproxy", r"lacks: netdev egress \(.*CONFIG_NETFILTER_EGRESS\); tproxy expression \(module nft_tproxy"),
    ],
)
def test_the_kernel_lacks_an_expression(box: Lab, tmp_path: Path, expression: str, named: str) -> None:
    fake = tmp_path / "nft"
    fake.write_text(FAKE_NFT.format(expression=expression, nft=tool("nft")))
    fake.chmod(fake.stat().st_mode | stat.S_IXUSR)
    box.gateway.configure()
    assert_said(up_with(box, tmp_path), named)


def test_the_kernel_can_queue_in_no_way(box: Lab, tmp_path: Path) -> None:
    fakes = {"nft": FAKE_NFT.format(expression="queue num", nft=tool("nft")), "iptables": "#!/bin/sh\nexit 2\n"}
    for name, text in fakes.items():
        (tmp_path / name).write_text(text)
        (tmp_path / name).chmod(0o755)
    box.gateway.configure()
    assert_said(
        up_with(box, tmp_path), r"can queue packets neither by nft \(module nft_queue\) nor by iptables .*xt_NFQUEUE"
    )


def test_a_step_that_fails_takes_back_all_before_it(box: Lab, tmp_path: Path) -> None:
    """The rules pass the probe and fail when they are loaded: sixty steps have been taken by then."""
    fake = tmp_path / "nft"
    fake.write_text(FAKE_NFT.format(expression="chain port1", nft=tool("nft")))
    fake.chmod(0o755)
    for name in ("iptables", "ip6tables"):
        (tmp_path / name).symlink_to(tool(name))
    box.gateway.configure()
    result = up_with(box, tmp_path)
    assert result.returncode == 1
    assert re.fullmatch(r"tollbridge: cannot do «nft     load .*»: .*No such file or directory\n", result.stderr)
    assert not (box.gateway.run_dir / "ledger.jsonl").exists()


# --- run -------------------------------------------------------------------------------------------------------------

LISTEN = "import socket, time; s = socket.create_server(('{}', 25)); print('listens', flush=True); time.sleep(60)"


@pytest.mark.parametrize("address", ["127.0.0.1", "0.0.0.0"])
def test_the_mail_port_belongs_to_another_service(box: Lab, address: str) -> None:
    """Debian's exim4 listens on 127.0.0.1 alone, and that is enough, where the lane is in the host. The wire stays
    one."""
    gateway = box.gateway
    gateway.configure({**IN_HOST, "protected": [{"domain": "example.com", "servers": ["192.0.2.20"]}]})
    gateway.run(["ip", "link", "set", "lo", "up"])
    service = gateway.spawn([sys.executable, "-c", LISTEN.format(address)])
    service.wait_for("listens")
    gateway.tollbridge("up")
    result = gateway.tollbridge("run", check=False)
    assert result.returncode == 1
    assert f"python (process {service.pid}) listens on {address}:25" in result.stderr.replace("python3.11", "python")
    assert "exim4" in result.stderr
    assert "systemctl disable --now" in result.stderr
    assert "Traceback" not in result.stderr
    MailServer.start(box.host("server"), "192.0.2.20")
    (delivery,) = send(box.host("client"), "192.0.2.20")
    assert delivery["accepted"]
    assert gateway.mail_log() == []
    service.end()
    gateway.spawn_daemon()


def test_run_after_an_up_that_was_cut_short(box: Lab) -> None:
    gateway = box.gateway
    gateway.configure()
    gateway.tollbridge("up")
    gateway.room.run(["nft", "delete", "table", "inet", "tollbridge"])
    assert_said(gateway.tollbridge("run", check=False), "the mail lane has no rules: .*; repair it: tollbridge up")
    gateway.tollbridge("up")
    gateway.spawn_daemon()


def test_a_mail_log_that_cannot_be_opened(box: Lab) -> None:
    gateway = box.gateway
    gateway.configure({"log": {"mail": "/proc/nowhere/mail.log"}})
    gateway.tollbridge("up")
    before = snapshot(gateway.namespace)
    assert_said(
        gateway.tollbridge("run", check=False), r"log\.mail: /proc/nowhere/mail\.log cannot be made: .*; choose another"
    )
    assert settled_difference(gateway.namespace, before) == []


def test_status_when_down_and_when_not_running(box: Lab) -> None:
    """Its exit status says so too (3), and what waits in the queue is shown: nobody delivers it."""
    gateway = box.gateway
    spool = gateway.directory / "spool"
    gateway.configure({"mta": {"spool": str(spool)}})
    down = gateway.tollbridge("status")
    assert (down.stdout, down.returncode) == ("down: no bridge of Tollbridge's (tollbridge up)\n", Exit.NOT_INSPECTING)
    assert (gateway.status()["up"], gateway.status()["running"]) == (False, False)
    with spool_in(spool) as queue:
        wait(put(queue, b"Subject: x\r\n\r\nhi\r\n", "user@example.com", now=time.time() - 7200))
    gateway.tollbridge("up")
    waits = gateway.tollbridge("status")
    assert waits.returncode == Exit.NOT_INSPECTING
    assert waits.stdout.startswith("up, not running: mail is not inspected (tollbridge run)\n! 1 message waits in ")
    assert "the oldest for 2.0 h, and no MTA runs to deliver" in " ".join(waits.stdout.split())
    page = gateway.status()
    assert (page["up"], page["running"], page["live"], page["waiting"]["messages"]) == (True, False, False, 1)
    gateway.tollbridge("queue", "delete", "--all", "--yes")
    daemon = gateway.spawn_daemon()
    assert gateway.tollbridge("status", check=False).returncode == Exit.DONE
    daemon.kill()  # which leaves the files of a running one behind
    assert gateway.tollbridge("status", check=False).returncode == Exit.NOT_INSPECTING


def test_a_unit_hears_what_only_a_person_can_mend(box: Lab) -> None:
    """`RestartPreventExitStatus=130 2` of the unit: typed, a refused configuration is a failure as any."""
    gateway = box.gateway
    gateway.configure()
    gateway.tollbridge("up")
    gateway.configure('[bridge]\nports = ["p0"]\n')
    assert gateway.tollbridge("run", "--boot", check=False).returncode == Exit.MISUSE
    assert gateway.tollbridge("run", check=False).returncode == Exit.FAILED
