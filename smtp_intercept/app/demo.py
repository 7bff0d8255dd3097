"""``tollbridge demo``: the main job on real mail, in namespaces, as a table of what was expected and what was seen.

Runs the real gateway through its command line between the hosts of the manual's Figure 1; needs root and nothing else.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections.abc import Iterator, Sequence
from dataclasses import asdict

from rich.console import Console
from rich.table import Table

from smtp_intercept.app.lab import figure1, hung, kept
from smtp_intercept.app.lab.cases import CASES, class_row, identity_row, post, refusals, untouched_row
from smtp_intercept.app.lab.figure1 import VERSIONS, Row
from smtp_intercept.app.lab.host import LabError
from smtp_intercept.app.lab.mail import MailServer
from smtp_intercept.app.lab.network import Lab, missing
from smtp_intercept.app.lab.onlookers import invisible_row, other_traffic, path_row

INTERRUPTED = 130  # 128 + SIGINT, as a shell would report it


def run(args: argparse.Namespace) -> int:
    """The main job. ``args.json``: for machines; ``args.keep``: leave the lab standing. 0 only if every row holds."""
    if reasons := missing():
        print(f"tollbridge demo: {'; '.join(reasons)}", file=sys.stderr)
        return 1
    began_at = time.monotonic()
    try:
        with Lab(figure1.FIGURE_1) as lab:
            lab.keep = bool(args.keep)
            print(f"{lab}\n", file=sys.stderr)
            rows = list(show(lab))
            if lab.keep:
                print(
                    f"kept until the next lab: ip netns exec {lab.gateway.namespace} sh; {lab.directory}",
                    file=sys.stderr,
                )
    except KeyboardInterrupt:
        print("tollbridge demo: interrupted, cleaned up", file=sys.stderr)
        return INTERRUPTED
    except LabError as error:
        print(f"tollbridge demo: {error}", file=sys.stderr)
        return 1
    (as_json if args.json else as_table)(rows, time.monotonic() - began_at)
    return 0 if all(row.holds for row in rows) else 1


def show(lab: Lab) -> Iterator[Row]:
    """All rows, in the table's order. The captures run while all but the last ones are gathered."""
    say("starting mail servers and gateway")
    servers = {
        (name, port): MailServer.start(lab.host(name), wait=False, port=port, **how)
        for (name, port), how in figure1.SERVERS.items()
    }
    relay = servers["relay", 25]
    lab.gateway.configure(figure1.CONFIG)
    lab.gateway.start()
    for server in servers.values():
        server.wait_ready()
    with lab.capture() as frames:
        say(f"sending {len(CASES) * len(VERSIONS)} messages")
        evidence = [post(lab, servers, case, version) for case in CASES for version in VERSIONS]
        say("drop and reject")
        refused = list(refusals(lab, relay))
        say("ping and a TCP stream")
        others = list(other_traffic(lab))
    for item in evidence:
        yield class_row(lab, item) if item.case.connection else untouched_row(lab, item)
    yield from refused
    yield from others
    yield from (path_row(lab, frames, version) for version in VERSIONS)
    yield from (identity_row(evidence, version) for version in VERSIONS)
    yield invisible_row(lab, frames)
    say(f"interceptor stopped for {hung.STOPPED_S:.0f} s under load, then continued")
    yield from hung.stopped(lab, relay)
    say("the built-in MTA, and a server that is away")
    yield from kept.kept(lab, relay)


def say(text: str) -> None:
    """Progress, apart from the result."""
    print(f"  {text} ...", file=sys.stderr, flush=True)


def as_json(rows: Sequence[Row], seconds: float) -> None:
    holds = all(row.holds for row in rows)
    print(json.dumps({"holds": holds, "seconds": round(seconds, 1), "rows": [asdict(row) for row in rows]}, indent=2))


def as_table(rows: Sequence[Row], seconds: float) -> None:
    """A table on a terminal, one paragraph a row elsewhere."""
    console = Console()
    if console.is_terminal:
        console.print(table(rows))
    else:
        for row in rows:
            mark = "ok  " if row.holds else "FAIL"
            print(f"{mark} {row.ip:4} {row.case}\n       expected  {row.expected}\n       seen      {row.seen}")
    held = sum(row.holds for row in rows)
    print(f"{held} of {len(rows)} rows hold, {seconds:.0f} s")


def table(rows: Sequence[Row]) -> Table:
    drawing = Table("case", "IP", "expected", "seen", "", title="Tollbridge: one message's way through the box")
    for row in rows:
        drawing.add_row(row.case, row.ip, row.expected, row.seen, "[green]ok" if row.holds else "[bold red]FAIL")
    return drawing
