"""`tollbridge hw tune`: measures this box as it is and with one setting changed at a time, and proposes what gains.

Changes nothing that outlives it: what it proposes is text, for an administrator to read and put in place.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import sys
import time
import tomllib
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import tomli_w

from hwprofiles import shelf
from hwprofiles.box import Box
from hwprofiles.match import match, named
from hwprofiles.profile import Profile
from hwprofiles.tuning import tuning
from smtp_intercept.app import config as configuration
from smtp_intercept.app import naming, seen
from smtp_intercept.app.exits import FailedError
from smtp_intercept.app.lab import looped
from smtp_intercept.app.lab.figures import Figures, Measurement, as_json, table
from smtp_intercept.app.lab.host import LabError
from smtp_intercept.app.lab.looped import LoopedLab, PortsError
from smtp_intercept.app.lab.network import Lab, missing
from smtp_intercept.app.lab.proposal import AGAIN, BASE, TOGETHER, Change, Value, best, changed, changes, judged
from smtp_intercept.app.lab.rig import LOADS, PRODUCT, RefusedError, Rig
from smtp_intercept.app.rundir import RunDir
from smtp_intercept.app.writable import why_not_appended

INTERRUPTED = 130  # 128 + SIGINT, as a shell would report it
_BETWEEN_S = 4.0  # a restart, and until what was sent is counted


@dataclass(frozen=True, slots=True)
class Subject:
    """What is tuned: the box with the NICs in question, its profile, what is in force of it, what may be tried."""

    box: Box
    profile: Profile
    base: Mapping[str, Value]
    present: Mapping[str, Value]
    tried: Sequence[Change]


@dataclass(frozen=True, slots=True)
class Outcome:
    """``duel``: rounds of what gained, together, against what there is; ``refused``: the words of the hardware."""

    figures: Figures
    duel: Figures
    gained: Sequence[Change]
    proposed: Sequence[Change]
    refused: Sequence[str]


def tune(arguments: argparse.Namespace) -> int:
    """The verb."""
    _refuse(arguments)
    record = RunDir(arguments.run_dir).path / "tune.json"
    for failure in looped.restore(record):
        raise FailedError(f"{failure}; it was changed by a `hw tune` that was killed")
    try:
        subject = _subject(arguments)
        _announce(subject, arguments)
        with _rig(subject, arguments, record) as rig:
            outcome = _measured(rig, subject, arguments)
    except KeyboardInterrupt:
        print("tollbridge hw tune: interrupted; all is as it was", file=sys.stderr)
        return INTERRUPTED
    except (LabError, PortsError) as error:
        raise FailedError(str(error)) from None
    _tell(subject, outcome, arguments)
    return 0


def _refuse(arguments: argparse.Namespace) -> None:
    if os.geteuid():
        raise FailedError("tollbridge hw tune needs root: sudo tollbridge hw tune")
    if reasons := missing():
        raise FailedError("; ".join(reasons))
    if pid := RunDir(arguments.run_dir).holder("run"):
        raise FailedError(
            f"the gateway is at work (process {pid}), and its mail would pay for it: systemctl stop tollbridge, "
            "mail crosses uninspected meanwhile"
        )
    if arguments.output is not None and (why := why_not_appended(arguments.output)):  # not after ten minutes
        raise FailedError(f"--output: {arguments.output} {why}; name another")
    if arguments.ports:
        looped.refuse_used(arguments.ports, _bridged(arguments))


def _bridged(arguments: argparse.Namespace) -> tuple[str, ...]:
    """The ports of the configuration, and of the one that was last in force."""
    files = [path for path in (arguments.config, RunDir(arguments.run_dir).effective) if path.exists()]
    return tuple(port for path in files for port in naming.load(path).bridge.ports)


def _subject(arguments: argparse.Namespace) -> Subject:
    config = naming.load(arguments.config) if arguments.config.exists() else None
    box = seen.box(arguments.ports or (config.bridge.ports if config else None))
    every = shelf.profiles()
    name = config.bridge.profile if config else "auto"
    profile = match(box, every)[0] if name == "auto" else named(name, every)
    fitted = profile.fitted(box.memory_mib, box.cpu.cores)
    base: dict[str, Value] = {
        "interceptor.workers": configuration.workers(config, fitted) if config else fitted.workers,
        "diverter.queues": configuration.queues(config, fitted) if config else fitted.queues,
    }
    nics = box.nics if arguments.ports else ()
    tried = changes(base, box.cpu.cores, nics, arguments.only)
    if not tried:
        raise FailedError("there is nothing to try: neither this box nor its ports have other settings of that kind")
    keys = dict.fromkeys(change.key for change in tried if change.key not in base)
    present = {key: _present(box, key) for key in keys}
    asked = {setting.name: setting.value for setting in tuning(profile, box).first} if nics else {}
    for key in keys:
        base[key] = _value(asked[key]) if key in asked else present[key]
    return Subject(box, profile, base, present, [change for change in tried if base[change.key] != change.value])


def _present(box: Box, key: str) -> Value:
    kind, _, name = key.partition(".")
    value: Value = getattr(box.nics[0], kind)[name]
    return value


def _value(text: str) -> Value:
    return {"on": True, "off": False}[text] if text in ("on", "off") else int(text)


def _announce(subject: Subject, arguments: argparse.Namespace) -> None:
    each_s = arguments.rounds * (len(LOADS) * (arguments.seconds + 1) + _BETWEEN_S)
    longest_s = each_s * (len(subject.tried) + 2 + 3)
    where = " and ".join(arguments.ports) if arguments.ports else "in namespaces"
    _say(f"profile {subject.profile.name}, {where}: {len(subject.tried)} changes in {arguments.rounds} rounds each;")
    _say(f"up to {longest_s / 60:.0f} minutes; Ctrl-C stops it and leaves all as it was")


@contextmanager
def _rig(subject: Subject, arguments: argparse.Namespace, record: Path) -> Iterator[Rig]:
    if not arguments.ports:
        with Lab() as lab:
            yield Rig(lab, subject.base, {}, {})
        return
    near, far = arguments.ports
    # Whatever `up` in the lab does to a port besides: LRO.
    with LoopedLab((near, far), record, [*subject.present, "features.rx-lro"]) as lab:
        ports = {near: lab.gateway.namespace, far: lab.host("server").enter[-1]}
        yield Rig(lab, subject.base, subject.present, ports)


# --- measuring --------------------------------------------------------------------------


def _measured(rig: Rig, subject: Subject, arguments: argparse.Namespace) -> Outcome:
    refused: list[str] = []
    ways: dict[str, Mapping[str, Value]] = {str(change): {change.key: change.value} for change in subject.tried}
    figures = _race(rig, {BASE: {}, AGAIN: {}, **ways}, arguments, refused)
    measured = {m.system for m in figures.measurements}
    gained = best(figures, [change for change in subject.tried if str(change) in measured])
    if not gained:
        return Outcome(figures, Figures([]), [], [], refused)
    _say(f"gained: {', '.join(map(str, gained))}; do they together, in rounds of their own?")
    together = {change.key: change.value for change in gained}
    duel = _race(rig, {BASE: {}, AGAIN: {}, TOGETHER: together}, arguments, refused)
    proposed = gained if _holds(duel) else []
    return Outcome(figures, duel, gained, proposed, refused)


def _holds(duel: Figures) -> bool:
    return any(m.system == TOGETHER for m in duel.measurements) and judged(duel, TOGETHER).gains


def _race(
    rig: Rig, ways: Mapping[str, Mapping[str, Value]], arguments: argparse.Namespace, refused: list[str]
) -> Figures:
    """Every way in every round, in an order drawn anew; the first round is thrown away. One that the hardware refuses
    is left out from then on."""
    left, found, began_at = dict(ways), list[Measurement](), time.monotonic()
    for number in range(arguments.rounds + 1):
        for label in random.sample(list(left), len(left)):
            try:
                rig.set(left[label])
            except RefusedError as refusal:
                refused.append(str(refusal))
                _say(str(refusal))
                del left[label]
                continue
            for name, load in LOADS.items():
                value = rig.measure(load, arguments.seconds if number else 1)
                found += [Measurement(label, name, number, value, {})] if number else []
        _say(f"round {number} of {arguments.rounds}, {time.monotonic() - began_at:.0f} s")
    order = {label: place for place, label in enumerate(ways)}
    return Figures(sorted((m for m in found if m.system in left), key=lambda m: order[m.system]))


# --- telling --------------------------------------------------------------------------


def _tell(subject: Subject, outcome: Outcome, arguments: argparse.Namespace) -> None:
    settings, profile = _settings(outcome), _profile(subject, outcome)
    if arguments.output is not None and profile:
        arguments.output.write_text(profile, encoding="utf-8")
    if arguments.json:
        print(json.dumps(_page(subject, outcome, settings, profile), indent=1, ensure_ascii=False))
        return
    units = {name: load.unit for name, load in LOADS.items()}
    print(table(outcome.figures, units, BASE))
    if outcome.gained:
        print(f"\n{', '.join(map(str, outcome.gained))}, together:\n{table(outcome.duel, units, BASE)}")
    print()
    for line in _verdict(outcome):
        print(line)
    if settings:
        print(f"\nInto {arguments.config}, then `tollbridge up` and a restart of `run`:\n\n{settings}", end="")
    if profile:
        place = shelf.LOCAL / f"{subject.profile.name}.toml"
        print(f"\nInto {place}, then `tollbridge up`:\n\n{profile}", end="")


def _verdict(outcome: Outcome) -> Iterator[str]:
    yield from (f"refused: {refusal}" for refusal in outcome.refused)
    if outcome.proposed:
        for change in outcome.proposed:
            yield f"proposed: {change} ({_figures(outcome.figures, str(change))})"
        yield f"together: {_figures(outcome.duel, TOGETHER)}"
        return
    if outcome.gained:
        yield f"what gained did not hold in rounds of its own ({_figures(outcome.duel, TOGETHER)})"
    yield f"no change proposed: no gain beyond what the same differs from itself ({_noise(outcome.figures)})"


def _figures(figures: Figures, label: str) -> str:
    judgement = judged(figures, label)
    return ", ".join(f"{load} {r:.2f} ± {judgement.noise[load]:.2f}" for load, r in judgement.ratios.items())


def _noise(figures: Figures) -> str:
    return ", ".join(f"{load} {n:.0%}" for load, n in judged(figures, AGAIN).noise.items())


def _settings(outcome: Outcome) -> str:
    """What the configuration says, and not the profile: there a number is taken as it is, whatever the CPUs. Empty
    without a proposal of that kind."""
    ours = [change for change in outcome.proposed if change.key in PRODUCT]
    return tomli_w.dumps(changed({}, ours)) if ours else ""


def _profile(subject: Subject, outcome: Outcome) -> str:
    """The file, whole; empty if nothing is proposed that belongs to it."""
    theirs = [change for change in outcome.proposed if change.key not in PRODUCT]
    if not theirs:
        return ""
    whole = changed(tomllib.loads(shelf.profile_text(subject.profile.name)), theirs)
    head = [f"# {subject.profile.name}, as `tollbridge hw tune` proposes it for this box ({_box(subject.box)}):"]
    head += [f"# {change}: {_figures(outcome.figures, str(change))}" for change in theirs]
    head += [f"# together: {_figures(outcome.duel, TOGETHER)} (speed as a share of before, ± noise)"]
    return "\n".join(head) + "\n" + tomli_w.dumps(whole)


def _box(box: Box) -> str:
    names = " ".join(filter(None, (box.firmware.vendor, box.firmware.product)))
    return f"{names or 'no name'}, {box.cpu.cores} CPUs"


def _page(subject: Subject, outcome: Outcome, settings: str, profile: str) -> dict[str, object]:
    return {
        "profile": subject.profile.name,
        "base": dict(subject.base),
        "noise": dict(judged(outcome.figures, AGAIN).noise),
        "ratios": {str(change): dict(judged(outcome.figures, str(change)).ratios) for change in subject.tried},
        "figures": as_json(outcome.figures),
        "duel": as_json(outcome.duel),
        "gained": [str(change) for change in outcome.gained],
        "proposed": {change.key: change.value for change in outcome.proposed},
        "refused": list(outcome.refused),
        "configuration_toml": settings,
        "profile_toml": profile,
    }


def _say(text: str) -> None:
    """Progress, apart from the result."""
    print(f"  {text}", file=sys.stderr, flush=True)
