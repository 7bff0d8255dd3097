"""Which protected domains a server takes mail for: asked once per connection, by the address that was dialled.

Pure. The table of `direction.Servers` says whether an address is protected; this one says whose it is.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from smtp_intercept.direction import Network, normal_domain
from smtp_intercept.names import Question, Standing, read_server


@dataclass(frozen=True, slots=True)
class Served:
    """Single addresses packed, and networks as (width, shift, prefix), each with its domains."""

    addresses: Mapping[bytes, tuple[str, ...]]
    networks: tuple[tuple[Network, str], ...] = ()

    @classmethod
    def of(cls, protected: Iterable[tuple[str, Iterable[str]]], standings: Iterable[Standing]) -> Served:
        """``protected`` as for `names.split`; names count for the addresses that they stand for now."""
        known = {standing.question: standing.addresses for standing in standings}
        addresses: defaultdict[bytes, dict[str, None]] = defaultdict(dict)
        networks: list[tuple[Network, str]] = []
        for domain, servers in protected:
            name = normal_domain(domain)
            for item in servers:
                server = read_server(item, domain)
                for found in known.get(server, ()) if isinstance(server, Question) else (server,):
                    network = Network.of(found)
                    if network.shift:
                        networks.append((network, name))
                    else:
                        addresses[network.prefix.to_bytes(network.width, "big")][name] = None
        return cls({address: tuple(names) for address, names in addresses.items()}, tuple(networks))

    def by(self, address: bytes) -> tuple[str, ...]:
        """The domains whose server has the packed address, each once; () if nobody's."""
        single = self.addresses.get(address, ())
        if not self.networks:
            return single
        return tuple(dict.fromkeys((*single, *(name for network, name in self.networks if network.holds(address)))))
