"""What goes wrong in the field, each with its remedy: facts of a box in, findings out.

Pure. One small function for each kind of ailment, in `CHECKS`; one that lacks its facts finds nothing.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from smtp_intercept.app import tracking_status

FEW_SESSIONS = 20  # of fewer nothing is concluded
UNANSWERED = 0.2  # of the sessions: their servers were dialled in vain
EXPIRES_S = 21 * 86_400.0  # long enough for whoever has to ask for a new one
UNROTATED_S = 3 * 86_400.0  # the package rotates daily
UNROTATED_BYTES = 64 << 20
FEW_RESTARTS = 3
_DISCONNECTED = (
    "plug the cable in, or look at the other end's port; of a VM: is its card connected? (docs/hypervisors.md)"
)


@dataclass(frozen=True, slots=True)
class Finding:
    """``mail``: it is not inspected, or does not cross, for it."""

    what: str
    remedy: str
    mail: bool = False


@dataclass(frozen=True, slots=True)
class Port:
    """None is what cannot be told. ``merges``: what the card does to frames before the bridge sees them, by the
    kernel's names of features."""

    name: str
    carrier: bool | None = None
    mtu_bytes: int | None = None
    half_duplex: bool = False
    merges: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Disk:
    """Where ``key`` of the configuration writes; ``reserve_bytes`` of it must stay free."""

    key: str
    path: str
    free_bytes: int
    reserve_bytes: int
    reserved_by: str


@dataclass(frozen=True, slots=True)
class MailLog:
    """``began_at``: the time of its first line. ``elsewhere``: what the daemon writes to, if that is another file."""

    path: str
    size_bytes: int = 0
    copies: int = 0
    began_at: float | None = None
    most_bytes: int = 0
    elsewhere: str = ""


@dataclass(frozen=True, slots=True)
class Certificate:
    """``why``: it cannot be used, in TLS's own words."""

    path: str
    ends_at: float | None = None
    why: str = ""


@dataclass(frozen=True, slots=True)
class Seen:
    """A box at one moment. ``status`` is the page that `tollbridge status --json` prints, ``headline`` its first
    line; ``filters`` are others' chains that drop by default what br_netfilter shows them of bridges in the host."""

    now: float
    status: Mapping[str, Any] = field(default_factory=dict)
    headline: str = ""
    inspecting: bool = True
    ports: tuple[Port, ...] = ()
    filters: tuple[str, ...] = ()
    name_servers: int | None = None
    synchronised: bool | None = None
    certificates: tuple[Certificate, ...] = ()
    log: MailLog | None = None
    disks: tuple[Disk, ...] = ()
    unread: tuple[str, ...] = ()  # what could not be looked at, and why


def findings(seen: Seen) -> list[Finding]:
    """All of them, those first for which mail is not inspected."""
    found = [finding for check in CHECKS for finding in check(seen)]
    return sorted(dict.fromkeys(found), key=lambda finding: not finding.mail)


# --- the gateway ---------------------------------------------------------------------------------------------------

_STATES = (
    ("up", "tollbridge up, which says what stands in its way"),
    ("running", "systemctl start tollbridge (or tollbridge run); why it ended: journalctl -u tollbridge"),
    ("ready", "journalctl -u tollbridge says which process does not start"),
    ("live", "journalctl -u tollbridge; what follows here may be why"),
)


def _inspection(seen: Seen) -> Iterator[Finding]:
    if not seen.inspecting:
        missing = (remedy for key, remedy in _STATES if not seen.status.get(key))
        yield Finding(seen.headline, next(missing, "what follows here may be why"), mail=True)


def _canaries(seen: Seen) -> Iterator[Finding]:
    for lost in seen.status.get("watch", {}).get("lost", []):
        by = lost.get("by")
        remedy = f"have {by} let the links of the mail lane be" if by else "tollbridge plan names each rule of ours"
        if not seen.status.get("namespace"):
            remedy += (
                "; or give the wire a network namespace of its own, where no firewall reaches it (bridge.namespace)"
            )
        yield Finding(
            f"{lost.get('path')}: mail is lost on its way through the box: {lost.get('why')}", remedy, mail=True
        )


def _taken(seen: Seen) -> Iterator[Finding]:
    watch = seen.status.get("watch", {})
    contended = watch.get("contended", [])
    for step in contended:
        yield Finding(
            f"somebody else undoes it again and again: {step}",
            "find who (a firewall's reload, Docker, a network manager) and have it leave our links and rules alone "
            '(docs/install.md); bridge.namespace = "own" puts them out of its reach',
        )
    for said in watch.get("differences", []):
        if said not in contended:
            yield Finding(f"not as `up` made it: {said}", "tollbridge up")
    if why := watch.get("failed"):
        yield Finding(f"nobody watches over the gateway's own rules and links: {why}", "journalctl -u tollbridge")
    if healed := watch.get("healed"):
        yield Finding(
            f"others have changed what is the gateway's, and it was put right, {len(healed)} times; at last: "
            f"{healed[-1].get('what')}",
            "tollbridge status says when; find who does so",
        )


def _filtered(seen: Seen) -> Iterator[Finding]:
    for chain in seen.filters:
        yield Finding(
            f"bridged traffic passes another firewall, whose {chain} drops what it does not know",
            'bridge.namespace = "own"; or sysctl net.bridge.bridge-nf-call-iptables=0, and -ip6tables=0',
            mail=True,
        )


def _processes(seen: Seen) -> Iterator[Finding]:
    for name, number in seen.status.get("restarts", {}).items():
        if number >= FEW_RESTARTS:
            yield Finding(f"the {name} was started again {number} times", "journalctl -u tollbridge says why it ended")
    for kind, walls in seen.status.get("unguarded", {}).items():
        yield Finding(
            f"the {kind} runs without a part of its sandbox: {'; '.join(walls)}",
            "a newer kernel, libseccomp2, or the host instead of a container",
        )


def _tables(seen: Seen) -> Iterator[Finding]:
    for name, number in seen.status.get("full", {}).items():
        yield Finding(
            f"the kernel's table {name} was full, {number} times",
            "more limits.next_hops, or a lower rate (docs/architecture.md)",
        )
    lost = sum(seen.status.get("queue", {}).values())
    if lost:
        yield Finding(
            f"{lost} SYNs were lost before they were judged", "more diverter.queues, if there are processors for them"
        )


def _changes(seen: Seen) -> Iterator[Finding]:
    if seen.status.get("waits_for_confirm"):
        yield Finding("`up --confirm` waits, and is undone if nobody says so", "tollbridge confirm")
    if seen.status.get("instead"):
        yield Finding("the last good configuration is in force, for the present one is refused", "tollbridge check")
    elif seen.status.get("drift"):
        yield Finding(
            "the configuration differs from what is in force",
            "tollbridge status names each key, and how it comes into force",
        )
    begun = (seen.status.get("change") or {}).get("begun")
    if begun:
        yield Finding(
            f"`tollbridge {begun.get('verb')}` did not come to its end", "tollbridge up, or tollbridge down", mail=True
        )
    for relay in seen.status.get("relays", []):
        if relay.get("state") != "armed":
            why = f"the bypass relay {'-'.join(relay.get('ports', []))} is {relay.get('state')}: {relay.get('why')}"
            yield Finding(why, "docs/hardware.md#bypass-hardware", mail=relay.get("state") == "bypassed")


_NO_TRACKER: Mapping[str, Any] = {"restarts": {}, "ended": [], "processes": {}, "tracking": None}


def _mail(seen: Seen) -> Iterator[Finding]:
    mta = seen.status.get("mta") or {}
    if (dead := (mta.get("queue") or {}).get("dead")) or 0:
        yield Finding(f"{dead} messages in the queue are dead", "tollbridge queue list --state dead")
    waiting = seen.status.get("waiting") or {}
    if waiting.get("messages"):
        yield Finding(
            f"{waiting['messages']} messages wait in {waiting.get('spool')}, and no MTA runs",
            "systemctl start tollbridge",
        )
    if silent := seen.status.get("mail", {}).get("mta_silent"):
        yield Finding(f"the MTA did not answer {silent} times", "is its disk slow or full? journalctl -u tollbridge")
    for line in tracking_status.warnings({**_NO_TRACKER, **seen.status}):
        yield Finding(line, "journalctl -u tollbridge; then tollbridge reindex (docs/tracking.md)")


# --- the wire ------------------------------------------------------------------------------------------------------


def _carriers(seen: Seen) -> Iterator[Finding]:
    for port in seen.ports:
        if port.carrier is False:
            yield Finding(f"{port.name} has no carrier: nothing crosses by it", _DISCONNECTED, mail=True)
        if port.half_duplex:
            yield Finding(
                f"{port.name} runs at half duplex: frames are lost under load",
                "let both ends negotiate (ethtool -s PORT autoneg on), or fix both",
            )


def _mtu(seen: Seen) -> Iterator[Finding]:
    sizes = {port.name: port.mtu_bytes for port in seen.ports if port.mtu_bytes}
    if len(set(sizes.values())) > 1:
        said = ", ".join(f"{name} {size}" for name, size in sizes.items())
        yield Finding(
            f"the ports' MTUs differ ({said}): what is longer than the least does not cross, and nobody is told",
            f"ip link set PORT mtu {max(filter(None, sizes.values()))} on each, as the wire had it without the box",
        )


def _offloads(seen: Seen) -> Iterator[Finding]:
    for port in seen.ports:
        for feature in port.merges:
            yield Finding(
                f"{port.name} merges frames that it receives ({feature}): others leave the box than came in",
                f"tollbridge hw apply, or ethtool -K {port.name} {feature} off",
            )


def _asymmetry(seen: Seen) -> Iterator[Finding]:
    mail = seen.status.get("mail", {})
    sessions, failures = mail.get("sessions", 0), mail.get("dial_failures", 0)
    if sessions >= FEW_SESSIONS and failures > sessions * UNANSWERED:
        yield Finding(
            f"of {sessions} sessions' servers {failures} did not answer when they were dialled",
            "do the servers' answers come back through this box? Both ways of a connection must cross it: "
            "tcpdump -e on each port, and look for SYN-ACKs (docs/conditions.md)",
        )


# --- the host ------------------------------------------------------------------------------------------------------


def _names(seen: Seen) -> Iterator[Finding]:
    for name in seen.status.get("protected", []):
        if name.get("error"):
            kept = "its last addresses are kept" if name.get("addresses") else "no address of it is known"
            yield Finding(
                f"{name.get('name')} cannot be looked up: {name['error']}; {kept}",
                "ask them yourself: dig @SERVER NAME; dns.resolvers names others; or name addresses in their place",
                mail=not name.get("addresses"),
            )
    if seen.name_servers == 0:
        yield Finding("/etc/resolv.conf names no server", "write one there, or set dns.resolvers")


def _clock(seen: Seen) -> Iterator[Finding]:
    if seen.synchronised is False:
        yield Finding(
            "the clock is not synchronised: times in the log, in notices and of certificates may be wrong",
            "timedatectl set-ntp true (apt install systemd-timesyncd or chrony); of a VM: is NTP let out?",
        )


def _certificates(seen: Seen) -> Iterator[Finding]:
    for each in seen.certificates:
        if each.why:
            yield Finding(f"{each.path} cannot be used: {each.why}", "have a new one made, then restart tollbridge")
        elif each.ends_at is not None and each.ends_at - seen.now < EXPIRES_S:
            days = (each.ends_at - seen.now) / 86_400
            yield Finding(f"{each.path} ends in {days:.0f} days", "have it renewed, then restart tollbridge")


def _log(seen: Seen) -> Iterator[Finding]:
    log = seen.log
    if log is None:
        return
    if log.elsewhere:
        yield Finding(
            f"the daemon writes its mail log to {log.elsewhere}, not to {log.path}: that was renamed or removed",
            "restart tollbridge; rotate by copytruncate, as /etc/logrotate.d/tollbridge does",
        )
    if 0 < log.most_bytes <= log.size_bytes:
        yield Finding(
            f"{log.path} has log.mail_bytes: of what came to nothing no more is written until it is rotated",
            "logrotate -f /etc/logrotate.d/tollbridge",
        )
    aged = log.began_at is not None and seen.now - log.began_at > UNROTATED_S
    if aged and log.size_bytes > UNROTATED_BYTES and not log.copies:
        yield Finding(
            f"{log.path} has never been rotated, and has {log.size_bytes >> 20} MiB",
            "apt install logrotate; systemctl status logrotate.timer; another path needs an entry of its own",
        )


def _lost_lines(seen: Seen) -> Iterator[Finding]:
    mta = (seen.status.get("mta") or {}).get("counts", {})
    lost = seen.status.get("mail", {}).get("log_lines_lost", 0) + mta.get("log_lines_lost", 0)
    if lost:
        yield Finding(f"{lost} lines of the mail log could not be written", "make room on its disk")
    if unsaid := seen.status.get("unsaid"):
        yield Finding(
            f"{unsaid} lines of the gateway's own log were lost",
            "is the journal well? systemctl status systemd-journald",
        )


def _disks(seen: Seen) -> Iterator[Finding]:
    for disk in seen.disks:
        if disk.free_bytes < disk.reserve_bytes:
            yield Finding(
                f"{disk.path} ({disk.key}) has {disk.free_bytes >> 20} MiB free, less than {disk.reserved_by}",
                "make room there: below the reserve mail is put off with 452, and the log keeps only what matters",
            )


CHECKS: tuple[Callable[[Seen], Iterable[Finding]], ...] = (
    *(_inspection, _carriers, _canaries, _filtered, _taken, _changes, _names),
    *(_processes, _tables, _mail, _mtu, _offloads, _asymmetry),
    *(_clock, _certificates, _log, _lost_lines, _disks),
)
