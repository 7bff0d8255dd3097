"""What a machine can tell of what went wrong, written down before it is taken away."""

from __future__ import annotations

import shutil
import time
from collections.abc import Iterable, Mapping
from pathlib import Path

from smtp_intercept.app.lab.host import LabError
from vagrant.lab import places
from vagrant.lab.access import Access
from vagrant.lab.doing import run

ASK_S = 60.0
_LINKS = "ip -d -s link; ip address; ip rule; ip route show table all"
# file → shell command; one that a machine has no use for leaves an empty file
QUESTIONS = {
    "journal.txt": "journalctl --no-pager --boot --output=short-precise",
    "links.txt": f"{_LINKS}; ip -all netns exec sh -c '{_LINKS}'",
    "nft.txt": "nft list ruleset; ip -all netns exec nft list ruleset",
    "mail.log": "cat /var/log/mail.log",
    "tollbridge.log": "cat /var/log/tollbridge/mail.log",
    "tollbridge.toml": "cat /etc/tollbridge/tollbridge.toml",
    "status.json": "tollbridge status --json",
    "processes.txt": "ps -ef; ss -tnpi; df -h; free -m",
}


def collect(access: Access, serial: Mapping[str, str], names: Iterable[str], suite: str) -> Path:
    """Ask every machine; the directory with the answers. A machine that does not answer has its console only."""
    place = places.KEPT / "logs" / time.strftime(f"%Y%m%d-%H%M%S-{suite}")
    for name in names:
        (place / name).mkdir(parents=True)
        if Path(serial[name]).exists():
            shutil.copy(serial[name], place / name / "console.txt")
        _ask(access, name, place / name)
    return place


def _ask(access: Access, name: str, place: Path) -> None:
    for file, question in QUESTIONS.items():
        words = [*access.ssh, name, f"{{ {question}; }} 2>&1"]
        try:
            (place / file).write_text(run(words, timeout_s=ASK_S, check=False))
        except LabError as error:
            (place / "unreachable.txt").write_text(f"{error}\n")
            return
