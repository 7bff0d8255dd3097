"""One program in a mount namespace of its own, where the packages unpacked in .tools/ look installed.

::

    /usr        .tools/usr over the machine's          /run, /var/spool, /var/lib    empty, in memory
    /etc        the peer's own files, .tools/etc, the machine's

Mail servers have users, fixed paths and set-uid helpers; Debian's packages of them exclude one another. Nothing of
this is seen outside, and nothing stays: it goes with its processes.
"""

from __future__ import annotations

import shlex
from collections.abc import Mapping, Sequence
from pathlib import Path

from smtp_intercept.app.lab.host import Host, Process
from tests.tools import TOOLS

# Users that the packages' own scripts would have made. "mailbox" owns what is delivered.
ACCOUNTS = ("postfix", "postdrop", "Debian-exim", "opensmtpd", "opensmtpq", "mailbox")
FIRST_ID = 61_100
SPOOL = "/var/spool"
MAILBOX = f"{SPOOL}/mailbox"

# Names are not asked for on these wires: every look-up ends at once.
COMMON = {
    "resolv.conf": "nameserver 127.0.0.1\noptions timeout:1 attempts:1\n",
    "nsswitch.conf": "passwd: files\ngroup: files\nshadow: files\nhosts: files\nservices: files\nprotocols: files\n",
    "aliases": "",
}


def accounts() -> dict[str, str]:
    """The machine's passwd and group with those of `ACCOUNTS` that it lacks."""
    lines = {"passwd": "{0}:x:{1}:{1}::/var/lib/opensmtpd/empty:/usr/sbin/nologin", "group": "{0}:x:{1}:"}
    files = {}
    for file, line in lines.items():
        own = Path("/etc", file).read_text()
        names = {entry.partition(":")[0] for entry in own.splitlines()}
        new = [line.format(name, FIRST_ID + n) for n, name in enumerate(ACCOUNTS) if name not in names]
        files[file] = "\n".join([own.rstrip("\n"), *new, ""])
    return files


def jailed(host: Host, name: str, files: Mapping[str, str], prepare: Sequence[str], argv: Sequence[str]) -> Process:
    """Start ``argv`` on the host; ``files`` are its own below /etc, ``prepare`` shell commands to run before it."""
    etc = host.directory / name / "etc"
    for path, text in {**COMMON, **accounts(), "hosts": _hosts(host), "mailname": f"{name}.test\n", **files}.items():
        (etc / path).parent.mkdir(parents=True, exist_ok=True)
        (etc / path).write_text(text)
    lowers = {"usr": [TOOLS / "usr"], "etc": [etc, TOOLS / "etc"]}
    script = [
        *(
            f"mount -t overlay -o ro,lowerdir={':'.join(map(str, own))}:/{place} peers-{place} /{place}"
            for place, own in lowers.items()
        ),
        *(f"mount -t tmpfs -o mode=755 peers {place}" for place in ("/run", SPOOL, "/var/lib")),
        f"install -d -o mailbox -g mailbox -m 755 {MAILBOX}",
        "install -d -m 711 /var/lib/opensmtpd/empty",
        *prepare,
        f"exec {shlex.join(argv)}",
    ]
    return host.spawn(["unshare", "--mount", "--propagation", "private", "sh", "-ec", "\n".join(script)])


def seen_inside(process: Process, path: str) -> Path:
    """A path of the jail, as it is reached from outside while the program runs."""
    return Path(f"/proc/{process.pid}/root{path}")


def _hosts(host: Host) -> str:
    return "127.0.0.1 localhost\n" + "".join(f"{address.ip} {host.name}.test\n" for address in host.addresses)
