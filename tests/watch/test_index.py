"""The index: what goes in is found, by any of its values, whole; age and size are kept; damage costs one volume."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterable
from itertools import islice
from pathlib import Path
from typing import Any

import pytest

from smtp_intercept.watch import index as indexes
from smtp_intercept.watch.index import DAY_MS, Index, Keep, Writer, volumes_in
from smtp_intercept.watch.terms import Field, Question, Value
from smtp_intercept.watch.volume import Volume
from tests.watch import logs
from tests.watch.logs import delivery, line, message, notice, session

T = logs.BEGAN_S
NOW_MS = round((T + 10) * 1000)
KEEP = Keep(30, 1 << 30)


def added(directory: Path, records: Iterable[dict[str, Any]], keep: Keep = KEEP, now_ms: int = NOW_MS) -> Writer:
    directory.mkdir(exist_ok=True)
    writer = Writer(directory, keep)
    writer.add([line(record) for record in records], {"log": 1}, now_ms)
    return writer


def found(index: Index, *values: Value, **times: int) -> list[dict[str, Any]]:
    return [dict(hit.record) for hit in index.find(Question(frozenset(values), **times))]


def mail(index: Index, *values: Value) -> list[dict[str, Any]]:
    """Of the newest record that fits."""
    (hit,) = islice(index.find(Question(frozenset(values))), 1)
    return [dict(each.record) for each in index.mail(hit)]


def test_each_value_finds_it_and_nothing_else(tmp_path: Path) -> None:
    records = [record for number in range(300) for record in (message(number), session(number))]
    added(tmp_path, records).close()
    index = Index(tmp_path)
    one = message(250)
    for value in (
        (Field.SENDER, "sender250@site250.example"),
        (Field.RECIPIENT, "user1750@example.com"),
        (Field.SENDER, "@site250.example"),
        (Field.CLIENT, "198.51.0.250"),
        (Field.ID, "a1b2c3d4-250"),
    ):
        assert one in found(index, value), value
        assert len([record for record in found(index, value) if record["type"] == "message"]) == 1
    assert len(found(index, (Field.RECIPIENT, "@example.com"))) == 300
    assert found(index, (Field.RECIPIENT, "@example.com"), (Field.OUTCOME, "rejected")) == [
        message(number) for number in (250, 200, 150, 100, 50, 0)
    ], "the newest first"
    assert found(index, (Field.SENDER, "nobody@example.org")) == []
    assert len(found(index)) == 300, "without a value: each mail once"


def test_a_rule_that_came_before_any_message_finds_the_messages_after_it(tmp_path: Path) -> None:
    records = [message(7, rules=["both"]), session(7, rules=["both"], would=["at HELO"])]
    added(tmp_path, records).close()
    index = Index(tmp_path)
    for name in ("at helo", "both"):
        assert found(index, (Field.RULE, name)) == records[:1]


def test_times_are_bounds(tmp_path: Path) -> None:
    added(tmp_path, [message(number, T + number) for number in range(10)]).close()
    index, at = Index(tmp_path), round(T * 1000)
    assert [m["session"][-1] for m in found(index, since_ms=at + 3000, until_ms=at + 6000)] == ["5", "4", "3"]
    everybody = (Field.RECIPIENT, "@example.com")
    assert [m["session"][-1] for m in found(index, everybody, since_ms=at + 8000)] == ["9", "8"]
    assert found(index, everybody, until_ms=at) == []
    assert found(index, everybody, since_ms=at + 10_000) == []


def story() -> list[dict[str, Any]]:
    """Mail that the MTA took, delivered to one and bounced for the other, and the bounce's own delivery."""
    to = [
        {"address": f"{name}@example.com", "direction": "incoming", "reply": "250 2.1.5 Ok"} for name in ("bob", "eve")
    ]
    return [
        message(1, T, queue_id="0CKQ2T0PMLB", handler="mta", sender="ann@example.org", recipients=to),
        message(1, T + 1, number=2, queue_id="0CKQ2T0PMLC", handler="mta"),
        session(1, T + 2, messages=2, handler="mta"),
        delivery("0CKQ2T0PMLB", T + 3),
        delivery("0CKQ2T0PMLB", T + 4, "deferred", recipient="eve@example.com"),
        delivery("0CKQ2T0PMLC", T + 4),
        delivery("0CKQ2T0PMLB", T + 5, "failed", recipient="eve@example.com", attempt=2),
        notice("0CKQ2T0PMLD", "0CKQ2T0PMLB", T + 5),
        delivery("0CKQ2T0PMLD", T + 6, recipient="ann@example.org", sender=""),
    ]


@pytest.mark.parametrize(
    "value",
    [
        (Field.ID, "0ckq2t0pmlb"),
        (Field.ID, "0ckq2t0pmld"),
        (Field.OUTCOME, "failed"),
        (Field.SENDER, "ann@example.org"),
        (Field.RECIPIENT, "eve@example.com"),
    ],
)
@pytest.mark.parametrize("volumes", [1, 9])
def test_a_mail_is_told_whole_whichever_of_its_records_fits(
    tmp_path: Path, value: Value, volumes: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    told = story()
    if volumes > 1:
        monkeypatch.setattr(indexes, "MOST_RECORDS", 1)
    writer = Writer(tmp_path, KEEP)
    for record in told:
        writer.add([line(record)], {"log": 1}, NOW_MS)
    assert len(volumes_in(tmp_path)) == volumes
    others = {told[1]["queue_id"]}
    assert mail(Index(tmp_path), value) == [record for record in told if record.get("queue_id") not in others]


@pytest.mark.parametrize("again", [False, True])
def test_a_client_is_known_when_its_session_ends(tmp_path: Path, again: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    """Also in the next volume, and by another life of the process."""
    monkeypatch.setattr(indexes, "MOST_RECORDS", 1)
    writer = added(tmp_path, [message(5)])
    if again:
        writer.close()
        writer = Writer(tmp_path, KEEP)
    writer.add([line(session(5))], {"log": 2}, NOW_MS)
    assert found(Index(tmp_path), (Field.CLIENT, "198.51.0.5")) == [message(5)]


def test_what_is_too_old_goes_and_what_is_too_much(tmp_path: Path) -> None:
    keep = Keep(30, 1 << 30)
    writer = Writer(tmp_path, keep)
    for day in range(40):
        at = T + day * 86_400
        writer.add([line(message(day, at))], {"log": day}, round(at * 1000))
        writer.give_up(round(at * 1000))
    days = len(found(Index(tmp_path)))
    assert 30 <= days <= 32
    writer.close()
    small = Writer(tmp_path, Keep(30, 20 * indexes.LEAST_BYTES))
    assert small.give_up(round((T + 39 * 86_400) * 1000)) == 0, "they are small"
    tiny = Writer(tmp_path, Keep(30, 100 << 10))
    assert tiny.give_up(round((T + 39 * 86_400) * 1000)) > 20
    assert tiny.size_bytes <= 100 << 10
    assert found(Index(tmp_path))[0] == message(39, T + 39 * 86_400), "the newest stays"


def test_mail_made_long_ago_fills_volumes_by_its_own_time(tmp_path: Path) -> None:
    """As it is when the index is built anew."""
    writer, now_ms = Writer(tmp_path, KEEP), round((T + 20 * 86_400) * 1000)
    for number in range(20):
        writer.add([line(message(number, T + number))], {"log": number}, now_ms)
    assert len(volumes_in(tmp_path)) == 1


def test_a_time_that_cannot_be_is_now(tmp_path: Path) -> None:
    for odd in ("2999-01-01T00:00:00.000Z", "yesterday", 7, None, "0001-01-01T00:00:00Z", "9999-12-31T23:59:59-23:59"):
        assert indexes.at_ms({"time": odd}, NOW_MS) == NOW_MS
    assert indexes.at_ms({"time": "2026-11-22T17:24:37.521Z"}, 2_000_000_000_000) == 1_795_368_277_521


@pytest.mark.parametrize("junk", [b"", b"no database at all, whatever its name says" * 200])
def test_a_volume_that_is_none_is_given_up_and_said(
    tmp_path: Path, junk: bytes, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / "volume-000001.db").write_bytes(junk)
    reader = Index(tmp_path)
    assert list(reader.unread) == [tmp_path / "volume-000001.db"]
    writer = added(tmp_path, [message(1)])
    assert found(Index(tmp_path)) == [message(1)]
    assert "reindex" in caplog.text
    writer.close()


def test_a_volume_that_was_only_begun_forgets_no_log(tmp_path: Path) -> None:
    """As a power cut leaves it: else every log would be read again."""
    added(tmp_path, [message(1)]).close()
    Volume(tmp_path / "volume-000002.db", make=True).close()
    writer = Writer(tmp_path, KEEP)
    assert writer.sources == {"log": 1}
    writer.add([line(message(2))], {"other": 7}, NOW_MS)
    writer.close()
    assert Writer(tmp_path, KEEP).sources == {"log": 1, "other": 7}
    assert found(Index(tmp_path)) == [message(2), message(1)]


def test_what_could_not_be_written_is_not_taken_for_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A full disk: the same lines come again, also after their log was rotated meanwhile."""
    writer = added(tmp_path, [message(1)])

    def full(*_: object) -> None:
        raise sqlite3.OperationalError("database or disk is full")

    with monkeypatch.context() as broken:
        broken.setattr(Volume, "_connect", full)
        with pytest.raises(sqlite3.OperationalError):
            writer.add([line(message(2)), line(session(2))], {"log": 2}, NOW_MS)
    assert writer.sources == {"log": 1}
    writer.add([line(message(2)), line(session(2))], {"log": 2}, NOW_MS)
    assert found(Index(tmp_path), (Field.CLIENT, "198.51.0.2")) == [message(2)]
    assert found(Index(tmp_path)) == [message(2), message(1)]


def test_what_cannot_be_opened_now_is_not_given_up(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    added(tmp_path, [message(1)]).close()

    def busy(*_: object, **__: object) -> None:
        raise sqlite3.OperationalError("unable to open database file")

    with monkeypatch.context() as broken:
        broken.setattr(Volume, "_settle", busy)
        with pytest.raises(sqlite3.OperationalError):
            Writer(tmp_path, KEEP)
    assert found(Index(tmp_path)) == [message(1)]


def test_readers_see_what_is_added_beside_them(tmp_path: Path) -> None:
    writer, place = added(tmp_path, [message(1)]), (0, 0)
    reader = Index(tmp_path)
    place = reader.end()
    writer.add([line(message(2))], {"log": 2}, NOW_MS)
    assert [each.record for each in reader.since(place)] == [message(2)]
    assert [each.record for each in reader.since((0, 0))] == [message(1), message(2)]
    writer.clear()
    reader.look()
    assert found(reader) == []


def test_a_batch_with_nothing_of_mail_keeps_its_place(tmp_path: Path) -> None:
    writer = added(tmp_path, [{"type": "suppressed", "number": 3}])
    assert writer.add([b"no json", b"[1]", b"", b'{"type":7}', b"\xff"], {"log": 2}, NOW_MS) == 0
    writer.close()
    assert Writer(tmp_path, KEEP).sources == {"log": 2}


def test_days_are_kept(tmp_path: Path) -> None:
    assert Keep(1, 1 << 30).volume_ms == DAY_MS
    assert Keep(300, 1 << 30).volume_ms == 10 * DAY_MS
