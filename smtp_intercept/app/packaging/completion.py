"""Completion for bash, zsh and fish, as text made from the command's words. Pure."""

from __future__ import annotations

from collections.abc import Iterator

from smtp_intercept.app.packaging.words import Option, Word

_BASH = """\
# tollbridge(8): completion for bash; made from the command's own words
_tollbridge() {{
    local cur=${{COMP_WORDS[COMP_CWORD]}} prev=${{COMP_WORDS[COMP_CWORD-1]}} at='' word i words
    COMPREPLY=()
    for ((i = 1; i < COMP_CWORD; i++)); do
        word=${{COMP_WORDS[i]}}
        case "$at $word" in
{steps}
        esac
    done
    case "$at $prev" in
{files}
{values}
    esac
    case "$at" in
{offers}
    esac
    mapfile -t COMPREPLY < <(compgen -W "$words" -- "$cur")
}}
complete -F _tollbridge tollbridge
"""

_ZSH = """\
#compdef tollbridge
# tollbridge(8): completion for zsh; made from the command's own words
_tollbridge() {{
    local at='' word i
    local -a offers
    for ((i = 2; i < CURRENT; i++)); do
        word=$words[i]
        case "$at $word" in
{steps}
        esac
    done
    case "$at $words[CURRENT-1]" in
{files}
{values}
    esac
    case "$at" in
{offers}
    esac
    _describe -o tollbridge offers
}}
_tollbridge "$@"
"""


def bash(root: Word) -> str:
    """For /usr/share/bash-completion/completions."""
    return _BASH.format(
        steps=_cases(8, ((f"{_at(w)} {v.path[-1]}", f'at="{_at(v)}"') for w in root.walk() for v in w.verbs)),
        files=_cases(4, ((p, 'mapfile -t COMPREPLY < <(compgen -f -- "$cur"); return') for p in _asking(root, True))),
        values=_cases(4, ((p, "return") for p in _asking(root, False))),
        offers=_cases(4, ((_at(w), f'words="{" ".join(name for name, _ in _offers(w))}"') for w in root.walk())),
    )


def zsh(root: Word) -> str:
    """For /usr/share/zsh/vendor-completions."""
    return _ZSH.format(
        steps=_cases(8, ((f"{_at(w)} {v.path[-1]}", f'at="{_at(v)}"') for w in root.walk() for v in w.verbs)),
        files=_cases(4, ((p, "_files; return") for p in _asking(root, True))),
        values=_cases(4, ((p, "return") for p in _asking(root, False))),
        offers=_cases(4, ((_at(w), f"offers=({_described(w)})") for w in root.walk())),
    )


def fish(root: Word) -> str:
    """For /usr/share/fish/vendor_completions.d."""
    lines = ["# tollbridge(8): completion for fish; made from the command's own words", "complete -c tollbridge -f"]
    for word in root.walk():
        seen, unseen = " ".join(word.path[-1:]), " ".join(verb.path[-1] for verb in word.verbs)
        conditions = [f"__fish_seen_subcommand_from {seen}"] if seen else []
        conditions += [f"not __fish_seen_subcommand_from {unseen}"] if unseen else []
        where = f"-n {_quoted('; and '.join(conditions))} " if conditions else ""
        lines += [f"complete -c tollbridge {where}-a {v.path[-1]} -d {_quoted(v.text)}" for v in word.verbs]
        lines += [f"complete -c tollbridge {where}{_fish_option(option)}" for option in word.options if option.flags]
    return "\n".join(lines) + "\n"


def _fish_option(option: Option) -> str:
    names = [f"-l {flag[2:]}" if flag.startswith("--") else f"-s {flag[1:]}" for flag in option.flags]
    takes = ["-r"] if option.value else []
    return " ".join([*names, *takes, *(["-F"] if option.names_file else []), "-d", _quoted(option.text)])


def _at(word: Word) -> str:
    return "/".join(word.path)


def _asking(root: Word, files: bool) -> Iterator[str]:
    """The patterns "where option" of the options that want a value next."""
    for word in root.walk():
        # The command's own options may stand behind the verb too.
        known = {option.flags: option for option in (*root.options, *word.options)}.values()
        flags = [f for option in known if option.value and option.names_file is files for f in option.flags]
        yield from (f"{_at(word)} {flag}" for flag in flags)


def _offers(word: Word) -> list[tuple[str, str]]:
    options = [(flag, option.text) for option in word.options for flag in option.flags if flag.startswith("--")]
    return [*((verb.path[-1], verb.text) for verb in word.verbs), *options]


def _described(word: Word) -> str:
    return " ".join(_quoted(f"{name}:{text}") for name, text in _offers(word))


def _cases(indent: int, cases: Iterator[tuple[str, str]]) -> str:
    space = " " * indent
    return "\n".join(f'{space}    "{pattern}") {action} ;;' for pattern, action in cases)


def _quoted(text: str) -> str:
    return "'" + text.replace("'", "'\\''") + "'"
