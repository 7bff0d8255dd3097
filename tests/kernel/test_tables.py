"""Every table is rate × lifetime: at its rate, for more than three lifetimes, nothing goes uninspected.

The lifetimes are scaled (`tests.kernel.scaled`); sizes follow from rates and lifetimes as they do in the product.
"""

from __future__ import annotations

import subprocess
import sys
import time
from collections.abc import Iterator
from typing import Any

import pytest

from smtp_intercept.app.lab import hung
from smtp_intercept.app.lab.host import SOON_S, patient
from smtp_intercept.app.lab.mail import MailServer
from smtp_intercept.app.lab.network import Lab
from tests.kernel import scaled
from tests.kernel.conftest import DEFAULT
from tests.kernel.frames import counters, entries
from tests.kernel.test_wire import FROM_PORT
from tests.tools import program

pytestmark = [pytest.mark.kernel, pytest.mark.usefixtures("lanes")]

PER_S, SESSIONS = 60, 20
LIFETIME_S = scaled.SECONDS["REST_S"]
LATE_S = 5.0  # what the last session has left began when that ended, which may be after its client has
CONFIG: dict[str, Any] = {
    **DEFAULT,
    "limits": {"new_connections_per_s": PER_S, "new_connections_per_s_per_network": PER_S, "sessions": SESSIONS},
}
MAPS = [f"{who}_{end}" for who in ("client", "server", "pair", "heard") for end in ("src", "dst")]
SETS = ["kept", "ended", "fresh_client", "fresh_server"]

# So many connections, so many a second; every third ends with a RST. Says how many had a banner and a good-bye.
CLIENT = """
import socket, struct, sys, time
from concurrent.futures import ThreadPoolExecutor
server, count, per_s = sys.argv[1], int(sys.argv[2]), float(sys.argv[3])
began_at = time.monotonic()
def one(number):
    time.sleep(max(0, began_at + number / per_s - time.monotonic()))
    try:
        with socket.create_connection((server, 25), 5) as sock:
            said = sock.recv(99)
            if number % 3 == 0:
                sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
                return said[:3] == b"220"
            sock.sendall(b"QUIT\\r\\n")
            return said[:3] == b"220" and sock.recv(99)[:3] == b"221"
    except OSError as error:
        print(number, error, file=sys.stderr)
        return False
with ThreadPoolExecutor(8) as pool:
    print(sum(pool.map(one, range(count))))
"""


@pytest.fixture(scope="module")
def gateway_lab(lab: Lab) -> Iterator[Lab]:
    lab.gateway.product = "tests.kernel.scaled"
    with lab.gateway.running(CONFIG):
        yield lab


def dial(lab: Lab, count: int, per_s: float, version: int = 4) -> int:
    client, server = lab.host("client"), lab.host("server")
    return int(client.python(CLIENT, server.of_version(version)[0], str(count), str(per_s)).stdout)


def sessions(lab: Lab, count: int) -> int:
    """In the mail log, once there are so many or no more come."""
    deadline_at = time.monotonic() + patient(SOON_S)
    while (found := len(lab.gateway.mail_log("session"))) < count and time.monotonic() < deadline_at:
        time.sleep(0.1)
    return found


def fill(lab: Lab) -> dict[str, int]:
    return {name: entries(lab, "netdev", "map" if name in MAPS else "set", name) for name in (*MAPS, *SETS)}


def test_at_its_rate_for_ever_and_nothing_is_left(gateway_lab: Lab, server: MailServer) -> None:
    count = int(PER_S * 0.8 * LIFETIME_S * 4)
    before = len(gateway_lab.gateway.mail_log("session"))
    halves = [dial(gateway_lab, count // 2, PER_S * 0.8, version) for version in (4, 6)]
    at_the_end = fill(gateway_lab)
    assert halves == [count // 2] * 2
    assert sessions(gateway_lab, before + 2 * (count // 2)) == before + 2 * (count // 2)
    status = gateway_lab.gateway.status()
    assert not any(status["not_inspected"].values())
    assert status["full"] == {}
    assert counters(gateway_lab)["no_next_hop"] == 0
    assert 0 < at_the_end["kept"] <= PER_S * (LIFETIME_S + 1) + SESSIONS < count
    time.sleep(LIFETIME_S + 2)
    others = [name for name in (*MAPS, *SETS) if not name.startswith("heard")]
    hung.wait_until(lambda: not any(fill(gateway_lab)[name] for name in others), "they have emptied", LATE_S)
    time.sleep(max(0, scaled.SECONDS["HEARD_S"] - LIFETIME_S))
    hung.wait_until(lambda: not any(fill(gateway_lab).values()), "all have emptied", LATE_S)


def with_limits(lab: Lab, **limits: int) -> None:
    lab.gateway.stop()
    lab.gateway.configure({**CONFIG, "limits": {**CONFIG["limits"], **limits}})
    lab.gateway.start()


def test_what_is_over_the_rate_crosses_and_nothing_is_reset(gateway_lab: Lab, server: MailServer) -> None:
    """Ports are used again at once: what an inspected SYN has left must not strand the same addresses' next one."""
    client = gateway_lab.host("client")
    source, environment = program("smtp-source")
    with_limits(gateway_lab, new_connections_per_s=10)
    before = counters(gateway_lab)
    client.run(["sysctl", "-qw", "net.ipv4.ip_local_port_range=20000 20063"])
    settings = [f"{name}={value}" for name, value in environment.items()]
    load = [source, "-s", "20", "-m", "300", "-l", "4096", "-t", "user@example.com", "-f", "a@example.net"]
    done = client.run(["env", *settings, *load, f"inet:{gateway_lab.host('server').ipv4}:25"], check=False)
    client.run(["sysctl", "-qw", "net.ipv4.ip_local_port_range=10000 65000"])
    after = counters(gateway_lab)
    assert (done.returncode, done.stderr) == (0, "")
    assert after["rate"] - before["rate"] > 20
    assert after["changed"] > before["changed"], "no port was used again in time: the test tests nothing"


MANY = 50_000
READS = """
import sys, time
from pathlib import Path
from smtp_intercept.app import status
from smtp_intercept.app.rundir import RunDir
times = []
for _ in range(5):
    began_at = time.perf_counter()
    status.read(RunDir(Path(sys.argv[1])))
    times.append(time.perf_counter() - began_at)
print(min(times))
"""


def test_the_page_of_status_is_read_at_once_however_full_the_tables_are(gateway_lab: Lab) -> None:
    """nft(8) lists every element of every set before it says what one counter is."""
    with_limits(gateway_lab, new_connections_per_s=MANY)
    gateway, path = gateway_lab.gateway, gateway_lab.gateway.directory / "many.nft"
    keys = [f"{number} . {number % 60_000 + 1} timeout 60s" for number in range(MANY)]
    hops = [f"{key} : {gateway_lab.hosts[0].mac}" for key in keys]
    add = "add element netdev tollbridge"
    path.write_text(f"{add} kept {{ {', '.join(keys)} }}\n{add} client_src {{ {', '.join(hops)} }}\n")
    gateway.room.run(["nft", "-f", str(path)], timeout_s=60)
    assert entries(gateway_lab, "netdev", "set", "kept") == MANY
    assert float(gateway.room.python(READS, str(gateway.run_dir)).stdout) < patient(0.3)
    gateway.room.run(["nft", "flush", "set", "netdev", "tollbridge", "kept"])


def test_when_a_table_is_full_it_is_counted_and_said_first(gateway_lab: Lab, server: MailServer) -> None:
    """The most that is allowed is less than the rate needs: what finds no place is bridged, until others have ended."""
    gateway = gateway_lab.gateway
    with_limits(gateway_lab, next_hops=64)
    count = int(PER_S * 0.8 * LIFETIME_S * 1.5)
    before = len(gateway.mail_log("session"))
    assert dial(gateway_lab, count, PER_S * 0.8) == count
    full = gateway.status()["full"]["not_learned"]
    assert full > 0
    assert sessions(gateway_lab, before + count - full) == before + count - full
    said = gateway.tollbridge("status").stdout
    assert said.startswith(f"inspecting; A TABLE WAS FULL, {full} times")
    assert f"the table of next hops is full: connections are not inspected ({full} times)" in " ".join(said.split())
    time.sleep(LIFETIME_S + 2)
    assert dial(gateway_lab, 10, 10) == 10
    assert gateway.status()["full"]["not_learned"] == full


def test_a_banner_that_is_late_on_a_connection_that_is_dialled_from_another_port(
    gateway_lab: Lab, server: MailServer
) -> None:
    """The client's port is the listener's own: the server is dialled from a fresh one, and says nothing for longer than
    a SYN's next hops last."""
    client, host = gateway_lab.host("client"), gateway_lab.host("server")
    server.process.end()
    MailServer.start(host, banner_after=scaled.SECONDS["LEARNED_S"] + 2)
    said = client.run([client.interpreter, "-c", FROM_PORT, client.ipv4, "25", host.ipv4], timeout_s=40).stdout
    assert said.strip() == "220"
    assert gateway_lab.gateway.wait_log(type="session", where=lambda each: each["client"]["port"] == 25)


ELEMENTS, LISTING_KIB = 60_000, 45_000  # by one that fetches them: 63,000 KiB
# Prints whether our own is all that is listed, without an element, and how much the largest program has taken for it.
LISTED = """
import os, resource, subprocess, sys
from bridge import firewall
from bridge.ruleset import NAME, TABLES
count = int(sys.argv[1])
addresses = [f"10.{n >> 16}.{n >> 8 & 255}.{n & 255}" for n in range(count)]
text = "table inet other {}\\n"
for family in TABLES:
    text += f"table {family} {NAME} {{\\nset s {{\\ntype ipv4_addr\\nflags timeout\\n}}\\n}}\\n"
for at in range(0, count, 5000):
    text += f"add element inet {NAME} s {{ {', '.join(addresses[at:at + 5000])} }}\\n"
subprocess.run(["nft", "-f", "-"], input=text, text=True, check=True)
if not (child := os.fork()):  # whose own children have not loaded anything
    listed = firewall.listed()
    most = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss
    print(listed.count("table "), "other" in listed, "10.0" in listed, most)
    sys.stdout.flush()
    os._exit(0)
os.waitpid(child, 0)
"""


def test_what_is_compared_costs_the_same_with_full_tables() -> None:
    """By the watch, at every change of the rules, beside a gateway at work: without a look at any element."""
    words = ["unshare", "--net", sys.executable, "-c", LISTED, str(ELEMENTS)]
    said = subprocess.run(words, capture_output=True, text=True, check=True, timeout=60).stdout.split()
    assert said[:3] == ["3", "False", "False"]
    assert int(said[3]) < LISTING_KIB
