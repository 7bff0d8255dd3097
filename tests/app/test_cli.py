"""The command's own words: every verb and option is explained, each end has its status, a slip is met with the remedy.

status  example
0       check, with a valid file; --help; --version
1       check, with a file that is not valid, or not there
2       no verb, an unknown one, an unknown option, a missing or impossible value
3       status, where mail is not inspected
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from smtp_intercept.app import cli
from smtp_intercept.app.exits import MEANS, Exit
from smtp_intercept.app.subcommands import Parser

REMEDY = "create it, or name another with --config"
VERBS = ("setup", "check", "plan", "up", "confirm", "down", "run", "status", "explain", "rules", "tls", "queue", "demo")
FOR_MACHINES = ("check", "plan", "status", "explain", "demo", "doctor", "trace")


@pytest.fixture
def config(tmp_path: Path) -> Path:
    path = tmp_path / "tollbridge.toml"
    path.write_text('[bridge]\nports = ["p0", "p1"]\n[[protected]]\ndomain = "example.com"\nservers = ["192.0.2.20"]\n')
    return path


def parsers() -> dict[str, Parser]:
    verbs = cli._parser().verbs
    assert verbs is not None
    return dict(verbs.choices)


def status_of(*words: str) -> int:
    with pytest.raises(SystemExit) as ended:
        cli.main(words)
    assert isinstance(ended.value.code, int)
    return ended.value.code


def test_the_help_names_every_verb_and_status(capsys: pytest.CaptureFixture[str]) -> None:
    assert status_of("--help") == 0
    text = capsys.readouterr().out
    assert all(f"    {verb} " in text for verb in VERBS)
    assert [f"{status.value} {meaning}" in " ".join(text.split()) for status, meaning in MEANS.items()] == [True] * 4
    assert "guard" not in text, "that one is not for people"


@pytest.mark.parametrize("verb", VERBS)
def test_the_help_of_a_verb_is_complete(verb: str, capsys: pytest.CaptureFixture[str]) -> None:
    """It says what the verb does, and every option has a text."""
    assert status_of(verb, "--help") == 0
    parser = parsers()[verb]
    assert parser.description
    assert parser.description.endswith(".")
    assert " ".join(parser.description.split()) in " ".join(capsys.readouterr().out.split())
    assert [action.dest for action in parser._actions if not action.help] == []


def test_json_wherever_a_machine_may_read() -> None:
    assert {verb for verb, parser in parsers().items() if "--json" in parser._option_string_actions} == set(
        FOR_MACHINES
    )


@pytest.mark.parametrize(
    "words",
    [
        "",
        "upp",
        "up --conform 30",
        "up --confirm",
        "up --confirm soon",
        "up --confirm 9",
        "up --confirm 3601",
        "up 30",
        "explain",
        "explain --from 192.0.2.10",
        "--config",
        "check --jason",
    ],
)
def test_misuse_is_2_and_says_how_it_is_used(words: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert status_of(*words.split()) == 2
    error = capsys.readouterr().err
    assert error.startswith("usage: tollbridge")
    assert "error: " in error


@pytest.mark.parametrize("seconds", [10, 3600])
def test_the_edges_of_the_time_to_confirm(seconds: int) -> None:
    assert cli._parser().parse_args(["up", "--confirm", str(seconds)]).confirm == seconds


def test_check_prints_the_whole_that_would_be_in_force_and_ends_in_one_line(
    config: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Here are no such ports; where there are, `tests/kernel/test_check.py`."""
    assert cli.main(["--config", str(config), "check"]) == Exit.FAILED
    text, error = capsys.readouterr()
    assert 'on_failure = "pass"' in text
    assert "drain_s = " in text
    mistakes = [line for line in error.splitlines() if "warning" not in line]
    assert text.splitlines()[-1] == f"refused: {len(mistakes)} mistakes"
    for port, line in zip(("p0", "p1"), mistakes, strict=False):
        assert line.startswith(f"tollbridge: {config}:2: bridge.ports: there is no interface {port}; present are: ")
    assert cli.main(["--config", str(config), "check", "--json"]) == Exit.FAILED
    page = json.loads(capsys.readouterr().out)
    assert page["config"]["bridge"]["ports"] == ["p0", "p1"]
    assert page["config"]["limits"]["recipients"], "those that no profile has, too"
    assert page["verdict"] == f"refused: {len(page['mistakes'])} mistakes"


def test_a_file_that_is_not_there(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["--config", str(tmp_path / "none.toml"), "check"]) == 1
    out, error = capsys.readouterr()
    assert error == f"tollbridge: {tmp_path}/none.toml: cannot be read: No such file or directory; {REMEDY}\n"
    assert out == "refused: 1 mistake\n"


@pytest.mark.parametrize(
    ("words", "named"),
    [
        (("--from", "mail.example.net", "--to", "192.0.2.20"), "--from: mail.example.net is not an IP address"),
        (("--from", "192.0.2.10", "--to", "192.0.2"), "--to: 192.0.2 is not an IP address"),
        (
            ("--from", "192.0.2.10", "--to", "192.0.2.20", "--port", "p7"),
            "--port: p7 is not one of bridge.ports (p0, p1)",
        ),
    ],
)
def test_what_explain_cannot_explain(
    config: Path, words: tuple[str, ...], named: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert cli.main(["--config", str(config), "explain", *words]) == Exit.MISUSE
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith(f"tollbridge: {named}")


SLIPS = {
    "upp": "did you mean `up`?",
    "stauts": "did you mean `status`?",
    "start": "did you mean `up` and `run`?",
    "frobnicate": "'frobnicate' is not a verb. There are setup, check,",
    "queue lst": "did you mean `list`?",
    "hw aply": "did you mean `apply`?",
    "check --jason": "tollbridge check: error: unrecognized arguments: --jason: did you mean `--json`?",
    "queue list --sate dead": "did you mean `--state`?",
    "hw tune --prots a b": "did you mean `--ports`?",
    "up now": "tollbridge up: error: unrecognized arguments: now.",
}


@pytest.mark.parametrize("words", SLIPS)
def test_a_slip_is_met_with_the_word_that_was_meant(words: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert status_of(*words.split()) == Exit.MISUSE
    error = capsys.readouterr().err
    assert SLIPS[words] in error
    assert "guard" not in error


def leaves(parser: Parser, path: tuple[str, ...] = ()) -> Iterator[tuple[str, ...]]:
    """Every verb and every verb of a verb."""
    if parser.verbs is None:
        yield path
    else:
        for name, verb in parser.verbs.choices.items():
            yield from leaves(verb, (*path, name))


@pytest.mark.parametrize("path", [path for path in leaves(cli._parser()) if path != ("guard",)], ids=" ".join)
def test_the_commands_own_options_stand_before_or_behind_any_verb(path: tuple[str, ...]) -> None:
    needed = {"explain": ["--from", "a", "--to", "b"], "queue show": ["ID"], "queue reroute": ["--via", "mx.test"]}
    needed |= {"rules test": ["FILE", *needed["explain"]], "filter test": ["NAME"], "tls test": ["HOST"]}
    words, own = [*path, *needed.get(" ".join(path), [])], ["--config", "/c", "--run-dir", "/r", "--state-dir", "/s"]
    before, behind = (cli._parser().parse_args(line) for line in ([*own, *words], [*words, *own]))
    assert before == behind
    assert (before.config, before.run_dir, before.state_dir) == (Path("/c"), Path("/r"), Path("/s"))
    for at in range(len(path)):
        assert cli._parser().parse_args([*path[:at], *own, *words[at:]]) == before


def test_every_status_is_in_one_table_which_readme_and_manual_have() -> None:
    assert [status.value for status in Exit] == [*MEANS] == [0, 1, 2, 3]
    readme = (Path(__file__).parents[2] / "README.md").read_text()
    assert "0 done, 1 failed or refused, 2 misuse, 3 `status`: mail, or a part of it, is not being inspected" in readme


def test_a_reader_who_has_seen_enough_is_no_error(config: Path) -> None:
    """`tollbridge check | head -1`"""
    command = [sys.executable, "-m", "smtp_intercept.app", "--config", str(config), "check"]
    read, write = os.pipe()
    os.close(read)
    done = subprocess.run(command, stdout=write, stderr=subprocess.PIPE, text=True, check=False, timeout=30)
    os.close(write)
    assert "Traceback" not in done.stderr
    assert "BrokenPipe" not in done.stderr
    assert done.returncode in (Exit.DONE, Exit.FAILED)


def test_status_waits_for_no_library_that_only_others_use(tmp_path: Path) -> None:
    """Each of these is a tenth of a second and more, and monitors ask often."""
    asked = f"import sys; from smtp_intercept.app.cli import main; main(['--run-dir', {str(tmp_path)!r}, 'status'])"
    heavy = "print('loaded', *{'pyroute2', 'dns', 'asyncio', 'pydantic', 'scapy', 'aiosmtpd'} & sys.modules.keys())"
    done = subprocess.run([sys.executable, "-c", f"{asked}; {heavy}"], capture_output=True, text=True, check=True)
    assert done.stdout.splitlines()[-1] == "loaded"
