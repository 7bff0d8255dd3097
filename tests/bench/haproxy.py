"""HAProxy on the mail lane: its configuration, and what else the lane asks of a listener that is not Tollbridge's own.

Settings that were tried, and which of them is best, stand in docs/performance.md.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from bridge import flow
from bridge.lane import LANE, OUTWARD_TABLE

RULE_PREFERENCE = 2524


@dataclass(frozen=True, slots=True)
class Settings:
    """``threads``: nbthread; ``splice``: payload passes through a pipe in the kernel; ``buffer_bytes``: tune.bufsize;
    ``extra``: further lines of the section global."""

    threads: int = 1
    splice: bool = False
    buffer_bytes: int = 16_384
    extra: tuple[str, ...] = ()

    def render(self, stats: Path) -> str:
        """TCP mode; towards the server with the client's own address and port; any address dialled is served."""
        extra = "".join(f"    {line}\n" for line in self.extra)
        splice = "    option splice-request\n    option splice-response\n" if self.splice else ""
        return f"""global
    nbthread {self.threads}
    maxconn 4000
    tune.bufsize {self.buffer_bytes}
    stats socket {stats} mode 600
{extra}defaults
    mode tcp
    timeout connect 30s
    timeout client 30m
    timeout server 30m
{splice}listen mail
    bind 0.0.0.0:25 transparent interface {LANE}
    server dialled 0.0.0.0:0 source 0.0.0.0 usesrc client
"""


def out_by_the_lane(port: int) -> tuple[list[list[str]], str]:
    """(commands, nft text) for the leg to the server: HAProxy 2.6 has no word for SO_MARK there, so a routing rule
    sends it out by the lane, and one nft rule marks its packets, which is all that the lane asks."""
    rule = ["ip", "rule", "add", "pref", str(RULE_PREFERENCE), "iif", "lo", "ipproto", "tcp", "dport", "25"]
    mark = flow.Mark(tag=1, port=port).away()
    text = f"""table inet bench {{
    chain away {{ type filter hook output priority -301; tcp dport 25 meta mark set {mark:#010x}; }}
}}
"""
    return [[*rule, "lookup", str(OUTWARD_TABLE)]], text


VARIANTS = {
    "haproxy": Settings(),
    "haproxy-2": Settings(threads=2),
    "haproxy-splice": Settings(splice=True),
    "haproxy-2-splice": Settings(threads=2, splice=True),
    "haproxy-64k": Settings(buffer_bytes=65_536),
    "haproxy-2-64k": Settings(threads=2, buffer_bytes=65_536),
    "haproxy-enough": Settings(buffer_bytes=65_536, extra=("tune.recv_enough 65536", "tune.maxpollevents 64")),
}
