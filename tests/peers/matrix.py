"""One run of the matrix: every sender gives the whole corpus to every receiver, over a bare bridge or the gateway.

::

    smtplib  .10 ┐                                         ┌ .20 postfix
    postfix  .11 │                                         │ .21 exim
    exim     .12 ┼─ client ── p0 [bridge | gateway] p1 ── server ─┼ .22 opensmtpd
    opensmtpd.13 │                                         │ .23 aiosmtpd
    swaks    .14 ┘                                         └ .24 smtp-sink
"""

from __future__ import annotations

import time
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import aiosmtpd

from smtp_intercept.app.lab.capture import SETTLE_S, Sniffer
from smtp_intercept.app.lab.host import Host, Process
from smtp_intercept.app.lab.network import Lab, Station, Wires
from tests.peers import exim, opensmtpd, postfix, senders, sinks
from tests.peers.corpus import Mail, big, chunked, made, packaged
from tests.peers.normal import condensed
from tests.peers.peer import DOMAIN, Peer, Routes
from tests.peers.senders import ADDRESSES, MTAS, Outbox
from tests.peers.wire import Connection, Transcript, transcripts

RECEIVERS: Mapping[str, tuple[str, Callable[[Host, str, str], Peer]]] = {
    "postfix": ("192.0.2.20", postfix.start),
    "exim": ("192.0.2.21", exim.start),
    "opensmtpd": ("192.0.2.22", opensmtpd.start),
    "aiosmtpd": ("192.0.2.23", sinks.start_aiosmtpd),
    "smtp-sink": ("192.0.2.24", sinks.start_smtp_sink),
}
CERTIFICATES = Path(aiosmtpd.__file__).parent / "tests/certs"  # nobody verifies them here
WIRES: Wires = {
    "outside": (Station("client", tuple(f"{address}/24" for address in ADDRESSES.values())),),
    "inside": (Station("server", tuple(f"{address}/24" for address, _ in RECEIVERS.values())),),
}
CONFIG: dict[str, Any] = {"protected": [{"domain": "sender.test", "servers": ["192.0.2.16/28"]}]}

Pair = tuple[str, str]  # sender, receiver


@dataclass(slots=True)
class Run:
    """What became of the corpus: deliveries, condensed, by pair; transcripts by pair and connection, at either wire."""

    delivered: dict[Pair, list[bytes]] = field(default_factory=lambda: defaultdict(list))
    at_client: dict[Pair, dict[Connection, Transcript]] = field(default_factory=lambda: defaultdict(dict))
    at_server: dict[Pair, dict[Connection, Transcript]] = field(default_factory=lambda: defaultdict(dict))
    log: list[dict[str, Any]] = field(default_factory=list)
    seconds: dict[str, float] = field(default_factory=dict)


def certificate() -> str:
    """A key and a self-signed certificate, PEM."""
    return "".join((CERTIFICATES / name).read_text() for name in ("server.key", "server.crt"))


def receivers(host: Host) -> list[Peer]:
    """All receivers, ready."""
    started = [start(host, address, certificate()) for address, start in RECEIVERS.values()]
    return [peer.wait_ready() for peer in started]


def mtas(host: Host) -> dict[str, Peer]:
    """All senders that are servers themselves, ready."""
    routes: Routes = {DOMAIN.format(name): address for name, (address, _) in RECEIVERS.items()}
    started = {name: start(host, ADDRESSES[name], certificate(), routes) for name, start in MTAS.items()}
    return {name: peer.wait_ready() for name, peer in started.items()}


def carry(lab: Lab) -> Run:
    """The corpus over the lab's gateway as it is now. The 50 MB message goes last and is not captured."""
    run, client, server = Run(), lab.host("client"), lab.host("server")
    began_at = time.monotonic()
    servers, relays = receivers(server), mtas(client)
    outbox = Outbox(client, servers)
    run.seconds["start"] = time.monotonic() - began_at
    corpus = [*packaged(), *made()]
    with _captured(run, client, server):
        _post_all(run, outbox, relays, corpus, chunked())
    _post_all(run, outbox, relays, [big()], [])
    for receiver in servers:
        for delivery in receiver.deliveries():
            run.delivered[delivery.sender.rpartition("@")[2].partition(".")[0], receiver.name].append(
                condensed(delivery.content)
            )
    return run


def _post_all(
    run: Run, outbox: Outbox, relays: Mapping[str, Peer], mails: Sequence[Mail], direct: Sequence[Mail]
) -> None:
    """Every sender's turn, until nothing is on its way; ``direct`` is for smtplib alone."""
    for name in ADDRESSES:
        began_at = time.monotonic()
        _finish(outbox.host, _post(outbox, name, mails, direct))
        if name in relays:
            relays[name].settle()
        run.seconds[f"{name} {mails[-1].name}"] = time.monotonic() - began_at
    for receiver in outbox.receivers:
        receiver.settle()


def _post(outbox: Outbox, name: str, mails: Sequence[Mail], direct: Sequence[Mail]) -> Iterator[Process]:
    match name:
        case "smtplib":
            for receiver in outbox.receivers:
                yield outbox.smtplib(name, [*mails, *direct], receiver.address, [receiver])
        case "swaks":
            for mail in mails:
                if mail.name in senders.SWAKS:
                    yield from [outbox.swaks(mail, receiver) for receiver in outbox.receivers]
        case _:
            yield outbox.smtplib(name, mails, ADDRESSES[name], outbox.receivers)


def _finish(host: Host, processes: Iterator[Process]) -> None:
    """Wait for all; a message that was refused is an outcome, and the same in both runs."""
    for process in list(processes):
        process.wait(senders.SEND_S)
        host.processes.remove(process)


@contextmanager
def _captured(run: Run, client: Host, server: Host) -> Iterator[None]:
    sniffers = {host.name: Sniffer(host, ["eth0"]) for host in (client, server)}
    for sniffer in sniffers.values():
        sniffer.wait_ready()
    yield
    time.sleep(SETTLE_S)
    names = {address: name for name, address in ADDRESSES.items()} | {
        address: name for name, (address, _) in RECEIVERS.items()
    }
    for host, kept in (("client", run.at_client), ("server", run.at_server)):
        for connection, transcript in transcripts(sniffers[host].frames(), host).items():
            kept[names[connection[0].source], names[connection[0].destination]][connection] = transcript
