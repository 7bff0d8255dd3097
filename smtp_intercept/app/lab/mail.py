"""Mail in the lab, seen from the test: start a server and read its record; send and read how it went.

Only starts `mailserver` and `mailclient`; knows nothing of the gateway.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from smtp_intercept.app.lab.host import AT_LAST_S, POLL_S, SOON_S, Host, LabError, Process, json_lines, patient

RECIPIENT = "user@example.com"


def options(**settings: Any) -> list[str]:
    """``per_connection=2, to=["a", "b"], starttls=True`` as a command line; None and False are left out."""
    words: list[str] = []
    for name, value in settings.items():
        flag = "--" + name.replace("_", "-")
        match value:
            case None | False:
                continue
            case True:
                words.append(flag)
            case list() | tuple():
                words += [word for item in value for word in (flag, str(item))]
            case _:
                words += [flag, str(value)]
    return words


@dataclass(frozen=True, slots=True)
class MailServer:
    """A mail server that runs on a host."""

    host: Host
    process: Process

    @classmethod
    def start(cls, host: Host, *addresses: str, wait: bool = True, **settings: Any) -> MailServer:
        """Serve on the addresses (none: all of the host's); ``settings`` are `mailserver`'s options."""
        bound = addresses or tuple(str(address.ip) for address in host.addresses)
        process = host.spawn(host.program("mailserver", *options(**settings), *bound))
        server = cls(host, process)
        if wait:
            server.wait_ready()
        return server

    def wait_ready(self) -> None:
        """Return when all addresses are bound."""
        self.process.wait_for('"ready"')

    def record(self, kind: str) -> list[dict[str, Any]]:
        """All "message" or "session" lines so far. A message's line is there before its sender hears 250."""
        return [line for line in json_lines(self.process.stdout) if line["type"] == kind]

    def messages(self, **wanted: Any) -> list[dict[str, Any]]:
        """The messages taken so far whose fields equal ``wanted``, e.g. ``sender="a@example.net"``."""
        return [line for line in self.record("message") if all(line[name] == value for name, value in wanted.items())]

    def sessions(self, at_least: int = 0, timeout_s: float = SOON_S) -> list[dict[str, Any]]:
        """The connections that have ended; waits until there are enough of them, else `LabError`."""
        deadline_at = time.monotonic() + patient(timeout_s)
        while len(found := self.record("session")) < at_least:
            if time.monotonic() > deadline_at:
                raise LabError(f"{len(found)} sessions on {self.host.name}, not {at_least}")
            time.sleep(POLL_S)
        return found


def sending(host: Host, server: str, to: str | Sequence[str] = RECIPIENT, **settings: Any) -> Process:
    """Start sending from a host; ``settings`` are `mailclient`'s options. `deliveries` reads how it goes."""
    recipients = [to] if isinstance(to, str) else list(to)
    return host.spawn(host.program("mailclient", *options(server=server, to=recipients, **settings)))


def deliveries(process: Process) -> list[dict[str, Any]]:
    """What a sending process has reported so far, one entry a message, as `mailclient` prints it."""
    return json_lines(process.stdout)


def send(
    host: Host, server: str, to: str | Sequence[str] = RECIPIENT, *, timeout_s: float = AT_LAST_S, **settings: Any
) -> list[dict[str, Any]]:
    """Send and wait; one entry a message. A message that was not accepted is no error here."""
    if "timeout" not in settings:
        settings["timeout"] = patient(min(timeout_s, 10.0))
    process = sending(host, server, to, **settings)
    process.wait(timeout_s).check()
    host.processes.remove(process)
    return deliveries(process)
