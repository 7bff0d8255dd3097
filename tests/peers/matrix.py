"""One run of the matrix: every sender gives the whole corpus to every receiver, over a bare bridge or the gateway.

::

    smtplib  .10 ┐                                         ┌ .20 postfix
    postfix  .11 │                                         │ .21 exim
    exim     .12 ┼─ client ── p0 [bridge | gateway] p1 ── server ─┼ .22 opensmtpd
    opensmtpd.13 │                                         │ .23 aiosmtpd
    swaks    .14 ┘                                         └ .24 smtp-sink

Besides, a few pairs each by STARTTLS, by IPv6 (the same last octets) and with BINARYMIME (a receiver at .25).
"""

from __future__ import annotations

import time
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import aiosmtpd

from smtp_intercept.app.lab.capture import recorded
from smtp_intercept.app.lab.host import Host, Process
from smtp_intercept.app.lab.network import Lab, Station, Wires
from tests.peers import exim, opensmtpd, postfix, senders, sinks
from tests.peers.corpus import Mail, big, chunked, made, packaged
from tests.peers.normal import condensed
from tests.peers.peer import DOMAIN, PLAIN, SIX, TLS, WAYS, Peer, Route, Routes, by_way, six
from tests.peers.senders import ADDRESSES, MTAS, Outbox, labelled
from tests.peers.wire import Connection, Ends, Transcript, transcripts

RECEIVERS: Mapping[str, tuple[str, Callable[[Host, str, str], Peer]]] = {
    "postfix": ("192.0.2.20", postfix.start),
    "exim": ("192.0.2.21", exim.start),
    "opensmtpd": ("192.0.2.22", opensmtpd.start),
    "aiosmtpd": ("192.0.2.23", sinks.start_aiosmtpd),
    "smtp-sink": ("192.0.2.24", sinks.start_smtp_sink),
}
BINARY = {"binary": ("192.0.2.25", sinks.start_binary)}
SERVERS = {**RECEIVERS, **BINARY}

Pair = tuple[str, str]  # sender, receiver

# Every sender, and every receiver that can, once or more. OpenSMTPD 6.8.0p2 takes no TLS with OpenSSL 3, whatever the
# certificate (its issue 1171); smtp-sink knows none.
FURTHER: Mapping[str, tuple[Pair, ...]] = {
    PLAIN: (("smtplib", "binary"), ("exim", "binary")),
    TLS: (
        *(("smtplib", receiver) for receiver in ("postfix", "exim", "aiosmtpd")),
        ("postfix", "exim"),
        ("exim", "aiosmtpd"),
        ("opensmtpd", "postfix"),
        ("swaks", "aiosmtpd"),
    ),
    SIX: (
        ("smtplib", "opensmtpd"),
        ("postfix", "smtp-sink"),
        ("exim", "aiosmtpd"),
        ("opensmtpd", "exim"),
        ("swaks", "postfix"),
    ),
}


def both(addresses: Iterable[str]) -> tuple[str, ...]:
    """With the IPv6 addresses that belong to them."""
    return tuple(each for address in addresses for each in (f"{address}/24", f"{six(address)}/64"))


CERTIFICATES = Path(aiosmtpd.__file__).parent / "tests/certs"  # nobody verifies them here
WIRES: Wires = {
    "outside": (Station("client", both(ADDRESSES.values())),),
    "inside": (Station("server", both(address for address, _ in SERVERS.values())),),
}
CONFIG: dict[str, Any] = {
    "protected": [{"domain": "sender.test", "servers": ["192.0.2.16/28", *(six(to) for to, _ in SERVERS.values())]}]
}
PAIRS: tuple[Pair, ...] = tuple((sender, receiver) for sender in ADDRESSES for receiver in RECEIVERS)
ALL_PAIRS: tuple[Pair, ...] = (
    *PAIRS,
    *((labelled(sender, way), receiver) for way, pairs in FURTHER.items() for sender, receiver in pairs),
)
STARTTLS = b"STARTTLS\r\n"
NAMES: Mapping[str, str] = {
    each: name
    for name, address in (*ADDRESSES.items(), *((name, address) for name, (address, _) in SERVERS.items()))
    for each in (address, six(address))
}


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


def receivers(host: Host, table: Mapping[str, tuple[str, Callable[[Host, str, str], Peer]]] = RECEIVERS) -> list[Peer]:
    """All of these receivers, ready."""
    started = [start(host, address, certificate()) for address, start in table.values()]
    return [peer.wait_ready() for peer in started]


def mtas(host: Host, names: Iterable[str] = MTAS) -> dict[str, Peer]:
    """Senders that are servers themselves, ready."""
    routes: Routes = [
        Route(by_way(DOMAIN.format(name), way), six(address) if way == SIX else address, way)
        for name, (address, _) in SERVERS.items()
        for way in WAYS
    ]
    started = {name: MTAS[name](host, ADDRESSES[name], certificate(), routes) for name in names}
    return {name: peer.wait_ready() for name, peer in started.items()}


def carry(lab: Lab) -> Run:
    """The corpus over the lab's gateway as it is now. The 50 MB message goes last and is not captured."""
    run, client, server = Run(), lab.host("client"), lab.host("server")
    began_at = time.monotonic()
    servers, relays = receivers(server, SERVERS), mtas(client)
    outbox = Outbox(client, servers[: len(RECEIVERS)])
    run.seconds["start"] = time.monotonic() - began_at
    corpus = [*packaged(), *made()]
    with _captured(run, client, server):
        _post_all(run, outbox, relays, corpus, chunked())
        _post_further(run, Outbox(client, servers), relays, [mail for mail in corpus if mail.name in senders.SWAKS])
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


def _post_further(run: Run, outbox: Outbox, relays: Mapping[str, Peer], mails: Sequence[Mail]) -> None:
    """The pairs of `FURTHER`, all at once, until nothing is on its way."""
    began_at, servers = time.monotonic(), {peer.name: peer for peer in outbox.receivers}
    processes: list[Process] = []
    for way, pairs in FURTHER.items():
        for name, receiver in pairs:
            only, direct = Outbox(outbox.host, [servers[receiver]]), chunked() if receiver in BINARY else []
            processes += _post(only, name, mails, direct, way)
    _finish(outbox.host, iter(processes))
    for peer in (*relays.values(), *outbox.receivers):
        peer.settle()
    run.seconds["further pairs"] = time.monotonic() - began_at


def _post(
    outbox: Outbox, name: str, mails: Sequence[Mail], direct: Sequence[Mail], way: str = PLAIN
) -> Iterator[Process]:
    match name:
        case "smtplib":
            for receiver in outbox.receivers:
                yield outbox.direct([*mails, *direct], receiver, way)
        case "swaks":
            for mail in mails:
                if mail.name in senders.SWAKS:
                    yield from [outbox.swaks(mail, receiver, way) for receiver in outbox.receivers]
        case _:
            yield outbox.handed(name, mails, outbox.receivers, way)


def _finish(host: Host, processes: Iterator[Process]) -> None:
    """Wait for all; a message that was refused is an outcome, and the same in both runs."""
    for process in list(processes):
        process.wait(senders.SEND_S)
        host.processes.remove(process)


@contextmanager
def _captured(run: Run, client: Host, server: Host) -> Iterator[None]:
    with recorded((host, "eth0") for host in (client, server)) as frames:
        yield
    for host, kept in ((client, run.at_client), (server, run.at_server)):
        seen = [frame for frame in frames if frame.host == host.name]
        for connection, transcript in transcripts(seen, host.name).items():
            kept[_pair(connection[0], transcript)][connection] = transcript


def _pair(ends: Ends, said: Transcript) -> Pair:
    way = SIX if ":" in ends.source else TLS if STARTTLS in said.client else PLAIN
    return labelled(NAMES[ends.source], way), NAMES[ends.destination]
