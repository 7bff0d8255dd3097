"""Connections at a steady rate through default settings, for as long as one likes; every one must be inspected.

Prints a line a minute: what came, what the kernel's tables hold, what was not inspected. Exit status 1 if anything was
not.
"""

from __future__ import annotations

import argparse
import sys
import time

from smtp_intercept.app.lab.mail import MailServer
from smtp_intercept.app.lab.network import Lab
from tests.kernel.conftest import DEFAULT
from tests.kernel.frames import counters, entries
from tests.kernel.test_tables import CLIENT

TABLES = (("map", "client_src"), ("map", "server_src"), ("map", "pair_src"), ("set", "kept"), ("set", "ended"))


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--per-second", type=float, default=50)
    parser.add_argument("--minutes", type=float, default=30)
    arguments = parser.parse_args()
    with Lab() as lab, lab.gateway.running(DEFAULT):
        MailServer.start(lab.host("server"))
        bad, began_at, sent = 0, time.monotonic(), 0
        while time.monotonic() < began_at + arguments.minutes * 60:
            bad += minute(lab, arguments.per_second, sent)
            sent += int(arguments.per_second * 60)
        return 1 if bad else 0


def minute(lab: Lab, per_second: float, before: int) -> int:
    """The number of what went wrong."""
    client, count = lab.host("client"), int(per_second * 60)
    command = [client.interpreter, "-c", CLIENT, lab.host("server").ipv4, str(count), str(per_second)]
    good = int(client.run(command, timeout_s=300).stdout)
    deadline_at = time.monotonic() + 10
    while (logged := len(lab.gateway.mail_log("session"))) < before + count and time.monotonic() < deadline_at:
        time.sleep(0.5)
    status, kernel = lab.gateway.status(), counters(lab)
    missed = {name: n for name, n in status["not_inspected"].items() if n} | status["full"]
    held = {name: entries(lab, "netdev", kind, name) for kind, name in TABLES}
    print(
        f"{time.strftime('%T')} {before + count} connections, {good} of {count} whole, {logged} in the mail log; "
        f"{held}; no next hop {kernel['no_next_hop']}; not inspected or full: {missed or 0}",
        flush=True,
    )
    return count - good + sum(int(n) for n in missed.values())


if __name__ == "__main__":
    sys.exit(main())
