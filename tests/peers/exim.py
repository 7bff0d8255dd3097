"""Exim, as receiver and as sender: appendfile to a Maildir, smtp by a route list. Discards all other mail."""

from __future__ import annotations

from smtp_intercept.app.lab.host import Host
from tests.peers.jail import MAILBOX, SPOOL, jailed
from tests.peers.peer import DOMAIN, WAYS, Peer, Routes, by_way, six

NAME = "exim"
CONFIG = """
primary_hostname = {domain}
daemon_smtp_ports = 25
local_interfaces = <; {address} ; {six}
spool_directory = {spool}/exim4
log_file_path = {spool}/exim4/log/%slog
keep_environment =
acl_smtp_rcpt = but_trapped
acl_smtp_data = everything
acl_smtp_vrfy = everything
prdr_enable = yes
acl_smtp_data_prdr = one_by_one
smtp_accept_max = 0
smtp_enforce_sync = no
smtp_accept_queue_per_connection = 0
smtp_accept_max_per_connection = 100000
smtp_accept_max_nonmail = 100000
smtp_max_unknown_commands = 1000
smtp_max_synprot_errors = 1000
message_size_limit = 200M
check_spool_space = 0
smtputf8_advertise_hosts = *
chunking_advertise_hosts = *
pipelining_connect_advertise_hosts = *
tls_advertise_hosts = {tls}
tls_certificate = /etc/peer.pem
rfc1413_query_timeout = 0s
smtp_receive_timeout = 30s
remote_max_parallel = 4

begin acl
everything:
  accept

but_trapped:
  discard local_parts = trap
  accept

one_by_one:
  deny local_parts = noprdr
  accept

begin routers
mine:
  driver = accept
  domains = {mine}
  transport = box
{routes}
others:
  driver = redirect
  allow_defer
  data = :blackhole:

begin transports
box:
  driver = appendfile
  maildir_format
  create_directory
  directory = {mailbox}
  user = mailbox
  group = mailbox
  return_path_add
  envelope_to_add
remote:
  driver = smtp
  interface = <; {address} ; {six}
  hosts_avoid_tls = ${{if match{{$domain}}{{^tls}}{{}}{{*}}}}
  hosts_require_tls = ${{if match{{$domain}}{{^tls}}{{*}}{{}}}}
  tls_verify_hosts =
  tls_try_verify_hosts =
  hosts_try_fastopen =
  hosts_pipe_connect = *
  connection_max_messages = 1
  message_linelength_limit = 100000000

begin retry
* * F,1h,1s
"""
ROUTE = """
route{number}:
  driver = manualroute
  domains = {domain}
  transport = remote
  route_list = <| * "<+ {server}" byname
  self = send
"""


def start(host: Host, address: str, certificate: str, routes: Routes = ()) -> Peer:
    """Serve on ``address``; mail for the domains of ``routes`` goes to their servers, by their ways."""
    config = CONFIG.format(
        domain=DOMAIN.format(NAME),
        mine="" if routes else " : ".join(by_way(DOMAIN.format(NAME), way) for way in WAYS),
        address=address,
        six=six(address),
        spool=SPOOL,
        mailbox=MAILBOX,
        tls="" if routes else "*",
        routes="".join(
            ROUTE.format(number=number, domain=route.domain, server=route.server) for number, route in enumerate(routes)
        ),
    )
    process = jailed(
        host,
        NAME,
        {"exim4/exim4.conf": config, "peer.pem": certificate},
        [f"install -d -o Debian-exim -g Debian-exim {SPOOL}/exim4 {SPOOL}/exim4/log"],
        ["exim4", "-bdf", "-q5s"],
    )
    return Peer(NAME, host, address, process, (f"{SPOOL}/exim4/input/**/*",))
