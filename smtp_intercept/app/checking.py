"""`tollbridge check`: every mistake of the configuration on this host, what may surprise, and what would be in force.

Tries what can be tried, and leaves nothing behind. Ends in one line: OK, or how many mistakes.
"""

from __future__ import annotations

import argparse
import json
import os
import socket
import sys
import time
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import asdict
from ipaddress import ip_address
from pathlib import Path
from typing import Any

from bridge import ifupdown
from hwprofiles.bypass import relay_of
from hwprofiles.profile import Profile, ProfileError
from smtp_intercept.app import config as configuration
from smtp_intercept.app import naming, relays, streams
from smtp_intercept.app.accounts import NoAccountError, account
from smtp_intercept.app.checks import OWN_MAIL, own_servers
from smtp_intercept.app.config import Config, ConfigError, ConfigErrors
from smtp_intercept.app.daemon import needs_mta
from smtp_intercept.app.exits import Exit
from smtp_intercept.app.filter_places import unreached
from smtp_intercept.app.objections import OBJECTIONS, Asked, found
from smtp_intercept.app.own import own_addresses
from smtp_intercept.app.relays import Relays
from smtp_intercept.app.rule_schema import written
from smtp_intercept.app.rundir import RunDir
from smtp_intercept.app.streams import warn
from smtp_intercept.app.tls_checks import takes_part
from smtp_intercept.app.verbs import host_of, say_ports
from smtp_intercept.app.wanted import profile_of, wanted
from smtp_intercept.app.writable import why_no_spool
from smtp_intercept.inspect.written import files
from smtp_intercept.mta.nexthop import place_of

# Where the unit's sandbox lets it write (packaging/files/tollbridge.service), and what it hides (ProtectHome).
UNIT = Path("/usr/lib/systemd/system/tollbridge.service")
WRITABLE = ("/run/tollbridge", "/var/log/tollbridge", "/var/spool/tollbridge", "/var/lib/tollbridge-tracker")
HIDDEN = ("/home", "/root", "/run/user")
DROP_IN = "systemctl edit tollbridge: ReadWritePaths="


def check(arguments: argparse.Namespace) -> int:
    """The verb: `Exit.FAILED` if `up` or `run` would refuse it. Warnings do not fail."""
    try:
        text = configuration.read(arguments.config)
        config = naming.parse(text, arguments.config)
        profile, why = profile_of(config)
    except ConfigErrors as errors:
        return _verdict(arguments, {}, errors)
    except ProfileError as error:
        return _verdict(arguments, {}, ConfigErrors([ConfigError("", str(error), "", None, None)]))
    run_dir, case = RunDir(arguments.run_dir), naming.case_here(profile)
    with host_of(run_dir) as host:
        asked = Asked(config, wanted(config, profile, run_dir.room), host, run_dir)
        mistakes = found(asked)
    here = relays.relays(config, profile, case)
    cautions = [*configuration.warnings(config), *_cautions(config, here)]
    page = {"config": _whole(config, profile), "profile": profile.name, "profile_because": why, "labels": case.links}
    if not arguments.json:
        print(configuration.effective(config, profile), end="")
        print(f"# hardware profile {profile.name}: {why}")
        say_ports(config, case)
        for wiring in here.wirings:
            print(f"# bypass relay {wiring}: {wiring.kind}")
    return _verdict(arguments, {**page, "warnings": cautions}, configuration.located(mistakes, text, arguments.config))


def _verdict(arguments: argparse.Namespace, page: dict[str, Any], errors: ConfigErrors) -> int:
    """The last line; for machines everything in one object."""
    mistakes = [str(error) for error in errors.errors]
    said = f"refused: {errors.count} mistake{'s' * (errors.count != 1)}" if mistakes else "OK"
    if arguments.json:
        print(json.dumps({**page, "mistakes": mistakes, "verdict": said}))
    else:
        sys.stdout.flush()
        warn(page.get("warnings", ()))
        for line in mistakes:
            streams.tell(line)
        print(said)
    return Exit.FAILED if mistakes else Exit.DONE


def _whole(config: Config, profile: Profile) -> dict[str, Any]:
    whole = config.model_dump(mode="json")
    whole["limits"] |= asdict(configuration.limits(config, profile))
    whole["interceptor"]["workers"] = configuration.workers(config, profile)
    whole["diverter"]["queues"] = configuration.queues(config, profile)
    return whole


# --- what will surprise on this host ---------------------------------------------------------------------------


def _cautions(config: Config, here: Relays) -> Iterator[str]:
    yield from here.missed
    yield from _own(config)
    yield from unreached(config, ["interceptor", *(["mta"] if needs_mta(config) else [])])
    yield from map(str, ifupdown.conflicts(list(config.bridge.ports)))
    if UNIT.exists():
        yield from _sandbox(config)
    if os.geteuid():
        unasked = ", ".join(
            objection.find.__name__.strip("_").replace("_", " ") for objection in OBJECTIONS if objection.root
        )
        yield f"asked without root, so these were not tried: {unasked}"
        return
    yield from _untracked(config)
    yield from _unheard(config)
    if takes_part(config):
        from smtp_intercept.app import tls_files  # what it brings is a lot, and seldom needed

        yield from tls_files.cautions(config, time.time())
    for wiring in here.wirings:
        try:
            relay_of(wiring).joined()
        except OSError as error:
            yield f"bypass relay {wiring}: does not answer: {error}"


def _own(config: Config) -> Iterator[str]:
    """Those of `bridge.management` are told of without looking."""
    known = {interface.ip for interface in config.bridge.management}
    own = {str(address) for packed in own_addresses(config) if (address := ip_address(packed)) not in known}
    for index, number in own_servers(config, own):
        yield f"protected[{index}].servers[{number}]: {config.protected[index].servers[number]} is this box: {OWN_MAIL}"


def _sandbox(config: Config) -> Iterator[str]:
    """What works when typed and not as a unit."""
    spool = [("mta.spool", config.mta.spool)] if needs_mta(config) else []
    index = [] if config.tracking.index is None else [("tracking.index", config.tracking.index)]
    for key, path in [("log.mail", config.log.mail), *spool, *index]:
        if not str(path).startswith(tuple(f"{directory}/" for directory in WRITABLE)) and str(path) not in WRITABLE:
            yield f"{key}: {path} is not for the unit to write, unless you say so ({DROP_IN}{path.parent})"
    password = None if config.relay is None else config.relay.password_file
    read = {"mta.certificate": config.mta.certificate, "mta.key": config.mta.key, "relay.password_file": password}
    for number, entry in enumerate(config.tls.identity):
        read |= {f"tls.identity[{number}].{name}": getattr(entry, name) for name in ("certificate", "key")}
    if config.tls.authority is not None:
        read |= {f"tls.authority.{name}": getattr(config.tls.authority, name) for name in ("certificate", "key")}
    lists = [(f"rule[{n}].when", path) for n, rule in enumerate(config.rule) for path, _ in files([written(rule)])]
    for key, given in [*read.items(), *lists]:
        if given is not None and (why := _unreadable(Path(given))):
            yield f"{key}: {given}: {why}, so the unit cannot read it"


def _untracked(config: Config) -> Iterator[str]:
    """No mistake: mail is inspected without it."""
    if config.tracking.index is None:
        return
    with suppress(NoAccountError):  # a mistake, told of already
        if why := why_no_spool(directory := Path(config.tracking.index), *account("tracker"), "index", "tracker"):
            yield f"tracking.index: {directory} {why}, so there will be no tracking index; choose another directory"


def _unheard(config: Config) -> Iterator[str]:
    """As above; tried, but for an address that the bridge is to have."""
    listen = config.metrics.listen
    if listen is None or listen.startswith("/"):
        return
    place = place_of(listen)
    if ip_address(place.host) in {interface.ip for interface in config.bridge.management}:
        return
    try:
        with socket.socket(socket.AF_INET6 if ":" in place.host else socket.AF_INET) as tried:
            tried.bind((place.host, 0))
    except OSError as error:
        yield f"metrics.listen: {place.host} cannot be listened at: {error.strerror}; name an address that this box has"


def _unreadable(path: Path) -> str:
    """Root without its power over other users' files."""
    if str(path).startswith(tuple(f"{directory}/" for directory in HIDDEN)):
        return "it is in a home directory"
    try:
        found = [(path, path.stat(), 0o004), *((above, above.stat(), 0o001) for above in path.resolve().parents)]
    except OSError:  # a mistake, told of already
        return ""
    closed = (
        f"{place} is user {at.st_uid}'s alone" for place, at, open_ in found if at.st_uid and not at.st_mode & open_
    )
    return next(closed, "")
