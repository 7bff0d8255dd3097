"""What can be asked of the lab: up, its tests, a report, down; and what the tests ask of it."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

from smtp_intercept.app.lab.host import LabError
from vagrant.lab import box, logs, package, places, plan, report, runner
from vagrant.lab.alone import Alone
from vagrant.lab.byvagrant import ByVagrant
from vagrant.lab.doing import Progress
from vagrant.lab.runner import Choice, Runner, Way

TESTS_S = 3 * 3600.0
MARKER = "vm"
PATIENCE = "10"  # how many times later the deadlines of the lab's programs are: the machines may be emulated
NO_TESTS = 5  # pytest's exit status


def up(choice: Choice, progress: Progress) -> Runner:
    """The lab of this choice, provisioned with the product as it is now; `LabError` if another one is up."""
    places.make_run()
    present = runner.noted()
    if present and (present.suite, present.way) != (choice.suite, choice.way):
        raise LabError(f"a lab of {present.suite} by {present.way} is up; take it down first: make lab-down")
    stage = _stage(package.ensure(choice.suite, progress))
    if choice.own:
        choice = present or replace(choice, box=str(box.ensure(choice.suite, progress).directory))
    lab = laboratory(choice)
    runner.note(choice)
    try:
        lab.boot(stage, progress)
    except LabError:
        _collect(lab, choice, progress)
        raise
    write_interface(lab, choice)
    return lab


def laboratory(choice: Choice) -> Runner:
    """The runner of a choice, which may be up or not."""
    kind = Alone if choice.way is Way.QEMU else ByVagrant
    return kind(choice, runner.planned())


def present() -> Runner:
    """The lab that is up; `LabError` if none is."""
    choice = runner.noted()
    if choice is None:
        raise LabError("no lab is up: make lab")
    return laboratory(choice)


def _stage(deb: Path) -> Path:
    """What every machine gets: the scripts of provision/ and the package, in one directory."""
    stage = places.KEPT / "stage"
    shutil.rmtree(stage, ignore_errors=True)
    shutil.copytree(places.VAGRANT / "provision", stage)
    shutil.copy2(deb, stage / "tollbridge.deb")
    return stage


def write_interface(lab: Runner, choice: Choice) -> None:
    """Tell the tests where the machines are."""
    told = plan.interface(
        choice.suite,
        choice.way,
        lab.machines,
        ssh=lab.access.ssh,
        rsync=lab.access.rsync,
        command=places.COMMAND,
        serial=lab.serial,
    )
    places.INTERFACE.write_text(json.dumps(told, indent=2) + "\n")


def test(lab: Runner, choice: Choice, words: list[str], progress: Progress) -> int:
    """Run the tests of the marker `vm`, report, on failure collect what the machines can tell; pytest's exit status.

    ``words`` choose among the tests, and then docs/lab.md stays as it is."""
    results = places.KEPT / f"results-{choice.suite}.xml"
    results.unlink(missing_ok=True)
    options = ["-p", "no:cacheprovider", "-m", MARKER, f"--junitxml={results}", "--durations=10"]
    with progress.step("tests"):
        status = _pytest([*options, *words])
    if status not in (0, NO_TESTS):
        _collect(lab, choice, progress)
    if results.exists():
        _report(lab, choice, results, progress, full=not words)
    return status


def _collect(lab: Runner, choice: Choice, progress: Progress) -> None:
    names = [machine.name for machine in lab.machines]
    place = logs.collect(lab.access, lab.serial, names, choice.suite)
    progress.say(f"logs of all machines: {place}")


def _pytest(words: list[str]) -> int:
    command = [sys.executable, "-m", "pytest", *words]
    environment = {"TOLLBRIDGE_LAB_PATIENCE": PATIENCE, **os.environ}
    try:
        done = subprocess.run(command, cwd=places.ROOT, env=environment, timeout=TESTS_S, check=False)  # noqa: S603
        return done.returncode
    except subprocess.TimeoutExpired:
        raise LabError(f"the tests are not done after {TESTS_S:.0f} s") from None


def _report(lab: Runner, choice: Choice, results: Path, progress: Progress, *, full: bool) -> None:
    kernel = lab.access.run("gateway", "uname -r", check=False).strip() or "of unknown version (the gateway is silent)"
    how = f"{choice.way} ({choice.acceleration})"
    facts = report.Facts(time.strftime("%Y-%m-%d"), choice.suite, kernel, how, tuple(progress.steps))
    text = report.markdown(facts, report.cases(results.read_text()))
    path = results.with_suffix(".md")
    path.write_text(text)
    progress.say(f"report: {path}")
    if full:
        document = places.ROOT / "docs/lab.md"
        document.write_text(report.put(document.read_text(), choice.suite, text))


def down(progress: Progress) -> None:
    """Take the machines away. Nothing happens if there are none."""
    choice = runner.noted()
    if choice is None:
        progress.say("no lab is up")
        return
    with progress.step("machines taken away"):
        laboratory(choice).remove()
    places.INTERFACE.unlink(missing_ok=True)
    runner.note(None)


def power(name: str, *, on: bool) -> None:
    present().power(name, on=on)


def link(name: str, *, up: bool) -> None:
    """Pull or put back the cable of a link."""
    lab = present()
    for machine, card in plan.LINKS[name]:
        lab.set_link(machine, card, up=up)


def guarded(work: Callable[[], int]) -> int:
    """``work()``'s exit status; 1 and the reason for what the lab could not do."""
    try:
        return work()
    except LabError as error:
        print(f"lab: {error}", file=sys.stderr)
        return 1
