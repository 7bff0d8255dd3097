"""The package installed in a Debian of its own, 12 and 13, under systemd, with a client and a server on its wires.

::

    client ── p0 [ Debian: tollbridge-bridge.service, tollbridge.service ] p1 ── server

    install ─ configure ─ start: inspected ─ restart, upgrade, downgrade under load: nothing lost ─ reboot, power cut, a
    typo: inspected ─ networkd that wants every link: hands off ─ over SSH: no branch is sawn off ─ stop: a wire ─ stop
    the bridge: as it was ─ a lane that cannot be made: a plain bridge ─ purge: nothing is left, or the mail that waits
"""

from __future__ import annotations

import json
import shutil
import subprocess
import time
from collections.abc import Iterator

import pytest

from smtp_intercept.app.packaging import deb
from tests.packaging.debian import RELEASES, Debian, base, booted, next_version, package

pytestmark = [pytest.mark.installed, pytest.mark.timeout(1800)]

WIRES = """\
set -e
for n in c s; do ip netns add $n; done
ip link add p0 type veth peer name eth0 netns c
ip link add p1 type veth peer name eth0 netns s
for n in c s; do ip -n $n link set lo up; ip -n $n link set eth0 up; done
ip -n c addr add 192.0.2.10/24 dev eth0
ip -n s addr add 192.0.2.20/24 dev eth0
"""
CONFIG = """\
[bridge]
ports = ["p0", "p1"]
management = ["192.0.2.2/24"]
[intercept]
incoming = "HANDLER"
[mta]
hostname = "gateway.example.com"
[[protected]]
domain = "example.com"
servers = ["192.0.2.20"]
[limits]
sessions = 1000
"""
SERVER = """\
import time
from aiosmtpd.controller import Controller
class Sink:
    async def handle_DATA(self, server, session, envelope):
        print(envelope.mail_from, flush=True)
        return "250 taken"
Controller(Sink(), hostname="192.0.2.20", port=25).start()
time.sleep(600)
"""
# Six clients, each message in a session of its own that lasts 0.2 s.
CLIENT = """\
import json, smtplib, sys, threading, time
taken, refused = [], []
def send(client):
    for number in range(int(sys.argv[1])):
        sender = f"{client}-{number}-{time.time_ns()}@example.org"
        try:
            with smtplib.SMTP("192.0.2.20", 25, local_hostname="client.example.org", timeout=30) as session:
                time.sleep(0.2)
                session.sendmail(sender, ["user@example.com"], "Subject: s\\r\\n\\r\\ntext\\r\\n")
            taken.append(sender)
        except (OSError, smtplib.SMTPException) as error:
            refused.append(repr(error))
threads = [threading.Thread(target=send, args=(client,)) for client in range(6)]
[thread.start() for thread in threads]
[thread.join() for thread in threads]
print(json.dumps([taken, refused]))
"""
# A bypass card of two files, told as bpctl_util tells one; joined at power-on.
CARD = """\
#!/bin/sh
[ "$2" = get_bypass ] || echo "$@" >> /run/tollbridge/told
case "$2 $3" in
    "set_bypass on") rm -f /run/tollbridge/apart ;;
    "set_bypass off") touch /run/tollbridge/apart ;;
    "get_bypass ") [ -e /run/tollbridge/apart ] && non=non-; echo "The interface is in the ${non}Bypass mode." ;;
esac
"""
PYTHON = f"/{deb.HOME}/bin/python3"
# The wires are there before anything of the network, as cards are; both come back after a reboot.
UNITS = {
    "wires.service": """\
[Unit]
DefaultDependencies=no
After=local-fs.target
Before=tollbridge-bridge.service network-pre.target
Wants=network-pre.target
[Service]
Type=oneshot
RemainAfterExit=yes
ExecStart=/bin/sh /root/wires.sh
[Install]
WantedBy=multi-user.target
""",
    "sink.service": f"""\
[Unit]
Requires=wires.service
After=wires.service
[Service]
ExecStart=/usr/bin/env ip netns exec s {PYTHON} /root/server.py
StandardOutput=append:/root/taken
[Install]
WantedBy=multi-user.target
""",
}
# Who writes such a file forgets nothing.
EVERY_LINK = """\
[Match]
Name=*
[Network]
Address=203.0.113.77/24
DHCP=yes
"""
ADDRESS = "192.0.2.2"
STATE = ("/etc/tollbridge", "/run/tollbridge", "/var/lib/tollbridge", "/var/log/tollbridge", "/var/spool/tollbridge")
LEFT = ("/usr/lib/tollbridge", *STATE)


@pytest.fixture(scope="module", params=RELEASES)
def debian(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Debian]:
    work = tmp_path_factory.mktemp("installed")
    fresh = base(request.param)
    built = package(request.param, work)
    root = work / "root"
    subprocess.run(["cp", "-a", "--reflink=auto", str(fresh), str(root)], check=True, timeout=300)
    for name, text in (("wires.sh", WIRES), ("server.py", SERVER), ("client.py", CLIENT)):
        (root / "root" / name).write_text(text)
    for name, text in UNITS.items():
        (root / "etc/systemd/system" / name).write_text(text)
    (root / "etc/systemd/system/NetworkManager.service").symlink_to("/dev/null")  # until it is asked for
    shutil.copy(built, root / "root" / "tollbridge.deb")
    shutil.copy(next_version(built, work), root / "root" / "next.deb")
    with booted(root) as debian:
        yield debian
    shutil.rmtree(work, ignore_errors=True)


@pytest.fixture(scope="module")
def server(installed: Debian) -> Iterator[None]:
    installed.run("systemctl", "enable", "--now", *UNITS)
    wait_listening(installed)
    yield
    installed.run("systemctl", "disable", "--now", "sink.service")


def wait_listening(debian: Debian) -> None:
    debian.run("sh", "-c", "until ip netns exec s ss -tln | grep -q :25; do sleep 0.2; done", timeout_s=60)


@pytest.fixture(scope="module")
def installed(debian: Debian) -> Debian:
    debian.run("dpkg", "-i", "/root/tollbridge.deb", timeout_s=300)
    return debian


def configure(debian: Debian, handler: str) -> None:
    (debian.root / "etc/tollbridge/tollbridge.toml").write_text(CONFIG.replace("HANDLER", handler))


def send(debian: Debian, each: int) -> tuple[list[str], list[str]]:
    said = debian.run("ip", "netns", "exec", "c", "/usr/bin/python3", "/root/client.py", str(each), timeout_s=120)
    taken, refused = json.loads(said)
    return taken, refused


def under_load(debian: Debian, *words: str) -> None:
    """180 messages, each in a session of its own, while the command runs: all taken, each once."""
    before = len(taken_by_the_server(debian))
    load = debian.start("ip", "netns", "exec", "c", "/usr/bin/python3", "/root/client.py", "30")
    try:
        debian.run("sh", "-c", 'sleep 1; exec "$@"', "sh", *words, timeout_s=300)
    finally:
        said, _ = load.communicate(timeout=180)
    taken, refused = json.loads(said)
    assert (len(taken), refused) == (180, [])
    assert sorted(taken_by_the_server(debian)[before:]) == sorted(taken), "each once"


def assert_inspected(debian: Debian) -> None:
    before = len(inspected(debian))
    taken, refused = send(debian, 1)
    assert (len(taken), refused) == (6, [])
    assert sorted(inspected(debian)[before:]) == sorted(taken)


def assert_bounded(debian: Debian) -> None:
    """Its memory, by what it has reckoned and not by the unit file's percents; until a drop-in says otherwise."""
    show = ("systemctl", "show", "--value", "--property")
    high, most = (int(debian.run(*show, name, "tollbridge")) for name in ("MemoryHigh", "MemoryMax"))
    said = f"is bounded to {most >> 20} MiB, slowed down from {high >> 20} MiB"
    assert said in debian.journal()
    assert high < most
    drop_in = debian.root / "etc/systemd/system/tollbridge.service.d/own.conf"
    drop_in.parent.mkdir()
    drop_in.write_text("[Service]\nMemoryMax=3G\n")
    debian.run("systemctl", "daemon-reload")
    debian.run("systemctl", "restart", "tollbridge")
    assert debian.run(*show, "MemoryMax", "tollbridge").strip() == str(3 << 30)
    assert f"{drop_in.name} decides how much" in debian.journal()
    shutil.rmtree(drop_in.parent)
    debian.run("systemctl", "daemon-reload")
    debian.run("systemctl", "restart", "tollbridge")


def addresses(debian: Debian) -> dict[str, set[str]]:
    """Link → its addresses that are not link-local."""
    listed = json.loads(debian.run("ip", "-json", "address"))
    return {
        link["ifname"]: {entry["local"] for entry in link["addr_info"] if entry["scope"] != "link"} for link in listed
    }


def taken_by_the_server(debian: Debian) -> list[str]:
    return (debian.root / "root/taken").read_text().split()


def inspected(debian: Debian) -> list[str]:
    records = map(json.loads, (debian.root / "var/log/tollbridge/mail.log").read_text().splitlines())
    return [record["sender"] for record in records if record["type"] == "message"]


SSH_KEYS = """\
set -e
mkdir -p /root/.ssh
test -e /root/.ssh/id || ssh-keygen -q -t ed25519 -N '' -f /root/.ssh/id
cp /root/.ssh/id.pub /root/.ssh/authorized_keys
"""


def ssh(debian: Debian, command: str) -> str:
    """From the client, as an administrator would."""
    options = ["-i", "/root/.ssh/id", *(word for o in SSH_OPTIONS for word in ("-o", o))]
    return debian.run("ip", "netns", "exec", "c", "ssh", *options, f"root@{ADDRESS}", command, check=False)


SSH_OPTIONS = (
    "BatchMode=yes",
    "StrictHostKeyChecking=no",
    "UserKnownHostsFile=/dev/null",
    "LogLevel=ERROR",
    "ConnectTimeout=20",
)


def main_pid(debian: Debian) -> str:
    return debian.run("systemctl", "show", "-P", "MainPID", "tollbridge").strip()


def states(debian: Debian) -> dict[str, str]:
    """What NetworkManager says of each link but the loopback."""
    listed = debian.run("env", "LC_ALL=C", "nmcli", "-t", "-f", "DEVICE,STATE", "device").splitlines()
    return {name: state for name, state in (line.split(":", 1) for line in listed) if name != "lo"}


def settle(debian: Debian) -> None:
    """Until networkd has done what it wants with the links that it has found."""
    debian.run("sh", "-c", "until networkctl list lo | grep -q 'lo .*configured'; do sleep 0.2; done")


def active(debian: Debian, unit: str) -> str:
    return debian.run("systemctl", "is-active", unit, check=False).strip()


def kept_by(debian: Debian, but: str = "0") -> str:
    """The process of the keeper whose relay is armed, as soon as there is one (other than that)."""
    deadline_at = time.monotonic() + 60
    while time.monotonic() < deadline_at:
        pid = debian.run("systemctl", "show", "-P", "MainPID", "tollbridge-relay").strip()
        if pid not in ("0", but):
            relays = json.loads(debian.run("tollbridge", "status", "--json", check=False))["relays"]
            if [relay["state"] for relay in relays] == ["armed"]:
                return pid
        time.sleep(0.2)
    raise AssertionError(debian.journal())


def test_it_installs_and_speaks(installed: Debian) -> None:
    assert installed.run("tollbridge", "--version").startswith("tollbridge ")
    assert "tollbridge.toml" in installed.run("tollbridge", "check", check=False)
    for unit in ("tollbridge", "tollbridge-bridge", "tollbridge-relay"):
        assert installed.run("systemctl", "is-enabled", unit).strip() == "enabled"
        assert active(installed, unit) == "inactive", "not before it is configured"
    for page in (*deb.pages(), *deb.FILES.values()):
        assert (installed.root / page).exists()
    bytecode = installed.root / deb.HOME / "lib"
    assert len(list(bytecode.rglob("smtp_intercept/app/__pycache__/*.pyc"))) > 20, "made here, for the service may not"
    assert {path.stat().st_mode & 0o777 for path in bytecode.rglob("*.pyc")} == {0o644}
    assert installed.run("stat", "-c", "%U %a", "/var/spool/tollbridge").strip() == "tollbridge 700"
    units = ("tollbridge.service", "tollbridge-bridge.service", "tollbridge-relay.service")
    installed.run("systemd-analyze", "verify", "--man=no", *units)
    installed.run("logrotate", "-d", "/etc/logrotate.d/tollbridge")


@pytest.mark.usefixtures("server")
class TestAtWork:
    def test_mail_is_inspected_in_the_sandbox(self, installed: Debian) -> None:
        configure(installed, "proxy")
        installed.run("tollbridge", "check")
        installed.run("systemctl", "start", "tollbridge")
        taken, refused = send(installed, 2)
        assert (len(taken), refused) == (12, [])
        assert sorted(inspected(installed)) == sorted(taken)
        assert json.loads(installed.run("tollbridge", "status", "--json"))["unguarded"] == {}
        assert_bounded(installed)

    def test_a_restart_under_load_loses_nothing(self, installed: Debian) -> None:
        under_load(installed, "systemctl", "restart", "tollbridge")
        assert active(installed, "tollbridge") == "active"

    def test_what_ends_it_and_what_does_not(self, installed: Debian) -> None:
        """SIGHUP, to it and to all its processes, does not; a kill is made good, whatever signal it sends; a stop and a
        refused file stay."""
        before = main_pid(installed)
        installed.run("systemctl", "kill", "-s", "HUP", "tollbridge")
        installed.run("systemctl", "kill", "-s", "HUP", "tollbridge-bridge", check=False)
        assert_inspected(installed)
        assert main_pid(installed) == before
        assert "SIGHUP is ignored" in installed.journal()
        for how in ("-TERM", "-KILL"):
            before = main_pid(installed)
            installed.run("kill", how, before)
            again = f'[ "$(systemctl show -P MainPID tollbridge)" != {before} ] && tollbridge status'
            installed.run("sh", "-c", f"until {again}; do sleep 0.2; done", timeout_s=60)
            assert_inspected(installed)
        installed.run("systemctl", "stop", "tollbridge")
        time.sleep(5)
        assert active(installed, "tollbridge") == "inactive", "nor is a stop"
        installed.run("systemctl", "start", "tollbridge")
        installed.run("tollbridge", "down")
        time.sleep(5)
        assert active(installed, "tollbridge") == "inactive", "an administrator's `down` is not undone"
        configuration, good = installed.root / "etc/tollbridge/tollbridge.toml", installed.root / "var/lib/tollbridge"
        text = configuration.read_text()
        configuration.write_text(text.replace("management", "managment"))
        (good / "last-good.toml").rename(good / "kept")
        installed.run("systemctl", "start", "--no-block", "tollbridge")
        installed.run("sh", "-c", "until systemctl -q is-failed tollbridge; do sleep 0.2; done", timeout_s=60)
        time.sleep(5)
        assert active(installed, "tollbridge") == "failed", "what only a person can mend is not tried again"
        (good / "kept").rename(good / "last-good.toml")
        configuration.write_text(text)
        installed.run("systemctl", "restart", "tollbridge-bridge")
        installed.run("systemctl", "start", "tollbridge")
        assert_inspected(installed)

    @pytest.mark.parametrize("file", ["next.deb", "tollbridge.deb"], ids=["up", "down"])
    def test_an_upgrade_under_load_loses_nothing(self, installed: Debian, file: str) -> None:
        """To the next version, and back."""
        configuration = installed.root / "etc/tollbridge/tollbridge.toml"
        configuration.write_text(f"# mine\n{configuration.read_text()}")
        before = (configuration.read_text(), main_pid(installed))
        under_load(installed, "dpkg", "-i", f"/root/{file}")
        assert configuration.read_text() == before[0]
        assert main_pid(installed) not in (before[1], "0")
        version = installed.run("dpkg-query", "-W", "-f", "${Version}", "tollbridge")
        assert version.startswith("9." if file == "next.deb" else "0.")
        assert_inspected(installed)

    def test_up_killed_half_way_is_made_again(self, installed: Debian) -> None:
        installed.run("systemctl", "stop", "tollbridge-bridge")
        installed.run("systemctl", "start", "--no-block", "tollbridge")
        installed.run(
            "sh", "-c", "until test -e /run/netns/tollbridge; do :; done; systemctl kill -s KILL tollbridge-bridge"
        )
        installed.run("sh", "-c", "until systemctl -q is-active tollbridge; do sleep 0.2; done")
        assert installed.run("systemctl", "show", "-P", "NRestarts", "tollbridge-bridge").strip() == "1"
        assert addresses(installed)["tb0"] == {ADDRESS}
        assert_inspected(installed)

    @pytest.mark.parametrize("cut", [False, True], ids=["reboot", "power cut"])
    def test_after_a_cold_boot_it_inspects(self, installed: Debian, cut: bool) -> None:
        installed.reboot(cut=cut)
        wait_listening(installed)
        assert (active(installed, "tollbridge-bridge"), active(installed, "tollbridge")) == ("active", "active")
        assert addresses(installed)["tb0"] == {ADDRESS}
        assert_inspected(installed)

    def test_a_typo_before_a_reboot_does_not_turn_inspection_off(self, installed: Debian) -> None:
        good = (installed.root / "var/lib/tollbridge/last-good.toml").read_text()
        (installed.root / "etc/tollbridge/tollbridge.toml").write_text(good.replace("management", "managment"))
        installed.reboot()
        wait_listening(installed)
        assert addresses(installed)["tb0"] == {ADDRESS}
        assert_inspected(installed)
        for words in (("tollbridge", "status"), ("journalctl", "-b", "-u", "tollbridge-bridge")):
            said = installed.run(*words)
            assert "IS NOT IN FORCE" in said
            assert "managment" in said
        assert "the last good configuration" in installed.run("systemctl", "status", "--no-pager", "tollbridge")
        configure(installed, "proxy")
        installed.run("sh", "-c", "systemctl reload tollbridge-bridge && systemctl restart tollbridge")
        assert "IS NOT IN FORCE" not in installed.run("tollbridge", "status")

    def test_networkd_that_wants_every_link_keeps_its_hands_off(self, installed: Debian) -> None:
        """Started beside us; started again; at a boot with us; and it gets its links back."""
        greedy = installed.root / "etc/systemd/network/10-all.network"
        greedy.write_text(EVERY_LINK)
        installed.run("systemctl", "enable", "--now", "systemd-networkd")
        for again in (False, False, True):
            if again:
                installed.reboot()
                wait_listening(installed)
            settle(installed)
            found = addresses(installed)
            assert found.pop("tb0") == {ADDRESS}
            found.pop("lo")
            assert set().union(*found.values()) == set(), found
            assert_inspected(installed)
            installed.run("systemctl", "restart", "systemd-networkd")
        installed.run("systemctl", "stop", "tollbridge-bridge")
        deadline = "for n in $(seq 100); do ip addr show p0 | grep -q 203.0.113.77 && exit; sleep 0.2; done; exit 1"
        installed.run("sh", "-c", deadline)
        greedy.unlink()
        installed.run("systemctl", "disable", "--now", "systemd-networkd")
        installed.run("ip", "addr", "flush", "dev", "p0")
        installed.run("ip", "addr", "flush", "dev", "p1")
        installed.run("systemctl", "start", "tollbridge")

    def test_network_manager_lets_go_of_its_links_and_gets_them_back(self, installed: Debian) -> None:
        """It has p0, with an address that becomes the bridge's, and p1, on which it waits for DHCP."""
        installed.run("systemctl", "stop", "tollbridge-bridge")
        configuration = installed.root / "etc/tollbridge/tollbridge.toml"
        before = configuration.read_text()
        configuration.write_text(before.replace(f'"{ADDRESS}/24"', f'"{ADDRESS}/24", "203.0.113.77/24"'))
        installed.run("systemctl", "unmask", "NetworkManager")
        installed.run("systemctl", "start", "NetworkManager")
        connection = ("ifname", "p0", "con-name", "a", "ipv4.method", "manual", "ipv4.addresses", "203.0.113.77/24")
        installed.run("nmcli", "connection", "add", "type", "ethernet", *connection)
        installed.run("nmcli", "connection", "up", "a")
        installed.run("systemctl", "start", "tollbridge")
        for _ in range(2):
            assert set(states(installed).values()) == {"unmanaged"}
            found = addresses(installed)
            assert found.pop("tb0") == {ADDRESS, "203.0.113.77"}
            found.pop("lo")
            assert set().union(*found.values()) == set(), found
            assert_inspected(installed)
            installed.run("systemctl", "restart", "NetworkManager")
        installed.run("systemctl", "stop", "tollbridge-bridge")
        installed.run("sh", "-c", "until nmcli -t -f DEVICE,STATE device | grep -q p0:connected; do sleep 0.2; done")
        installed.run("nmcli", "connection", "delete", "a")
        installed.run("systemctl", "mask", "--now", "NetworkManager")
        configuration.write_text(before)
        for port in ("p0", "p1"):
            installed.run("ip", "addr", "flush", "dev", port)
        installed.run("systemctl", "start", "tollbridge")

    def test_up_over_ssh_does_not_cut_itself_off(self, installed: Debian) -> None:
        """A real sshd, on the port that is to be bridged: through sudo, and with no variable left at all."""
        installed.run("systemctl", "stop", "tollbridge-bridge")
        installed.run("ip", "addr", "add", f"{ADDRESS}/24", "dev", "p0")
        installed.run("sh", "-c", SSH_KEYS)
        installed.run("systemctl", "start", "ssh")
        for command in ("tollbridge up", "sudo -i tollbridge up", "env -i /usr/bin/tollbridge up"):
            refused = ssh(installed, command)
            assert "not without --confirm: your SSH session (from 192.0.2.10 port " in refused, command
            assert f"take {ADDRESS} from p0" in refused
            assert "tb0" not in addresses(installed)
        assert "undone by itself in 600 s" in ssh(installed, "sudo -i tollbridge up --confirm 600")
        assert ssh(installed, "tollbridge confirm").strip() == "confirmed"
        assert addresses(installed)["tb0"] == {ADDRESS}
        installed.run("tollbridge", "down")
        assert addresses(installed)["p0"] == {ADDRESS}
        installed.run("ip", "addr", "del", f"{ADDRESS}/24", "dev", "p0")
        installed.run("systemctl", "stop", "ssh")
        installed.run("systemctl", "start", "tollbridge")

    def test_the_mta_works_in_the_sandbox_too(self, installed: Debian) -> None:
        configure(installed, "mta")
        installed.run("systemctl", "reload", "tollbridge-bridge")
        installed.run("systemctl", "restart", "tollbridge")
        assert "/run/tollbridge" in installed.run("tollbridge", "--help")
        taken, refused = send(installed, 1)
        assert (len(taken), refused) == (6, [])
        installed.run("sh", "-c", "while tollbridge queue list | grep -q '{'; do sleep 0.2; done", timeout_s=30)
        assert set(taken) <= set(taken_by_the_server(installed))
        assert json.loads(installed.run("tollbridge", "status", "--json"))["unguarded"] == {}

    def test_stopped_it_is_a_wire(self, installed: Debian) -> None:
        installed.run("systemctl", "stop", "tollbridge")
        before = len(inspected(installed))
        assert send(installed, 1)[1] == []
        assert (len(inspected(installed)), active(installed, "tollbridge-bridge")) == (before, "active")

    def test_without_the_bridge_the_host_is_as_it_was(self, installed: Debian) -> None:
        installed.run("systemctl", "start", "tollbridge")
        installed.run("systemctl", "stop", "tollbridge-bridge")
        assert active(installed, "tollbridge") == "inactive"
        links = {link["ifname"] for link in json.loads(installed.run("ip", "-json", "link"))}
        assert links == {"lo", "p0", "p1"}

    def test_a_lane_that_cannot_be_made_leaves_a_plain_bridge(self, installed: Debian) -> None:
        nft = installed.run("sh", "-c", "command -v nft").strip()
        installed.run("mv", nft, f"{nft}.away")
        try:
            installed.run("systemctl", "start", "tollbridge", check=False)
        finally:
            installed.run("mv", f"{nft}.away", nft)
        assert active(installed, "tollbridge-bridge") == "failed"
        assert "all mail crosses uninspected" in installed.journal()
        assert "192.0.2.2/24" in installed.run("ip", "-4", "addr", "show", "tb0")
        assert send(installed, 1)[1] == []
        installed.run("tollbridge", "down")

    def test_a_bypass_relay_is_kept_in_the_sandbox(self, installed: Debian) -> None:
        """Killed, the keeper is started again within the watchdog; `stop` gives the relay back."""
        card = installed.root / "usr/local/sbin/bpctl_util"
        card.write_text(CARD)
        card.chmod(0o755)
        configure(installed, "proxy")
        with (installed.root / "etc/tollbridge/tollbridge.toml").open("a") as file:
            file.write('[[bypass]]\nports = ["p0", "p1"]\nkind = "silicom"\nwatchdog_ms = 60000\n')
        installed.run("systemctl", "reset-failed")
        installed.run("systemctl", "start", "tollbridge-bridge")
        first = kept_by(installed)
        installed.run("kill", "-9", first)
        assert kept_by(installed, but=first) != first
        told = installed.run("cat", "/run/tollbridge/told").splitlines()
        assert "p0 set_bypass off" in told
        assert "p0 set_bypass on" not in told
        installed.run("systemctl", "stop", "tollbridge-bridge")
        assert active(installed, "tollbridge-relay") == "inactive"
        told = installed.run("cat", "/run/tollbridge/told").splitlines()
        assert told[-2:] == ["p0 set_bypass on", "p0 set_bypass_wd 0"], installed.journal()
        card.unlink()

    def test_purged_while_mail_waits_it_keeps_that(self, installed: Debian) -> None:
        configure(installed, "mta")
        installed.run("systemctl", "reset-failed")
        installed.run("systemctl", "start", "tollbridge")
        server = ("lladdr", "02:00:00:00:00:20", "dev", "eth0", "nud", "permanent")
        installed.run("ip", "-n", "s", "link", "set", "eth0", "down")
        installed.run("ip", "-n", "c", "neigh", "replace", "192.0.2.20", *server)
        assert send(installed, 1)[1] == []
        said = installed.run("dpkg", "--purge", "tollbridge", timeout_s=120)
        assert "holds mail" in said
        assert (installed.root / "var/spool/tollbridge/queue.db").exists()
        assert "tollbridge" in installed.run("getent", "passwd", "tollbridge")
        links = {link["ifname"] for link in json.loads(installed.run("ip", "-json", "link"))}
        assert links == {"lo", "p0", "p1"}


def test_purged_it_leaves_nothing(installed: Debian) -> None:
    installed.run("rm", "-r", "/var/spool/tollbridge")
    installed.run("dpkg", "-i", "/root/tollbridge.deb", timeout_s=300)
    configure(installed, "proxy")
    said = installed.run("dpkg", "--purge", "tollbridge", timeout_s=120)
    assert "warning" not in said
    assert [path for path in LEFT if (installed.root / path[1:]).exists()] == []
    assert "tollbridge" not in installed.run("getent", "passwd")
    left = installed.run("sh", "-c", "find / -xdev -name '*tollbridge*' -not -path '/root/*' -not -path '/proc/*'")
    assert [path for path in left.split() if not path.startswith("/var/log/journal")] == []
