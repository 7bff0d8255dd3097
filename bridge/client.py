"""Who a client is to every limit: its address, or what is given to one customer; and the network that this is in.

Pure. An IPv6 host chooses among 2^64 addresses of its own, so its /64 is one client; a /48 is one site's (RFC 6177).
"""

from __future__ import annotations

from functools import lru_cache
from ipaddress import ip_address, ip_network
from typing import NamedTuple

# Bits of an address, by IP version.
CLIENT_BITS = {4: 32, 6: 64}
NETWORK_BITS = {4: 24, 6: 48}
_REMEMBERED = 8_192


class Client(NamedTuple):
    """Both as text: "192.0.2.10" and "192.0.2.0/24", "2001:db8:1:2::/64" and "2001:db8:1::/48"."""

    client: str
    network: str


@lru_cache(_REMEMBERED)
def client_of(address: str) -> Client:
    """Of an address as sockets give it: with "%" and an interface where it is link-local. ValueError: it is none."""
    ip = ip_address(address.partition("%")[0])
    networks = [ip_network((ip, bits[ip.version]), strict=False) for bits in (CLIENT_BITS, NETWORK_BITS)]
    own, network = (each.with_prefixlen for each in networks)
    return Client(own.removesuffix("/32") if ip.version == 4 else own, network)


def mask(bits: int, version: int) -> str:
    """As nft has it: the address whose first bits are set."""
    return str(ip_network(("0.0.0.0" if version == 4 else "::", bits)).netmask)
