"""What a running gateway says of itself, a line of JSON a second: `status`, memory and files of its processes; now and
then how many entries the kernel's tables hold.

``python -m tests.soak.sampler RUN_DIR``. Reads only; where it cannot, the line says why. Runs until it is ended.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from contextlib import suppress
from pathlib import Path
from typing import Any

from smtp_intercept.app import here, status
from smtp_intercept.app.rundir import RunDir

EVERY_S, TABLES_EVERY = 1.0, 20
LOST = ("log_lines_lost", "log_room_kept")  # not written, and of encrypted sessions not tried: the disk is nearly full
_PAGE = os.sysconf("SC_PAGE_SIZE")


def processes(pids: dict[str, int]) -> dict[str, dict[str, int]]:
    """name → what it holds, of those that live."""
    found = {}
    for name, pid in pids.items():
        with suppress(OSError, IndexError):
            pages = int(Path(f"/proc/{pid}/statm").read_text().split()[1])
            files = len(os.listdir(f"/proc/{pid}/fd"))  # noqa: PTH208 - a count
            found[name] = {"pid": pid, "rss_bytes": pages * _PAGE, "files": files}
    return found


def tables(run_dir: RunDir) -> dict[str, int]:
    """Entries of every set and map of the gateway's."""
    with here.inside(run_dir):
        done = subprocess.run(["nft", "-j", "list", "ruleset"], capture_output=True, text=True, check=False)
    if done.returncode:
        return {}
    found: dict[str, int] = {}
    for item in json.loads(done.stdout)["nftables"]:
        for kind in {"set", "map"} & item.keys():
            if item[kind]["table"] == "tollbridge":
                name = f"{item[kind]['family']} {item[kind]['name']}"
                found[name] = found.get(name, 0) + len(item[kind].get("elem", ()))
    return found


def sample(run_dir: RunDir) -> dict[str, Any]:
    """Of now."""
    at = time.time()
    page = status.read(run_dir)
    text = status.as_text(page)
    mta, mail = page["mta"] or {}, page["mail"]
    return {
        "at": at,
        "inspecting": status.inspecting(page),
        "differences": page["watch"].get("differences"),
        "headline": text.splitlines()[0],
        "warnings": [line for line in text.splitlines() if line.startswith("!")][:6],
        "not_inspected": {**page["not_inspected"], "mta_silent": mail.get("mta_silent", 0)},
        "lines_lost": sum(counts.get(name, 0) for counts in (mail, mta.get("counts") or {}) for name in LOST),
        "full": page["full"],
        "sessions": page["sessions"],
        "queue": mta.get("queue"),
        "pids": page["processes"],
        "processes": processes(page["processes"]),
    }


def main() -> None:
    run_dir = RunDir(Path(sys.argv[1]))
    turn = 0
    while True:
        began_at = time.monotonic()
        try:
            line = sample(run_dir)
            if turn % TABLES_EVERY == 0:
                line["tables"] = tables(run_dir)
        except Exception as error:  # whatever was changed under its hands
            line = {"at": time.time(), "failed": repr(error)}
        print(json.dumps(line), flush=True)
        turn += 1
        time.sleep(max(0.1, EVERY_S - (time.monotonic() - began_at)))


if __name__ == "__main__":
    main()
