"""nft and, for the queue rule where it must be, iptables: one transaction in, counters out. Own tables only."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import sys
from dataclasses import dataclass
from typing import Any

from bridge import nfdump
from bridge.flow import queue_of
from bridge.lane import LANE
from bridge.ruleset import NAME, TABLES, digest, unload
from bridge.steps import AddQueueRule, RemoveQueueRule

_PATH = "/usr/sbin:/usr/bin:/sbin:/bin"


class FirewallError(Exception):
    """nft or iptables refused; the message is theirs."""


class MissingFeatureError(Exception):
    """The kernel or the system lacks something; the message names it and what brings it."""


def _program(name: str, package: str) -> str:
    path = shutil.which(name, path=_PATH)
    if path is None:
        raise MissingFeatureError(f"the program {name} is missing; install it: apt-get install {package}")
    return path


def _run(command: list[str], text: str = "") -> str:
    done = subprocess.run(command, input=text, capture_output=True, text=True, check=False)  # noqa: S603 - fixed programs
    if done.returncode:
        raise FirewallError(f"{' '.join(command[:2])}: {done.stderr.strip() or f'exit {done.returncode}'}")
    return done.stdout


def nft(text: str, *options: str) -> str:
    """Run one transaction through ``nft -f -``."""
    return _run([_program("nft", "nftables"), *options, "-f", "-"], text)


def _list(query: str) -> list[dict[str, Any]]:
    """The objects of one ``list …``; empty where the thing is not there."""
    try:
        listed = _run([_program("nft", "nftables"), "-j", *query.split()])
    except FirewallError:
        return []
    return [item for item in json.loads(listed)["nftables"] if "metainfo" not in item]


# --- the ruleset --------------------------------------------------------------------------


def listed() -> str:
    """All own tables as the kernel has them, without elements and counts; "" unless every one is there."""
    try:
        # As text: the JSON of nft 1.0.6 has neither the comment nor the devices. Not `list table`: 1.0.6 fetches every
        # element for that all the same, to show none: of 200,000 in two seconds and 200 MiB.
        terse = [_program("nft", "nftables"), "--terse", "--stateless", "list", "ruleset"]
        own = [table_in(_run([*terse, family]), family) for family in TABLES]
    except FirewallError:
        return ""
    return "".join(own) if all(own) else ""


def table_in(text: str, family: str) -> str:
    """Our own of this family out of all of its tables; "" if it is not among them."""
    found = re.search(rf"^table {family} {NAME} {{.*?^}}\n", text, re.MULTILINE | re.DOTALL)
    return found[0] if found else ""


def loaded(text: str) -> bool:
    """Whether exactly this text is in force, with every device still hooked and every target still the one it names."""
    present = listed()
    same = f'comment "{digest(text)}"' in present and targets(text) == targets(present)
    return same and devices(text) <= devices(present) and shape(text) == shape(present)


def complete() -> bool:
    """Whether every table is there; `loaded` asks whether it is the right one."""
    return all(nfdump.has_table(family, NAME) for family in TABLES)


def devices(text: str) -> set[str]:
    """The names in ``device "a"`` and ``devices = { a, "b" }`` of nft text."""
    hooks = re.findall(r"\bdevices? (?:= )?(.+?) priority", text)
    return {name.strip('" ') for hook in hooks for name in hook.strip("{} ").split(",")}


def shape(text: str) -> dict[tuple[str, str], int]:
    """(family, chain) → how many rules it has, of nft text that has a rule to a statement: a chain that somebody has
    flushed has none, one that somebody has put a rule into has one more."""
    rules: dict[tuple[str, str], int] = {}
    family, chain, depth = "", "", 0
    for line in map(str.strip, text.splitlines()):
        if not depth and line.startswith("table "):
            family = line.split()[1]
        elif depth == 1 and line.startswith("chain "):
            chain = line.split()[1]
            rules[family, chain] = 0
        depth += line.count("{") - line.count("}")
        # A map in a rule has lines of its own.
        if chain and depth == 2 and line and not line.startswith(("chain ", "type ")):
            rules[family, chain] += 1
        elif depth < 2:
            chain = ""
    return rules


def targets(text: str) -> set[str]:
    """The names in ``fwd to "a"`` and ``dup to "a"``. nft says the number of a device that has gone: a new one of the
    same name is another."""
    return set(re.findall(r'\b(?:fwd|dup) to "?([^\s"]+)', text))


def remove() -> None:
    """All own tables, whether there or not."""
    nft(unload())


def counters() -> dict[str, int]:
    """Packets by counter name; empty if the ruleset is not loaded."""
    return {name: packets for family in TABLES for name, packets in nfdump.counters(family, NAME).items()}


def live() -> frozenset[int]:
    """The queues, from 0, into which the dead-man's switch lets SYNs at this moment."""
    marks = {int.from_bytes(key[4:8], sys.byteorder) for key in nfdump.keys("inet", NAME, "live")}
    return frozenset(map(queue_of, marks))


def traces(family: str, name: str) -> frozenset[int]:
    """The numbers in a set of the canary's (`bridge.stages`)."""
    return frozenset(int.from_bytes(key) for key in nfdump.keys(family, NAME, name))


def strangers(hook: str, version: int) -> list[str]:
    """Chains of others in a hook that packets of this IP version meet, those that drop by default first."""
    family = "ip" if version == 4 else "ip6"
    chains = [item["chain"] for item in _list("list chains") if item.get("chain", {}).get("hook") == hook]
    there = [each for each in chains if each["family"] in (family, "inet") and each["table"] != NAME]
    there.sort(key=lambda each: each.get("policy") != "drop")
    return [f"{each['family']} {each['table']} {each['name']} (policy {each.get('policy')})" for each in there]


def open_switch() -> None:
    """Let go at once, without waiting for the last beat to expire; nothing happens without the ruleset."""
    if nfdump.has_table("inet", NAME):
        nft(f"flush set inet {NAME} live\n")


def forward_ports(links: list[str], timeout_s: int) -> None:
    """With STP: the links (ports and their legs) whose port forwards, until the time-out. All others stop at once."""
    items = ", ".join(f'"{link}" timeout {timeout_s}s' for link in links)
    add = f"add element netdev {NAME} forwarding {{ {items} }}\n" if items else ""
    nft(f"flush set netdev {NAME} forwarding\n{add}")


# --- the queue rule by iptables --------------------------------------------------------------------------


def _queue_rule(verb: str, rule: AddQueueRule | RemoveQueueRule) -> list[str]:
    program = _program("iptables" if rule.family == 4 else "ip6tables", "iptables")
    mark = f"{rule.mark:#x}"
    match = ["-i", rule.link, "-p", "tcp", "-m", "mark", "--mark", mark]
    bypass = ["--queue-bypass"] if rule.bypass else []
    return [
        program,
        "-w",
        "-t",
        "raw",
        verb,
        "PREROUTING",
        *match,
        "-j",
        "NFQUEUE",
        "--queue-num",
        str(rule.queue),
        *bypass,
    ]


def has_queue_rule(rule: AddQueueRule) -> bool:
    try:
        _run(_queue_rule("-C", rule))
    except FirewallError:
        return False
    return True


def has_raw_table(family: int) -> bool:
    """Whether anybody has made the table raw of iptables (family 4) or ip6tables (6)."""
    return bool(_list(f"list table {_raw(family)}"))


def add_queue_rule(rule: AddQueueRule) -> None:
    _run(_queue_rule("-A", rule))


def remove_queue_rule(rule: RemoveQueueRule) -> None:
    """And the table raw with it, if it was made for this rule and nobody else uses it now."""
    _run(_queue_rule("-D", rule))
    if rule.drop_table and not any("rule" in item for item in _list(f"list table {_raw(rule.family)}")):
        nft(f"delete table {_raw(rule.family)}\n")


def _raw(family: int) -> str:
    return f"{'ip' if family == 4 else 'ip6'} raw"


# --- what this kernel can do --------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class _Feature:
    """A ruleset that needs one feature, and where the feature comes from."""

    name: str
    rules: str
    remedy: str


_PROBE = f"{NAME}-probe"


def _probe(family: str, hook: str, rule: str, head: str = "") -> str:
    return f"table {family} {_PROBE} {{\n{head}\nchain c {{\ntype filter hook {hook};\n{rule}\n}}\n}}\n"


_INET, _NETDEV = ("inet", "prerouting priority 0"), ("netdev", 'ingress device "lo" priority 0')
_MAP = "map m { typeof ip saddr : ether saddr; flags dynamic,timeout; timeout 1s; size 8; }"
_FEATURES = (
    _Feature("nf_tables", _probe(*_INET, "accept"), "a kernel with CONFIG_NF_TABLES, as Debian's are"),
    _Feature("netdev fwd", _probe(*_NETDEV, 'fwd to "lo"'), "module nft_fwd_netdev (CONFIG_NFT_FWD_NETDEV)"),
    _Feature("netdev dup", _probe(*_NETDEV, 'dup to "lo"'), "module nft_dup_netdev (CONFIG_NFT_DUP_NETDEV)"),
    _Feature(
        "netdev egress",
        _probe("netdev", 'egress device "lo" priority 0', "accept"),
        "Linux 5.16 or later with CONFIG_NETFILTER_EGRESS",
    ),
    _Feature(
        "maps that packets fill",
        _probe(*_NETDEV, "add @m { ip saddr timeout 1s : ether saddr } delete @m { ip saddr : ether saddr }", _MAP),
        "Linux 5.10 or later and nftables 1.0.6 or later",
    ),
    _Feature("socket match", _probe(*_INET, "socket transparent 1 accept"), "module nft_socket (CONFIG_NFT_SOCKET)"),
    _Feature(
        "tproxy expression",
        _probe(*_INET, "meta nfproto ipv4 meta l4proto tcp tproxy ip to :9"),
        "module nft_tproxy (CONFIG_NFT_TPROXY)",
    ),
    _Feature(
        "jhash", _probe(*_INET, "meta mark set jhash ip saddr mod 2 seed 0x1"), "module nft_hash (CONFIG_NFT_HASH)"
    ),
    _Feature("notrack", _probe(*_INET, "notrack"), "module nft_ct (CONFIG_NFT_CT)"),
    _Feature("bridge family", _probe("bridge", "prerouting priority 10", "accept"), "CONFIG_NF_TABLES_BRIDGE"),
)


def _works(*rules: str) -> bool:
    """Whether all of these, each in a table of its own, are taken in one transaction."""
    apart = (text.replace(_PROBE, f"{_PROBE}{number}") for number, text in enumerate(rules))
    try:
        nft("".join(apart), "-c")
    except FirewallError:
        return False
    return True


def probe() -> bool:
    """Whether nft can queue (else iptables does). Raises `MissingFeatureError` naming all that is missing.

    Everything is tried in tables that are never committed: versions and configurations lie, kernels do not.
    """
    if not _works(*(feature.rules for feature in _FEATURES)):
        missing = [f"{f.name} ({f.remedy})" for f in _FEATURES if not _works(f.rules)]
        raise MissingFeatureError("this kernel lacks: " + "; ".join(missing))
    if _works(_probe(*_INET, f'iifname "{LANE}" queue num 0 bypass')):
        return True
    _probe_iptables()
    return False


def _probe_iptables() -> None:
    """A chain of our own in the table raw, made and removed; the table too if it was not there."""
    for family in (4, 6):
        program = _program("iptables" if family == 4 else "ip6tables", "iptables")
        before, chain = has_raw_table(family), _PROBE
        base = [program, "-w", "-t", "raw"]
        try:
            _run([*base, "-N", chain])
            _run(
                [
                    *base,
                    "-A",
                    chain,
                    "-m",
                    "mark",
                    "--mark",
                    "0x1",
                    "-j",
                    "NFQUEUE",
                    "--queue-num",
                    "0",
                    "--queue-bypass",
                ]
            )
        except FirewallError as error:
            raise MissingFeatureError(
                "this kernel can queue packets neither by nft (module nft_queue) nor by iptables (modules nft_compat, "
                f"xt_NFQUEUE): {error}"
            ) from error
        finally:
            for verb in ("-F", "-X"):
                subprocess.run([*base, verb, chain], capture_output=True, check=False)  # noqa: S603 - fixed program
            if (
                not before
                and has_raw_table(family)
                and not any("rule" in i for i in _list(f"list table {_raw(family)}"))
            ):
                nft(f"delete table {_raw(family)}\n")
