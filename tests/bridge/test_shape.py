"""What of a ruleset is compared without knowing how nft writes it: hooks, targets, and the rules of each chain."""

from __future__ import annotations

from bridge.firewall import devices, shape, targets
from bridge.ruleset import render
from tests.bridge.test_ruleset import RULES

LISTED = """table netdev tollbridge {
\tset canary_arrived {
\t\ttypeof tcp sequence
\t\tsize 8192
\t}

\tchain port0 {
\t\ttype filter hook ingress device "p0" priority filter; policy accept;
\t\tmeta l4proto tcp goto port0_tcp
\t\tip saddr vmap { 192.0.2.1 : goto a,
\t\t\t\t192.0.2.2 : goto b }
\t\tfwd to "smtp0w0"
\t\tdup to 3
\t}

\tchain port0_tcp {
\t}
}
table inet tollbridge {
\tcomment "045c95263824f3a3"
\tchain port0 {
\t\tdrop
\t}
}
"""


def test_a_listing_has_a_rule_to_a_statement() -> None:
    assert shape(LISTED) == {("netdev", "port0"): 4, ("netdev", "port0_tcp"): 0, ("inet", "port0"): 1}
    assert devices(LISTED) == {"p0"}
    assert targets(LISTED) == {"smtp0w0", "3"}


def test_every_rule_of_ours_is_counted() -> None:
    found = shape(render(RULES))
    assert {family for family, _ in found} == {"netdev", "inet", "bridge"}
    assert all(found.values()), [chain for chain, rules in found.items() if not rules]
    assert found["inet", "verdict"] > 3
