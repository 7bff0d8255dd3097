"""What a newcomer's shell or a script gets wrong around the command: files that are none, variables that are not set, a
directory that is gone, a umask of nobody's. Each ends at once, in lines that say what to do, and by the table.
"""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import threading
from collections.abc import Callable, Mapping
from pathlib import Path

import pytest

from smtp_intercept.app import cli, entry
from smtp_intercept.app.config import parse
from smtp_intercept.app.exits import Exit
from smtp_intercept.app.given import text
from smtp_intercept.app.subcommands import place

GOOD = '[bridge]\nports = ["p0", "p1"]\n[[protected]]\ndomain = "example.com"\nservers = ["192.0.2.20"]\n'
COMMAND = [sys.executable, "-m", "smtp_intercept.app"]


def loop(path: Path) -> None:
    path.symlink_to(path)


def bound(path: Path) -> None:
    with socket.socket(socket.AF_UNIX) as sock:
        sock.bind(str(path))


KINDS: Mapping[str, tuple[Callable[[Path], object], str]] = {
    "a directory": (Path.mkdir, "is a directory; name a file"),
    "a pipe": (os.mkfifo, "is a pipe that nobody writes to, or that was read already; name a file"),
    "a device": (lambda path: path.symlink_to("/dev/zero"), "is a device; name a file"),
    "a terminal": (lambda path: path.symlink_to("/dev/ptmx"), "is a device; name a file"),
    "a socket": (bound, "is a socket; name a file"),
    "a loop": (loop, "cannot be read: Too many levels of symbolic links; symbolic links that point at each other"),
    "UTF-16": (lambda path: path.write_text(GOOD, "utf-16-le"), "byte 0x00 is no text: it is UTF-16, or was not"),
    "UTF-32": (lambda path: path.write_text(GOOD, "utf-32"), "byte 0xff is not UTF-8; save it as UTF-8"),
    "not whole": (lambda path: path.write_text(GOOD + "\0" * 99), "byte 0x00 is no text: it is UTF-16, or was not"),
    "a wrong one": (lambda path: path.write_bytes(b" " * (5 << 20)), "is larger than"),
    "endless": (lambda path: path.symlink_to("/proc/self/mem"), "cannot be read: Input/output error"),
}
OPTIONS = {
    "--config": "check",
    "--answers": "--config {}/fresh setup --yes",
    "--facts": "hw detect",
}


@pytest.mark.timeout(60)
@pytest.mark.parametrize("option", OPTIONS)
@pytest.mark.parametrize("kind", KINDS)
def test_a_file_that_is_none(
    tmp_path: Path, kind: str, option: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(os, "geteuid", lambda: 0)
    make, says = KINDS[kind]
    make(tmp_path / "it")
    words = [*OPTIONS[option].format(tmp_path).split(), option, str(tmp_path / "it")]
    assert cli.main(words) == Exit.FAILED
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("tollbridge: ")
    assert says in line
    assert str(tmp_path / "it") in line
    assert not (tmp_path / "fresh").exists()


@pytest.mark.parametrize(
    "write",
    [
        lambda path: path.write_bytes(GOOD.replace("\n", "\r\n").encode()),
        lambda path: path.write_text("\ufeff" + GOOD, "utf-8"),
        lambda path: path.write_text(GOOD.rstrip()),
    ],
    ids=["CRLF", "byte order mark", "no last line end"],
)
def test_what_editors_do_is_no_mistake(tmp_path: Path, write: Callable[[Path], object]) -> None:
    write(tmp_path / "x.toml")
    assert parse(text(tmp_path / "x.toml", 1 << 20)) == parse(GOOD)


def test_a_pipe_that_somebody_writes_to_is_a_file(tmp_path: Path) -> None:
    """`--config <(generate)`, which may take its time."""
    read, write = os.pipe()

    def generate() -> None:
        with os.fdopen(write, "w") as pipe:
            pipe.write(GOOD)

    threading.Timer(0.2, generate).start()
    assert text(Path(f"/dev/fd/{read}"), 1 << 20) == GOOD
    os.close(read)


@pytest.mark.parametrize("make", [os.mkfifo, bound, lambda path: path.symlink_to("/dev/null")])
def test_setup_writes_over_files_alone(
    tmp_path: Path, make: Callable[[Path], object], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """`setup --config /dev/stdout`, or /dev/null, which then would be a file."""
    monkeypatch.setattr(os, "geteuid", lambda: 0)
    make(tmp_path / "it")
    before = (tmp_path / "it").lstat()
    assert cli.main(["--config", str(tmp_path / "it"), "setup", "--yes"]) == Exit.FAILED
    assert capsys.readouterr().err == f"tollbridge: --config: {tmp_path}/it is not a file; name one\n"
    assert ([*tmp_path.iterdir()], (tmp_path / "it").lstat().st_ino) == ([tmp_path / "it"], before.st_ino)


EMPTY = (
    *("--config= check", "--run-dir= status", "status --run-dir=", "--state-dir= up", "setup --answers="),
    *("queue --spool= list", "queue list --spool=", "hw detect --facts=", "hw tune --output="),
)


@pytest.mark.parametrize("words", EMPTY)
def test_a_variable_that_is_not_set_is_not_this_directory(words: str, capsys: pytest.CaptureFixture[str]) -> None:
    """`tollbridge --run-dir "$RUN" up` would leave what undoes it wherever the script happens to be."""
    with pytest.raises(SystemExit) as ended:
        cli.main(words.split())
    assert ended.value.code == Exit.MISUSE
    assert "is empty; name a path" in capsys.readouterr().err


@pytest.mark.parametrize("words", EMPTY)
@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("-", "- is no file; for standard input name /dev/stdin"),
        ("a\nb", r"'a\nb' has a control character in its name"),
        ("a\u2028b", r"'a\u2028b' has a control character in its name"),
        ("\x1b[31mred", r"'\x1b[31mred' has a control character in its name"),
    ],
)
def test_a_name_that_would_not_stay_on_its_line(
    words: str, name: str, said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as ended:
        cli.main([word + name if word.endswith("=") else word for word in words.split()])
    assert ended.value.code == Exit.MISUSE
    assert said in capsys.readouterr().err.splitlines()[-1]


def test_octets_that_are_no_utf8_name_a_file() -> None:
    assert place("/caf\udce9") == Path("/caf\udce9")


def test_facts_without_end_take_no_memory(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    endless = tmp_path / "endless"
    with endless.open("wb") as file:
        file.truncate(1 << 40)
    for path, why in ((Path("/dev/zero"), "is a device"), (endless, "is larger than 4194304 bytes")):
        assert cli.main(["hw", "detect", "--facts", str(path)]) == Exit.FAILED
        assert why in capsys.readouterr().err


# --- the process ------------------------------------------------------------------------------------------------------


def shell(script: str, *words: str, where: Path, **environment: str) -> subprocess.CompletedProcess[str]:
    """``"$@"`` in the script is the command with these words."""
    return subprocess.run(
        ["/bin/sh", "-c", script, "sh", *COMMAND, *words],
        capture_output=True,
        text=True,
        check=False,
        cwd=where,
        stdin=subprocess.DEVNULL,
        env=environment or None,
        timeout=120,
    )


EXPLAIN = ("explain", "--from", "203.0.113.5", "--to", "192.0.2.20")


@pytest.mark.parametrize(
    "environment", [{"LANG": "C"}, {"LC_ALL": "xx_YY.none", "TZ": ":/none"}, {"PATH": "/none", "HOME": "/none"}]
)
def test_an_environment_that_has_nothing(tmp_path: Path, environment: dict[str, str]) -> None:
    """As cron's, or an init script's: without HOME, USER, TERM, a locale that is there."""
    (tmp_path / "x.toml").write_text(GOOD)
    done = shell('"$@"', "--config", "x.toml", *EXPLAIN, where=tmp_path, **environment)
    assert (done.returncode, done.stderr) == (Exit.DONE, "")
    assert "intercept, decided by pickup.incoming" in done.stdout


def test_a_directory_that_is_gone(tmp_path: Path) -> None:
    """Whole paths work; others are told why they cannot."""
    (tmp_path / "x.toml").write_text(GOOD)
    gone = f'mkdir gone && cd gone && rmdir "{tmp_path}/gone" && exec "$@"'
    done = shell(gone, "--config", f"{tmp_path}/x.toml", *EXPLAIN, where=tmp_path)
    assert (done.returncode, done.stderr) == (Exit.DONE, "")
    done = shell(gone, "--config", "x.toml", "check", where=tmp_path)
    assert done.returncode == Exit.FAILED
    assert "x.toml: cannot be read: No such file" in done.stderr
    done = subprocess.run(
        ["/bin/sh", "-c", gone, "sh", sys.executable, "-c", ASKS],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.stdout == "the directory that this was started in is gone; cd to another one\n"


ASKS = """
import os
from smtp_intercept.app.refusals import said
try:
    os.getcwd()
except OSError as error:
    print(said(error))
"""


def test_what_root_writes_is_nobody_elses_to_write(tmp_path: Path) -> None:
    """`umask 0` of some init: the ledger says what root will do. And a umask that is stricter stays so."""
    program = "import os, sys; from smtp_intercept.app import entry; entry.main(); print(oct(os.umask(0)))"
    for umask, kept in (("0", "0o22"), ("002", "0o22"), ("027", "0o27"), ("077", "0o77")):
        done = subprocess.run(
            ["/bin/sh", "-c", f'umask {umask}; exec "$@"', "sh", sys.executable, "-c", program, "--version"],
            capture_output=True,
            text=True,
            check=True,
        )
        assert done.stdout.splitlines()[-1] == kept, umask


def test_without_memory(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    def full(_: object) -> int:
        raise MemoryError

    monkeypatch.setattr(cli, "main", full)
    assert entry.status_of(["check"]) == Exit.FAILED
    assert capsys.readouterr().err.startswith("tollbridge: out of memory; ")


def test_not_even_nobody_may_be_asked(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """A run directory that one may not look into is not one where nothing runs."""
    (tmp_path / "x.toml").write_text(GOOD)
    monkeypatch.setattr(os, "access", lambda *_, **__: False)
    words = ["--config", str(tmp_path / "x.toml"), "--run-dir", str(tmp_path), *EXPLAIN, "--running"]
    assert cli.main(words) == Exit.FAILED
    assert capsys.readouterr().err == f"tollbridge: --running: {tmp_path} cannot be looked into: ask as root\n"
