"""The register of SMTP extensions: what each EHLO keyword does to the shape of a dialogue.

Pure. IANA's list of service extensions (RFC 5321 §2.2.2) and what servers offer besides. A keyword that is not
here may change who speaks next, and how long: it crosses, and is named to the administrator.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from enum import Enum, auto
from functools import lru_cache
from types import MappingProxyType

from smtp_intercept.wire import parse_count, parse_offers


class Shape(Enum):
    """Of a dialogue in which an extension is used."""

    UNCHANGED = auto()  # lines, and one reply to each
    HANDLED = auto()  # something else, and `dialogue` knows it


_UNCHANGED = b"""
    8BITMIME BINARYMIME SIZE PIPELINING DSN ENHANCEDSTATUSCODES SMTPUTF8 UTF8SMTP DELIVERBY FUTURERELEASE
    NO-SOLICITING MTRK SUBMITTER CONPERM CONNEG MT-PRIORITY RRVS REQUIRETLS LIMITS ETRN EXPN HELP ONEX CHECKPOINT
    XFORWARD XVERP XDELIVERBY XUSR XADR XCIR XGEN XSTA XREMOTEQUEUE XSECURITY XSENDER XRCPTLIMIT X-RCPTLIMIT
    PIPECONNECT PIPE_CONNECT X_PIPE_CONNECT XPIPECONNECT
    XRDST XOORG XORIGFROM XMESSAGECONTEXT XMESSAGEVALUE XSYSPROBE XSYSTEMPROBE XSESSIONMDB XSESSIONTYPE XSESSIONPARAMS
    XSHADOW XSHADOWREQUEST XPROXY XPROXYFROM XATTRDIRECT XINTERNAL XCROSSPREMISES X-LINK2STATE XLASTOPTION
""".split()
# The dialogue that shows it: a file of tests/smtp/dialogues.
HANDLED: Mapping[bytes, str] = MappingProxyType(
    {
        b"AUTH": "auth_login",
        b"X-EXPS": "x_exps",  # Exchange's name for it
        b"STARTTLS": "starttls",
        b"X-ANONYMOUSTLS": "x_anonymoustls",  # Exchange's own, between its hubs
        b"CHUNKING": "bdat",
        b"BURL": "burl",
        b"PRDR": "prdr",
        b"SEND": "saml",
        b"SOML": "saml",
        b"SAML": "saml",
        b"TURN": "turned",
        b"ATRN": "turned",
        b"VERB": "verb",
        b"XCLIENT": "xclient",
        b"XEXCH50": "xexch50",
    }
)
REGISTER: Mapping[bytes, Shape] = MappingProxyType(
    dict.fromkeys(_UNCHANGED, Shape.UNCHANGED) | dict.fromkeys(HANDLED, Shape.HANDLED)
)
_KNOWN = frozenset(REGISTER)
# Encryption that the box would see nothing of: `starttls = "strip"` keeps both from the client.
ENCRYPTING = frozenset({b"STARTTLS", b"X-ANONYMOUSTLS"})


@dataclass(frozen=True, slots=True)
class Offer:
    """What an EHLO reply has. ``size_bytes`` of SIZE, 0 is none; ``unknown``: keywords that the register lacks."""

    keywords: frozenset[bytes]
    size_bytes: int
    unknown: frozenset[bytes]


@lru_cache(maxsize=64)  # servers say the same to everybody; of hostile ones 2 MB are kept
def read_offer(lines: bytes) -> Offer:
    """From the lines of the reply but its first, LF between them. Old servers write "AUTH=LOGIN" for "AUTH LOGIN"."""
    offers = parse_offers(lines)
    unknown = {keyword for keyword in offers.keys() - _KNOWN if keyword.partition(b"=")[0] not in _KNOWN}
    return Offer(frozenset(offers), parse_count(offers.get(b"SIZE", b"")) or 0, frozenset(unknown))
