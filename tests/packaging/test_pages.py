"""Manual pages and completions: made from the command itself, so that they say what it does and nothing else.

::

    argparse ─▶ words ─┬─▶ tollbridge.8          sample.toml ─▶ tollbridge.toml.5
                       └─▶ bash, zsh, fish
"""

from __future__ import annotations

import argparse
import shlex
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from smtp_intercept.app import cli
from smtp_intercept.app.config import sample
from smtp_intercept.app.packaging import completion, manual
from smtp_intercept.app.packaging.words import Word, words_of
from smtp_intercept.app.schema import Config, Table
from tests.tools import as_installed

WORDS = words_of(cli._parser())
EIGHT, FIVE = manual.command(WORDS, "1.2.3"), manual.configuration(sample(), "1.2.3")


def roff(text: str) -> str:
    return text.replace("-", "\\-")


def shown(name: str, page: str, tmp_path: Path) -> str:
    path = tmp_path / name
    path.write_text(page)
    command = as_installed("man", "--warnings", "-l", str(path))
    environment = {"MANWIDTH": "200", "LC_ALL": "C.UTF-8", "PATH": "/usr/bin:/bin"}
    done = subprocess.run(command, capture_output=True, text=True, check=True, timeout=30, env=environment)
    assert done.stderr == ""
    return done.stdout


def test_the_manual_names_every_verb_and_option() -> None:
    verbs = [word for word in WORDS.walk() if word.path]
    assert {"check", "up", "queue"} <= {word.path[0] for word in verbs}
    assert ("queue", "delete") in {word.path for word in verbs}
    for word in verbs:
        assert f".SS {roff(' '.join(word.path))}\n" in EIGHT
        assert all(f"\\fB{roff(flag)}\\fR" in EIGHT for option in word.options for flag in option.flags)
    assert "guard" not in EIGHT, "that one is not for people"


def keys(table: type[Table]) -> Iterator[str]:
    """Every key of the schema that is no table itself."""
    for name, field in table.model_fields.items():
        if table is not Config:
            yield name
        for part in (field.annotation, *getattr(field.annotation, "__args__", ())):
            if isinstance(part, type) and issubclass(part, Table):
                yield from keys(part)


def test_the_manual_of_the_configuration_names_every_key() -> None:
    tables = {"port", "rule", "list"}
    assert {"on_failure", "drain_s", "deliver_to", "password_file"} <= set(keys(Config))
    assert [key for key in keys(Config) if key not in tables and f"\\fB{key}\\fR = " not in FIVE] == []
    assert all(f'.SH "{table}"' in FIVE for table in ("[[pickup.rule]]", "[dns.list.zen]"))


def test_the_manuals_are_good_roff(tmp_path: Path) -> None:
    assert "undo everything by itself after so many seconds" in shown("t.8", EIGHT, tmp_path)
    assert "take part in the spanning tree. Default: false." in shown("t.5", FIVE, tmp_path)


def test_text_never_becomes_a_request() -> None:
    page = manual.command(Word((), "", (), (Word(("x",), ".so /etc/shadow", ()),)), "1")
    assert "\n.so" not in page
    assert "\\&.so" in page


def completed(line: str) -> set[str]:
    """What bash offers at the end of the line."""
    words = shlex.split(line) + ([""] if line.endswith(" ") else [])
    listed = " ".join(map(shlex.quote, words))
    script = f"{completion.bash(WORDS)}\nCOMP_WORDS=({listed}); COMP_CWORD={len(words) - 1}; _tollbridge\n"
    script += 'printf "%s\\n" "${COMPREPLY[@]}"\n'
    done = subprocess.run(["bash", "-eu", "-c", script], capture_output=True, text=True, check=False, timeout=10)
    assert done.stderr == ""
    return set(done.stdout.split())


@pytest.mark.parametrize(
    ("line", "offered"),
    [
        ("tollbridge con", {"confirm"}),
        ("tollbridge up --", {"--adopted", "--boot", "--confirm", "--help"}),
        ("tollbridge --config /etc/hostna", {"/etc/hostname"}),
        ("tollbridge --config /etc/hostname che", {"check"}),
        ("tollbridge queue de", {"delete"}),
        ("tollbridge queue delete --y", {"--yes"}),
        ("tollbridge up --confirm ", set()),
        ("tollbridge gua", set()),
    ],
)
def test_bash_completes(line: str, offered: set[str]) -> None:
    assert completed(line) == offered


@pytest.mark.parametrize("shell", ["zsh", "fish"])
def test_the_others_are_good_syntax(shell: str, tmp_path: Path) -> None:
    text = getattr(completion, shell)(WORDS)
    assert all(word.path[-1] in text for word in WORDS.walk() if word.path)
    assert all(option.flags[-1].lstrip("-") in text for word in WORDS.walk() for option in word.options if option.flags)
    path = tmp_path / "completion"
    path.write_text(text)
    subprocess.run(as_installed(shell, "-n", str(path)), check=True, timeout=10)


def test_what_help_hides_is_hidden() -> None:
    parser = argparse.ArgumentParser(description="D.")
    parser.add_argument("--secret", help=argparse.SUPPRESS)
    parser.add_argument("--shown", help="text of 100%% [%(default)s]", default="x")
    assert [(option.flags[-1], option.text) for option in words_of(parser).options][1:] == [
        ("--shown", "text of 100% [x]")
    ]
