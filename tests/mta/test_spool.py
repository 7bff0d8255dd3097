"""The queue on disk.

draft ──enqueue──► queued ──settle: 4xx──► queued, later ──settle: 2xx or 5xx──► gone, with the notice in its place
                     │ ▲                                └─settle: dead──► dead ──retry──► queued
                hold ▼ │ release
                     held
"""

from __future__ import annotations

import asyncio
import os
import sqlite3
import stat
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from smtp_intercept.mta import ids
from smtp_intercept.mta.commits import GROUP
from smtp_intercept.mta.drafts import SMALL_BYTES, make
from smtp_intercept.mta.envelope import OURSELVES, Body, Envelope, Notify, Recipient, State
from smtp_intercept.mta.listing import PAGE, Filter, Standing
from smtp_intercept.mta.records import HISTORY, REPLY_CHARS
from smtp_intercept.mta.room import RESERVE_INODES
from smtp_intercept.mta.spool import NoSuchMessageError, Spool, SpoolError, SpoolFullError, SpoolLockedError
from tests.mta.spools import (
    ORIGIN,
    content_of,
    drafted,
    envelope,
    files,
    is_whole,
    outcome,
    put,
    sealed,
    spool_in,
    wait,
)
from tests.unshown import NOT_ROOT

SIZES = (0, 1, SMALL_BYTES, SMALL_BYTES + 1, 3 * SMALL_BYTES + 7)


@pytest.fixture
def directory(tmp_path: Path) -> Path:
    return tmp_path / "spool"


@pytest.fixture
def spool(directory: Path) -> Iterator[Spool]:
    with spool_in(directory) as spool:
        yield spool


# --- in ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("size", SIZES)
def test_the_content_comes_back_as_it_was(directory: Path, size: int) -> None:
    """Also after a restart; a small one is no file."""
    content = os.urandom(size)
    with spool_in(directory) as spool:
        name = wait(put(spool, content))
        assert content_of(spool, name) == content
    with spool_in(directory) as spool:
        assert content_of(spool, name) == content
        (entry,) = spool.entries()
        assert (entry.id, entry.content_bytes) == (name, size)
    assert len(files(directory)) == (size > SMALL_BYTES)


def test_all_of_the_envelope_comes_back(spool: Spool) -> None:
    recipients = (
        Recipient("büro@example.com", Notify.SUCCESS | Notify.DELAY, "utf-8;b\\x{FC}ro@example.com"),
        Recipient('"a b"@[192.0.2.1]', Notify.NEVER),
    )
    given = Envelope("", recipients, Body.EIGHT_BIT, True, "HDRS", "QQ314159")
    name = wait(spool.enqueue(drafted(spool, b"x"), ORIGIN, given, 1000.5))
    (entry,) = spool.due(1000.5, 1, ())
    assert (entry.id, entry.received_at, entry.origin, entry.envelope) == (name, 1000.5, ORIGIN, given)
    assert [(one.number, one.recipient, one.state) for one in entry.queued] == [
        (0, recipients[0], State.QUEUED),
        (1, recipients[1], State.QUEUED),
    ]


def test_ids_are_told_apart_and_sort_by_arrival(spool: Spool) -> None:
    """Even those of one instant, and of a clock that was set back."""

    async def many() -> list[str]:
        names = list(await asyncio.gather(*(put(spool, b"x", now=1000.0) for _ in range(2 * GROUP))))
        return [*names, await put(spool, b"x", now=5.0)]

    names = wait(many())
    assert len(set(names)) == len(names)
    assert [entry.id for entry in spool.entries()] == sorted(names)


@pytest.mark.parametrize("number", [0, 1, 30, 31, 1_700_000_000_000_000, 31**ids.WIDTH - 1])
def test_an_id_is_its_number(number: int) -> None:
    assert ids.number_of(ids.of_number(number)) == number == ids.number_of(ids.of_number(number).lower())


@pytest.mark.parametrize("text", ["", "0", "A" * ids.WIDTH, "0" * (ids.WIDTH + 1), "../" * 4])
def test_what_is_no_id(text: str, spool: Spool) -> None:
    assert ids.number_of(text) is None
    with pytest.raises(NoSuchMessageError, match="queue list"):
        spool.content(text)


def test_an_abandoned_draft_leaves_nothing(spool: Spool, directory: Path) -> None:
    draft = drafted(spool, b"x" * (SMALL_BYTES + 1))
    assert files(directory)
    draft.abandon()
    draft.abandon()
    assert not files(directory)


@pytest.mark.parametrize("size", [100, SMALL_BYTES + 1])
def test_a_draft_that_the_queue_has_is_not_its_writers_to_abandon(spool: Spool, size: int) -> None:
    """The receiving side abandons every draft in the end, whatever became of it."""

    async def scene() -> str:
        draft = drafted(spool, content := sealed(b"x" * size))
        enqueued = asyncio.create_task(spool.enqueue(draft, ORIGIN, envelope(), 1.0))
        await asyncio.sleep(0)
        draft.abandon()
        name = await enqueued
        draft.abandon()
        assert content_of(spool, name) == content
        return name

    assert is_whole(content_of(spool, wait(scene())))


def test_a_caller_that_is_cancelled_leaves_a_whole_message_or_none(spool: Spool, directory: Path) -> None:
    async def cancelled(size: int, after_s: float) -> None:
        task = asyncio.create_task(put(spool, b"x" * size))
        await asyncio.sleep(after_s)
        task.cancel()
        await asyncio.wait({task})

    async def many() -> None:
        await asyncio.gather(*(cancelled(size, n / 20000) for n in range(40) for size in (10, SMALL_BYTES + 1)))
        await put(spool, b"the last")

    wait(many())
    large = [entry for entry in spool.entries() if entry.content_bytes > SMALL_BYTES]
    assert all(len(content_of(spool, entry.id)) == entry.content_bytes for entry in spool.entries())
    assert len(files(directory)) == len(large)


# --- due --------------------------------------------------------------------------------------------


def test_what_is_due_the_longest_due_first(spool: Spool) -> None:
    async def script() -> None:
        a, b, c = [await put(spool, b"x", "a@example.com", "b@example.com", now=now) for now in (30, 20, 10)]
        assert spool.next_due_at() == 10
        assert [entry.id for entry in spool.due(25, 10, ())] == [c, b]
        assert [entry.id for entry in spool.due(99, 2, ())] == [c, b]
        assert [entry.id for entry in spool.due(99, 2, {c, b})] == [a]
        await spool.settle(c, [outcome(0, State.QUEUED, 50), outcome(1, State.QUEUED, 40)], None, 20)
        assert [entry.id for entry in spool.due(39, 10, ())] == [b, a]
        (entry,) = [entry for entry in spool.due(40, 10, ()) if entry.id == c]
        assert [one.number for one in entry.queued] == [1], "the other is not due"
        assert len(entry.envelope.recipients) == 2

    wait(script())


def test_a_message_that_has_gone_is_not_due_while_others_are_read(spool: Spool) -> None:
    """Content is read by other threads. Were it by the connection that `due` asks, a statement of theirs would hold an
    old state of the queue open, and a message could be delivered twice."""
    over = threading.Event()

    async def scene() -> None:
        kept = await put(spool, b"x" * SMALL_BYTES)

        def read() -> None:
            while not over.is_set():
                assert len(content_of(spool, kept)) == SMALL_BYTES

        reading = [asyncio.create_task(asyncio.to_thread(read)) for _ in range(4)]
        try:
            for _ in range(150):
                name = await put(spool)
                await spool.settle(name, [outcome()], None, 1.0)
                assert [entry.id for entry in spool.due(2000.0, 10, ())] == [kept]
        finally:
            over.set()
            await asyncio.gather(*reading)

    wait(scene())


def test_enqueue_wakes_the_runner(spool: Spool) -> None:
    async def script() -> None:
        waiting = asyncio.create_task(spool.changed.wait())
        await put(spool)
        await waiting

    wait(script())


# --- settle -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("size", SIZES)
def test_a_message_goes_with_its_last_recipient(spool: Spool, directory: Path, size: int) -> None:
    async def script() -> None:
        name = await put(spool, b"x" * size, "a@example.com", "b@example.com")
        await spool.settle(name, [outcome(0)], None, 1001)
        (entry,) = spool.due(1001, 9, ())
        assert [one.number for one in entry.queued] == [1]
        (entry,) = spool.entries()
        assert [one.state for one in entry.queued] == [State.DELIVERED, State.QUEUED]
        with spool.content(name) as reading:
            await spool.settle(name, [outcome(1, State.FAILED)], None, 1002)
            assert len(reading.read()) == size, "who has it open goes on reading"
        assert list(spool.entries()) == []
        with pytest.raises(NoSuchMessageError, match=name):
            spool.content(name)
        await put(spool)  # files go after the commit; the next commit is after that

    wait(script())
    assert not files(directory)


@pytest.mark.parametrize("size", SIZES)
def test_the_notice_comes_as_the_message_goes(spool: Spool, size: int) -> None:
    async def script() -> str | None:
        name = await put(spool)
        notice = drafted(spool, b"n" * size), envelope("ann@example.org", sender="")
        return await spool.settle(name, [outcome(0, State.FAILED)], notice, 2000)

    told = wait(script())
    assert told
    (entry,) = spool.entries()
    assert (entry.id, entry.origin, entry.received_at, entry.content_bytes) == (told, OURSELVES, 2000, size)
    assert content_of(spool, told) == b"n" * size


def test_of_a_deleted_message_no_notice_is_sent(spool: Spool, directory: Path) -> None:
    async def script() -> None:
        name = await put(spool)
        notice = drafted(spool, b"n" * (SMALL_BYTES + 1)), envelope("ann@example.org", sender="")
        await spool.delete([name])
        assert await spool.settle(name, [outcome(0, State.FAILED)], notice, 2000) is None
        await put(spool)

    wait(script())
    assert len(list(spool.entries())) == 1
    assert not files(directory)


def test_an_attempt_is_counted_and_kept(spool: Spool) -> None:
    """A delay that is only told is none."""

    async def script() -> str:
        name = await put(spool)
        await spool.settle(name, [outcome(0, State.QUEUED, 5000, "450 busy")], None, 2000)
        told = [type(outcome())(0, State.QUEUED, 0, "", "", next_at=6000, delay_told=True, attempted=False)]
        await spool.settle(name, told, None, 3000)
        return name

    name = wait(script())
    (entry,) = spool.entries()
    (one,) = entry.queued
    assert (one.attempts, one.next_at, one.delay_told) == (1, 6000, True)
    assert (one.reply, one.host) == ("450 busy", "mx.example.com")
    (attempt,) = spool.attempts(name)
    assert (attempt.at, attempt.state, attempt.code, attempt.reply) == (2000, "queued", 450, "450 busy")


def test_the_last_attempts_are_kept_and_so_much_of_a_reply(spool: Spool) -> None:
    async def script() -> str:
        name = await put(spool)
        for n in range(HISTORY + 1):
            await spool.settle(name, [outcome(0, State.QUEUED, 0, f"{n} " + "x" * REPLY_CHARS)], None, n)
        return name

    kept = spool.attempts(wait(script()))
    assert [each.at for each in kept] == list(range(1, HISTORY + 1))
    assert {len(each.reply) for each in kept} == {REPLY_CHARS}
    (entry,) = spool.entries()
    assert entry.queued[0].attempts == HISTORY + 1


def test_a_reply_that_is_no_utf_8(spool: Spool) -> None:
    async def script() -> None:
        name = await put(spool)
        reply = b"450 caf\xe9".decode(errors="surrogateescape")
        await spool.settle(name, [outcome(0, State.QUEUED, 0, reply)], None, 1)

    wait(script())
    assert next(spool.entries()).queued[0].reply == "450 caf\\udce9"


def test_one_impossible_work_hurts_no_other_of_its_group(spool: Spool) -> None:
    async def script() -> None:
        name = await put(spool)
        good = [put(spool) for _ in range(20)]
        bad = spool.settle(name, [outcome(7)], None, 1)
        *names, error = await asyncio.gather(*good, bad, return_exceptions=True)
        assert isinstance(error, ValueError)
        assert name in str(error)
        assert {entry.id for entry in spool.entries()} == {name, *names}

    wait(script())


# --- held, dead, rerouted ---------------------------------------------------------------------------


def test_dead_mail_is_kept_until_somebody_cares(spool: Spool) -> None:
    async def script() -> None:
        name = await put(spool)
        await spool.settle(name, [outcome(0, State.DEAD)], None, 2000)
        assert spool.due(1e12, 9, ()) == []
        assert spool.next_due_at() is None
        assert spool.summary().dead == 1
        assert await spool.retry([name], 3000) == 1
        assert [entry.id for entry in spool.due(3000, 9, ())] == [name]

    wait(script())


def test_held_mail_is_not_due(spool: Spool) -> None:
    async def script() -> None:
        name = await put(spool)
        assert await spool.hold([name]) == 1
        assert await spool.hold([name]) == 0
        assert spool.due(1e12, 9, ()) == []
        assert await spool.retry([name], 3000) == 1
        assert spool.due(1e12, 9, ()) == [], "what is held stays held"
        assert spool.summary().held == 1
        assert await spool.release([name]) == 1
        assert [entry.held for entry in spool.due(3000, 9, ())] == [False]

    wait(script())


def test_an_attempt_under_way_does_not_release(spool: Spool) -> None:
    async def script() -> None:
        name = await put(spool)
        await spool.hold([name])
        await spool.settle(name, [outcome(0, State.QUEUED, 2000)], None, 1001)
        assert spool.due(1e12, 9, ()) == []

    wait(script())


def test_rerouted_and_back(spool: Spool) -> None:
    async def script() -> None:
        name = await put(spool)
        await spool.settle(name, [outcome(0, State.QUEUED, 9000)], None, 1001)
        assert await spool.reroute([name], "mx2.example.com:2525", 2000) == 1
        (entry,) = spool.due(2000, 9, ())
        assert entry.alternate == "mx2.example.com:2525"
        await spool.reroute([name], "", 2000)
        assert spool.due(2000, 9, ())[0].alternate == ""

    wait(script())


def test_what_is_given_back_is_due_whole(spool: Spool) -> None:
    """Also if it was held; whoever delivers it fails it and tells the sender."""

    async def script() -> None:
        name = await put(spool, b"x", "a@example.com", "b@example.com")
        await spool.settle(name, [outcome(0, State.QUEUED, 9000), outcome(1, State.DEAD)], None, 1001)
        await spool.hold([name])
        assert await spool.give_back([name], 1002) == 1
        await spool.settle(name, [outcome(0, State.QUEUED, 9000)], None, 1003)  # an attempt under way
        (entry,) = spool.due(1003, 9, ())
        assert entry.returning
        assert [one.number for one in entry.queued] == [0, 1]

    wait(script())


def test_the_summary(spool: Spool) -> None:
    assert spool.summary().oldest_at is None

    async def script() -> None:
        await put(spool, b"x" * 10, now=10)
        await put(spool, b"x" * 20, now=20)

    wait(script())
    summary = spool.summary()
    assert (summary.messages, summary.content_bytes, summary.oldest_at) == (2, 30, 10)


@pytest.mark.parametrize(
    ("wanted", "found"),
    [
        (Filter(), "abc"),
        (Filter(sender=""), "c"),
        (Filter(sender="ANN@*"), "ab"),
        (Filter(recipient="bob@example.com"), "a"),
        (Filter(recipient="*@example.com"), "ac"),
        (Filter(recipient="b*b@*le.com"), "a"),
        (Filter(recipient="bob@example.co?"), ""),
        (Filter(recipient="*@*@*"), ""),
        (Filter(domain="Example.COM."), "ac"),
        (Filter(domain="bücher.example"), "b"),
        (Filter(domain="xn--bcher-kva.example"), "b"),
        (Filter(standing=Standing.HELD), "b"),
        (Filter(standing=Standing.QUEUED), "ac"),
        (Filter(standing=Standing.DEAD), ""),
        (Filter(before_at=20), "a"),
        (Filter(domain="example.com", before_at=20), "a"),
        (Filter(domain="example.com", standing=Standing.HELD), ""),
    ],
    ids=str,
)
def test_filters(spool: Spool, wanted: Filter, found: str) -> None:
    async def script() -> None:
        names = dict(zip("abc", [await _of(spool, *given) for given in _THREE], strict=True))
        await spool.hold([names["b"]])
        assert [entry.id for entry in spool.entries(wanted)] == [names[letter] for letter in found]
        assert [entry.id for entry in spool.entries(Filter(ids=(names["c"].lower(), "?")))] == [names["c"]]

    wait(script())


_THREE = (
    ("ann@example.org", ("bob@example.com",), 10.0),
    ("ann@example.org", ("bob@bücher.example",), 20.0),
    ("", ("carol@example.org", "dan@example.com"), 30.0),
)


async def _of(spool: Spool, sender: str, to: tuple[str, ...], now: float) -> str:
    return await spool.enqueue(drafted(spool, b"x"), ORIGIN, envelope(*to, sender=sender), now)


def test_a_list_goes_on_while_mail_comes_and_goes(spool: Spool) -> None:
    async def script() -> None:
        names = list(await asyncio.gather(*(put(spool) for _ in range(PAGE + 2))))
        listing = spool.entries()
        assert next(listing).id == names[0]
        await spool.delete(names[1:])
        await put(spool, now=9999.0)
        assert [entry.received_at for entry in listing] == [9999.0]

    wait(script())


# --- the directory ----------------------------------------------------------------------------------


def test_nobody_else_reads_mail(directory: Path) -> None:
    directory.mkdir(mode=0o755)
    old = os.umask(0)
    try:
        with spool_in(directory) as spool:
            wait(put(spool, b"x" * (SMALL_BYTES + 1)))
            modes = {path.name: stat.S_IMODE(path.stat().st_mode) for path in directory.rglob("*")}
            assert stat.S_IMODE(directory.stat().st_mode) == 0o700
    finally:
        os.umask(old)
    assert modes.pop("drafts") == modes.pop("content") == 0o700
    assert {name for name, mode in modes.items() if mode & 0o077} == set()


def test_two_openers(directory: Path) -> None:
    with spool_in(directory), pytest.raises(SpoolLockedError, match=f"process {os.getpid()} .*stop that one"):
        Spool.open(directory)
    with spool_in(directory):
        pass


def test_what_a_crash_left_is_removed(directory: Path) -> None:
    with spool_in(directory) as spool:
        name = wait(put(spool, b"x" * (SMALL_BYTES + 1)))
        (kept,) = files(directory)
    (directory / "drafts" / "half").write_bytes(b"half a mess")
    (directory / "content" / "orphan").write_bytes(b"never accepted")
    with spool_in(directory) as spool:
        assert files(directory) == {kept}
        assert content_of(spool, name)


def test_a_database_that_is_none(directory: Path) -> None:
    """Nothing is deleted, neither then nor after somebody moves it away."""
    with spool_in(directory) as spool:
        wait(put(spool, b"x" * (SMALL_BYTES + 1)))
    before = files(directory)
    database = directory / "queue.db"
    damaged = b"not a database, but long enough to be taken for one" * 100
    database.write_bytes(damaged)
    with pytest.raises(SpoolError, match=r"queue\.db: damaged .*nothing was deleted.*\.recover"):
        Spool.open(directory)
    assert database.read_bytes() == damaged
    database.unlink()
    with pytest.raises(SpoolError, match=r"queue\.db: missing.*put the database back"):
        Spool.open(directory)
    database.touch()
    with pytest.raises(SpoolError, match=r"queue\.db: missing"):
        Spool.open(directory)
    assert files(directory) == before


def test_a_damaged_page_deletes_no_content(directory: Path) -> None:
    with spool_in(directory) as spool:

        async def script() -> None:
            await asyncio.gather(*(put(spool, b"x" * (SMALL_BYTES + 1)) for _ in range(60)))

        wait(script())
    before = files(directory)
    connection = sqlite3.connect(directory / "queue.db")
    (root,) = connection.execute("SELECT rootpage FROM sqlite_master WHERE name = 'message'").fetchone()
    connection.close()
    with (directory / "queue.db").open("r+b") as file:
        file.seek((root - 1) * 4096)
        file.write(bytes(4096))
    with pytest.raises(SpoolError, match=r"queue\.db: damaged"):
        Spool.open(directory)
    assert files(directory) == before


def test_a_newer_schema(directory: Path) -> None:
    with spool_in(directory):
        pass
    connection = sqlite3.connect(directory / "queue.db")
    connection.execute("PRAGMA user_version = 2")
    connection.close()
    with pytest.raises(SpoolError, match=r"made by a newer Tollbridge \(schema 2, this one knows 1\)"):
        Spool.open(directory)


def test_a_directory_that_is_not_there(directory: Path) -> None:
    with pytest.raises(SpoolError, match=f"{directory}: No such file"):
        Spool.open(directory)


@NOT_ROOT.mark
def test_somebody_elses_directory(directory: Path) -> None:
    make(directory, 12345, 12345)
    assert (directory.stat().st_uid, stat.S_IMODE(directory.stat().st_mode)) == (12345, 0o700)
    with pytest.raises(SpoolError, match=r"belongs to user 12345.*chown -R 0 "):
        Spool.open(directory)
    assert list(directory.iterdir()) == []
    (directory / "something").touch()
    make(directory, 54321, 54321)
    assert directory.stat().st_uid == 12345, "what holds mail keeps its owner"


def test_the_reserve(directory: Path) -> None:
    disk = os.statvfs(directory.parent)
    with (
        spool_in(directory, reserve_bytes=disk.f_blocks * disk.f_frsize) as spool,
        pytest.raises(SpoolFullError, match=r"mta\.reserve_bytes; make room") as caught,
    ):
        spool.draft()
    assert caught.value.temporary
    assert disk.f_files == 0 or disk.f_favail > RESERVE_INODES


def test_a_closed_spool_says_so(directory: Path) -> None:
    with spool_in(directory) as spool:
        draft = drafted(spool, b"x" * (SMALL_BYTES + 1))
    with pytest.raises((SpoolError, RuntimeError)):
        wait(spool.enqueue(draft, ORIGIN, envelope(), 1.0))
    assert not files(directory)


def test_what_deleted_mail_leaves_goes_back_to_the_disk(directory: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("smtp_intercept.mta.commits.FREE_PAGES", 10)
    monkeypatch.setattr("smtp_intercept.mta.commits.TRIM_EVERY_S", 0.001)
    database = directory / "queue.db"

    async def script() -> None:
        with spool_in(directory) as spool:
            names = await asyncio.gather(*(put(spool, b"x" * SMALL_BYTES) for _ in range(200)))
            await spool.delete(names)
            connection = sqlite3.connect(database)
            while connection.execute("PRAGMA page_count").fetchone()[0] > 40:
                await asyncio.sleep(0.01)
            connection.close()

    wait(script())
    assert database.stat().st_size < 40 * 4096
