"""Where steps are taken: the host's network namespace, and the rooms that the wire lives in.

Opens a room when the first step asks for it. Remembers nothing of what was done.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass

from bridge import namespace
from bridge.hands import Hands
from bridge.links import Links
from bridge.moves import MakeRoom, MoveLink, RemoveRoom, ReturnLink
from bridge.namespace import Namespace
from bridge.present import LinkFacts
from bridge.steps import CreateLink, Inside, Step
from bridge.sysctls import sysctl_path, write_sysctl
from hwprofiles.nic import Nics

# What the kernel has for each link: tables below net, where a new link gets the values of "default".
_PER_LINK = ("net.ipv4.conf", "net.ipv6.conf", "net.ipv4.neigh", "net.ipv6.neigh")
_MADE_ANEW = frozenset({"mtu", "stable_secret"})  # the link's own; not to be read


class RoomNics(Nics):
    """The settings of ports in a room. What of them is in sysfs, only a process that lives there sees."""

    def __init__(self, room: Namespace) -> None:
        with room.entered():
            super().__init__()
        self._room = room

    def value(self, port: str, name: str) -> str | None:
        if "." in name:
            return super().value(port, name)
        return self._room.ask(lambda: _fresh().value(port, name))

    def holds(self, port: str, name: str, value: str) -> bool:
        if "." in name:
            return super().holds(port, name, value)
        return self._room.ask(lambda: _fresh().holds(port, name, value))

    def set(self, port: str, name: str, value: str) -> None:
        if "." in name:
            return super().set(port, name, value)
        return self._room.ask(lambda: _fresh().set(port, name, value))


def _fresh() -> Nics:
    return Nics()


@dataclass(frozen=True, slots=True)
class Room:
    """An open one. Its hands are to be used while the process is in there."""

    namespace: Namespace
    hands: Hands

    @classmethod
    def opened(cls, found: Namespace) -> Room:
        with found.entered():
            return cls(found, Hands(Links(), RoomNics(found)))

    def close(self) -> None:
        self.hands.links.close()
        self.hands.nics.close()
        self.namespace.close()


class Places:
    """``links`` and ``nics`` are the host's; so is the network namespace of whoever makes this."""

    def __init__(self, links: Links, nics: Nics, kept: Mapping[str, Namespace] | None = None) -> None:
        """``kept`` are rooms that somebody keeps open, whatever becomes of their names."""
        self.host = Hands(links, nics)
        self._kept = dict(kept or {})
        self._home = Namespace.here()
        self._rooms: dict[str, Room] = {}

    def close(self) -> None:
        for name in list(self._rooms):
            self._forget(name)
        self._home.close()

    def _forget(self, name: str) -> None:
        if (room := self._rooms.pop(name, None)) is not None:
            room.close()

    def _room(self, name: str) -> Room | None:
        """None if there is none of that name."""
        if name not in self._rooms:
            found = self._kept[name].again() if name in self._kept else Namespace.named(name)
            if found is None:
                return None
            self._rooms[name] = Room.opened(found)
        return self._rooms[name]

    @contextmanager
    def hands_in(self, name: str) -> Iterator[Hands | None]:
        """Those of a room, and the process in it while the context lasts."""
        room = self._room(name)
        if room is None:
            yield None
            return
        with room.namespace.entered():
            yield room.hands

    def facts_in(self, name: str) -> dict[str, LinkFacts]:
        """The links of a room; none where there is no room."""
        with self.hands_in(name) as hands:
            return {} if hands is None else hands.links.facts()

    @contextmanager
    def still(self, name: str) -> Iterator[dict[str, LinkFacts]]:
        """While the context lasts everything is read once; the links of the host and of that room."""
        with ExitStack() as reading:
            reading.enter_context(self.host.links.still())
            facts = self.host.links.facts()
            with self.hands_in(name) as hands:
                if hands is not None:
                    reading.enter_context(hands.links.still())
                    facts = {**facts, **hands.links.facts()}
            yield facts

    # --- each step in its place ------------------------------------------------------------------------------------

    def holds(self, step: Step) -> bool:
        match step:
            case Inside(room, inner):
                with self.hands_in(room) as hands:
                    return hands is not None and hands.holds(inner)
            case MakeRoom(room):
                return namespace.exists(room)
            case RemoveRoom(room):
                return not namespace.exists(room)
            case MoveLink(link, room):
                return self._is_in(link, room)
            case ReturnLink(link, room, up):
                return not self._is_in(link, room) and self.host.links.attribute(link, "up") == up
            case _:
                return self.host.holds(step)

    def lost(self, step: Step) -> bool:
        """There is nothing left to undo; a room that has gone took everything along but the NICs."""
        match step:
            case Inside(room, inner):
                with self.hands_in(room) as hands:
                    return hands is None or hands.lost(inner)
            case ReturnLink(link, room):
                return not self._is_in(link, room) and self.host.links.index(link) is None
            case _:
                return self.host.lost(step)

    def inverse(self, step: Step) -> Step:
        match step:
            case Inside(room, inner):
                with self._hands_surely_in(room) as hands:
                    return Inside(room, hands.inverse(inner))
            case MakeRoom(room):
                return RemoveRoom(room)
            case MoveLink(link, room):
                up = bool(self.host.links.attribute(link, "up"))
                return ReturnLink(link, room, up, " ".join(f"{name}={value}" for name, value in own_sysctls(link)))
            case RemoveRoom() | ReturnLink():
                raise ValueError(f"{step} is taken only to undo")
            case _:
                return self.host.inverse(step)

    def perform(self, step: Step) -> None:
        match step:
            case Inside(room, inner):
                with self._hands_surely_in(room) as hands:
                    hands.perform(inner)
            case MakeRoom(room):
                namespace.make(room, self._kept.get(room))
            case RemoveRoom(room):
                self._forget(room)
                namespace.remove(room)
            case MoveLink(link, room):
                self.host.links.move(link, self._surely(room).namespace.fd)
            case ReturnLink(link, room, up, sysctls):
                self._return(link, room, sysctls.split())
                self.host.links.set_attribute(link, "up", up)
            case CreateLink(link, kind, peer, peer_room=str(room)) if room:
                self.host.links.create(link, kind, peer, peer_namespace=self._surely(room).namespace.fd)
            case _:
                self.host.perform(step)

    def _return(self, link: str, room: str, sysctls: Iterable[str]) -> None:
        """Where the room has gone, the kernel has given it back already."""
        with self.hands_in(room) as hands:
            if hands is not None and hands.links.index(link) is not None:
                hands.links.move(link, self._home.fd)
        for name, _, value in (sysctl.partition("=") for sysctl in sysctls):
            write_sysctl(name, value)

    def _is_in(self, link: str, room: str) -> bool:
        with self.hands_in(room) as hands:
            return hands is not None and hands.links.index(link) is not None

    @contextmanager
    def _hands_surely_in(self, room: str) -> Iterator[Hands]:
        with self.hands_in(room) as hands:
            if hands is None:
                raise _no_room(room)
            yield hands

    def _surely(self, name: str) -> Room:
        if (room := self._room(name)) is None:
            raise _no_room(name)
        return room


def _no_room(name: str) -> OSError:
    return OSError(f"there is no network namespace {name}; tollbridge up makes it anew")


def own_sysctls(link: str) -> Iterator[tuple[str, str]]:
    """Those of a link that somebody has set to other values than every new link has."""
    for table in _PER_LINK:
        for file in sorted(sysctl_path(f"{table}.default").glob("*")):
            name = f"{table}.{link.replace('.', '/')}.{file.name}"
            try:
                usual, own = file.read_text().strip(), sysctl_path(name).read_text().strip()
            except OSError:
                continue
            if own != usual and file.name not in _MADE_ANEW and " " not in own:
                yield name, own
