"""Programs and data that only the tests use, installed or unpacked by `make` in .tools/. Starts nothing."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

from tests.unshown import NOT_ROOT

# TOLLBRIDGE_TOOLS: a folder of one's own, to try packages that the Makefile does not name.
TOOLS = Path(os.environ.get("TOLLBRIDGE_TOOLS") or Path(__file__).parents[1] / ".tools").resolve()
BINARIES = ("usr/sbin", "usr/bin", "sbin", "bin", "usr/lib/postfix/sbin")


class MissingError(Exception):
    """Something that `make tools` brings is not there: no claim about the machine, so nothing that may be skipped."""


def program(name: str) -> tuple[str, dict[str, str]]:
    """Its path, and what its environment needs beyond ours; `MissingError` if it is not there."""
    places = [os.environ.get("PATH", ""), "/usr/sbin", "/sbin", *(str(TOOLS / place) for place in BINARIES)]
    if (found := shutil.which(name, path=os.pathsep.join(places))) is None:
        raise MissingError(f"{name} is neither installed nor unpacked in {TOOLS}: make tools")
    return found, libraries()


def libraries() -> dict[str, str]:
    """Where what is unpacked finds what was unpacked with it."""
    roots = [TOOLS / "usr/lib", TOOLS / "lib"]
    shared = [TOOLS / "usr/lib/postfix", *(path for root in roots for path in root.glob("*-linux-gnu"))]
    perl = [TOOLS / "usr/share/perl5", *(TOOLS / "usr/lib").glob("*/perl5/*")]
    return {"LD_LIBRARY_PATH": _joined(shared), "PERL5LIB": _joined(perl)}


def as_installed(*words: str) -> list[str]:
    """A command for a program that looks for its parts in fixed places: what is unpacked in .tools/ lies over /usr and
    /etc, in a mount namespace of its own. It may write there; nothing of it stays. Takes root."""
    NOT_ROOT.skip()
    program(words[0])
    over = "lowerdir={0}/{1}:/{1},upperdir=/boot/{1},workdir=/boot/{1}.work"
    layers = [
        f"mkdir /boot/{place} /boot/{place}.work; mount -t overlay -o {over.format(TOOLS, place)} tools /{place}"
        for place in ("usr", "etc")
    ]
    script = "; ".join(["mount -t tmpfs tools /boot", *layers, 'exec "$@"'])
    return ["unshare", "--mount", "--propagation", "private", "sh", "-ec", script, "sh", *words]


def data(pattern: str) -> list[Path]:
    """The files below .tools/ or / that match, e.g. ``usr/lib/python3*/test/test_smtplib.py``; else `MissingError`."""
    for root in (TOOLS, Path("/")):
        if found := sorted(root.glob(pattern)):
            return found
    raise MissingError(f"no {pattern}, neither installed nor unpacked in {TOOLS}: make tools")


def _joined(paths: list[Path]) -> str:
    return os.pathsep.join(map(str, paths))
