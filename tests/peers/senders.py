"""The senders of the matrix: what hands the corpus to each program, from an address of its own.

The MTAs are given it once, for all receivers, by SMTP at their own address; smtplib and swaks dial each receiver.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from smtp_intercept.app.lab.host import Host, Process
from tests.peers import exim, opensmtpd, postfix
from tests.peers.corpus import Mail
from tests.peers.peer import Peer, Routes
from tests.tools import program

POST = Path(__file__).with_name("post.py")
HELO = "client.test"
SEND_S = 60.0
# swaks sends one message a run.
SWAKS = (
    "msg_01",
    "msg_26",
    "sample-spam",
    "only-dots",
    "dots-at-borders",
    "eight-bit",
    "line-of-998",
    "commands",
    "big",
)

ADDRESSES: Mapping[str, str] = {
    "smtplib": "192.0.2.10",
    "postfix": "192.0.2.11",
    "exim": "192.0.2.12",
    "opensmtpd": "192.0.2.13",
    "swaks": "192.0.2.14",
}
MTAS: Mapping[str, Callable[[Host, str, str, Routes], Peer]] = {
    "postfix": postfix.start,
    "exim": exim.start,
    "opensmtpd": opensmtpd.start,
}


@dataclass(frozen=True, slots=True)
class Outbox:
    """The corpus as files on the sending host, whose envelope sender tells which program sent it."""

    host: Host
    receivers: Sequence[Peer]

    def sender(self, name: str, mail: Mail) -> str:
        return mail.sender.replace("@", f"@{name}.")

    def path(self, mail: Mail) -> Path:
        path = self.host.directory / f"mail-{mail.name}"
        if not path.exists():
            path.write_bytes(mail.content)
        return path

    def smtplib(self, name: str, mails: Sequence[Mail], to: str, receivers: Sequence[Peer]) -> Process:
        """All mails in one session with the server at ``to``, each for a user of every receiver."""
        items = [
            {
                "path": str(self.path(mail)),
                "sender": self.sender(name, mail),
                "recipients": [f"{mail.recipient}@{receiver.domain}" for receiver in receivers],
                "options": mail.options,
                "bdat_bytes": mail.bdat_bytes,
            }
            for mail in mails
        ]
        job = self.host.directory / f"job-{name}-{to}-{mails[0].name}"
        job.write_text(json.dumps({"server": to, "source": ADDRESSES[name], "helo": HELO, "mails": items}))
        return self.host.spawn([self.host.interpreter, str(POST), str(job)])

    def swaks(self, mail: Mail, receiver: Peer) -> Process:
        """One mail to one receiver."""
        path, environment = program("swaks")
        options = {
            "--server": receiver.address,
            "--local-interface": ADDRESSES["swaks"],
            "--helo": HELO,
            "--from": self.sender("swaks", mail),
            "--to": f"{mail.recipient}@{receiver.domain}",
            "--data": f"@{self.path(mail)}",
        }
        words = [word for option in options.items() for word in option]
        settings = [f"{name}={value}" for name, value in environment.items()]
        return self.host.spawn(["env", *settings, "perl", path, "--pipeline", "--suppress-data", *words])
