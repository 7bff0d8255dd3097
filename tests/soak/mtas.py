"""Postfix and Exim at both ends of a soak: what comes by the wire they hand to the recorder behind them, and what is
submitted on loopback they send through the box, and try again within seconds.

Their spools outlive them, as a disk does. They refuse nothing, and send without TLS: a mail log tells of a sender.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

from smtp_intercept.app.lab.host import Host, Process
from tests.peers import postfix
from tests.peers.jail import SPOOL, jailed
from tests.peers.peer import Peer
from tests.soak.letters import SENDERS
from tests.soak.trips import EXIM, POSTFIX, SUBMISSION, addresses, next_hops

RECORDER = 2525  # loopback: whatever arrives ends there
GIVES_UP_S, DIALS_S = 40, 5  # as the soak's own senders do
RETRY_S, RETRY_MOST_S = 3, 10
# Files of a queue, and how the sender stands in their first octets: a record of its length, a line of its own.
FILES = {POSTFIX: ("incoming/**/*", "active/**/*", "deferred/**/*"), EXIM: ("input/**/*-H",)}
_NAME = rb"([a-z]+[0-9]+)@" + re.escape(SENDERS.encode())
_SENDER = {POSTFIX: re.compile(rb"S[\x01-\x7f]" + _NAME), EXIM: re.compile(rb"^<" + _NAME + rb">$", re.M)}
_HEAD_OCTETS = 4096
_WHOLE = 0o100  # Postfix's mark of a message that it has accepted; Exim's file has its name only then

_POSTFIX = {
    "inet_protocols": "ipv4",
    "inet_interfaces": "{addresses}, 127.0.0.1",
    "smtp_bind_address6": "",
    "default_transport": f"smtp:[127.0.0.1]:{RECORDER}",
    "minimal_backoff_time": f"{RETRY_S}s",
    "maximal_backoff_time": f"{RETRY_MOST_S}s",
    "default_process_limit": "500",  # no stress, which has a patience of its own
    "smtpd_timeout": "300s",
    "queue_run_delay": f"{RETRY_S}s",
    "transport_retry_time": f"{RETRY_S}s",
    "smtp_connect_timeout": f"{DIALS_S}s",
    **{
        f"smtp_{step}_timeout": f"{GIVES_UP_S}s"
        for step in ("helo", "mail", "rcpt", "data_init", "data_xfer", "data_done", "quit", "rset")
    },
}
_EXIM = f"""
primary_hostname = {{name}}
local_interfaces = {{listening}} : 127.0.0.1.{SUBMISSION[EXIM]}
spool_directory = {SPOOL}/exim4
log_file_path = {SPOOL}/exim4/log/%slog
keep_environment =
acl_smtp_rcpt = everything
acl_smtp_data = everything
smtp_accept_max = 0
smtp_accept_queue_per_connection = 0
smtp_enforce_sync = no
queue_run_max = 3
check_spool_space = 0
tls_advertise_hosts = *
tls_certificate = /etc/peer.pem
rfc1413_query_timeout = 0s

begin acl
everything:
  accept

begin routers
{{routes}}
arrived:
  driver = manualroute
  transport = behind
  route_list = * 127.0.0.1 byname
  self = send

begin transports
away:
  driver = smtp
  interface = {{address}}
  hosts_avoid_tls = *
  hosts_try_fastopen =
  connection_max_messages = 1
  connect_timeout = {DIALS_S}s
  command_timeout = {GIVES_UP_S}s
  data_timeout = {GIVES_UP_S}s
  final_timeout = {GIVES_UP_S}s

behind:
  driver = smtp
  port = {RECORDER}
  allow_localhost
  hosts_avoid_tls = *
  hosts_try_fastopen =

begin retry
* * F,4d,{RETRY_S}s
"""
_ROUTE = """
away{number}:
  driver = manualroute
  domains = {domain}
  transport = away
  route_list = * {server} byname
"""


@dataclass(frozen=True, slots=True)
class Mta:
    """One of them. ``spool`` is what the jail has as /var/spool."""

    name: str
    host: Host
    spool: Path
    pem: Path

    @property
    def addresses(self) -> tuple[str, ...]:
        return addresses(self.host.name, self.name)

    @property
    def address(self) -> str:
        return self.addresses[0]

    def start(self) -> Process:
        """Returns when it greets."""
        process = _START[self.name](self)
        Peer(self.name, self.host, self.address, process).wait_ready()
        return process

    def jailed(self, files: Mapping[str, str], prepare: list[str], argv: list[str]) -> Process:
        kept = [f"mount --bind {self.spool} {SPOOL}", *prepare]
        return jailed(self.host, self.name, {**files, "peer.pem": self.pem.read_text()}, kept, argv)

    def queued(self) -> set[str]:
        """The names of the messages that wait in it; "" for a notice."""
        paths = [path for files in FILES[self.name] for path in self.spool.glob(f"*/{files}")]
        return {name for path in paths if (name := self._accepted(path)) is not None}

    def _accepted(self, path: Path) -> str | None:
        """The name of the message whose file that is; None if it is none, or gone meanwhile."""
        try:
            if not path.is_file() or (self.name == POSTFIX and not path.stat().st_mode & _WHOLE):
                return None
            with path.open("rb") as file:
                found = _SENDER[self.name].search(file.read(_HEAD_OCTETS))
        except OSError:
            return None
        return found[1].decode() if found else ""


def _start_postfix(mta: Mta) -> Process:
    settings = {}
    plain = postfix.MAIN.format(
        domain=_hostname(mta),
        mine="none.invalid",
        address=mta.address,
        six="",
        spool=SPOOL,
        mailbox=SPOOL,
        uid="0",
        tls="may",
    )
    for line in plain.strip().splitlines():
        name, _, value = line.partition("=")
        settings[name.strip()] = value.strip()
    settings |= {name: value.format(addresses=", ".join(mta.addresses)) for name, value in _POSTFIX.items()}
    transport = "".join(f"{domain} smtp:[{server}]\n" for domain, server in next_hops(mta.host.name).items())
    doors = [*(f"{address}:25" for address in mta.addresses), f"127.0.0.1:{SUBMISSION[POSTFIX]}"]
    listening = "".join(f"{door} inet n - n - - smtpd\n" for door in doors)
    files = {
        "postfix/main.cf": "".join(f"{name} = {value}\n" for name, value in settings.items()),
        "postfix/master.cf": postfix.MASTER.replace("smtp      inet", "#") + listening,
        "postfix/transport": transport,
        "postfix/tls": "",
    }
    spool = f"{SPOOL}/postfix"
    prepare = [f"install -d {spool} {spool}/pid", "install -d -o postfix /var/lib/postfix", "postfix check"]
    return mta.jailed(files, prepare, ["/usr/lib/postfix/sbin/master", "-s"])  # itself: it is to hear SIGTERM


def _start_exim(mta: Mta) -> Process:
    hops = enumerate(next_hops(mta.host.name).items())
    routes = "".join(_ROUTE.format(number=n, domain=domain, server=server) for n, (domain, server) in hops)
    listening = " : ".join(f"{address}.25" for address in mta.addresses)
    config = _EXIM.format(name=_hostname(mta), address=mta.address, listening=listening, routes=routes)
    spool = f"{SPOOL}/exim4"
    prepare = [f"install -d -o Debian-exim -g Debian-exim {spool} {spool}/log"]
    return mta.jailed({"exim4/exim4.conf": config}, prepare, ["exim4", "-bdf", f"-q{RETRY_S}s"])


def _hostname(mta: Mta) -> str:
    """No two alike: none takes mail for a host that greets as itself."""
    return f"{mta.name}.{mta.host.name}.test"


_START: Mapping[str, Callable[[Mta], Process]] = {POSTFIX: _start_postfix, EXIM: _start_exim}
