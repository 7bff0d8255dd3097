"""`tollbridge queue`: what an administrator sees and does, with the MTA running (in another process) and without.

$ tollbridge queue list
0CKQ2T0PMLB  1970-01-01T00:16:40Z     25B  queued     ann@example.org → bob@example.com and 1 more
    mx.example.com: 450 busy
1 message
"""

from __future__ import annotations

import io
import json
import os
import re
import sqlite3
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from smtp_intercept.app import cli
from smtp_intercept.app.exits import Exit
from smtp_intercept.app.lab.host import Host, Process
from smtp_intercept.mta.drafts import SMALL_BYTES, make
from smtp_intercept.mta.envelope import State
from smtp_intercept.mta.spool import Spool, SpoolLockedError
from tests.mta.spools import ORIGIN, drafted, envelope, files, outcome, put, spool_in, wait
from tests.unshown import NOT_ROOT

ROOT = Path(__file__).parents[2]
CONTENT = b"Received: from x\r\nSubject: caf\xe9 \x1b[31m\r\n\r\nThe secret body\r\n"

_HOLDER = """
import sys, time
from pathlib import Path
from smtp_intercept.mta.spool import Spool, SpoolLockedError
spool = Spool.open(Path(sys.argv[1]), reserve_bytes=0)
print("open", flush=True)
deadline = time.monotonic() + 60
while time.monotonic() < deadline:
    print([entry.id for entry in spool.due(1e12, 10, ())], flush=True)
    time.sleep(0.02)
"""


@pytest.fixture
def directory(tmp_path: Path) -> Path:
    return tmp_path / "spool"


@pytest.fixture
def names(directory: Path) -> list[str]:
    """Three messages: waiting (two recipients, a large content), waiting (odd), dead."""

    async def script(spool: Spool) -> list[str]:
        large = CONTENT + b"x" * SMALL_BYTES
        first = await put(spool, large, "bob@example.com", "carol@example.net", now=1000.0)
        await spool.settle(first, [outcome(0, State.QUEUED, 5e9, "450 busy"), outcome(1)], None, 1001.0)
        given = envelope("\x1b[2Jdan@example.com", sender="")
        second = await spool.enqueue(drafted(spool, CONTENT), ORIGIN, given, 2000.0)
        third = await put(spool, b"Subject: y\n\nbody\n", "erin@example.com", now=3000.0)
        await spool.settle(third, [outcome(0, State.DEAD, reply="550 no such user")], None, 3001.0)
        return [first, second, third]

    with spool_in(directory) as spool:
        return wait(script(spool))


class Asked:
    """The command, asked once."""

    def __init__(self, directory: Path, capsys: pytest.CaptureFixture[str], *words: str) -> None:
        capsys.readouterr()
        self.status = cli.main(["queue", "--spool", str(directory), *words])
        self.out, self.error = capsys.readouterr()

    def lines(self) -> list[dict[str, object]]:
        return [json.loads(line) for line in self.out.splitlines()]


class Ask:
    def __init__(self, directory: Path, capsys: pytest.CaptureFixture[str]) -> None:
        self._directory, self._capsys = directory, capsys

    def __call__(self, *words: str) -> Asked:
        return Asked(self._directory, self._capsys, *words)

    def ids(self, *words: str) -> list[object]:
        return [line["id"] for line in self("list", "--json", *words).lines()]

    def states(self) -> list[object]:
        return [line["state"] for line in self("list", "--json").lines()]


@pytest.fixture
def ask(directory: Path, capsys: pytest.CaptureFixture[str]) -> Ask:
    return Ask(directory, capsys)


def test_the_list_for_people(ask: Ask, names: list[str]) -> None:
    lines = ask("list").out.splitlines()
    assert lines == [
        f"{names[0]}  1970-01-01T00:16:40Z   64.1K  queued     ann@example.org → bob@example.com",
        "    mx.example.com: 450 busy",
        f"{names[1]}  1970-01-01T00:33:20Z     58B  queued     <> → \\x1b[2Jdan@example.com",
        f"{names[2]}  1970-01-01T00:50:00Z     17B  dead       ann@example.org → erin@example.com",
        "    mx.example.com: 550 no such user",
        "3 messages",
    ]


def test_the_list_for_machines(ask: Ask, names: list[str]) -> None:
    first, _, third = ask("list", "--json").lines()
    assert first == {
        "id": names[0],
        "time": "1970-01-01T00:16:40.000Z",
        "state": "queued",
        "size_bytes": len(CONTENT) + SMALL_BYTES,
        "sender": "ann@example.org",
        "recipients": [
            {
                "address": "bob@example.com",
                "state": "queued",
                "attempts": 1,
                "host": "mx.example.com",
                "next_at": "2128-06-11T08:53:20.000Z",
                "reply": "450 busy",
            },
            {
                "address": "carol@example.net",
                "state": "delivered",
                "attempts": 1,
                "host": "mx.example.com",
                "next_at": None,
                "reply": "ok",
            },
        ],
        "alternate": "",
        "origin": {
            "client": ["192.0.2.10", 40000],
            "server": ["192.0.2.20", 25],
            "direction": "incoming",
            "port": "p0",
            "served": ["example.com"],
            "helo": "client.example",
            "tls": "",
            "away": None,
        },
    }
    assert third["state"] == "dead"


@pytest.mark.parametrize(
    ("words", "found"),
    [
        ("--to bob@example.com", [0]),
        ("--to *@EXAMPLE.com", [0, 1, 2]),
        ("--domain example.net", [0]),
        ("--from ann@*", [0, 2]),
        ("--from=", [1]),
        ("--state dead", [2]),
        ("--state queued --domain example.com", [0, 1]),
        ("--older 1d", [0, 1, 2]),
        ("--older 99999d", []),
    ],
)
def test_filters(ask: Ask, names: list[str], words: str, found: list[int]) -> None:
    assert ask.ids(*words.split()) == [names[at] for at in found]


def test_some_by_id(ask: Ask, names: list[str]) -> None:
    assert ask.ids(names[2].lower(), names[0]) == [names[0], names[2]]
    assert ask("list", "--to", "nobody@example.com").out == "no message fits\n"


def test_show_tells_all_but_the_body(ask: Ask, names: list[str]) -> None:
    text = ask("show", names[0]).out
    assert "bob@example.com (queued, next try 2128-06-11T08:53:20Z)" in text
    assert "1970-01-01T00:16:41Z  queued     mx.example.com: 450 busy" in text
    assert "192.0.2.10 (client.example)" in text
    assert "Subject: caf\\xe9 \\x1b[31m" in text, "a stranger must not command the terminal"
    assert "secret" not in text
    page = json.loads(ask("show", names[0], "--json").out)
    assert [one["state"] for one in page["recipients"]] == ["queued", "delivered"]
    assert page["recipients"][0]["attempts"][0]["reply"] == "450 busy"
    assert page["header"] == "Received: from x\nSubject: caf\\xe9 \x1b[31m"


def test_show_the_content(directory: Path, names: list[str], capfdbinary: pytest.CaptureFixture[bytes]) -> None:
    for name, content in zip(names, [CONTENT + b"x" * SMALL_BYTES, CONTENT, b"Subject: y\n\nbody\n"], strict=True):
        assert cli.main(["queue", "--spool", str(directory), "show", name, "--content"]) == 0
        assert capfdbinary.readouterr().out == content


def test_hold_and_release(ask: Ask, names: list[str]) -> None:
    assert ask("hold", names[0]).out == "1 message held\n"
    assert ask("hold", "--from", "ann@*").out == "1 message held; 1 left as they are\n"
    assert ask.states() == ["held", "queued", "held"]
    assert ask("release", "--all").out == "2 messages released; 1 left as they are\n"
    assert ask.states() == ["queued", "queued", "dead"]


def test_retry(ask: Ask, directory: Path, names: list[str]) -> None:
    assert ask("retry", "--all").out == "3 messages to be tried at once\n"
    assert "erin@example.com (queued, to be tried at once)" in ask("show", names[2]).out
    assert ask.states() == ["queued"] * 3
    with spool_in(directory) as spool:
        assert {entry.id for entry in spool.due(4e9, 9, ())} == set(names)


def test_reroute(ask: Ask, names: list[str]) -> None:
    assert ask("reroute", "--via", "[2001:db8::25]:2525", names[0]).out == (
        "1 message rerouted to [2001:db8::25]:2525\n"
    )
    assert "via [2001:db8::25]:2525" in ask("list").out
    ask("reroute", "--via", "", names[0])
    assert "via" not in ask("list").out


def test_delete_asks(ask: Ask, directory: Path, names: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    for answer in ("", "\n", "n\n", "yess\n"):
        monkeypatch.setattr("sys.stdin", io.StringIO(answer))
        asked = ask("delete", "--from", "ann@*")
        assert "Delete 2 messages for good, telling nobody? [y/N]" in asked.out
        assert names[0] in asked.out
        assert names[1] not in asked.out
        assert asked.out.endswith("nothing was deleted\n")
        assert asked.status == 1
    assert len(ask.ids()) == 3
    monkeypatch.setattr("sys.stdin", io.StringIO("y\n"))
    assert ask("delete", "--from", "ann@*").out.endswith("2 messages deleted\n")
    assert ask.ids() == [names[1]]
    assert not files(directory), "its file has gone, too"
    assert ask("delete", "--yes", "--all").out == "1 message deleted\n"
    assert ask("list").out == "the queue is empty\n"
    assert ask("delete", "--all").out == "nothing was deleted\n"


def test_delete_and_tell_the_senders(ask: Ask, directory: Path, names: list[str]) -> None:
    assert ask("delete", "--yes", "--notify", *names[1:]).out == (
        "2 messages will be returned to the sender by the running MTA\n"
    )
    assert ask.states() == ["queued", "returning", "returning"]
    with spool_in(directory) as spool:
        assert [(entry.id, entry.returning) for entry in spool.due(4e9, 9, ())] == [(name, True) for name in names[1:]]


@pytest.mark.parametrize("verb", ["hold", "release", "retry", "delete --yes", "reroute --via mx.example.com"])
def test_an_id_that_is_not_there(ask: Ask, names: list[str], verb: str) -> None:
    """It stops none of the others."""
    ask("hold", names[1]) if verb == "release" else None
    asked = ask(*verb.split(), "00000000000", names[1], "\x1b[2J")
    assert asked.status == 1
    assert asked.error == (
        "tollbridge: 00000000000: no such message in the queue (any more); see `tollbridge queue list`\n"
        "tollbridge: \\x1b[2J: no such message in the queue (any more); see `tollbridge queue list`\n"
    )
    assert asked.out.startswith("1 message ")
    assert ask("show", "nonsense").status == 1


@pytest.mark.parametrize("verb", ["hold", "release", "retry", "delete", "reroute --via mx.example.com"])
def test_nothing_named_is_not_everything(ask: Ask, names: list[str], verb: str) -> None:
    asked = ask(*verb.split())
    assert (asked.status, asked.out) == (Exit.MISUSE, "")
    assert "--all" in asked.error
    assert len(ask.ids()) == 3


@pytest.mark.parametrize(
    "words",
    [
        "",
        "show",
        "list --state frozen",
        "list --older 3",
        "list --older 3y",
        "reroute 00000000000",
        "reroute --via mx:0 --all",
        "hold --yes",
    ],
)
def test_misuse(words: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        cli.main(["queue", *words.split()])
    assert ended.value.code == 2
    assert capsys.readouterr().err.startswith("usage: tollbridge")


def test_no_queue(ask: Ask, directory: Path) -> None:
    assert f"{directory}/queue.db: no queue there" in ask("list").error
    directory.mkdir()
    asked = ask("list")
    assert asked.status == 1
    assert asked.error == (
        f"tollbridge: {directory}/queue.db: no queue there (yet); the MTA makes it at its first start, see mta.spool\n"
    )
    assert list(directory.iterdir()) == []
    (directory / "queue.db").touch()
    assert "holds no queue" in ask("list").error


def test_a_box_on_which_no_mta_has_run(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Its queue is empty, which is no failure; it has no message, and a directory that somebody names is there."""
    config = tmp_path / "tollbridge.toml"
    config.write_text(f'[bridge]\nports = ["p0", "p1"]\n[mta]\nspool = "{tmp_path}/spool"\n')
    queue = ["--config", str(config), "queue"]
    assert cli.main([*queue, "list"]) == 0
    assert capsys.readouterr().out.startswith("the queue is empty: no MTA has run here yet")
    assert cli.main([*queue, "list", "--json"]) == 0
    assert capsys.readouterr() == ("", "")
    for words in (["show", "00000000000"], ["delete", "--all", "--yes"], ["list", "--spool", f"{tmp_path}/spool"]):
        assert cli.main([*queue, *words]) == 1
        assert "no queue there (yet); the MTA makes it at its first start" in capsys.readouterr().err
    assert not (tmp_path / "spool").exists()


def test_every_time_is_written_in_one_way(ask: Ask, names: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sys.stdin", io.StringIO("n\n" * 3))
    for words in (["list"], ["delete", "--all"], *(["show", name] for name in names)):
        out = ask(*words).out
        times = re.findall(r"[^ (]*\d{4}-\d\d-\d\d[^ \n)]*", out)
        assert times
        assert [time for time in times if not re.fullmatch(r"[\d-]{10}T[\d:]{8}Z", time)] == [], words


def test_a_damaged_queue(ask: Ask, directory: Path, names: list[str]) -> None:
    (directory / "queue.db").write_bytes(b"no database" * 1000)
    asked = ask("list")
    assert asked.status == 1
    assert "damaged" in asked.error
    assert ".recover" in asked.error


def test_the_directory_is_the_configurations(
    tmp_path: Path, directory: Path, names: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    config = tmp_path / "tollbridge.toml"
    text = '[bridge]\nports = ["p0", "p1"]\n[[protected]]\ndomain = "example.com"\nservers = ["192.0.2.20"]\n'
    config.write_text(f'{text}[mta]\nspool = "{directory}"\n')
    assert cli.main(["--config", str(config), "queue", "list", "--json"]) == 0
    assert len(capsys.readouterr().out.splitlines()) == len(names)


# --- beside the MTA -----------------------------------------------------------------------------


@pytest.fixture
def holder(tmp_path: Path, directory: Path, names: list[str], monkeypatch: pytest.MonkeyPatch) -> Iterator[Process]:
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    host = Host("here", (), tmp_path)
    process = host.spawn([sys.executable, "-c", _HOLDER, str(directory)])
    process.wait_for("open", timeout_s=30)
    yield process
    host.end()


def test_no_second_mta(directory: Path, holder: Process) -> None:
    with pytest.raises(
        SpoolLockedError, match=rf"{directory}/lock: process {holder.pid} \(python.*stop that one first"
    ):
        Spool.open(directory)


def test_a_change_reaches_the_process_that_delivers(ask: Ask, names: list[str], holder: Process) -> None:
    ask("retry", names[0])
    holder.wait_for(str([names[1], names[0]]))
    ask("hold", names[1])
    holder.wait_for(f"\n{[names[0]]}\n")
    ask("delete", "--yes", names[0])
    holder.wait_for("\n[]\n")
    ask("release", names[1])
    ask("retry", names[2])
    holder.wait_for(str(names[1:]))
    assert holder.running


@contextmanager
def somebody() -> Iterator[None]:
    """As another user."""
    os.setegid(12345)
    os.seteuid(12345)
    try:
        yield
    finally:
        os.seteuid(0)
        os.setegid(0)


@pytest.fixture
def public() -> Iterator[Path]:
    """A spool where every user may look for it, as in /var/spool."""
    with tempfile.TemporaryDirectory() as parent:
        Path(parent).chmod(0o755)
        yield Path(parent) / "spool"


@NOT_ROOT.mark
def test_root_leaves_nothing_of_roots(public: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Whichever opened the database first: its files belong to who delivers."""
    directory, ask = public, Ask(public, capsys)
    make(directory, 12345, 12345)
    with somebody(), spool_in(directory) as spool:
        name = wait(put(spool, b"x" * (SMALL_BYTES + 1)))
    assert ask("hold", name).status == 0
    assert os.geteuid() == 0
    connection = sqlite3.connect(directory / "queue.db")  # keeps the log and its index
    assert ask("retry", name).status == 0
    assert {path.stat().st_uid for path in directory.rglob("*")} == {12345}
    connection.close()
    assert ask("delete", "--yes", name).status == 0
    assert not files(directory)


@NOT_ROOT.mark
def test_anybody_else_is_told_to_be_root(public: Path, capsys: pytest.CaptureFixture[str]) -> None:
    directory, ask = public, Ask(public, capsys)
    with spool_in(directory), somebody():
        asked = ask("list")
    assert asked.status == 1
    assert "sudo tollbridge queue" in asked.error
