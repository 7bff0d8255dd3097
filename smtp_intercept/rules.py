"""What a session does besides passing on what it reads: nothing, unless it is told to.

Pure data.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from smtp_intercept.answers import MESSAGE_TOO_LARGE, Answer
from smtp_intercept.limits import DEFAULT_LIMITS, Limits
from smtp_intercept.policy import NOT_DECIDED, Ask, Later, Ruling


@dataclass(frozen=True, slots=True)
class Rules:
    """``ask`` decides about mail; the questions that it does not answer at once are for ``later``. ``strip_starttls``:
    the keyword leaves EHLO replies, the command is answered 502. ``takes_part``: whoever encrypts is asked to do so
    with the box; ``tls_first``: from the first octet on. ``reject_bare_newline``: a message that servers could end
    elsewhere is refused. A dialogue that cannot be followed any more ends if the server is to blame and
    ``close_in_doubt``, or the client and not ``pass_client_doubt``; else it crosses unread. ``balancer``: the client
    may begin with the PROXY protocol. ``too_large`` is said of content that must be held and is more than may be; None:
    the server has it, unasked. ``silence`` is the answer of ``later`` that has not come within `Limits.decide_s`.
    ``over`` is called when the session is."""

    ask: Ask | None = None
    later: Later | None = None
    strip_starttls: bool = False
    reject_bare_newline: bool = False
    close_in_doubt: bool = False
    pass_client_doubt: bool = False
    balancer: bool = False
    limits: Limits = DEFAULT_LIMITS
    too_large: Answer | None = MESSAGE_TOO_LARGE
    silence: Ruling = NOT_DECIDED
    over: Callable[[], None] | None = None
    takes_part: bool = False
    tls_first: bool = False

    @property
    def guarded(self) -> bool:
        """Some commands must not cross, so none may before it is understood."""
        return self.ask is not None or self.strip_starttls or self.takes_part


TRANSPARENT = Rules()
