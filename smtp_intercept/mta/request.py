"""MAIL and RCPT as a server's offer allows them, and what it makes impossible.

Pure. Nothing is asked that was not offered, and nothing is sent that would lose meaning on the way.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass

from smtp_intercept.direction import normal_domain
from smtp_intercept.mta.envelope import USUAL, Body, Envelope, Notify, Recipient
from smtp_intercept.mta.failure import Failure, for_good

# An EHLO reply: keyword to its argument.
Offer = Mapping[str, str]

# A path that cannot end its command or its brackets early, whatever it holds (RFC 5321 §4.1.2): no injection.
# No possessive quantifiers: nested ones match what they must not in Python before 3.11.5.
_PATH = re.compile(r'(?:"(?:[^"\\\x00-\x1f\x7f]|\\[^\x00-\x1f\x7f])*"|[^\s"<>\x00-\x1f\x7f])*')
# What may stand behind ENVID= and ORCPT= as it came: xtext (RFC 3461 §4), or UTF-8 where that is spoken (RFC 6533).
_VALUE = re.compile(r"[!-~]{1,500}")
_VALUE_UTF8 = re.compile(r"[^\s\x00-\x1f\x7f]{1,500}")
_NOTIFY = ((Notify.SUCCESS, "SUCCESS"), (Notify.FAILURE, "FAILURE"), (Notify.DELAY, "DELAY"))


@dataclass(frozen=True, slots=True)
class Mail:
    """A message for one transaction: ``numbers`` are the recipients' places in the message's whole envelope.
    ``eight_bit``: the content may hold octets above 127. ``asking``: there is no message; the server is only asked
    whether it would take the recipients."""

    envelope: Envelope
    numbers: tuple[int, ...]
    size_bytes: int
    eight_bit: bool
    asking: bool = False

    @property
    def recipients(self) -> tuple[tuple[int, Recipient], ...]:
        return tuple(zip(self.numbers, self.envelope.recipients, strict=True))


def impossible(mail: Mail, offer: Offer) -> Failure | None:
    """Why this server cannot take the message at all."""
    if (most := size_offered(offer)) and mail.size_bytes > most:
        return for_good("5.3.4", f"message of {mail.size_bytes} octets: the server takes {most} (RFC 1870)")
    if mail.eight_bit and "8BITMIME" not in offer:
        return for_good("5.6.3", "8-bit content: the server does not offer 8BITMIME (RFC 6152 §3)")
    if mail.envelope.smtputf8 and "SMTPUTF8" not in offer:
        return for_good("5.6.7", "internationalized message: the server does not offer SMTPUTF8 (RFC 6531 §3.5)")
    return _unspeakable(mail.envelope.reverse_path, offer, "5.1.7", "reverse-path")


def unreachable(recipient: Recipient, offer: Offer) -> Failure | None:
    """Why this server cannot be asked for the recipient."""
    return _unspeakable(recipient.address, offer, "5.1.3", "recipient")


def _unspeakable(address: str, offer: Offer, status: str, name: str) -> Failure | None:
    if not _PATH.fullmatch(address):
        return for_good(status, f"the {name} is not an address")
    if not _spelt(address, offer).isascii() and "SMTPUTF8" not in offer:
        return for_good("5.6.7", f"internationalized {name}: the server does not offer SMTPUTF8 (RFC 6531 §3.5)")
    return None


def mail_line(mail: Mail, offer: Offer) -> bytes:
    """MAIL with what of its parameters the server knows."""
    envelope, path = mail.envelope, _spelt(mail.envelope.reverse_path, offer)
    words = [f"MAIL FROM:<{path}>"]
    if "SIZE" in offer and not mail.asking:
        words.append(f"SIZE={mail.size_bytes}")
    if mail.eight_bit and "8BITMIME" in offer:
        words.append(f"BODY={Body.EIGHT_BIT.value}")
    if _is_utf8(mail, offer):
        words.append("SMTPUTF8")
    if "DSN" in offer and envelope.ret:
        words.append(f"RET={envelope.ret}")
    if "DSN" in offer and _VALUE.fullmatch(envelope.envid):
        words.append(f"ENVID={envelope.envid}")
    return _line(words)


def rcpt_line(recipient: Recipient, mail: Mail, offer: Offer) -> bytes:
    """RCPT; what the sender did not ask for is not asked for either (RFC 3461 §5.2.1)."""
    words = [f"RCPT TO:<{_spelt(recipient.address, offer)}>"]
    if "DSN" in offer and recipient.notify != USUAL:
        named = [name for flag, name in _NOTIFY if flag in recipient.notify]
        words.append("NOTIFY=" + (",".join(named) or "NEVER"))
    if "DSN" in offer and (_VALUE_UTF8 if _is_utf8(mail, offer) else _VALUE).fullmatch(recipient.original):
        words.append(f"ORCPT={recipient.original}")
    return _line(words)


def size_offered(offer: Offer) -> int:
    """The largest message that the server takes, in octets; 0 if it does not say (RFC 1870 §4)."""
    argument = offer.get("SIZE", "")
    return int(argument) if argument.isascii() and argument.isdigit() and len(argument) <= 18 else 0


def _is_utf8(mail: Mail, offer: Offer) -> bool:
    addresses = [mail.envelope.reverse_path, *(each.address for each in mail.envelope.recipients)]
    return "SMTPUTF8" in offer and (mail.envelope.smtputf8 or not all(map(str.isascii, addresses)))


def _spelt(address: str, offer: Offer) -> str:
    """The domain in A-labels where UTF-8 is not spoken; a local part cannot be translated."""
    local, at, domain = address.rpartition("@")
    if address.isascii() or "SMTPUTF8" in offer or not local.isascii():
        return address
    return local + at + normal_domain(domain)


def _line(words: list[str]) -> bytes:
    return " ".join(words).encode() + b"\r\n"
