"""The way that a session takes through this host's links, as the kernel would route it now. Reads only."""

from __future__ import annotations

from pyroute2 import IPRoute
from pyroute2.netlink.exceptions import NetlinkError

from bridge.reach import Path, Session

_FIB_MATCH = 0x2000  # RTM_F_FIB_MATCH: the route that matched, with its prefix, not the one made for this address


def path_of(session: Session) -> Path | None:
    """None where no link of this network namespace carries the session's own address."""
    with IPRoute() as ip:
        names = {link["index"]: link.get_attr("IFLA_IFNAME") for link in ip.get_links()}
        holders = [
            names[address["index"]]
            for address in ip.get_addr()
            if (address.get_attr("IFA_LOCAL") or address.get_attr("IFA_ADDRESS")) == session.local
        ]
        if not holders:
            return None
        leaves, prefix = _route(ip, session, names)
        # A link-local address may be on many links; the one that is answered by is the one that was asked.
        return Path(session, leaves if leaves in holders else holders[0], leaves, prefix)


def _route(ip: IPRoute, session: Session, names: dict[int, str]) -> tuple[str, int]:
    try:
        routes = ip.route("get", dst=session.remote, src=session.local, flags=_FIB_MATCH)
    except NetlinkError:  # unreachable
        return "", 0
    return names.get(routes[0].get_attr("RTA_OIF"), ""), routes[0]["dst_len"]
