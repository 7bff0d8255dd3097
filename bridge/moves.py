"""The steps between two network namespaces: a room is made for the wire, its ports are moved there and back. Pure."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class MakeRoom:
    """A network namespace of this name, which the kernel keeps without any process: `bridge.namespace`."""

    room: str

    def __str__(self) -> str:
        return f"room    make network namespace {self.room}"


@dataclass(frozen=True, slots=True)
class RemoveRoom:
    room: str

    def __str__(self) -> str:
        return f"room    remove network namespace {self.room}"


@dataclass(frozen=True, slots=True)
class MoveLink:
    """Out of the host into the room. The kernel takes it down and off its bridge, its addresses and routes away."""

    link: str
    room: str

    def __str__(self) -> str:
        return f"link    move {self.link} into {self.room}"


@dataclass(frozen=True, slots=True)
class ReturnLink:
    """Back to the host, there up or down as it was; ``sysctls`` are those of its own that were not the host's default,
    name=value with a space between them."""

    link: str
    room: str
    up: bool
    sysctls: str = ""

    def __str__(self) -> str:
        return f"link    move {self.link} back out of {self.room}"
