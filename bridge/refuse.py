"""The RST that answers a rejected SYN, in the dialled server's name. Pure: bytes in, bytes out."""

from __future__ import annotations

from bridge.flow import Syn
from bridge.segment import ACK, RST, segment


def reset(syn: Syn) -> bytes:
    """A whole IP packet that refuses the SYN: sequence 0, everything it carried acknowledged (RFC 9293 §3.5.2)."""
    acknowledged = (syn.sequence + 1 + syn.payload) & 0xFFFF_FFFF
    return segment((syn.server, syn.client), (syn.server_port, syn.client_port), RST | ACK, 0, acknowledged)
