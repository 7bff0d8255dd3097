"""The gateway of a lab: a host with ports, which is a bare bridge, or the product between `Gateway.start` and `stop`.

Knows the product by its command line and its files only.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeAlias

from smtp_intercept.app.exits import Exit
from smtp_intercept.app.lab import namespaces
from smtp_intercept.app.lab.host import AT_LAST_S, POLL_S, SOON_S, Host, LabError, Process, Result, json_lines, patient

PRODUCT = "smtp_intercept.app"
BARE = "bare0"
READY_S = SOON_S
STOP_S = AT_LAST_S  # longer than the product's own drain
Condition: TypeAlias = Callable[[dict[str, Any]], bool]


def _any(record: dict[str, Any]) -> bool:
    return True


def toml(config: Mapping[str, Any]) -> str:
    """``{"bridge": {...}, "protected": [{...}]}`` as TOML: tables and arrays of tables on top, inline below."""
    return "\n".join(part for section, value in config.items() for part in _section(section, value)) + "\n"


def _section(name: str, value: Any) -> list[str]:
    match value:
        case Mapping():
            return [f"[{name}]", *_entries(value)]
        case [Mapping(), *_]:
            return [line for table in value for line in (f"[[{name}]]", *_entries(table))]
        case _:
            return [f"{_key(name)} = {_inline(value)}"]


def _entries(table: Mapping[str, Any]) -> list[str]:
    return [f"{_key(key)} = {_inline(item)}" for key, item in table.items()]


def _inline(value: Any) -> str:
    match value:
        case Mapping():
            return "{ " + ", ".join(f"{_key(key)} = {_inline(item)}" for key, item in value.items()) + " }"
        case list() | tuple():
            return "[" + ", ".join(_inline(item) for item in value) + "]"
        case _:
            return json.dumps(value)  # TOML's basic strings, numbers and booleans are JSON's


def _key(name: str) -> str:
    return name if name.replace("_", "").replace("-", "").isalnum() and name.isascii() else json.dumps(name)


@dataclass
class Gateway(Host):
    """The box. ``ports`` are its interfaces, one on each wire; ``product`` the module that is its command line."""

    ports: tuple[str, ...] = ()
    product: str = PRODUCT
    run_process: Process | None = field(default=None)
    _room: Host | None = field(default=None)

    @property
    def namespace(self) -> str:
        return self.enter[-1]

    @property
    def config(self) -> Path:
        """The configuration file, which `configure` writes."""
        return self.directory / "tollbridge.toml"

    @property
    def run_dir(self) -> Path:
        return self.directory / "run"

    @property
    def state_dir(self) -> Path:
        return self.directory / "state"

    @property
    def log(self) -> Path:
        return self.directory / "mail.log"

    @property
    def room(self) -> Host:
        """Where the wire is: a host to run programs on and to look into. The gateway itself until `up` has made it a
        network namespace of its own, or where it is to have none."""
        name = self.room_name
        if not name:
            return self
        if self._room is None or self._room.enter[-1] != name:
            directory = self.directory / "room"
            directory.mkdir(exist_ok=True)
            self._room = Host(self.name, (*self.enter[:-1], name), directory, interpreter=self.interpreter)
        return self._room

    @property
    def room_name(self) -> str:
        """ "" if there is none."""
        return namespaces.room_of(self.run_dir)

    def end(self) -> None:
        """Programs in the room too."""
        if self._room is not None:
            self._room.end()
        super().end()

    def bridge_bare(self) -> None:
        """Make a plain bridge of the ports, without the product."""
        namespaces.add_switch(self.namespace, BARE, self.ports)
        namespaces.unfilter_bridges(self.namespace)
        namespaces.wait_forwarding(self.namespace, "p", len(self.ports))

    def unbridge(self) -> None:
        """Undo `bridge_bare`; the ports go down."""
        namespaces.remove_link(self.namespace, BARE)
        for port in self.ports:
            namespaces.set_link(self.namespace, port, state="down")

    def identity(self) -> tuple[frozenset[str], frozenset[str]]:
        """All MACs and all IP addresses that the box has now, in any role."""
        places = dict.fromkeys((self.namespace, self.room_name or self.namespace))
        each = [namespaces.own_addresses(place) for place in places]
        return frozenset().union(*(macs for macs, _ in each)), frozenset().union(*(ips for _, ips in each))

    def configure(self, config: Mapping[str, Any] | str = "") -> None:
        """Write the configuration: text as it is, or tables over the defaults (the lab's ports and mail log)."""
        if isinstance(config, str) and config:
            self.config.write_text(config)
            return
        tables: dict[str, Any] = {"bridge": {"ports": list(self.ports)}, "log": {"mail": str(self.log)}}
        tables["interceptor"] = {"workers": 1}  # the same on every machine
        for section, value in dict(config or {}).items():
            tables[section] = {**tables[section], **value} if section in tables else value
        self.config.write_text(toml(tables))

    def command(self, *verb: str) -> list[str]:
        """The product's command line for this lab."""
        where = ["--config", str(self.config), "--run-dir", str(self.run_dir), "--state-dir", str(self.state_dir)]
        return [self.interpreter, "-m", self.product, *where, *verb]

    def tollbridge(self, *verb: str, timeout_s: float = AT_LAST_S, check: bool = True) -> Result:
        """Run one verb to its end, e.g. ``tollbridge("up")``. That of ``status`` is an answer, no failure."""
        result = self.run(self.command(*verb), timeout_s=timeout_s, check=False)
        answered = verb[0] == "status" and result.returncode == Exit.NOT_INSPECTING
        return result.check() if check and not answered else result

    def start(self, *, ready_s: float = READY_S) -> Process:
        """``up``, then ``run`` until it says that it is ready."""
        self.tollbridge("up")
        return self.spawn_daemon(ready_s=ready_s)

    def spawn_daemon(self, *options: str, ready_s: float = READY_S) -> Process:
        """Only ``run``, with these options, until ready; `LabError` with its output if it ends first or is late."""
        began_at = time.time()
        process = self.run_process = self.spawn(self.command("run", *options))
        deadline_at = time.monotonic() + patient(ready_s)
        while not self._ready_since(began_at):
            if not process.running or time.monotonic() > deadline_at:
                raise LabError(f"tollbridge run is not ready: {process.end().stdout}{process.stderr}")
            time.sleep(POLL_S)
        return process

    @contextmanager
    def running(self, config: Mapping[str, Any] | str = "") -> Iterator[Gateway]:
        """The product at work with this configuration, while the context lasts."""
        self.configure(config)
        try:
            self.start()
            yield self
        finally:
            self.stop()

    def _ready_since(self, began_at: float) -> bool:
        try:
            fresh = (self.run_dir / "status.json").stat().st_mtime >= began_at
        except OSError:
            return False
        return fresh and bool(self.state().get("ready"))

    def stop(self, *, down: bool = True) -> None:
        """End ``run`` gracefully and take the lanes away. Safe to repeat."""
        if self.run_process and self.run_process in self.processes:
            self.run_process.end(STOP_S)
            self.processes.remove(self.run_process)
        self.run_process = None
        if down:
            self.tollbridge("down")

    def state(self) -> dict[str, Any]:
        """The status file of the running daemon, as it stands; empty if there is none."""
        try:
            state: dict[str, Any] = json.loads((self.run_dir / "status.json").read_text())
        except (OSError, ValueError):
            return {}
        return state

    def pids(self) -> dict[str, int]:
        """``{"diverter": pid, "interceptor": pid, "supervisor": pid}`` of the running daemon."""
        return dict(self.state().get("processes", {}))

    def status(self) -> Any:
        """``tollbridge status --json``."""
        return self.tollbridge("status", "--json").json()

    def read_log(self) -> str:
        """The mail log as it stands; empty if there is none yet."""
        try:
            return self.log.read_text()
        except FileNotFoundError:
            return ""

    def mail_log(self, kind: str = "") -> list[dict[str, Any]]:
        """The records of the mail log so far; ``kind`` "message" or "session" chooses. A line being written waits."""
        records = json_lines(self.read_log())
        return [entry for entry in records if not kind or entry["type"] == kind]

    def wait_log(
        self, *, timeout_s: float = SOON_S, at_least: int = 1, where: Condition = _any, **wanted: Any
    ) -> list[dict[str, Any]]:
        """The records whose fields equal ``wanted`` and for which ``where`` holds, as soon as there are so many; what
        there is after the time-out. Of a session it is written when both its connections are over, and so after its
        client has seen the end."""
        deadline_at = time.monotonic() + patient(timeout_s)
        while True:
            found = [each for each in self.mail_log() if wanted.items() <= _hashable(each).items() and where(each)]
            if len(found) >= at_least or time.monotonic() > deadline_at:
                return found
            time.sleep(POLL_S)

    def wait_sessions(self, before: int, number: int = 1, timeout_s: float = SOON_S) -> list[dict[str, Any]]:
        """The sessions of the mail log but for the first ``before``, as soon as there are so many."""
        return self.wait_log(type="session", at_least=before + number, timeout_s=timeout_s)[before:]


def _hashable(entry: Mapping[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in entry.items() if not isinstance(value, dict | list)}
