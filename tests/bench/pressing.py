"""``python -m tests.bench.pressing``: the five kinds of pressing client at once, from 1,000 addresses of 100 networks.

Says what still holds for one who does not press, and names and counts what gives way. Takes root, and a lab of its own.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from statistics import median
from typing import Any

from smtp_intercept.app.lab.mail import MailServer, deliveries, sending
from smtp_intercept.app.lab.network import Lab
from tests.kernel.test_flood import rss_bytes
from tests.kernel.test_pressing import BAD, CONFIG, FOREIGN, GOOD, WIRES, as_in_the_unit, attacking, gives_way

NETWORKS, EACH = 100, 10
KINDS = ("sessions", "lines", "octets", "readers")


@contextmanager
def pressing(lab: Lab, arguments: argparse.Namespace) -> Iterator[None]:
    """All kinds, each from its part of the networks; and a flood of SYNs from all of them."""
    attacker, other = lab.host("attacker"), lab.host("other")
    networks = [f"10.66.{number}.0/24" for number in range(arguments.networks)]
    where = [BAD, "--to", other.mac, "--by", attacker.mac, "--sources", FOREIGN]
    syns = ["--rate", str(arguments.syns), "--seconds", str(arguments.seconds + 60)]
    with ExitStack() as stack:
        begun = [attacking(lab, "tests.kernel.flood", *where, *syns)] if arguments.syns else []
        for number, kind in enumerate(KINDS):
            part = networks[number :: len(KINDS)]
            words = [kind, BAD, "--each", str(arguments.each), "--count", str(arguments.sessions), "--sources", *part]
            begun.append(attacking(lab, "tests.kernel.pressing", *words))
        for process in begun:
            stack.callback(process.end)
            process.wait_for("ready", 60)
        time.sleep(arguments.seconds)
        yield
        time.sleep(0.5)


def mail(lab: Lab, number: int, name: str) -> dict[str, Any]:
    """What became of so many messages of one who does not press."""
    sender = f"{name}.{{n}}@example.net"
    process = sending(lab.host("client"), GOOD, count=number, parallel=2, sender=sender, size=2_000, timeout=60)
    process.wait(900).check()
    sent = [entry for entry in deliveries(process) if entry["accepted"]]
    time.sleep(1.0)
    logged = {entry["sender"] for entry in lab.gateway.mail_log("message")}
    tries = [attempt["outcome"] for entry in sent for attempt in entry["attempts"]]
    return {
        "sent": number,
        "accepted": len(sent),
        "inspected": sum(entry["sender"] in logged for entry in sent),
        "tries that failed": sum(outcome != "accepted" for outcome in tries),
        "median_ms": round(1e3 * median(sum(a["seconds"] for a in entry["attempts"]) for entry in sent), 1),
    }


def grown(before: dict[str, int], after: dict[str, int]) -> dict[str, int]:
    return {name: number - before.get(name, 0) for name, number in after.items() if number != before.get(name, 0)}


def cpu_s(lab: Lab) -> dict[str, float]:
    """What each process has used, and what it has waited for while others had the processors."""
    used = dict[str, float]()
    for name, pid in lab.gateway.pids().items():
        ran_ns, waited_ns, _ = map(int, Path(f"/proc/{pid}/schedstat").read_text().split())
        used |= {name: ran_ns / 1e9, f"{name} waited": waited_ns / 1e9}
    return used


def run(arguments: argparse.Namespace) -> dict[str, Any]:
    limits = {"drain_s": 0, "sessions": arguments.places}
    with Lab(WIRES) as lab, lab.gateway.running({**CONFIG, "limits": limits}):
        MailServer.start(lab.host("server"))
        lab.host("attacker").run(["ip", "route", "add", "local", FOREIGN, "dev", "lo"])
        other = lab.host("other")
        other.run(["ip", "route", "add", FOREIGN, "dev", "eth0"])
        other.spawn(gives_way(other.program("rude", "serve", BAD, "--manners", "good"))).wait_for("ready")
        as_in_the_unit(lab)
        quiet = mail(lab, arguments.mails, "quiet")
        before, small = lab.gateway.status(), rss_bytes(lab.gateway.pids()["interceptor"])
        with pressing(lab, arguments):
            cpu_before, began_at = cpu_s(lab), time.monotonic()
            pressed = mail(lab, arguments.mails, "pressed")
            passed_s = time.monotonic() - began_at
            shares = {name: round((s - cpu_before[name]) / passed_s, 3) for name, s in cpu_s(lab).items()}
            page, large = lab.gateway.status(), rss_bytes(lab.gateway.pids()["interceptor"])
        return {
            "machine": f"{os.cpu_count()} CPUs, Linux {platform.release()}, load {os.getloadavg()[0]:.1f}",
            "quiet": quiet,
            "pressed": pressed,
            "CPUs used while pressed": shares,
            "sessions open": page["sessions"],
            "interceptor grown by, KiB": (large - small) >> 10,
            "put off": grown(before["put_off"], page["put_off"]),
            "not inspected": grown(before["not_inspected"], page["not_inspected"]),
            "full": page["full"],
            "live": page["live"],
            "started again": {name: n for name, n in page["restarts"].items() if n},
        }


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m tests.bench.pressing", description=__doc__)
    parser.add_argument("--networks", type=int, default=NETWORKS)
    parser.add_argument("--each", type=int, default=EACH, help="addresses of each network")
    parser.add_argument("--sessions", type=int, default=2_000, help="that each of four kinds keeps trying to have")
    parser.add_argument("--syns", type=int, default=5_000, help="a second, spoofed; 0: none")
    parser.add_argument("--places", type=int, default=10_000, help="limits.sessions")
    parser.add_argument("--mails", type=int, default=200)
    parser.add_argument("--seconds", type=float, default=10.0, help="of pressing before the mail is sent")
    print(json.dumps(run(parser.parse_args()), indent=2))


if __name__ == "__main__":
    main()
