"""The configuration and the hardware profile → the bridge that is wanted, in the bridge's own words."""

from __future__ import annotations

from bridge.flow import Action
from bridge.lane import LEARNED_S, LEARNED_UNTIL_BANNER_S, Limits, Wanted
from bridge.links import Links
from hwprofiles.facts import facts, profiles
from hwprofiles.match import match, named
from hwprofiles.profile import Profile
from smtp_intercept.app.config import Config, limits, policy, uses_mta
from smtp_intercept.app.fields import OnFailure
from smtp_intercept.direction import Direction, Servers


def profile_of(config: Config) -> tuple[Profile, str]:
    """The profile in force and why. Raises `hwprofiles.profile.ProfileError` for an unknown name."""
    if config.bridge.profile == "auto":
        with Links() as links:
            names = {link.mac: name for name, link in links.facts().items()}
        return match(facts(names.get(port.lower(), port) for port in config.bridge.ports), profiles())
    return named(config.bridge.profile, profiles()), "named in bridge.profile"


def wanted(config: Config, profile: Profile) -> Wanted:
    """What `bridge.plan.make_plan` is asked for."""
    bridge, in_force = config.bridge, limits(config, profile)
    table = policy(config, Servers(), frozenset())
    dials_by_lane = config.intercept.hidden and not uses_mta(config)
    return Wanted(
        bridge=bridge.name,
        ports=bridge.ports,
        mail_ports=config.intercept.ports,
        adopt=bridge.adopt,
        stp=bridge.stp,
        block=bridge.on_failure is OnFailure.BLOCK,
        management=tuple(map(str, bridge.management)),
        gateway=() if bridge.gateway is None else (str(bridge.gateway),),
        closed=frozenset(p for p in bridge.ports if table.by_table(Direction.LOCAL, p).action is Action.DROP),
        limits=Limits(in_force.new_connections_per_s, in_force.new_connections_per_s_per_network, in_force.next_hops),
        learned_s=LEARNED_S if dials_by_lane else LEARNED_UNTIL_BANNER_S,
        sysctls_at_least=profile.sysctls.by_name(),
    )
