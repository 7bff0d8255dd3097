"""The gateway in a lab, set up one way after another and loaded with mail: what `tollbridge hw tune` measures on.

Refuses to count what the gateway has not inspected: mail that is bridged past it would make it look fast.
"""

from __future__ import annotations

import os
import time
from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any

from pyroute2.netlink.exceptions import NetlinkError

from hwprofiles.nic import Nics
from smtp_intercept.app.lab import namespaces
from smtp_intercept.app.lab.host import LabError
from smtp_intercept.app.lab.network import Lab
from smtp_intercept.app.lab.proposal import Value

SERVER = "192.0.2.20"
_MANY = 1_000_000
_CONFIG: Mapping[str, Any] = {
    "bridge": {"profile": "generic", "namespace": "host"},  # which sets nothing of a port but LRO
    "pickup": {"incoming": "intercept"},
    "protected": [{"domain": "example.com", "servers": [SERVER]}],
    # A few clients open them all here.
    "limits": {"new_connections_per_s": _MANY, "new_connections_per_s_per_network": _MANY, "drain_s": 0},
}
_COUNTED_S = 15.0  # the product's own count is a second old, and more on a busy machine
_THROUGH_S = 15.0  # a port that was set anew negotiates
PRODUCT = ("interceptor.workers", "diverter.queues")


@dataclass(frozen=True, slots=True)
class Load:
    """``unit`` of its values: the less the better."""

    unit: str
    size_bytes: int
    keep: bool
    parallel: int  # of each process


LOADS: Mapping[str, Load] = MappingProxyType(
    {
        "new": Load("ms, a message of 4 KB, one each", 4_096, keep=False, parallel=20),
        "big": Load("ms, a message of 1 MB, reused", 1_000_000, keep=True, parallel=10),
    }
)


class RefusedError(Exception):
    """The hardware does not take a setting; the message names it."""


class Rig:
    """``lab`` stands. ``base`` is what is changed from, ``present`` what the ports have now; ``ports`` are those that a
    setting is made on, with the namespaces where they are."""

    def __init__(
        self, lab: Lab, base: Mapping[str, Value], present: Mapping[str, Value], ports: Mapping[str, str]
    ) -> None:
        self._lab, self._ports = lab, ports
        self._base, self._now = dict(base), dict(present)
        self._processes = max(1, min(4, (os.cpu_count() or 1) // 2))
        server = lab.host("server")
        sink = server.spawn(server.program("sink", SERVER, "--processes", str(self._processes)))
        sink.wait_for("ready")

    def set(self, settings: Mapping[str, Value]) -> None:
        """The base with these changes; what holds already is left alone. `RefusedError`, `LabError`."""
        wanted = {**self._base, **settings}
        for key, value in wanted.items():
            if key not in PRODUCT and self._now.get(key) != value:
                self._now[key] = value  # even if it is refused: one of the ports may have taken it
                self._set_ports(key, value)
        if any(self._now.get(key) != wanted[key] for key in PRODUCT):
            self._restart({key: wanted[key] for key in PRODUCT})
        self._now = wanted
        self._wait_through()

    def _set_ports(self, key: str, value: Value) -> None:
        text = {True: "on", False: "off"}[value] if isinstance(value, bool) else str(value)
        for port, where in self._ports.items():
            try:
                namespaces.inside(where, lambda port=port: _set(port, key, text))  # type: ignore[misc]
            except (OSError, NetlinkError) as error:
                raise RefusedError(f"{port}: {key} = {text}: refused: {error}") from None

    def _restart(self, settings: Mapping[str, Value]) -> None:
        gateway = self._lab.gateway
        gateway.stop(down=False)
        tables: dict[str, Any] = dict(_CONFIG)
        for key, value in settings.items():
            table, _, name = key.partition(".")
            tables[table] = {name: value}
        gateway.configure(tables)
        gateway.start()

    def _wait_through(self) -> None:
        """Until a message gets through, inspected."""
        deadline_at = time.monotonic() + _THROUGH_S
        while not self._send(LOADS["new"], 0.2, 1)["messages"]:
            if time.monotonic() > deadline_at:
                raise LabError(f"no mail gets through within {_THROUGH_S:.0f} s")

    def measure(self, load: Load, seconds: float) -> float:
        """Milliseconds a message."""
        time.sleep(1.1)  # what was sent before is counted by now
        before = self._taken()
        sent = self._send(load, seconds, load.parallel)
        if sent["errors"] or not sent["messages"]:
            raise LabError(f"{sent['errors']} errors in {sent['messages']} messages: such a figure says nothing")
        deadline_at = time.monotonic() + _COUNTED_S
        while (taken := self._taken() - before) < sent["connections"] - self._processes * load.parallel:
            if time.monotonic() > deadline_at:
                raise LabError(f"the gateway inspected {taken} of {sent['connections']} connections")
            time.sleep(0.1)
        return float(sent["took_s"] / sent["messages"] * 1000)

    def _taken(self) -> int:
        return int(self._lab.gateway.state().get("interceptor", {}).get("counts", {}).get("sessions", 0))

    def _send(self, load: Load, seconds: float, parallel: int) -> dict[str, Any]:
        client = self._lab.host("client")
        words = client.program("load", SERVER, "--seconds", str(seconds), "--size", str(load.size_bytes))
        words += ["--parallel", str(parallel), "--processes", str(self._processes), *(["--keep"] if load.keep else [])]
        for source in client.of_version(4):
            words += ["--from", source]
        sent: dict[str, Any] = client.run(words, timeout_s=seconds + 30).json()
        return sent


def _set(port: str, key: str, text: str) -> None:
    with Nics() as nics:
        nics.set(port, key, text)
