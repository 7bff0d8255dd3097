"""Postfix, as receiver and as sender: virtual(8) to a Maildir, also what comes to its own address (u@[192.0.2.20]);
smtp(8) by a transport table. Discards all else."""

from __future__ import annotations

from smtp_intercept.app.lab.host import Host
from tests.peers.jail import MAILBOX, SPOOL, jailed
from tests.peers.peer import DOMAIN, TLS, WAYS, Peer, Route, Routes, by_way, six

NAME = "postfix"
# Where a jailed one has its files; a configuration goes on behind it.
PLACES = """
compatibility_level = 3.6
queue_directory = {spool}/postfix
data_directory = /var/lib/postfix
command_directory = /usr/sbin
daemon_directory = /usr/lib/postfix/sbin
shlib_directory = /usr/lib/postfix
meta_directory = /etc/postfix
mail_owner = postfix
setgid_group = postdrop
maillog_file = /dev/stdout
"""  # where a jailed one has its files
MAIN = (
    PLACES
    + """\
myhostname = {domain}
mydestination =
inet_interfaces = {address}, {six}
inet_protocols = ipv4, ipv6
smtp_bind_address = {address}
smtp_bind_address6 = {six}
mynetworks = 0.0.0.0/0, [::]/0
smtpd_peername_lookup = no
smtpd_client_connection_count_limit = 0
smtpd_error_sleep_time = 0
smtpd_tls_security_level = {tls}
smtpd_tls_chain_files = /etc/peer.pem
smtp_tls_security_level = none
smtp_tls_policy_maps = texthash:/etc/postfix/tls
smtp_dns_support_level = disabled
smtp_host_lookup = native
smtp_connection_cache_on_demand = no
alias_maps =
alias_database =
message_size_limit = 0
mailbox_size_limit = 0
virtual_mailbox_limit = 0
virtual_mailbox_domains = {mine}
virtual_mailbox_base = {mailbox}
virtual_mailbox_maps = static:./
virtual_uid_maps = static:{uid}
virtual_gid_maps = static:{uid}
transport_maps = texthash:/etc/postfix/transport
local_header_rewrite_clients =
default_transport = discard:
local_transport = virtual:
local_recipient_maps =
"""
)
# service type private unpriv chroot wakeup maxproc command
MASTER = """
smtp      inet  n - n -   -  smtpd
pickup    unix  n - n 60  1  pickup
cleanup   unix  n - n -   0  cleanup
qmgr      unix  n - n 300 1  qmgr
rewrite   unix  - - n -   -  trivial-rewrite
bounce    unix  - - n -   0  bounce
defer     unix  - - n -   0  bounce
trace     unix  - - n -   0  bounce
verify    unix  - - n -   1  verify
flush     unix  n - n 1000? 0 flush
proxymap  unix  - - n -   -  proxymap
smtp      unix  - - n -   -  smtp
relay     unix  - - n -   -  smtp
error     unix  - - n -   -  error
retry     unix  - - n -   -  error
discard   unix  - - n -   -  discard
virtual   unix  - n n -   -  virtual
anvil     unix  - - n -   1  anvil
scache    unix  - - n -   1  scache
tlsmgr    unix  - - n 1000? 1 tlsmgr
postlog   unix-dgram n - n - 1 postlogd
"""


def start(host: Host, address: str, certificate: str, routes: Routes = ()) -> Peer:
    """Serve on ``address``; mail for the domains of ``routes`` goes to their servers, by their ways."""
    domain = DOMAIN.format(NAME)
    transport = "".join(f"{route.domain} smtp:{_next_hop(route)}\n" for route in routes)
    policy = "".join(f"{_next_hop(route)} encrypt\n" for route in routes if route.way == TLS)
    main = MAIN.format(
        domain=f"relay.{domain}" if routes else domain,  # a Postfix takes no mail for a host that greets as itself
        mine="none.invalid" if routes else ", ".join(by_way(domain, way) for way in WAYS),
        address=address,
        six=six(address),
        spool=SPOOL,
        mailbox=MAILBOX,
        uid="61105",
        tls="none" if routes else "may",
    )
    files = {
        "postfix/main.cf": main,
        "postfix/master.cf": MASTER,
        "postfix/transport": transport,
        "postfix/tls": policy,
    }
    process = jailed(
        host,
        NAME,
        {**files, "peer.pem": certificate},
        [f"install -d {SPOOL}/postfix {SPOOL}/postfix/pid", "install -d -o postfix /var/lib/postfix"],
        ["postfix", "start-fg"],
    )
    queues = tuple(f"{SPOOL}/postfix/{queue}/**/*" for queue in ("maildrop", "incoming", "active", "deferred"))
    return Peer(NAME, host, address, process, queues)


def _next_hop(route: Route) -> str:
    """By which the policy is found too: with a port it is another one than without."""
    return f"[{route.server}]:25" if route.way == TLS else f"[{route.server}]"
