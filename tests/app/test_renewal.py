"""Renewed certificates are read when their writer is through, and handed down once."""

from __future__ import annotations

from pathlib import Path

import pytest

from smtp_intercept.app import channel, config
from smtp_intercept.app.renewal import LOOK_EVERY_S, Renewals

TEXT = """
[bridge]
ports = ["p0", "p1"]

[[tls.identity]]
certificate = "{place}/a.crt"
key = "{place}/a.key"
"""


class World:
    def __init__(self, place: Path) -> None:
        self.place, self.now = place, 100.0
        self.write("old")
        self.end, self.heard = channel.pair()
        settings = config.parse(TEXT.format(place=place))
        self.renewals = Renewals(settings, [self.end])

    def write(self, text: str, *names: str) -> None:
        for name in names or ("a.crt", "a.key"):
            new = self.place / f"{name}.new"
            new.write_text(f"{text} {name}")
            new.replace(self.place / name)

    def look(self) -> list[dict[str, object]]:
        self.renewals.follow(self.now)
        self.now += LOOK_EVERY_S
        return channel.hear(self.heard)


@pytest.fixture
def world(tmp_path: Path) -> World:
    return World(tmp_path)


def test_what_has_not_changed_is_not_read(world: World) -> None:
    assert [world.look() for _ in range(3)] == [[], [], []]


def test_what_was_renewed_is_handed_down_once_and_when_it_is_through(world: World) -> None:
    world.look()
    world.write("new", "a.crt")
    assert world.look() == []
    world.write("new", "a.key")
    assert world.look() == []
    assert world.look() == [{"identity": 0, "chain": "new a.crt", "key": "new a.key"}]
    assert world.look() == []


def test_nobody_looks_more_often(world: World) -> None:
    world.write("new")
    for _ in range(3):
        world.renewals.follow(world.now)
    assert channel.hear(world.heard) == []


def test_a_file_that_is_gone_for_a_while_is_waited_for(world: World) -> None:
    (world.place / "a.key").unlink()
    assert [world.look(), world.look()] == [[], []]
    world.write("new")
    assert [world.look(), world.look()][1] == [{"identity": 0, "chain": "new a.crt", "key": "new a.key"}]


def test_what_cannot_be_read_is_told(world: World, caplog: pytest.LogCaptureFixture) -> None:
    world.write("x" * channel.DATAGRAM_OCTETS)
    assert [world.look(), world.look(), world.look()] == [[], [], []]
    assert [record.levelname for record in caplog.records] == ["WARNING"]
    assert "tls.identity[0]" in caplog.text
