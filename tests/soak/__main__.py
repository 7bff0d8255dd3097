"""A soak: mail at a steady rate through the gateway, every ten seconds a fault, and what must hold all the time.

Prints a line for each fault and a table at the end. Exit status 1 if anything that was promised did not hold.
"""

from __future__ import annotations

import argparse
import json
import shutil
import sys
import time
from collections.abc import Sequence
from pathlib import Path

from smtp_intercept.app.lab.host import LabError, Process
from tests.soak import faults, report
from tests.soak.bounds import RECOVERED_S
from tests.soak.ledger import Sent, Spell, Taken
from tests.soak.plan import FAULTS, Place, Planned, place, plan
from tests.soak.rig import Rig, tail

DRAINED_S = 90.0
REST_S = 75.0  # longer than any entry of the kernel's tables lives
RESTS_FROM_S = 180.0  # a short soak does not wait for that
NOTICED_S = 3.0  # the switch opens two seconds after the last beat: until then a dead gateway looks well
GIVEN_UP_S = 3 * RECOVERED_S  # what is not well by then is not waited for


class Soak:
    """One run."""

    def __init__(self, rig: Rig, planned: Sequence[Planned], seconds: float) -> None:
        self._rig, self._planned, self._seconds = rig, planned, seconds
        self._spells, self._accidents = list[Spell](), list[str]()

    def run(self) -> report.Evidence:
        """All of it."""
        rig, tables_left = self._rig, None
        with rig.watched() as watchers:
            try:
                with rig.sending():
                    self._provoke()
            except LabError as error:
                self._accidents.append(str(error))
            rig.gateway.tollbridge("queue", "retry", "--all", check=False)
            rig.until(rig.drained, DRAINED_S)
            if self._seconds >= RESTS_FROM_S:
                tables_left = self._rested()
            queued = rig.queued()  # before what has arrived is read, or it might be in neither
        own, counts = _onlookers(watchers)
        return report.Evidence(
            seed=rig.seed,
            place=rig.where.value,
            seconds=self._seconds,
            per_s=rig.per_s,
            sent=[Sent(**each) for each in rig.records("sent")],
            taken=[Taken(**each) for each in rig.records("taken")],
            queued=queued,
            logged=logged(rig),
            spells=self._spells,
            samples=rig.samples(),
            onlookers=counts,
            own_frames=own,
            tables_left=tables_left,
            accidents=self._accidents,
        )

    def _provoke(self) -> None:
        began_at = time.monotonic()
        for planned in self._planned:
            time.sleep(max(0.0, began_at + planned.at_s - time.monotonic()))
            self._one(planned)
            self._say(planned, time.monotonic() - began_at)
        time.sleep(max(0.0, began_at + self._seconds - time.monotonic()))

    def _one(self, planned: Planned) -> None:
        from_at = time.time()
        try:
            with faults.ACTS[planned.name](self._rig, planned):
                time.sleep(planned.lasts_s)
        except (LabError, OSError) as error:  # told at the end, beside all that it did not stop
            self._accidents.append(f"{planned.name}: {error}")
        ended_at = time.time()
        self._wait_well(planned, ended_at)
        self._spells.append(Spell(planned.name, planned.fault, from_at, ended_at, time.time()))

    def _wait_well(self, planned: Planned, since_at: float) -> None:
        rig, deadline_at = self._rig, time.monotonic() + GIVEN_UP_S
        while time.monotonic() < deadline_at:
            self._serve(planned)
            latest = rig.latest()
            well = latest.get("inspecting") and latest.get("differences") == []
            if (
                well
                and latest["at"] > since_at + NOTICED_S
                and not rig.gateway.tollbridge("status", check=False).returncode
            ):
                return
            time.sleep(0.2)

    def _serve(self, planned: Planned) -> None:
        """As the service manager does, which tells of it."""
        process = self._rig.gateway.run_process
        if process is None or process.running:
            return
        self._accidents.append(f"{planned.name}: the daemon ended by itself: {process.stderr[-600:]}")
        try:
            faults.serve_again(self._rig)
        except LabError as error:
            self._accidents.append(f"{planned.name}: {error}")

    def _say(self, planned: Planned, at_s: float) -> None:
        spell, latest = self._spells[-1], self._rig.latest()
        queue = (latest.get("queue") or {}).get("messages", "?")
        took_s = spell.well_at - spell.ended_at
        text = f"{at_s:7.0f} s  {planned.name:18} {planned.lasts_s:4.1f} s, well again after {took_s:4.1f} s"
        print(f"{text}; {latest.get('sessions', '?')} sessions, {queue} queued", flush=True)

    def _rested(self) -> dict[str, int] | None:
        """What the tables hold in a sample that was taken after a rest."""
        rested_at = time.time() + REST_S
        self._rig.until(lambda: self._tables_since(rested_at) is not None, REST_S + 60.0)
        return self._tables_since(rested_at)

    def _tables_since(self, since_at: float) -> dict[str, int] | None:
        lines = (json.loads(line) for line in tail(self._rig.sampler.stdout_path, 1 << 18).splitlines()[1:])
        found = [line["tables"] for line in lines if line["at"] > since_at and "tables" in line]
        return dict(found[-1]) if found else None


def logged(rig: Rig) -> set[str]:
    """The names of the messages of which the mail log tells: by sender, and where that was encrypted by EHLO."""
    names = set[str]()
    for entry in rig.logged():
        said = entry.get("sender") or entry.get("helo") or ""
        names.add(said.partition("@")[0].partition(".")[0])
    return names


def _onlookers(watchers: dict[str, Process]) -> tuple[list[str], dict[str, dict[str, int]]]:
    own, counts = list[str](), dict[str, dict[str, int]]()
    for name, watcher in watchers.items():
        for line in (json.loads(line) for line in watcher.stdout.splitlines()[1:]):
            if "own" in line and "frames" not in line:
                own.append(f"{name} {line['own']}")
            else:
                counts[name] = line
    return own, counts


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.soak", description=__doc__)
    parser.add_argument("--minutes", type=float, default=60.0)
    parser.add_argument(
        "--seed", type=int, default=1, help="odd: the wire has a namespace of its own; even: the host's"
    )
    parser.add_argument("--per-second", type=float, default=50.0)
    parser.add_argument("--namespace", type=Place, choices=[*Place], help="instead of the seed's choice")
    parser.add_argument(
        "--fault", action="append", default=[], choices=[*FAULTS], help="only this one; may be repeated"
    )
    parser.add_argument("--json", type=Path, metavar="FILE")
    parser.add_argument("--keep", type=Path, metavar="DIRECTORY", help="copy the logs there")
    arguments = parser.parse_args()
    seconds, where = arguments.minutes * 60, arguments.namespace or place(arguments.seed)
    planned = plan(arguments.seed, seconds, where, tuple(arguments.fault))
    with Rig(where, arguments.seed, arguments.minutes, arguments.per_second) as rig:
        seen = Soak(rig, planned, seconds).run()
        if arguments.keep:
            keep(rig, arguments.keep)
    found = report.invariants(seen)
    print(report.page(seen, found))
    if arguments.json:
        arguments.json.write_text(json.dumps(report.as_json(seen, found), indent=1))
    return 1 if any(broken for _, broken in found.values()) else 0


def keep(rig: Rig, where: Path) -> None:
    """For whoever wants to know why."""
    where.mkdir(parents=True, exist_ok=True)
    paths = [*rig.lab.directory.glob("*.jsonl"), *rig.gateway.directory.glob("*.err"), rig.sampler.stdout_path]
    paths += [*rig.lab.directory.glob("*/*-unshare.???"), *rig.lab.directory.glob("*/spool-exim/exim4/log/*log")]
    for path in [*paths, rig.disk("log") / "mail.log"]:
        shutil.copy(path, where / f"{path.relative_to(rig.lab.directory)}".replace("/", "-"))


if __name__ == "__main__":
    sys.exit(main())
