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
from tests.peers.peer import SIX, TLS, Peer, Routes, six
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


def labelled(name: str, way: str) -> str:
    """A sender that uses a way of its own counts as another one."""
    return f"{name}-{way}" if way else name


@dataclass(frozen=True, slots=True)
class Outbox:
    """The corpus as files on the sending host, whose envelope sender tells which program sent it."""

    host: Host
    receivers: Sequence[Peer]

    def sender(self, name: str, mail: Mail) -> str:
        return mail.sender.replace("@", f"@{name}.")

    def source(self, name: str, way: str) -> str:
        return six(ADDRESSES[name]) if way == SIX else ADDRESSES[name]

    def path(self, mail: Mail) -> Path:
        path = self.host.directory / f"mail-{mail.name}"
        if not path.exists():
            path.write_bytes(mail.content)
        return path

    def direct(self, mails: Sequence[Mail], receiver: Peer, way: str) -> Process:
        """All mails in one session with their receiver."""
        to, name = receiver.reached(way)[1], labelled("smtplib", way)
        return self._post(name, mails, self.source("smtplib", way), to, [receiver], way, tls=way == TLS)

    def handed(self, mta: str, mails: Sequence[Mail], receivers: Sequence[Peer], way: str) -> Process:
        """All mails in one session with an MTA of this host, each for a user of every receiver."""
        own = ADDRESSES[mta]
        return self._post(labelled(mta, way), mails, own, own, receivers, way)

    def _post(
        self,
        name: str,
        mails: Sequence[Mail],
        source: str,
        to: str,
        receivers: Sequence[Peer],
        way: str,
        *,
        tls: bool = False,
    ) -> Process:
        items = [
            {
                "path": str(self.path(mail)),
                "sender": self.sender(name, mail),
                "recipients": [f"{mail.recipient}@{receiver.reached(way)[0]}" for receiver in receivers],
                "options": mail.options,
                "bdat_bytes": mail.bdat_bytes,
                "pipelined": mail.pipelined,
            }
            for mail in mails
        ]
        job = self.host.directory / f"job-{name}-{to}-{mails[0].name}"
        job.write_text(json.dumps({"server": to, "source": source, "helo": HELO, "tls": tls, "mails": items}))
        return self.host.spawn([self.host.interpreter, str(POST), str(job)])

    def swaks(self, mail: Mail, receiver: Peer, way: str) -> Process:
        """One mail to one receiver."""
        path, environment = program("swaks")
        domain, to = receiver.reached(way)
        options = {
            "--server": to,
            "--local-interface": self.source("swaks", way),
            "--helo": HELO,
            "--from": self.sender(labelled("swaks", way), mail),
            "--to": f"{mail.recipient}@{domain}",
            "--data": f"@{self.path(mail)}",
        }
        words = [word for option in options.items() for word in option]
        settings = [f"{name}={value}" for name, value in environment.items()]
        how = ["--tls"] if way == TLS else ["--pipeline"]
        return self.host.spawn(["env", *settings, "perl", path, *how, "--suppress-data", *words])
