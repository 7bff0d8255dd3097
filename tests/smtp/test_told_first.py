"""A message that its client holds for accepted is in the log: the record is told before the reply is passed on."""

from __future__ import annotations

import pytest

from smtp_intercept.direction import Protection
from smtp_intercept.events import MessageDone, Out, ToClient
from smtp_intercept.session import Session

ENVELOPE = b"EHLO c.example\r\n", b"MAIL FROM:<a@example.net>\r\n", b"RCPT TO:<u@example.com>\r\n", b"DATA\r\n"
REPLIES = b"250 s.example\r\n", b"250 sender\r\n", b"250 recipient\r\n", b"354 go on\r\n"


@pytest.mark.parametrize("cut", range(len(b"250 taken\r\n")))
def test_the_record_is_told_before_the_reply_is_passed_on(cut: int) -> None:
    session, outs = Session(Protection()), list[Out]()
    session.opened(0.0)
    session.server_sent(b"220 s.example\r\n", 0.0)
    for command, reply in zip(ENVELOPE, REPLIES, strict=True):
        session.client_sent(command, 0.0)
        session.server_sent(reply, 0.0)
    session.client_sent(b"Subject: x\r\n\r\nx\r\n.\r\n", 0.0)
    for piece in (b"250 taken\r\n"[:cut], b"250 taken\r\n"[cut:]):
        outs += session.server_sent(piece, 0.0) if piece else []
    assert [type(out) for out in outs] == [MessageDone, ToClient]
