"""What the gateway counts, under the names that Prometheus has for such things: the daemon's page in, samples out.

Pure. Every name has its unit, every label a bounded set of values: words of the gateway's own and the names of rules.
No address, domain or name of a person is one.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from enum import Enum
from typing import Any

PREFIX = "tollbridge_"
MOST_VALUES = 100  # of one label; whoever reads them keeps a series for each
MOST_LETTERS = 64  # as many as the name of a rule has


class Sort(Enum):
    """Of a metric: what only grows until its process starts anew, and what is as it is now."""

    COUNTER = "counter"
    GAUGE = "gauge"


@dataclass(frozen=True, slots=True)
class Metric:
    """``samples`` are (the value of ``label``, number); without a label there is one, of "". ``name`` is without the
    prefix, and a counter's without ``_total``."""

    name: str
    sort: Sort
    text: str
    samples: tuple[tuple[str, float], ...]
    label: str = ""


Page = Mapping[str, Any]


def page(status: Page, kernel: Mapping[str, int], live: bool, words: Mapping[str, Iterable[str]]) -> dict[str, Any]:
    """What is handed to the process that shows it: of the daemon's own page the numbers, and the kernel's counters by
    what they are counted for (``words``: metric → the kernel's names)."""
    kinds = ("diverter", "interceptor", "mta", "tracker")
    reports = {kind: _numbers(status.get(kind)) for kind in kinds if status.get(kind)}
    counted = {name: {each: kernel[each] for each in names if each in kernel} for name, names in words.items()}
    lists = [
        found for kind in ("interceptor", "mta") if (found := (status.get(kind) or {}).get("list_errors")) is not None
    ]
    failing = sum(bool(name.get("error")) for name in (status.get("resolver") or {}).get("protected", []))
    return {
        "ready": bool(status.get("ready")) and live,
        "started_at": status.get("started_at", 0.0),
        "processes": [*status.get("processes", {})],
        "restarts": dict(status.get("restarts", {})),
        "failing_names": failing,
        "lost_canaries": len(status.get("watch", {}).get("lost", [])),
        **({"failing_lists": len({error for each in lists for error in each})} if lists else {}),
        "kernel": counted,
        **reports,
    }


def _numbers(report: Any) -> dict[str, Any]:
    """Of a process's report, tables of numbers too."""
    kept: dict[str, Any] = {}
    for key, value in report.items() if isinstance(report, Mapping) else ():
        if isinstance(value, Mapping):
            kept[key] = _numbers(value)
        elif isinstance(value, int | float) and key != "pid":
            kept[key] = value
    return kept


def metrics(shown: Page, version: str) -> Iterator[Metric]:
    """All that have a value; ``shown`` is what `page` makes."""
    yield _gauge("build_info", "The version that runs.", {version: 1}, "version")
    yield _gauge(
        "inspecting", "Whether mail is inspected: all processes work, the switch is closed.", shown.get("ready")
    )
    yield _gauge("start_time_seconds", "When the daemon started, in seconds of the epoch.", shown.get("started_at"))
    yield from _processes(shown)
    yield from _connections(shown)
    yield from _mail(shown)
    yield from _mta(shown)
    yield from _rules(shown)
    yield from _log(shown)
    yield from _index(shown)


def _processes(shown: Page) -> Iterator[Metric]:
    restarts = _table(shown, "restarts")
    up = {name: name in shown.get("processes", ()) for name in restarts}
    yield _gauge("process_up", "Whether the process lives.", up, "process")
    again = {name: max(0, number) for name, number in restarts.items()}
    yield _counter("process_restarts", "How often it was started again.", again, "process")
    yield _gauge("canaries_lost", "Ways through the box on which a test frame is lost.", shown.get("lost_canaries"))
    yield _gauge(
        "protected_names_failing", "Names of protected servers that cannot be looked up.", shown.get("failing_names")
    )


def _connections(shown: Page) -> Iterator[Metric]:
    counts, kernel = _table(shown, "diverter", "counts"), _table(shown, "kernel")
    mail = _table(shown, "interceptor", "counts")
    picked = _below(counts, "picked_up.")
    yield _counter("connections", "Connections to a mail port, by direction and what was done.", picked, "action")
    missed = {**_table(kernel, "not_inspected"), **_below(counts, "not_inspected.")}
    missed |= {name: mail[key] for name, key in _UNREAD.items() if key in mail}
    yield _counter("not_inspected", "Connections that crossed without being read, by reason.", missed, "reason")
    put_off = {**_table(kernel, "put_off"), **{key: mail[key] for key in _PUT_OFF if key in mail}}
    yield _counter(
        "put_off", "Connections that were refused for what their own side did, by reason.", put_off, "reason"
    )
    yield _counter("frames_dropped", "Frames that no host makes, by reason.", _table(kernel, "dropped"), "reason")
    yield _counter("table_full", "How often a table of the kernel had no place.", _table(kernel, "full"), "table")
    yield _counter(
        "queue_lost", "SYNs that were lost before they were judged.", _table(shown, "diverter", "queue"), "reason"
    )


_UNREAD = {"encrypted": "tls_started", "sasl_layer": "sasl_layers", "in_doubt": "unread"}
_PUT_OFF = ("client_shares_used_up", "network_shares_used_up", "timeouts")


def _mail(shown: Page) -> Iterator[Metric]:
    counts = _table(shown, "interceptor", "counts")
    yield _gauge("sessions_open", "Sessions under way.", _table(shown, "interceptor").get("sessions"))
    yield _counter("sessions", "Sessions that were followed.", counts.get("sessions"))
    yield _counter("messages", "Messages that were seen.", counts.get("messages"))
    ends = {key: counts[key] for key in _ENDS if key in counts}
    yield _counter("sessions_ended", "Sessions that did not end as both sides wanted, by how.", ends, "how")
    octets = {side: counts[f"bytes_from_{side}"] for side in ("client", "server") if f"bytes_from_{side}" in counts}
    yield _counter("session_bytes", "Octets in sessions, by who sent them.", octets, "sender")
    yield _counter("dial_failures", "Servers that did not answer when they were dialled.", counts.get("dial_failures"))
    yield _counter("errors", "Errors of the gateway's own.", counts.get("errors"))


_ENDS = ("aborted", "idle", "timeouts", "refused", "deferred", "client_doubts", "server_doubts", "foreign")


def _mta(shown: Page) -> Iterator[Metric]:
    mta = _table(shown, "mta")
    if not mta:
        return
    yield _gauge("mta_sessions_open", "Sessions with the box's own MTA.", mta.get("sessions"))
    counts = {key: number for key, number in _table(mta, "counts").items() if not key.startswith("log_")}
    yield _counter("mta_events", "What the MTA counts, by its own words.", counts, "event")
    queue = _table(mta, "queue")
    waiting = {key: queue[key] for key in ("messages", "held", "dead") if key in queue}
    yield _gauge("queue_messages", "Messages in the queue: all, held, dead.", waiting, "state")
    yield _gauge("queue_bytes", "Octets of content in the queue.", queue.get("content_bytes"))
    yield _gauge("queue_oldest_seconds", "The age of the oldest message in the queue.", queue.get("oldest_s"))


def _rules(shown: Page) -> Iterator[Metric]:
    """A label is the name of a rule, as the administrator wrote it."""
    for what, (name, text) in _RULED.items():
        tables = [_table(shown, kind, what) for kind in ("interceptor", "mta")]
        if any(tables):
            hits = {rule: sum(table.get(rule, 0) for table in tables) for table in tables for rule in table}
            yield _counter(name, text, hits, "rule")
    yield _gauge("rule_lists_failing", "Lists of rules that are used as they were.", shown.get("failing_lists"))


_RULED = {
    "rules_counts": ("rule_hits", "Messages, and sessions before any, to which a rule did something."),
    "would_counts": ("rule_observed_hits", "The same of rules that are only observed: what they would have done."),
}


def _log(shown: Page) -> Iterator[Metric]:
    tables = [_table(shown, kind, "counts") for kind in ("interceptor", "mta")]
    lost = {key.removeprefix("log_"): sum(table.get(key, 0) for table in tables) for key in _LOST}
    yield _counter("log_lines_missing", "Lines that are not in the mail log, by reason.", lost, "reason")


_LOST = ("log_lines_lost", "log_suppressed", "log_room_kept")


def _index(shown: Page) -> Iterator[Metric]:
    index = _table(shown, "tracker", "index")
    if not index:
        return
    yield _counter("index_records", "Records that were added to the tracking index.", index.get("records"))
    yield _gauge("index_bytes", "Octets of the tracking index.", index.get("size_bytes"))
    yield _gauge(
        "index_behind_bytes", "Octets of the mail log that are not in the index yet.", index.get("behind_bytes")
    )


def _gauge(name: str, text: str, value: Any, label: str = "") -> Metric:
    return Metric(name, Sort.GAUGE, text, _samples(value, label), label)


def _counter(name: str, text: str, value: Any, label: str = "") -> Metric:
    return Metric(name, Sort.COUNTER, text, _samples(value, label), label)


def _samples(value: Any, label: str) -> tuple[tuple[str, float], ...]:
    """Of none there are none: what is not known is not 0. A value stands once: of a series that comes twice Prometheus
    takes nothing of the whole page."""
    given = value if label else {"": value}
    found = dict[str, float]()
    for key, number in given.items() if isinstance(given, Mapping) else ():
        clipped = str(key)[:MOST_LETTERS].encode(errors="replace").decode()  # one that is no UTF-8 costs the page
        if isinstance(number, int | float) and (clipped in found or len(found) < MOST_VALUES):
            found[clipped] = found.get(clipped, 0.0) + number
    return tuple(found.items())


def _table(shown: Page, *keys: str) -> Mapping[str, Any]:
    found: Any = shown
    for key in keys:
        found = found.get(key) if isinstance(found, Mapping) else None
    return found if isinstance(found, Mapping) else {}


def _below(counts: Mapping[str, Any], prefix: str) -> dict[str, Any]:
    return {key.removeprefix(prefix): number for key, number in counts.items() if key.startswith(prefix)}
