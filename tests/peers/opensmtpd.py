"""OpenSMTPD, as receiver and as sender: maildir for a virtual user, relay by domain. Discards all other mail."""

from __future__ import annotations

from smtp_intercept.app.lab.host import Host
from tests.peers.jail import MAILBOX, SPOOL, jailed
from tests.peers.peer import DOMAIN, PLAIN, SIX, TLS, WAYS, Peer, Route, Routes, by_way, six

NAME = "opensmtpd"
CONFIG = """
{pki}
smtp max-message-size 200M
smtp limit max-mails 100000
table everybody {{ "@" = "mailbox" }}
listen on {address} port 25 hostname {domain} {tls}
listen on {six} port 25 hostname {domain} {tls}
action box maildir "{mailbox}" virtual <everybody>
action nowhere mda "cat" virtual <everybody>
{routes}
match from any for domain {{ {mine} }} action box
match from any for any action nowhere
"""
PKI = 'pki peer cert "/etc/peer.pem"\npki peer key "/run/key.pem"'

RELAYS = {PLAIN: '"smtp+notls://{}"', SIX: '"smtp+notls://[{}]"', TLS: '"smtp+tls://{}" tls no-verify'}


def start(host: Host, address: str, certificate: str, routes: Routes = ()) -> Peer:
    """Serve on ``address``; mail for the domains of ``routes`` goes to their servers, by their ways."""
    lines = [
        f"action route{number} relay host {RELAYS[route.way].format(route.server)} {_source(host, address, route)}\n"
        f'match from any for domain "{route.domain}" action route{number}'
        for number, route in enumerate(routes)
    ]
    config = CONFIG.format(
        address=address,
        six=six(address),
        domain=DOMAIN.format(NAME),
        mine='"none.invalid"' if routes else ", ".join(f'"{by_way(DOMAIN.format(NAME), way)}"' for way in WAYS),
        mailbox=MAILBOX,
        routes="\n".join(lines),
        pki="" if routes else PKI,
        tls="" if routes else "tls pki peer",
    )
    process = jailed(
        host,
        NAME,
        {"smtpd.conf": config, "peer.pem": certificate},
        [f"install -d -m 711 {SPOOL}/smtpd", "install -m 600 /etc/peer.pem /run/key.pem"],
        ["smtpd", "-d"],
    )
    queues = tuple(f"{SPOOL}/smtpd/{queue}/**/*" for queue in ("queue", "incoming", "temporary"))
    return Peer(NAME, host, address, process, queues)


def _source(host: Host, address: str, route: Route) -> str:
    """Where a relay action dials from. OpenSMTPD 7.6 takes no IPv6 address there: the kernel is told instead."""
    if route.way != SIX:
        return f"src {address}"
    host.run(["ip", "-6", "route", "add", f"{route.server}/128", "dev", "eth0", "src", six(address)])
    return ""
