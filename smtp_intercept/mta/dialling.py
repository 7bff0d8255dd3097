"""Connections to next hops: in the client's name to the server that it dialled itself, else from the box's own address.

One kind of I/O: it connects. The lane knows the way to a client's server as long as it remembers the connection.
"""

from __future__ import annotations

import asyncio
import errno
import socket
from collections.abc import Sequence
from ipaddress import IPv4Interface, IPv6Interface

from bridge.lane import device_of
from smtp_intercept.mta.envelope import Origin
from smtp_intercept.mta.nexthop import Place
from smtp_intercept.transparent import Blank, dial, dial_own

# A server on the wire answers a SYN at once; a lane that has forgotten the way drops it, and then the box dials itself.
AS_CLIENT_S = 5.0
# The server's own answer, whoever asks.
_ANSWERS = frozenset({errno.ECONNREFUSED, errno.ECONNRESET})


class NextHopDialler:
    """``own`` are the box's addresses on the bridge; without one of the family, routing picks. ``blank`` makes sockets
    of the network namespace that the lane is in, if that is another one."""

    def __init__(self, own: Sequence[IPv4Interface | IPv6Interface] = (), blank: Blank | None = None) -> None:
        self._blank = blank
        self._own = {interface.version: str(interface.ip) for interface in reversed(own)}  # the first of each counts

    async def __call__(self, origin: Origin | None, place: Place) -> socket.socket:
        """A connected socket; OSError is the network's answer."""
        if origin is not None and origin.away is not None and (place.host, place.port) == origin.server:
            try:
                async with asyncio.timeout(AS_CLIENT_S):
                    lane = device_of(origin.away)
                    return (await dial(origin.client, origin.server, origin.away, lane, self._blank)).sock
            except OSError as failure:  # TimeoutError is one
                if failure.errno in _ANSWERS:
                    raise
        return await dial_own(self._own.get(6 if ":" in place.host else 4), (place.host, place.port))
