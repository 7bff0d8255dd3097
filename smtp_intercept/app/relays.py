"""The bypass relays of this box: which there are, what they were, the process that keeps them, and what it says.

Failures are words: no relay makes `up` fail. What a relay was is on disk before it is told anything.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from argparse import Namespace
from collections.abc import Iterable, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

from hwprofiles.bypass import DRIVEN, Wiring, relay_of
from hwprofiles.relay import Act
from smtp_intercept.app.rundir import RunDir, read_json, write_json
from smtp_intercept.app.signals import ASKS

if TYPE_CHECKING:  # `status` asks here too, and needs none of them
    from hwprofiles.case import Case
    from hwprofiles.profile import Profile
    from smtp_intercept.app.config import Config

LOCK = "relay"
ENDS_S = 4.0  # the keeper is in the middle of telling: `hwprofiles.bypass.TOLD_S` for each command
SAYS_S = 8.0  # until the keeper has started and told each relay once
POLL_S = 0.05
ATTEMPTS = 3


@dataclass(frozen=True, slots=True)
class Relays:
    """``wirings`` are driven; ``missed`` says of each other one why not."""

    wirings: tuple[Wiring, ...] = ()
    missed: tuple[str, ...] = ()


def relays(config: Config, profile: Profile, case: Case) -> Relays:
    """Those of the configuration, else those of the profile, as far as the bridge has both their ports. Pure."""
    if config.bridge.bypass.value == "off":
        return Relays()
    if config.bypass:
        return Relays(tuple(_configured(config)))
    known, wirings, missed = profile.bypass, [], []
    for one, other in known.pairs:
        ports = (case.links.get(one, ""), case.links.get(other, ""))
        bridged = [port in config.bridge.ports for port in ports]
        if any(bridged) and not all(bridged):
            missed.append(f"relay {one}-{other}: one of its ports is not in the bridge: it is left as it is")
        elif all(bridged) and known.kind not in DRIVEN:
            missed.append(f"relay {one}-{other}: is left as it is: Tollbridge cannot drive {known.driven_by}")
        elif all(bridged):
            wirings.append(
                _wiring(ports, known.kind, known.driven_by if known.kind == "gpio" else "", known.watchdog_ms)
            )
    return Relays(tuple(wirings), tuple(missed))


def _configured(config: Config) -> Iterable[Wiring]:
    for relay in config.bypass:
        one, other = relay.ports
        yield _wiring((one, other), relay.kind.value, str(relay.driven_by or ""), relay.watchdog_ms, relay.apart)


def _wiring(ports: tuple[str, str], kind: str, driven_by: str, watchdog_ms: int, apart: int = 1) -> Wiring:
    """A line of GPIO has no watchdog, whatever is said of it."""
    return Wiring(ports, kind, driven_by, 0 if kind == "gpio" else watchdog_ms, apart)


# --- what they were ----------------------------------------------------------------------------------------------


def remember(run_dir: RunDir, wirings: Iterable[Wiring]) -> list[str]:
    """What each relay was, before the first time it is told anything; those no longer wanted are given back. Returns
    what could not be, in words."""
    before, wanted = _before(run_dir), tuple(wirings)
    failures = give_back(run_dir, [wiring for wiring, _ in before if wiring not in wanted])
    kept = [(wiring, joined) for wiring, joined in _before(run_dir) if wiring in wanted]
    kept += [(wiring, _joined(wiring)) for wiring in wanted if wiring not in dict(kept)]
    _write_before(run_dir, kept)
    return failures


def give_back(run_dir: RunDir, among: Sequence[Wiring] | None = None) -> list[str]:
    """Joined or apart as it was before the first `up`, without a watchdog; one that did not say is joined, for then the
    box is a wire. What could not be given back is kept and returned in words."""
    failures, left = [], []
    for wiring, joined in _before(run_dir):
        if among is not None and wiring not in among:
            left.append((wiring, joined))
            continue
        try:
            _tell(wiring, Act.RELEASE if joined is False else Act.BYPASS)
        except OSError as error:
            failures.append(f"relay {wiring}: cannot be given back as it was: {error}")
            left.append((wiring, joined))
    _write_before(run_dir, left)
    return failures


def _tell(wiring: Wiring, act: Act) -> None:
    """A busy machine may not answer the first time. Raises what the last attempt raised."""
    for left in reversed(range(ATTEMPTS)):
        try:
            relay_of(wiring).tell(act)
        except OSError:
            if not left:
                raise
        else:
            return


def _joined(wiring: Wiring) -> bool | None:
    try:
        return relay_of(wiring).joined()
    except OSError:
        return None


def _before(run_dir: RunDir) -> list[tuple[Wiring, bool | None]]:
    return [(wiring_of(entry["wiring"]), entry["joined"]) for entry in read_json(run_dir.relays_before) or ()]


def _write_before(run_dir: RunDir, entries: list[tuple[Wiring, bool | None]]) -> None:
    if entries:
        write_json(run_dir.relays_before, [{"wiring": asdict(wiring), "joined": was} for wiring, was in entries])
    else:
        run_dir.relays_before.unlink(missing_ok=True)


def wiring_of(data: dict[str, Any]) -> Wiring:
    """The reverse of `dataclasses.asdict`, by way of JSON."""
    one, other = data["ports"]
    return Wiring(**{**data, "ports": (one, other)})


# --- the keeper ----------------------------------------------------------------------------------------------


def begin(arguments: Namespace, run_dir: RunDir, config: Config, wanted: Relays) -> list[str]:
    """After `up`: the keeper keeps these relays. At boot a unit of its own starts it. Returns warnings."""
    said = list(wanted.missed)
    if _kept_for(run_dir) == as_wanted(config, wanted):
        return said
    try:
        end(run_dir, again=arguments.boot and bool(wanted.wirings))
        if not wanted.wirings:
            return said + remember(run_dir, ())
        if arguments.boot:
            return said
        _start(arguments, run_dir)
    except OSError as error:
        return [*said, f"the bypass relays are not kept: {error}"]
    return said + [_said_of(relay) for relay in _heard(run_dir) if relay["state"] != "armed"]


def _kept_for(run_dir: RunDir) -> dict[str, Any] | None:
    """What the keeper was started for, as soon as it says so: at boot it begins beside `up`. None without one, and of
    one that says nothing."""
    deadline_at = time.monotonic() + SAYS_S
    while run_dir.holder(LOCK) and time.monotonic() < deadline_at:
        if (kept := read_json(run_dir.relays)) is not None:
            wanted: dict[str, Any] = kept["wanted"]
            return wanted
        time.sleep(POLL_S)
    return None


def as_wanted(config: Config, wanted: Relays) -> dict[str, Any]:
    """What a keeper was started for, as JSON has it."""
    wirings = [{**asdict(wiring), "ports": list(wiring.ports)} for wiring in wanted.wirings]
    bridge = config.bridge
    return {"bridge": bridge.name, "when": bridge.bypass.value, "link_loss": bridge.link_loss.value, "wirings": wirings}


def release(run_dir: RunDir) -> list[str]:
    """Before `down`: nobody keeps them, and they are as they were. Returns what failed, in words."""
    end(run_dir)
    run_dir.bypassed.unlink(missing_ok=True)
    return give_back(run_dir)


def end(run_dir: RunDir, *, again: bool = False) -> None:
    """The keeper, whoever started it; ``again``: its unit is to start another. What its relays are afterwards is their
    watchdogs' to say."""
    for number in (signal.SIGTERM if again else ASKS, signal.SIGKILL):
        deadline_at = time.monotonic() + ENDS_S
        while (pid := run_dir.holder(LOCK)) and time.monotonic() < deadline_at:
            with suppress(ProcessLookupError):
                os.kill(pid, number)
                os.kill(pid, signal.SIGCONT)
            time.sleep(POLL_S)
    run_dir.relays.unlink(missing_ok=True)


def _start(arguments: Namespace, run_dir: RunDir) -> None:
    """A process of its own session, so that it outlives the shell."""
    words = ["--config", str(arguments.config.absolute()), "--run-dir", str(arguments.run_dir.absolute())]
    with (run_dir.path / "relay.log").open("w", encoding="utf-8") as log:
        subprocess.Popen(  # noqa: S603 - own module
            [sys.executable, "-P", "-m", "smtp_intercept.app", *words, "hw", "keep"],
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            start_new_session=True,
        )


def _heard(run_dir: RunDir) -> list[dict[str, Any]]:
    """What the keeper says as soon as each relay is armed or has a reason not to be, or when the time is over."""
    deadline_at = time.monotonic() + SAYS_S
    while time.monotonic() < deadline_at:
        found = (read_json(run_dir.relays) or {}).get("relays", ())
        if found and all(relay["state"] == "armed" or relay["why"] for relay in found):
            return list(found)
        time.sleep(POLL_S)
    return page(run_dir) or [{"ports": ["?", "?"], "state": "unknown", "why": f"see {run_dir.path / 'relay.log'}"}]


# --- what they say -----------------------------------------------------------------------------------------------


def page(run_dir: RunDir) -> list[dict[str, Any]]:
    """Each relay that is kept or was: armed (apart, and its watchdog fed), bypassed (joined), apart (and nobody feeds
    it) or unknown; and why."""
    pid = run_dir.holder(LOCK)
    kept = read_json(run_dir.relays) if pid else None
    if kept is not None and time.monotonic() - kept["at"] < SAYS_S:
        said: list[dict[str, Any]] = kept["relays"]
        return said
    why = f"its keeper (process {pid}) says nothing" if pid else "nobody keeps it: tollbridge up"
    return [_alone(wiring, why) for wiring, _ in _before(run_dir)]


def _alone(wiring: Wiring, why: str) -> dict[str, Any]:
    state = {True: "bypassed", False: "apart", None: "unknown"}[_joined(wiring)]
    return {"ports": list(wiring.ports), "kind": wiring.kind, "state": state, "why": why}


def _said_of(relay: dict[str, Any]) -> str:
    return f"relay {'-'.join(relay['ports'])}: {relay['state']}: {relay['why']}"
