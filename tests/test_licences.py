"""scapy is GPL-2.0-only, aiosmtpd and prometheus-client are Apache-2.0, and the two licences do not go together: no
process has both.

What a process may ever load is looked up in the source: all that it imports, also late, and the verbs that it names.
"""

from __future__ import annotations

import ast
import re
import tomllib
from collections.abc import Iterator
from functools import cache
from pathlib import Path

ROOT = Path(__file__).parents[1]
PARTS = ("bridge", "hwprofiles", "smtp_intercept")
GPL_2_ONLY, APACHE_2 = {"scapy"}, {"aiosmtpd", "prometheus_client"}
VERB = re.compile(r'"([a-z_]+)\.[a-z_]+"')  # as the command's words name what does them


def modules() -> dict[str, Path]:
    found = (path for part in PARTS for path in (ROOT / part).rglob("*.py"))
    return {".".join(path.relative_to(ROOT).with_suffix("").parts): path for path in found}


KNOWN = modules()


@cache
def imported(module: str) -> frozenset[str]:
    """Ours by their names, others by their first."""
    text, package = KNOWN[module].read_text(), module.rpartition(".")[0]
    names = set(_imported(ast.parse(text)))
    if "add_verb" in text:
        names |= {f"{package}.{verb}" for verb in VERB.findall(text)} & KNOWN.keys()
    ours = {name if name in KNOWN else name.rpartition(".")[0] for name in names}
    return frozenset(name for name in ours if name in KNOWN) | {name.partition(".")[0] for name in names}


def _imported(tree: ast.AST) -> Iterator[str]:
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


def loaded(module: str) -> set[str]:
    """All that a process which begins with this module may load."""
    seen, waiting = set[str](), [module]
    while waiting:
        if (name := waiting.pop()) not in seen:
            seen.add(name)
            waiting += imported(name) if name in KNOWN else ()
    return seen


def processes() -> set[str]:
    """The command, and every module that is run by its name."""
    scripts = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["scripts"]
    begun = {module for module, path in KNOWN.items() if '__name__ == "__main__"' in path.read_text()}
    return begun | {place.partition(":")[0] for place in scripts.values()}


def test_no_process_has_both() -> None:
    having = {process: loaded(process) & (GPL_2_ONLY | APACHE_2) for process in processes()}
    assert set().union(*having.values()) == GPL_2_ONLY | APACHE_2  # each is found where it is
    assert [process for process, found in having.items() if found & GPL_2_ONLY and found & APACHE_2] == []
