"""`mta.queue = "relay"`: the client's message goes to the relay while the client waits, and is not kept here.

The client's 250 is said after the relay's. Only what one reply cannot express stays in the spool.
"""

from __future__ import annotations

from smtp_intercept.mta.drafts import Draft
from smtp_intercept.mta.envelope import Envelope, Origin


class NotTakenError(Exception):
    """The relay took the message for no recipient: the client is to hear ``code`` and ``text`` (an enhanced status in
    front), and keeps the message."""

    def __init__(self, code: int, text: str) -> None:
        super().__init__(f"{code} {text}")
        self.code, self.text = code, text


class Relay:
    """Stands in `Spool.enqueue`'s place at the receiving side."""

    async def hand_over(self, draft: Draft, origin: Origin, envelope: Envelope, now: float) -> str:
        """An id for the reply and the log, when the relay has it. `NotTakenError`; `SpoolError` as of `enqueue`. The draft
        is used up either way."""
        raise NotImplementedError
