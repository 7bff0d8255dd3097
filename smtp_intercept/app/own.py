"""The box's own addresses, as far as mail on the wire may be for them. Reads netlink."""

from __future__ import annotations

from smtp_intercept.app.config import Config
from smtp_intercept.app.fields import Home


def own_addresses(config: Config) -> frozenset[bytes]:
    """The packed addresses of the box itself that mail on the wire may be for: the management's, and all of the host
    where the wire is the host's. Those of a host that it has left are strangers'."""
    management = frozenset(interface.ip.packed for interface in config.bridge.management)
    if config.bridge.namespace is Home.OWN:
        return management
    from bridge.links import Links  # slow to load, and not needed where the wire has a room of its own

    with Links() as links:
        return management | links.own_addresses()
