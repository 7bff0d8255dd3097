"""Delivery status notifications: what a sender is told about recipients (RFC 3464, 3461, 6533).

Pure. Composes a message; never decides when. Whatever strangers wrote - addresses, replies, headers, the whole
original - comes out clean and bounded, and adds no header of its own.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from email.generator import BytesGenerator
from email.message import Message
from email.utils import formatdate
from io import BytesIO
from typing import TypeAlias

from smtp_intercept.mta.envelope import Body, Envelope, Notify, Recipient
from smtp_intercept.mta.fate import Action, Fate, Notice, Original, Reporter
from smtp_intercept.mta.leaf import VERBATIM, Leaf, leaf
from smtp_intercept.mta.printable import one_ascii_line, one_line, word, xtext_address, xtext_decoded
from smtp_intercept.mta.quoted import original_part
from smtp_intercept.mta.wording import letter, subject

Fields: TypeAlias = Iterator[tuple[str, str]]

_STATUS = re.compile(r"[245]\.[0-9]{1,3}\.[0-9]{1,3}")
# RFC 3464 §2.3.4: the classes that an action may have; the first one where the server gave none. 4 is a failure by age.
_CLASSES = {Action.FAILED: "54", Action.DELAYED: "4", Action.DELIVERED: "2", Action.RELAYED: "2"}
_ASKED = {
    Action.FAILED: Notify.FAILURE,
    Action.DELAYED: Notify.DELAY,
    Action.DELIVERED: Notify.SUCCESS,
    Action.RELAYED: Notify.SUCCESS,
}


def wanted(envelope: Envelope, recipient: Recipient, action: Action) -> bool:
    """Whether the sender wants to hear of this (RFC 3461 §4.1); the null one never does (RFC 5321 §4.5.5)."""
    return bool(envelope.reverse_path) and _ASKED[action] in recipient.notify


def compose(original: Original, fates: Sequence[Fate], reporter: Reporter, token: str, now: float) -> Notice:
    """One message to the sender about all ``fates`` (not empty). ``token``: letters and digits that nobody guesses, for
    the Message-ID and the boundary."""
    # RFC 6533 §4: 8 bits where the way back has to carry them anyway, and 7 wherever it may be old.
    wide = not original.envelope.reverse_path.isascii()
    quoted = original_part(original, any(fate.action is Action.FAILED for fate in fates))
    message = _headed(original, fates, reporter, token, now)
    message.attach(_letter_part(letter(original, fates, reporter, quoted.whole)))
    blocks = [_message_fields(original, reporter), *(_recipient_fields(fate, wide) for fate in fates)]
    message.attach(_report_part(blocks, wide))
    message.attach(quoted.part)
    sink = BytesIO()
    BytesGenerator(sink, mangle_from_=False, maxheaderlen=0, policy=VERBATIM).flatten(message)
    body = Body.EIGHT_BIT if wide or quoted.eight_bit else Body.SEVEN_BIT
    # RFC 3461 §6.2: a notice never asks for one.
    recipient = Recipient(original.envelope.reverse_path, Notify.NEVER)
    return Notice(sink.getvalue(), Envelope("", (recipient,), body=body, smtputf8=wide))


def _headed(original: Original, fates: Sequence[Fate], reporter: Reporter, token: str, now: float) -> Message:
    host = word(reporter.hostname)
    message = Message(policy=VERBATIM)
    message["Date"] = _date(now)
    message["From"] = f"{one_ascii_line(reporter.name)} <{word(reporter.address or f'MAILER-DAEMON@{host}')}>"
    message["To"] = f"<{_path(original.envelope.reverse_path)}>"
    message["Subject"] = subject(fates)
    message["Message-ID"] = f"<{token}@{host}>"
    message["Auto-Submitted"] = "auto-replied"  # RFC 3834 §5
    message["MIME-Version"] = "1.0"
    message["Content-Type"] = f'multipart/report; report-type=delivery-status; boundary="={token}="'
    return message


def _letter_part(text: str) -> Leaf:
    if text.isascii():
        return leaf("text/plain; charset=us-ascii", text.encode())
    return leaf("text/plain; charset=utf-8", text.encode(), encoding="quoted-printable")


def _report_part(blocks: Sequence[Fields], wide: bool) -> Leaf:
    text = "\r\n".join("".join(f"{name}: {value}\r\n" for name, value in block) for block in blocks)
    if wide:
        return leaf("message/global-delivery-status", text.encode(), encoding="8bit")
    return leaf("message/delivery-status", text.encode("ascii"))


def _message_fields(original: Original, reporter: Reporter) -> Fields:
    """RFC 3464 §2.2."""
    if original.envelope.envid:
        yield "Original-Envelope-Id", one_ascii_line(xtext_decoded(original.envelope.envid))
    yield "Reporting-MTA", f"dns; {word(reporter.hostname)}"
    if original.helo:
        yield "Received-From-MTA", f"dns; {word(original.helo)}"
    yield "Arrival-Date", _date(original.received_at)


def _recipient_fields(fate: Fate, wide: bool) -> Fields:
    """RFC 3464 §2.3."""
    if given := _original_recipient(fate.recipient.original, wide):
        yield "Original-Recipient", given
    yield "Final-Recipient", _typed(fate.recipient.address, wide)
    yield "Action", fate.action.value
    yield "Status", _status(fate)
    if fate.host:
        yield "Remote-MTA", f"dns; {word(fate.host)}"
    if fate.code:  # §2.3.6: what a server said; our own reasons stand in the letter
        yield "Diagnostic-Code", f"smtp; {one_ascii_line(fate.answer)}"
    yield "Last-Attempt-Date", _date(fate.tried_at)
    if fate.action is Action.DELAYED:
        yield "Will-Retry-Until", _date(fate.retry_until_at)


def _original_recipient(given: str, wide: bool) -> str:
    """ORCPT as a field; "" if it was none. Type utf-8 has an encoding of its own and keeps it (RFC 6533 §3)."""
    kind, semicolon, address = given.partition(";")
    if not (semicolon and kind and address):
        return ""
    clean = one_line if wide else one_ascii_line
    return f"{word(kind)}; {clean(address if kind.lower() == 'utf-8' else xtext_decoded(address))}"


def _typed(address: str, wide: bool) -> str:
    if address.isascii():
        return f"rfc822; {one_ascii_line(address)}"
    return f"utf-8; {one_line(address) if wide else xtext_address(address)}"


def _path(reverse_path: str) -> str:
    return re.sub(r"[<>]", "_", one_line(reverse_path))


def _status(fate: Fate) -> str:
    fits = _STATUS.fullmatch(fate.status) and fate.status[0] in _CLASSES[fate.action]
    return fate.status if fits else f"{_CLASSES[fate.action][0]}.0.0"


def _date(at: float) -> str:
    """RFC 5322 §3.3; "-0000" would say that the zone is unknown."""
    return formatdate(at).replace("-0000", "+0000")
