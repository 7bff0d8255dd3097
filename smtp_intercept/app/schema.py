"""The configuration's tables and keys, their defaults and bounds.

Data only. What a value may be is said in `fields`, what does not go together in `checks`.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import PurePosixPath
from typing import Any

from pydantic import BaseModel, ConfigDict, Field

from bridge.flow import Action
from bridge.lane import NEXT_HOP_S
from smtp_intercept.app import fields
from smtp_intercept.app.defaults import SPOOL
from smtp_intercept.app.fields import (
    BareNewline,
    BypassWhen,
    Home,
    LinkLoss,
    LocalAction,
    OnDoubt,
    OnFailure,
    OnOverload,
    Queue,
    Source,
    VerifyFailure,
)
from smtp_intercept.app.rule_schema import MAX_FILTERS, MAX_RULES, DnsList, Filter, Inspect, ListName, Rule
from smtp_intercept.app.tls_schema import Tls, WaysChoice
from smtp_intercept.handling import Handler
from smtp_intercept.limits import DEFAULT_LIMITS, LOOK_AHEAD_BYTES, PATIENCE_S, RFC_SECONDS, Phase
from smtp_intercept.mta.nexthop import Protocol, Security
from smtp_intercept.tls.manners import Way

_DAY_S = 86_400
MAX_DNS_LISTS = 16
_MAX_SESSION_IDLE_S = 3600
assert _MAX_SESSION_IDLE_S < NEXT_HOP_S  # a session must not outlive the MAC addresses that it is sent to


class Table(BaseModel):
    """One table of the file."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)


class Bridge(Table):
    """[bridge]"""

    name: fields.LinkName = "br0"
    namespace: fields.HomeChoice = Home.OWN
    ports: fields.PortNames
    adopt: bool = False
    stp: bool = False
    on_failure: fields.OnFailureChoice = OnFailure.PASS
    link_loss: fields.LinkLossChoice = LinkLoss.KEEP
    bypass: fields.BypassChoice = BypassWhen.BOX
    vlans: tuple[fields.VlanId, ...] = ()
    management: tuple[fields.Interface, ...] = ()
    gateway: fields.Gateways = ()
    profile: str = "auto"


class Bypass(Table):
    """[[bypass]]: one relay; no driven_by is the usual program."""

    ports: tuple[fields.PortName, ...]
    kind: fields.RelayChoice
    driven_by: fields.FilePath | None = None
    apart: int = Field(1, ge=0, le=1, description="the line's value that keeps the ports apart")
    watchdog_ms: int = Field(
        3_000, ge=2_000, le=255_000, description="silence joins the ports; the least: a beat may take a second"
    )


class PortHandlers(Table):
    """[intercept.port.NAME]: what is None is [intercept]'s."""

    incoming: fields.HandlerChoice | None = None
    outgoing: fields.HandlerChoice | None = None
    starttls: fields.WayChoice | None = None


class Intercept(Table):
    """[intercept]"""

    ports: tuple[fields.PortNumber, ...] = (25,)
    tls_ports: tuple[fields.PortNumber, ...] = ()
    hidden: bool = True
    incoming: fields.HandlerChoice = Handler.PROXY
    outgoing: fields.HandlerChoice = Handler.PROXY
    starttls: WaysChoice = Way.PASS
    bare_newline: fields.BareNewlineChoice = BareNewline.REJECT
    on_doubt: fields.OnDoubtChoice | None = None  # incoming pass, outgoing close
    on_client_doubt: fields.OnDoubtChoice = OnDoubt.CLOSE
    balancers: tuple[fields.Network, ...] = Field(
        (), max_length=256, description="each new connection is compared with all of them"
    )
    on_overload: fields.OnOverloadChoice = OnOverload.PASS
    port: Mapping[fields.PortName, PortHandlers] = Field(default_factory=dict)


class PortPickUp(Table):
    """[pickup.port.NAME]: what is None is [pickup]'s."""

    incoming: fields.ActionChoice | None = None
    outgoing: fields.ActionChoice | None = None
    local: fields.LocalChoice | None = None


class PickUpRule(Table):
    """[[pickup.rule]]: what is None matches everything."""

    client: fields.Network | None = None
    server: fields.Network | None = None
    port: fields.PortName | None = None
    vlan: fields.VlanChoice | None = None
    direction: fields.DirectionChoice | None = None
    action: fields.ActionChoice


class PickUp(Table):
    """[pickup]"""

    incoming: fields.ActionChoice = Action.INTERCEPT
    outgoing: fields.ActionChoice = Action.PASS
    local: fields.LocalChoice = LocalAction.ALLOW
    port: Mapping[fields.PortName, PortPickUp] = Field(default_factory=dict)
    rule: tuple[PickUpRule, ...] = ()


class Protected(Table):
    """[[protected]]: a handler that is None is [intercept]'s; no deliver_to is the servers; no domain: servers that
    have none, and are accessed by their addresses only."""

    domain: fields.ProtectedDomain | None = None
    subdomains: bool = False
    servers: tuple[fields.ServerItem, ...] = ()
    handler: fields.HandlerChoice | None = None
    starttls: fields.WayChoice | None = None
    deliver_via_server: bool = False
    deliver_to: tuple[fields.PlaceItem, ...] = ()

    @property
    def name(self) -> str:
        """What the tables know it by: its domain or, in brackets, its first server."""
        return self.domain or f"[{next(iter(self.servers), '')}]"


class Mta(Table):
    """[mta]: no hostname is the host's own, no certificate is no STARTTLS."""

    hostname: fields.Domain | None = None
    spool: fields.FilePath = PurePosixPath(SPOOL)
    queue: fields.QueueChoice = Queue.OWN
    source: fields.SourceChoice = Source.BOX
    relay_from: tuple[fields.Network, ...] = ()
    relay_from_ports: tuple[fields.PortName, ...] = ()
    verify_recipients: bool = True
    verify_failure: fields.VerifyFailureChoice = VerifyFailure.ACCEPT
    certificate: fields.FilePath | None = None
    key: fields.FilePath | None = None
    tls: fields.SecurityChoice = Security.OPPORTUNISTIC
    tls_for: Mapping[fields.Domain, fields.SecurityChoice] = Field(default_factory=dict)
    size_bytes: int = Field(
        52_428_800, ge=65_536, le=2_147_483_647, description="one message must not fill the disk; least: §4.5.3.1.7"
    )
    recipients: int = Field(
        1_000, ge=100, le=50_000, description="each that is refused later is told a sender who may be forged; else 452"
    )
    notices_per_hour: int = Field(
        100, ge=0, le=1_000_000, description="to one sender: a forged one must not be flooded by us; more wait"
    )
    hops: int = Field(100, ge=30, le=1_000, description="mail that goes round must end; RFC 5321 §6.3 has 100")
    reserve_bytes: int = Field(
        67_108_864, ge=0, le=1 << 40, description="what is accepted must have room to be delivered or bounced; else 452"
    )
    connections: int = Field(100, ge=1, le=10_000, description="sockets and memory are bounded")
    connections_per_host: int = Field(10, ge=1, le=1_000, description="servers refuse those who come with more")
    messages_per_connection: int = Field(100, ge=1, le=100_000, description="servers close on those who stay for ever")
    retry_s: int = Field(1_620, ge=1, le=_DAY_S, description="the first; a server that is down must not be hammered")
    retry_most_s: int = Field(14_400, ge=1, le=_DAY_S, description="mail goes on within hours of a server's return")
    delay_notice_s: int = Field(
        14_400, ge=0, le=10 * _DAY_S, description="senders must not be left in the dark; 0: are"
    )
    give_up_s: int = Field(5 * _DAY_S, ge=1, le=10 * _DAY_S, description="RFC 5321 §4.5.4.1: at least 4-5 days")
    dsn_give_up_s: int = Field(5 * _DAY_S, ge=0, le=10 * _DAY_S, description="nobody waits for these; 0: one attempt")


class Relay(Table):
    """[relay]: the host that outgoing mail is given to."""

    host: fields.Host
    port: fields.PortNumber = 25
    protocol: fields.ProtocolChoice = Protocol.SMTP
    tls: fields.SecurityChoice = Security.OPPORTUNISTIC
    username: fields.UserName | None = None
    password_file: fields.FilePath | None = None


class Interceptor(Table):
    """[interceptor]: None is the hardware profile's."""

    workers: int | None = Field(
        None, ge=1, le=64, description="one process has one CPU's speed; more than there are CPUs only take turns"
    )


class Diverter(Table):
    """[diverter]: None is the hardware profile's."""

    queues: int | None = Field(None, ge=1, le=64, description="one decides some 50,000 connections a second")


class Dns(Table):
    """[dns]: no resolvers are those of /etc/resolv.conf."""

    resolvers: tuple[fields.ResolverItem, ...] = ()
    timeout_s: int = Field(5, ge=1, le=60, description="one query with all its retries; after it, mail is tried again")
    list: Mapping[ListName, DnsList] = Field(
        default_factory=dict, max_length=MAX_DNS_LISTS, description="each is asked for every client"
    )


class Log(Table):
    """[log]"""

    mail: fields.FilePath = PurePosixPath("/var/log/tollbridge/mail.log")
    mail_bytes: int = Field(
        1 << 30,
        ge=0,
        le=1 << 44,
        description="until its next rotation; beyond, only what matters is written; 0 is none",
    )
    reserve_bytes: int = Field(
        128 << 20, ge=0, le=1 << 40, description="free on its disk, below which the same holds; twice mta.reserve_bytes"
    )
    records_per_minute_per_network: int = Field(
        600,
        ge=0,
        le=1_000_000,
        description="alike, that came to nothing, of one /24 or /48; more are counted; 0 is none",
    )
    records_per_minute: int = Field(
        6_000, ge=0, le=10_000_000, description="the same of all clients together; 0 is none"
    )


class Tracking(Table):
    """[tracking]: no index is no tracking index."""

    index: fields.FilePath | None = None
    days: int = Field(30, ge=1, le=3_650, description="who wrote to whom must not be known for ever")
    size_bytes: int = Field(
        4 << 30, ge=64 << 20, le=1 << 44, description="the oldest days go first; it must not fill the disk"
    )


class Metrics(Table):
    """[metrics]: no place to listen at is no exporter."""

    listen: fields.ListenChoice | None = None


def _line(default: int) -> Any:
    """RFC 5321 §4.5.3.1 has 512 octets, with extensions some 1,500; half of what a session looks ahead is the most."""
    return Field(default, ge=2_048, le=32_768, description="a line without end must not fill the memory")


def _wait(phase: Phase) -> Any:
    least, default = RFC_SECONDS[phase], round(PATIENCE_S[phase])
    reason = f"{phase.value} that never comes must not hold a session; the least is RFC 5321 §4.5.3.2's"
    return Field(default, ge=least, le=_MAX_SESSION_IDLE_S, description=reason)


class Limits(Table):
    """[limits]: None is the hardware profile's; 0, where it may be, is none."""

    new_connections_per_s: int | None = Field(
        None, ge=1, le=1_000_000, description="a flood of SYNs must not fill the queue; beyond: as on_failure says"
    )
    new_connections_per_s_per_network: int | None = Field(
        None, ge=1, le=1_000_000, description="one client network (/24 or /48) must not use up everybody's rate"
    )
    next_hops: int | None = Field(
        None, ge=64, le=4_194_304, description="memory for the MACs of connections; without it, what the rates need"
    )
    sessions: int | None = Field(
        None, ge=1, le=1_000_000, description="memory is bounded; connections beyond are bridged untouched"
    )
    session_idle_s: int | None = Field(
        None, ge=300, le=_MAX_SESSION_IDLE_S, description="a peer that has gone must not hold a session for ever"
    )
    drain_s: int | None = Field(None, ge=0, le=3_600, description="how long a graceful stop waits for sessions to end")
    sessions_per_client: int = Field(
        5_000, ge=0, le=1_000_000, description="one client must not take everybody's places; beyond: 421 from the box"
    )
    client_percent: int = Field(
        50, ge=0, le=1_000, description="of the places still free: the fuller the house, the fewer are one's; then 421"
    )
    network_percent: int = Field(
        100, ge=0, le=1_000, description="the same for its network, /24 or /48: addresses cost their owner nothing"
    )
    held_bytes: int = Field(
        0,
        ge=0,
        le=1 << 36,
        description="peers' octets kept at once; who has most is read later; 0: 16 KiB a place",
    )
    command_line_bytes: int = _line(DEFAULT_LIMITS.command_line_bytes)
    auth_line_bytes: int = Field(
        DEFAULT_LIMITS.auth_line_bytes, ge=12_288, le=LOOK_AHEAD_BYTES, description="credentials; a ticket has its size"
    )
    reply_line_bytes: int = _line(DEFAULT_LIMITS.reply_line_bytes)
    header_bytes: int = Field(
        DEFAULT_LIMITS.header_bytes, ge=65_536, le=67_108_864, description="kept while a policy waits for its end: 552"
    )
    recipients: int = Field(
        DEFAULT_LIMITS.recipients, ge=0, le=1_000_000, description="of one message; beyond: 452, the client sends again"
    )
    commands_without_mail: int = Field(
        DEFAULT_LIMITS.commands_without_mail, ge=0, le=1_000_000, description="NOOPs must not hold a session for ever"
    )
    without_mail_s: int = Field(
        round(DEFAULT_LIMITS.without_mail_s), ge=0, le=_DAY_S, description="nor must anything else but mail; 421"
    )
    block_bytes_per_min: int = Field(
        DEFAULT_LIMITS.block_bytes_per_min,
        ge=0,
        le=1_000_000,
        description="message data that comes octet by octet must not hold a session for ever; 421",
    )
    errors: int = Field(
        DEFAULT_LIMITS.errors, ge=0, le=1_000_000, description="5yz replies to a client that guesses; beyond: 421"
    )
    errors_free: int = Field(DEFAULT_LIMITS.errors_free, ge=0, le=1_000_000, description="anybody may err")
    error_delay_s: int = Field(round(DEFAULT_LIMITS.error_delay_s), ge=0, le=60, description="guessing must be slow")
    error_delay_step_s: int = Field(round(DEFAULT_LIMITS.error_delay_step_s), ge=0, le=60, description="and slower")
    wait_banner_s: int = _wait(Phase.BANNER)
    wait_reply_s: int = _wait(Phase.REPLY)
    wait_data_reply_s: int = _wait(Phase.DATA_REPLY)
    wait_end_reply_s: int = _wait(Phase.END_REPLY)
    wait_command_s: int = _wait(Phase.COMMAND)
    wait_block_s: int = _wait(Phase.BLOCK)


class Config(Table):
    """The whole file."""

    bridge: Bridge
    bypass: tuple[Bypass, ...] = ()
    intercept: Intercept = Intercept()
    pickup: PickUp = PickUp()
    protected: tuple[Protected, ...] = ()
    inspect: Inspect = Inspect()
    filter: tuple[Filter, ...] = Field((), max_length=MAX_FILTERS)
    rule: tuple[Rule, ...] = Field((), max_length=MAX_RULES)
    tls: Tls = Tls()
    mta: Mta = Mta()
    relay: Relay | None = None
    dns: Dns = Dns()
    log: Log = Log()
    tracking: Tracking = Tracking()
    metrics: Metrics = Metrics()
    limits: Limits = Limits()
    interceptor: Interceptor = Interceptor()
    diverter: Diverter = Diverter()
