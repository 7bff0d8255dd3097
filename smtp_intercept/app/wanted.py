"""The configuration and the hardware profile → the bridge that is wanted, in the bridge's own words."""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace

from bridge.flow import Action
from bridge.lane import LEARNED_S, LEARNED_UNTIL_BANNER_S, Limits, Wanted
from bridge.steps import SetNic, SetSysctl, Step, plain
from bridge.sysctls import sysctl_path
from hwprofiles.box import Box
from hwprofiles.match import match, named
from hwprofiles.profile import Profile, Sysctls
from hwprofiles.shelf import profiles
from hwprofiles.tuning import Setting, Tuning, tuning
from smtp_intercept.app import seen
from smtp_intercept.app.config import Config, limits, policy, queues, uses_mta
from smtp_intercept.app.fields import Home, OnFailure
from smtp_intercept.direction import Direction, Servers


@dataclass(frozen=True, slots=True)
class Fit:
    """The configuration, the box with the NICs of its bridge, the profile for it, and why that one."""

    config: Config
    box: Box
    profile: Profile
    why: str

    @property
    def tuning(self) -> Tuning:
        return tuning(self.profile, self.box)


def fit(config: Config) -> Fit:
    """Raises `hwprofiles.profile.ProfileError` for an unknown name."""
    box = seen.box(config.bridge.ports)
    if config.bridge.profile == "auto":
        profile, why = match(box, profiles())
    else:
        profile, why = named(config.bridge.profile, profiles()), "named in bridge.profile"
    return Fit(config, box, profile.fitted(box.memory_mib, box.cpu.cores), why)


def profile_of(config: Config) -> tuple[Profile, str]:
    """The profile in force and why, its limits no more than this box has memory for."""
    found = fit(config)
    return found.profile, found.why


def tuned(config: Config, found: Fit, room: str) -> Wanted:
    """`wanted`, and the settings of the ports that the profile asks for and the ports have."""
    settings = found.tuning
    want = wanted(config, found.profile, room)
    return replace(want, tuned_first=_steps(settings.first), tuned_last=_steps(settings.last))


def _steps(settings: Iterable[Setting]) -> tuple[SetNic, ...]:
    return tuple(SetNic(setting.port, setting.name, setting.value) for setting in settings)


_SYSCTLS = frozenset(Sysctls(*[0] * len(Sysctls.__slots__)).by_name())


def is_tuning(undo: Step) -> bool:
    """Whether this inverse is of a setting that a profile asked for, and not of the bridge."""
    match plain(undo):
        case SetNic():
            return True
        case SetSysctl(name):
            return name in _SYSCTLS
        case _:
            return False


def _ours(floors: Mapping[str, int]) -> dict[str, int]:
    """Without those that belong to the whole machine where this namespace may only read them."""
    return {name: least for name, least in floors.items() if os.access(sysctl_path(name), os.W_OK)}


def wanted(config: Config, profile: Profile, room: str) -> Wanted:
    """What `bridge.plan.make_plan` is asked for. ``room`` is the name of a network namespace, if one is wanted."""
    bridge, in_force = config.bridge, limits(config, profile)
    table = policy(config, Servers(), frozenset())
    own = bridge.namespace is Home.OWN
    dials_by_lane = config.intercept.hidden and not uses_mta(config)
    return Wanted(
        bridge=bridge.name,
        ports=bridge.ports,
        mail_ports=config.intercept.ports,
        adopt=bridge.adopt,
        vlans=bridge.vlans,
        stp=bridge.stp,
        block=bridge.on_failure is OnFailure.BLOCK,
        management=tuple(map(str, bridge.management)),
        gateway=tuple(map(str, bridge.gateway)),
        closed=frozenset(p for p in bridge.ports if table.by_table(Direction.LOCAL, p).action is Action.DROP),
        limits=Limits(
            in_force.new_connections_per_s,
            in_force.new_connections_per_s_per_network,
            in_force.sessions,
            config.limits.next_hops,
        ),
        queues=queues(config, profile),
        learned_s=LEARNED_S if dials_by_lane else LEARNED_UNTIL_BANNER_S,
        sysctls_at_least=profile.sysctls.by_name() if own else _ours(profile.sysctls.by_name()),
        room=room if own else "",
    )
