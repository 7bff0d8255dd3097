"""`tollbridge support`: an archive for whoever is to help: how the gateway stands, what the host is, what both say.

Holds no mail, no log of mail, no queue, no key, no password and no file of the administrator's as it was written. What
others wrote all the same (rules, journal) the administrator is told to read before it is given away.
"""

from __future__ import annotations

import argparse
import io
import json
import os
import platform
import subprocess
import sys
import tarfile
import time
from collections.abc import Callable, Mapping
from contextlib import redirect_stdout
from dataclasses import asdict
from importlib import metadata
from pathlib import Path
from typing import Any

from bridge.ledger import Ledger
from smtp_intercept.app import config as configuration
from smtp_intercept.app import diagnosis, doctor, naming, seen, status
from smtp_intercept.app.exits import Exit, FailedError
from smtp_intercept.app.rule_schema import Rule
from smtp_intercept.app.rundir import RunDir

MOST_BYTES = 1 << 20  # of one part; its end is what tells most
WAIT_S = 20.0  # for one program
JOURNAL_LINES = 2_000
UNITS = ("tollbridge", "tollbridge-bridge", "tollbridge-relay")
HIDDEN = "(left out)"
# What names a person, or opens something; of files only the paths are in a configuration.
SECRETS = {"relay": ("username",)}
# Of a rule: whom it is about, and what only senders or servers of the house are to know.
PERSONAL = {
    "when": ("sender", "sender_not", "recipient", "recipient_not", "header", "header_not"),
    "then": ("add_header", "replace_header"),
}
# Each in the host and, where the wire has one, in its own network namespace.
PROGRAMS = {
    "links.txt": ("ip", "-details", "-statistics", "link"),
    "addresses.txt": ("ip", "address"),
    "rules.txt": ("ip", "rule"),
    "routes.txt": ("ip", "route", "show", "table", "all"),
    "neighbours.txt": ("ip", "neighbour"),
    "nft.txt": ("nft", "--stateless", "list", "ruleset"),
    "sysctl.txt": ("sysctl", "net.bridge", "net.ipv4.conf", "net.ipv6.conf", "net.netfilter"),
}
_JOURNAL = ("journalctl", "--no-pager", f"--lines={JOURNAL_LINES}", *(f"--unit={unit}" for unit in UNITS))
OF_THE_HOST = {
    "journal.txt": _JOURNAL,
    "units.txt": ("systemctl", "--no-pager", "status", *UNITS),
    "packages.txt": ("dpkg-query", "--show", "tollbridge", "nftables", "iptables", "python3", "libseccomp2", "systemd"),
    "disks.txt": ("df", "--human-readable", "--inodes"),
}
Part = Callable[[], str]


def support(arguments: argparse.Namespace) -> int:
    """The verb: writes a file that is root's alone, and says what is in it."""
    run_dir = RunDir(arguments.run_dir)
    output = arguments.output or Path(time.strftime("tollbridge-support-%Y%m%d-%H%M%S.tar.gz"))
    parts = {**_own(run_dir, arguments.config), **_programs(run_dir)}
    try:
        file = os.open(output, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW, 0o600)
    except FileExistsError:
        raise FailedError(f"{output} is there already; name another with --output") from None
    with os.fdopen(file, "wb") as opened:
        names = write(opened, parts, output.name.partition(".")[0])
    print("\n".join(names))
    print(f"written to {output}: no mail and no secret of the configuration; addresses of this network are in it, and")
    print("what the journal and other programs' rules say: read them before you give it away")
    return Exit.DONE


def write(file: Any, parts: Mapping[str, Part], folder: str) -> list[str]:
    """The archive; what cannot be had has why in its place. Returns the names of what is in it."""
    with tarfile.open(fileobj=file, mode="w:gz") as archive:
        for name, part in parts.items():
            data = said(part).encode(errors="backslashreplace")[-MOST_BYTES:]
            member = tarfile.TarInfo(f"{folder}/{name}")
            member.size, member.mode, member.mtime = len(data), 0o600, int(time.time())
            archive.addfile(member, io.BytesIO(data))
    return list(parts)


def said(part: Part) -> str:
    """Whatever is broken on this box, the rest is told."""
    try:
        return part()
    except Exception as error:
        return f"cannot be told: {type(error).__name__}: {error}\n"


def _own(run_dir: RunDir, file: Path) -> dict[str, Part]:
    """What the gateway knows."""
    in_force = run_dir.effective if run_dir.effective.exists() else file
    return {
        "version.txt": _version,
        "doctor.json": lambda: json.dumps(_findings(run_dir, file), indent=1),
        "status.json": lambda: json.dumps(_status(run_dir, file), indent=1),
        "status.txt": lambda: status.as_text(_status(run_dir, file)),
        "configuration.toml": lambda: without_secrets(naming.load(file)),
        "in-force.toml": lambda: without_secrets(configuration.load(in_force)),
        "check.txt": lambda: _checked(run_dir, file),
        "hardware.json": lambda: json.dumps(asdict(seen.box()), indent=1, default=_plain),
        "files.txt": lambda: _files(run_dir),
    }


def _status(run_dir: RunDir, file: Path) -> dict[str, Any]:
    """Of a list's mistake the place alone: the entry may be a person's address."""
    page = status.read(run_dir, status.spool_of(run_dir.effective, file), file)
    return {**page, "list_errors": [error.partition(": ")[0] for error in page["list_errors"]]}


def _version() -> str:
    release = platform.freedesktop_os_release().get("PRETTY_NAME", "?")
    return (
        f"tollbridge {metadata.version('tollbridge')}\nPython {sys.version}\n{release}\n{' '.join(platform.uname())}\n"
    )


def _findings(run_dir: RunDir, file: Path) -> dict[str, Any]:
    looked = doctor.look(run_dir, file)
    return {"findings": [asdict(each) for each in diagnosis.findings(looked)], "unread": looked.unread}


def without_secrets(config: configuration.Config) -> str:
    """As it is in force, without the file's own comments."""
    tables = {table: getattr(config, table) for table in SECRETS}
    hidden = {
        table: values.model_copy(update={key: HIDDEN for key in keys if getattr(values, key) is not None})
        for table, keys in SECRETS.items()
        if (values := tables[table]) is not None
    }
    rules = tuple(_impersonal(rule) for rule in config.rule)
    return configuration.effective(config.model_copy(update={**hidden, "rule": rules}))


def _impersonal(rule: Rule) -> Rule:
    tables = {
        part: table.model_copy(
            update={key: _left_out(value) for key in keys if (value := getattr(table, key)) is not None}
        )
        for part, keys in PERSONAL.items()
        for table in (getattr(rule, part),)
    }
    return rule.model_copy(update=tables)


def _left_out(value: Any) -> Any:
    """A list's file may be named."""
    if isinstance(value, Mapping):
        return {name: _left_out(each) for name, each in value.items()}
    if isinstance(value, tuple):
        return tuple(each if each.startswith("@/") else HIDDEN for each in value)
    return HIDDEN


def _checked(run_dir: RunDir, file: Path) -> str:
    """The verdict, and the mistakes: not the configuration once more."""
    from smtp_intercept.app.checking import check

    with redirect_stdout(io.StringIO()) as out:
        check(argparse.Namespace(config=file, run_dir=run_dir.path, json=True))
    page = json.loads(out.getvalue())
    return json.dumps({key: page.get(key) for key in ("verdict", "mistakes", "warnings", "profile")}, indent=1)


def _files(run_dir: RunDir) -> str:
    """Which there are, how large, and whose: nothing of what is in them."""
    settings = configuration.load(run_dir.effective)
    places = [run_dir.path, Path(settings.log.mail).parent, Path(settings.mta.spool)]
    places += [] if settings.tracking.index is None else [Path(settings.tracking.index)]
    lines = []
    for place in places:
        for path in sorted(place.iterdir()) if place.is_dir() else ():
            at = path.lstat()
            lines.append(f"{at.st_mode:o} {at.st_uid} {at.st_gid} {at.st_size} {int(at.st_mtime)} {path}")
    return "\n".join(lines)


def _programs(run_dir: RunDir) -> dict[str, Part]:
    room = Ledger(run_dir.ledger).room
    parts = {name: _runs(words) for name, words in {**OF_THE_HOST, **PROGRAMS}.items()}
    if room:
        inside = ("ip", "netns", "exec", room)
        parts |= {f"room-{name}": _runs((*inside, *words)) for name, words in PROGRAMS.items()}
    return parts


def _runs(words: tuple[str, ...]) -> Part:
    def run() -> str:
        done = subprocess.run(  # noqa: S603 - no shell, fixed programs
            words, capture_output=True, timeout=WAIT_S, stdin=subprocess.DEVNULL, check=False
        )
        return (done.stdout + done.stderr).decode(errors="backslashreplace")

    return run


def _plain(value: object) -> object:
    return sorted(value) if isinstance(value, frozenset) else getattr(value, "value", str(value))
