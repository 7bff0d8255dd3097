"""A wire that was unplugged and is there again, under the names that it had."""

from __future__ import annotations

from smtp_intercept.app.lab import namespaces
from smtp_intercept.app.lab.network import Lab


def join_again(lab: Lab, port: str, station: str, mac: str, own: str = "") -> None:
    """For the kernel these are other links. ``mac`` is the port's, ``own`` the station's; "": its first one."""
    host = lab.host(station)
    namespaces.wire((host.enter[-1], "eth0", own or host.mac), (lab.gateway.namespace, port, mac), lab.mtu)
    namespaces.add_addresses(host.enter[-1], "eth0", host.addresses)
    namespaces.set_link(host.enter[-1], "eth0", state="up")
