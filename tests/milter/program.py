"""A filter with the genuine libmilter (pymilter): says and changes what a JSON file tells it, read for each message.

    program.py SOCKET ORDERS

``{"say": {"envrcpt": ["550", "5.7.1", "no"]}, "edit": [["addheader", "X-A", "1"], ["replacebody", "text\\r\\n"]]}``
``say``: by callback, a word (reject, tempfail, discard, accept) or a reply. ``heard`` is written beside the file.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import Milter  # type: ignore[import-not-found]

WORDS = {"reject": Milter.REJECT, "tempfail": Milter.TEMPFAIL, "discard": Milter.DISCARD, "accept": Milter.ACCEPT}
ORDERS = Path(sys.argv[2])


class Program(Milter.Base):  # type: ignore[misc]
    def __init__(self) -> None:
        self.id = Milter.uniqueID()
        self.heard: list[Any] = []
        self.body_octets = b""

    def answer(self, event: str, *what: Any) -> Any:
        self.heard.append([event, *what])
        said = json.loads(ORDERS.read_text()).get("say", {}).get(event)
        if said is None:
            return Milter.CONTINUE
        if isinstance(said, str):
            return WORDS[said]
        self.setreply(*said)
        return Milter.REJECT if said[0].startswith("5") else Milter.TEMPFAIL

    def connect(self, hostname: str, family: Any, address: Any) -> Any:
        return self.answer("connect", hostname, address[0], self.getsymval("j"), self.getsymval("{client_addr}"))

    def hello(self, name: str) -> Any:
        return self.answer("hello", name)

    def envfrom(self, path: str, *arguments: str) -> Any:
        self.heard, self.body_octets = [each for each in self.heard if each[0] in ("connect", "hello")], b""
        return self.answer("envfrom", path, *arguments, self.getsymval("{mail_addr}"))

    def envrcpt(self, path: str, *arguments: str) -> Any:
        return self.answer("envrcpt", path, *arguments, self.getsymval("{rcpt_addr}"))

    def data(self) -> Any:
        return self.answer("data")

    @Milter.decode("bytes")  # type: ignore[untyped-decorator]
    def header_bytes(self, name: str, value: bytes) -> Any:
        return self.answer("header", name, value.decode("latin-1"))

    header = header_bytes

    def eoh(self) -> Any:
        return self.answer("eoh")

    def body(self, block: bytes) -> Any:
        self.body_octets += block
        return self.answer("body") if b"stop here" in block else Milter.CONTINUE

    def eom(self) -> Any:
        for name, *words in json.loads(ORDERS.read_text()).get("edit", []):
            if name == "replacebody":
                self.replacebody(words[0].encode("latin-1"))
            else:
                getattr(self, name)(*words)
        said = self.answer("eom", self.body_octets.decode("latin-1"))
        ORDERS.with_name("heard").write_text(json.dumps(self.heard))
        return said


Milter.factory = Program
Milter.set_flags(0x1FF)
Milter.runmilter("program", sys.argv[1], 300)
