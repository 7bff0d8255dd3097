"""The line that imports follow, and the purity of the modules that decide."""

from __future__ import annotations

import ast
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
LINE = ("hwprofiles", "bridge", "smtp_intercept")  # each may import itself and those to its left

PURE = {
    "hwprofiles": ("shown", "box", "validation", "schema", "profile", "match", "case", "tuning", "relay"),
    "bridge": (
        *(
            "flow",
            "lane",
            "lanes",
            "plan",
            "ruleset",
            "rules",
            "wires",
            "entry",
            "refuse",
            "deadman",
            "linkloss",
            "steps",
        ),
        *("reach", "watch", "hops", "room", "moves", "present", "canary", "segment", "stages", "fragments", "tunnels"),
        *("denied", "client"),
    ),
    "smtp_intercept": (
        *("direction", "handling", "names", "pickup", "wire", "dialogue", "data"),
        *("events", "transaction", "conversation", "matching", "replies", "session", "passage", "tally"),
        *("answers", "policy", "limits", "rules", "offer", "screen", "look", "holding", "headcount", "shares"),
        "accounts",
        *("extensions", "opening", "sasl", "transfer", "repetition"),
    ),
    "smtp_intercept.inspect": (
        *("patterns", "facts", "criteria", "actions", "rule", "columns", "ruleset", "written", "judge", "message"),
        *("dns", "inside", "words", "parts", "part_names", "archive"),
    ),
    "smtp_intercept.milter": (
        *("packets", "replies", "agreement", "exchange", "envelope", "changes", "breaker", "address"),
    ),
    "smtp_intercept.tls": ("hello", "names", "manners", "left_alone", "certificates", "anchors"),
    "smtp_intercept.mta": (
        *("envelope", "ids", "nexthop", "schedule", "dsn", "relaying", "routing"),
        *("fate", "printable", "quoted", "wording", "aftermath", "destinations"),
        *("failure", "mx", "reply", "request", "stuffing", "exchange"),
        *("greeting", "delivery", "leaf", "replies", "esmtp", "content"),
        *("trace", "parts", "clock"),
    ),
    "smtp_intercept.watch": ("terms", "story", "figures"),
    "smtp_intercept.app.lab": ("figures", "proposal"),
    "smtp_intercept.app": (
        "rules_shown",
        "explain",
        "located",
        "mistakes",
        "refusals",
        "sums",
        "template",
        "tracking_status",
        "diagnosis",
    ),
}
PURE_MODULES = {f"{package}.{module}" for package, modules in PURE.items() for module in modules}

# What may be imported by code that must not see a socket, a clock, a file, a log or chance.
ALLOWED = {
    *(
        "__future__",
        "abc",
        "base64",
        "binascii",
        "bisect",
        "collections",
        "contextlib",
        "copy",
        "dataclasses",
        "difflib",
        "email",
        "enum",
        "errno",
        "fnmatch",
        "functools",
    ),
    *(
        "hashlib",
        "heapq",
        "io",
        "ipaddress",
        "itertools",
        "json",
        "math",
        "operator",
        "re",
        "reprlib",
        "statistics",
        "string",
        "struct",
    ),
    *("textwrap", "tomllib", "types", "typing", "unicodedata"),
    *("pydantic", "pydantic_core", "typing_extensions"),  # validation of what somebody else has read
}
IO = {"open", "print", "input", "exec", "eval", "__import__", "now", "utcnow", "today"}
IO |= {"read_text", "read_bytes", "write_text", "write_bytes", "unlink", "mkdir", "exists", "iterdir", "stat"}


def source(module: str) -> Path:
    return ROOT.joinpath(*module.split(".")).with_suffix(".py")


def nodes(path: Path) -> Iterator[ast.AST]:
    """Every node outside `if TYPE_CHECKING:`."""
    pending: list[ast.AST] = [ast.parse(path.read_text(), path)]
    while pending:
        node = pending.pop()
        yield node
        typing_only = isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING"
        pending += node.orelse if typing_only and isinstance(node, ast.If) else ast.iter_child_nodes(node)


def imported(path: Path) -> Iterator[str]:
    """The full names that a module imports; `from a import b` is `a.b`, for b may be a module."""
    for node in nodes(path):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}:{node.lineno}: imports are absolute here"
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


def is_pure(name: str) -> bool:
    return name.split(".")[0] in ALLOWED or name in PURE_MODULES or name.rpartition(".")[0] in PURE_MODULES


@pytest.mark.parametrize("path", [path for package in LINE for path in sorted((ROOT / package).rglob("*.py"))], ids=str)
def test_imports_follow_the_line(path: Path) -> None:
    package = path.relative_to(ROOT).parts[0]
    to_the_right = set(LINE[LINE.index(package) + 1 :])
    assert not {name for name in imported(path) if name.split(".")[0] in to_the_right}


@pytest.mark.parametrize("module", sorted(PURE_MODULES))
def test_pure_modules_are_pure(module: str) -> None:
    path = source(module)
    assert not [name for name in imported(path) if not is_pure(name)]
    calls = [node.func for node in nodes(path) if isinstance(node, ast.Call)]
    called = {func.id if isinstance(func, ast.Name) else getattr(func, "attr", "") for func in calls}
    assert not called & IO


def test_the_process_that_holds_the_queue_loads_no_more_than_it_uses() -> None:
    """It is the privileged one, and mail waits for it after each start."""
    large = ("asyncio", "ssl", "pyroute2", "multiprocessing")
    told = f"import sys, smtp_intercept.app.diverter; print(*(name for name in {large} if name in sys.modules))"
    done = subprocess.run([sys.executable, "-c", told], cwd=ROOT, capture_output=True, text=True, check=True)
    assert done.stdout.split() == []


def test_these_tests_can_fail(tmp_path: Path) -> None:
    guilty = tmp_path / "guilty.py"
    guilty.write_text("from __future__ import annotations\nif True:\n    import socket\nfrom bridge import links\n")
    assert [name for name in imported(guilty) if not is_pure(name)] == ["bridge.links", "socket"]
    guilty.write_text(
        "from typing import TYPE_CHECKING\nif TYPE_CHECKING:\n    import socket\nelse:\n    import time\n"
    )
    assert [name for name in imported(guilty) if not is_pure(name)] == ["time"]
