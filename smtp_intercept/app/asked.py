"""Whom one process asks for its rules: the resolver, the reader, both or neither, by the ends that it was handed."""

from __future__ import annotations

from smtp_intercept.app import channel
from smtp_intercept.app.consulting import Consulting
from smtp_intercept.app.looking import Looking
from smtp_intercept.inspect.waiting import LookIn, LookUp


class Asked:
    """To be started in the running loop."""

    def __init__(self, ask: int | None, look: int | None) -> None:
        self._consulting = None if ask is None else Consulting(channel.adopt(ask))
        self._looking = None if look is None else Looking(channel.adopt(look))

    @property
    def look_up(self) -> LookUp | None:
        """Of the resolver."""
        return None if self._consulting is None else self._consulting.look_up

    @property
    def look_in(self) -> LookIn | None:
        """Of the reader."""
        return None if self._looking is None else self._looking.look_in

    def start(self) -> None:
        """Hear what is answered."""
        if self._consulting is not None:
            self._consulting.start()
        if self._looking is not None:
            self._looking.start()

    def counts(self) -> dict[str, int]:
        """Questions so far, and those that nobody answered in time."""
        consulted = {} if self._consulting is None else self._consulting.counts
        return consulted | ({} if self._looking is None else self._looking.counts)
