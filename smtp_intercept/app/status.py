"""The page that `tollbridge status` shows: the daemon's own file, the kernel's counters, the links.

Reads only. What is not inspected is counted and named here.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from bridge import firewall, glance
from bridge.lane import LANE
from bridge.ledger import Ledger
from bridge.ruleset import DROPPED, FULL, NOT_INSPECTED
from bridge.ruleset import PUT_OFF as DROPPED_SYNS
from smtp_intercept.app import halfmade, here, inforce, relays, rules_status, tls_status, tracking_status, watching
from smtp_intercept.app.accounts import UNSEEING
from smtp_intercept.app.ended import ended
from smtp_intercept.app.exits import Exit
from smtp_intercept.app.mistakes import ConfigErrors
from smtp_intercept.app.reading import spool_in
from smtp_intercept.app.rundir import RunDir, read_json
from smtp_intercept.app.waiting import waiting

# Why the diverter or the interceptor left a connection uninspected.
REASONS = {
    "authenticated": "authenticated as it is (IPsec AH): not an octet of it may be another",
    **NOT_INSPECTED,
    "stale": "the diverter stood still",
    "failed": "an error of the gateway; please report it",
    "interceptor_silent": "the interceptor does not answer",
    "interceptor_full": "as many sessions as limits.sessions",
    "encrypted": "encrypted after STARTTLS",
    "sasl_layer": "behind a security layer of SASL's",
    "in_doubt": "the dialogue could not be followed, and on_doubt or on_client_doubt passes it",
}


def show(arguments: argparse.Namespace) -> int:
    """The verb: `Exit.NOT_INSPECTING` unless mail is being inspected."""
    run_dir = RunDir(arguments.run_dir)
    page = read(run_dir, spool_of(run_dir.effective, arguments.config), arguments.config)
    print(json.dumps(page) if arguments.json else as_text(page))
    return Exit.DONE if inspecting(page) else Exit.NOT_INSPECTING


def spool_of(*files: Path) -> Path | None:
    """That of the first file that can be read, valid or not; None if none can."""
    for file in files:
        with suppress(ConfigErrors):
            if found := spool_in(file):
                return found
    return None


# What peers bring about costs them: a SYN that is dropped, or a 421.
PUT_OFF = {
    **DROPPED_SYNS,
    "client_shares_used_up": "a client with as many sessions as limits.client_percent leaves it (421)",
    "network_shares_used_up": "a client network with as many as limits.network_percent leaves it (421)",
    "timeouts": "who brought nothing, or too little, in its time (421)",
}


def read(run_dir: RunDir, spool: Path | None = None, file: Path | None = None) -> dict[str, Any]:
    """The whole page as JSON data. ``spool`` is where mail may wait that no running MTA tells of, ``file`` the
    configuration that was asked for; the running daemon knows its own."""
    room = Ledger(run_dir.ledger).room
    with here.inside(run_dir) as there:
        return {"namespace": room or None, "namespace_gone": bool(room) and not there, **_seen(run_dir, spool, file)}


def _seen(run_dir: RunDir, spool: Path | None, file: Path | None) -> dict[str, Any]:
    """From where the lanes are."""
    daemon = read_json(run_dir.status) if run_dir.holder("run") else None
    kinds = ("diverter", "interceptor", "mta", "resolver", "reader", "tracker")
    said = {name: (daemon or {}).get(name) or {} for name in kinds}
    diverter, interceptor, mta, resolver, _, tracker = said.values()
    kernel, live = firewall.counters(), firewall.live()
    queues = sum(name.partition("-")[0] == "diverter" for name in (daemon or {}).get("processes", {}))
    vlans = (daemon or {}).get("vlans", [])
    counts, mail = diverter.get("counts", {}), interceptor.get("counts", {})
    return {
        "time": time.time(),
        "up": bool(kernel),
        "running": daemon is not None,
        "ready": bool(daemon and daemon.get("ready")),
        "live": bool(live),
        "queues_open": [queue + 1 for queue in range(queues) if live and queue not in live],
        "ended": ended((daemon or {}).get("processes", {})),
        "each": (daemon or {}).get("each", {}),
        "since": (daemon or {}).get("started_at"),
        "processes": (daemon or {}).get("processes", {}),
        "restarts": (daemon or {}).get("restarts", {}),
        "lanes": _lanes((daemon or {}).get("ports", []), read_json(run_dir.labels) or {}),
        "vlans": vlans,
        "relays": relays.page(run_dir),
        "sessions": interceptor.get("sessions", 0),
        "picked_up": {
            name.removeprefix("picked_up."): n for name, n in counts.items() if name.startswith("picked_up.")
        },
        "not_inspected": _not_inspected(kernel, counts, mail),
        "put_off": {name: kernel.get(name, mail.get(name, 0)) for name in PUT_OFF},
        "dropped": _dropped(kernel, counts),
        "mail": mail,
        "mta": {name: mta.get(name) for name in ("sessions", "counts", "queue")} if mta else None,
        "waiting": None if mta or spool is None else waiting(spool),
        "tracking": tracker.get("index"),
        "queue": diverter.get("queue", {}),
        "kernel": kernel,
        "full": {name: kernel[name] for name in FULL if kernel.get(name)},
        "unknown_keywords": interceptor.get("unknown_keywords", {}),
        **rules_status.page(interceptor, mta),
        **tls_status.page(interceptor),
        "protected": resolver.get("protected", []),
        "change": halfmade.page(run_dir, rules=bool(kernel)),
        "waits_for_confirm": run_dir.pending.exists(),
        "instead": (instead := read_json(run_dir.instead)),
        "drift": None if instead else _drift(run_dir, daemon, file),
        "watch": (daemon or {}).get("watch", {}),
        "unsaid": sum(each.get("unsaid", 0) for each in (daemon or {}, *said.values())),
        "unguarded": _unguarded(daemon or {}, kinds),
    }


def _drift(run_dir: RunDir, daemon: dict[str, Any] | None, file: Path | None) -> dict[str, Any] | None:
    """What the file says and is not in force; None if all of it is."""
    path = Path(daemon["config"]) if daemon else file
    if path is None:
        return None
    found = {"run": inforce.of_run(run_dir, path), "up": inforce.of_up(run_dir, path)}
    return {"file": str(path), **found} if any(found.values()) else None


def _unguarded(daemon: dict[str, Any], kinds: Iterable[str]) -> dict[str, list[str]]:
    """The walls that a process lacks."""
    said = {
        "supervisor": daemon.get("unguarded"),
        **{kind: (daemon.get(kind) or {}).get("unguarded") for kind in kinds},
    }
    return {kind: walls for kind, walls in said.items() if walls}


def inspecting(page: dict[str, Any]) -> bool:
    """Whether mail is being inspected: not, where a part of it is known not to be."""
    bypassed = bool(page["relays"]) and all(relay["state"] == "bypassed" for relay in page["relays"])
    whole = not bypassed and not watching.lost(page["watch"]) and not page["watch"].get("gone")
    return page["up"] and page["running"] and page["ready"] and page["live"] and whole and not _missing(page)


def _missing(page: dict[str, Any]) -> list[str]:
    """Of the processes that see mail; its last heart-beat may not be over yet."""
    return [kind for kind in page["ended"] if kind not in UNSEEING]


def _lanes(ports: list[str], labels: dict[str, str]) -> list[dict[str, Any]]:
    lane = LANE if glance.index_of(LANE) else None
    found = {port: glance.link(port) for port in ports}
    return [
        {
            "port": port,
            "label": labels.get(port),
            "present": link is not None,
            "up": link.up if link else None,
            "bridge": (link.master or None) if link else None,
            "lane": lane,
        }
        for port, link in found.items()
    ]


def _not_inspected(kernel: dict[str, int], counts: dict[str, int], mail: dict[str, int]) -> dict[str, int]:
    """Connections by reason; those of a chosen `pass` are not among them."""
    found = {name: kernel.get(name, 0) for name in NOT_INSPECTED}
    prefix = "not_inspected."
    found |= {name.removeprefix(prefix): n for name, n in counts.items() if name.startswith(prefix)}
    for name, counter in (("encrypted", "tls_started"), ("sasl_layer", "sasl_layers"), ("in_doubt", "unread")):
        found[name] = mail.get(counter, 0)
    return found


UNREADABLE = {"malformed": "a SYN that cannot be read, or from an address that no host has"}


def _dropped(kernel: dict[str, int], counts: dict[str, int]) -> dict[str, int]:
    """Frames that no host makes, by reason."""
    return {**{name: kernel.get(name, 0) for name in DROPPED}, "malformed": counts.get("dropped.malformed", 0)}


def as_text(page: dict[str, Any]) -> str:
    """For people: what matters first."""
    console = Console(width=110, force_terminal=False, color_system=None)
    with console.capture() as captured:
        console.print(headline(page), highlight=False)
        for warning in _warnings(page):
            console.print(f"! {warning}", highlight=False)
        if page["namespace"] and not page["namespace_gone"]:
            console.print(f"  the wire is in a network namespace: ip netns exec {page['namespace']} …", highlight=False)
        for table in _tables(page):
            console.print(table)
    return captured.get().rstrip()


def headline(page: dict[str, Any]) -> str:
    """Its first line."""
    if page["namespace_gone"]:
        return f"down: the network namespace {page['namespace']} has gone, and the wire with it (tollbridge up)"
    if (not_whole := halfmade.headline(page["change"])) and not page["live"]:
        return not_whole
    if not page["up"]:
        return "down: no bridge of Tollbridge's (tollbridge up)"
    if not page["running"]:
        return "up, not running: mail is not inspected (tollbridge run)"
    state = "inspecting" if inspecting(page) else _why_not(page)
    if page["full"]:
        state += f"; A TABLE WAS FULL, {sum(page['full'].values())} times"
    vlans = f", VLAN {', '.join(map(str, page['vlans']))} too" if page["vlans"] else ""
    return f"{state}{vlans}; {page['sessions']} sessions, since {time.strftime('%F %T', time.localtime(page['since']))}"


def _why_not(page: dict[str, Any]) -> str:
    if gone := page["watch"].get("gone"):
        return f"running, but NO BRIDGE: {', '.join(gone)} not there"
    if not page["live"] or not page["ready"]:
        return "running, but the switch is open: mail is not inspected"
    if missing := _missing(page):
        return f"running, but not {' nor '.join(missing)}: mail is not inspected"
    if lost := watching.lost(page["watch"]):
        return f"inspecting IN PART, but not {' nor '.join(lost)}"
    return "running, but out of the path: mail is not inspected"


def _warnings(page: dict[str, Any]) -> list[str]:
    found = _not_in_force(page["instead"]) if page["instead"] else []
    if page["live"] and (not_whole := halfmade.headline(page["change"])):
        found.append(not_whole)
    found += [f"{FULL[name]} ({n} times)" for name, n in page["full"].items()]
    found += _edited(page["drift"]) if page["drift"] else []
    found += [f"{lane['port']} is missing or down" for lane in page["lanes"] if not (lane["present"] and lane["up"])]
    found += watching.warnings(page["watch"])
    found += [f"diverter-{number} has no heart-beat: its part is not inspected" for number in page["queues_open"]]
    found += [_out_of_order(relay) for relay in page["relays"] if relay["state"] != "armed"]
    found += [_unresolved(name) for name in page["protected"] if name["error"]]
    found += [f"{n} SYNs lost in the queue ({name})" for name, n in page["queue"].items() if n]
    if silent := page["mail"].get("mta_silent"):
        found.append(f"{silent} connections were not the MTA's: it did not answer")
    if (page["mta"] or {}).get("queue", {}).get("dead"):
        found.append("dead mail in the queue (tollbridge queue list --state dead)")
    found += [f"{name} was started again {n} times" for name, n in page["restarts"].items() if n > 0]
    found += _undelivered(page["waiting"] or {})
    found += rules_status.warnings(page)
    found += rules_status.resting(page["filters"])
    found += _unlogged(page) + tracking_status.warnings(page)
    found += [f"a wall of the {kind} is missing: {'; '.join(walls)}" for kind, walls in page["unguarded"].items()]
    if page["waits_for_confirm"]:
        found.append("waits for `tollbridge confirm`, else it is undone")
    return found


def _edited(drift: dict[str, Any]) -> list[str]:
    """Each key once; whatever `up` is needed for `run` is too, if it runs."""
    done = "tollbridge up, then restart `tollbridge run`" if drift["up"] else "restart `tollbridge run`"
    remedy = done if drift["run"] else "tollbridge up"
    said = f"{drift['file']} differs from what is in force, until: {remedy}"
    return [said, *(f"  {line}" for line in dict.fromkeys([*drift["run"], *drift["up"]]))]


def _out_of_order(relay: dict[str, Any]) -> str:
    return f"relay {'-'.join(relay['ports'])} {_MEANS[relay['state']]}: {relay['why']}"


def _unlogged(page: dict[str, Any]) -> list[str]:
    mta = (page["mta"] or {}).get("counts", {})
    counts = {name: page["mail"].get(name, 0) + mta.get(name, 0) for name in _UNLOGGED} | {"unsaid": page["unsaid"]}
    return [f"{n} {why}" for name, why in {**_UNLOGGED, "unsaid": _UNSAID}.items() if (n := counts[name])]


_UNLOGGED = {
    "log_lines_lost": "lines of the mail log could not be written; is its disk full?",
    "log_room_kept": "lines of what came to nothing are not in the mail log: it has log.mail_bytes, or its disk less "
    "than log.reserve_bytes free",
}


_UNSAID = "lines of the gateway's own log were lost, for nobody reads them; is the journal well?"


def _undelivered(queue: dict[str, Any]) -> list[str]:
    """Nobody delivers it."""
    if "error" in queue:
        return [f"mail may wait in the queue: {queue['error']}"]
    if not queue.get("messages"):
        return []
    number, hours = queue["messages"], queue["oldest_s"] / 3600
    what = f"{number} message{'s wait' if number > 1 else ' waits'} in {queue['spool']}"
    return [f"{what}, the oldest for {hours:.1f} h, and no MTA runs to deliver (tollbridge queue list)"]


_MEANS = {
    "bypassed": "is bypassed, the box is out of the path",
    "apart": "keeps its ports apart, and joins them for no failure of the box",
    "failed": "cannot be told",
    "unknown": "does not say how it stands",
}


def _not_in_force(instead: dict[str, Any]) -> list[str]:
    when = time.strftime("%F %T", time.localtime(instead["kept_at"]))
    said = f"{instead['config']} IS NOT IN FORCE: in its place is {instead['in_force']}, the last good one, of {when}"
    return [said, *instead["why"].splitlines()]


def _unresolved(name: dict[str, Any]) -> str:
    kept = ", ".join(name["addresses"])
    return f"{name['name']}: {name['error']}; " + (f"kept: {kept}" if kept else "no address known yet")


def _tables(page: dict[str, Any]) -> list[Table]:
    lanes = Table("port", "link", "bridge", "mail lane")
    for lane in page["lanes"]:
        port = f"{lane['port']} ({lane['label']})" if lane["label"] else lane["port"]
        lanes.add_row(port, "up" if lane["up"] else "down", lane["bridge"] or "none", lane["lane"] or "none")
    relayed = Table("bypass relay", "kind", "state")
    for relay in page["relays"]:
        relayed.add_row("-".join(relay["ports"]), relay["kind"], relay["state"])
    picked = Table("connections picked up", "action", "number")
    for name, number in sorted(page["picked_up"].items()):
        direction, _, action = name.partition(".")
        picked.add_row(direction, action, str(number))
    missed = Table("not inspected because", "number")
    for name, number in page["not_inspected"].items():
        if number:
            missed.add_row(REASONS.get(name, name), str(number))
    put_off = Table("put off, for it is of their own making", "number")
    for name, number in page["put_off"].items():
        if number:
            put_off.add_row(PUT_OFF[name], str(number))
    odd = Table("dropped, for no host makes such", "number")
    for name, number in page["dropped"].items():
        if number:
            odd.add_row({**DROPPED, **UNREADABLE}[name], str(number))
    mail = Table("mail", "number")
    for name, number in page["mail"].items():
        if number or name in ("sessions", "messages"):
            mail.add_row(name.replace("_", " "), str(number))
    healed = Table("put right at", "what others had changed")
    for when, what in watching.healings(page["watch"]):
        healed.add_row(when, what)
    unknown = Table("extension that nobody here knows", "sessions")
    for name, number in sorted(page["unknown_keywords"].items()):
        unknown.add_row(name, str(number))
    workers = _workers_table(page["each"].get("interceptor", {}))
    return [
        table
        for table in (
            lanes,
            healed,
            relayed,
            picked,
            missed,
            put_off,
            odd,
            mail,
            rules_status.table(page["rules"]),
            rules_status.filter_table(page["filters"]),
            tls_status.table(page),
            unknown,
            workers,
            _mta_table(page["mta"]),
        )
        if table.row_count
    ]


def _workers_table(reports: dict[str, Any]) -> Table:
    """One alone has none."""
    table = Table("process", "sessions open", "sessions", "messages")
    for name, report in reports.items():
        counts = report.get("counts", {})
        table.add_row(name, *(str(n) for n in (report.get("sessions", 0), *map(counts.get, ("sessions", "messages")))))
    return table


def _mta_table(mta: dict[str, Any] | None) -> Table:
    table = Table("MTA", "number")
    if mta is not None:
        table.add_row("sessions open", str(mta["sessions"]))
        for name in ("counts", "queue"):
            for key, number in mta[name].items():
                if number or key == "messages":
                    table.add_row(f"{'queue: ' if name == 'queue' else ''}{key.replace('_', ' ')}", str(number))
    return table
