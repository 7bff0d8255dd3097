"""What a session does besides passing on what it reads: nothing, unless it is told to.

Pure data.
"""

from __future__ import annotations

from dataclasses import dataclass

from smtp_intercept.limits import DEFAULT_LIMITS, Limits
from smtp_intercept.policy import Policy


@dataclass(frozen=True, slots=True)
class Rules:
    """``strip_starttls``: the keyword leaves EHLO replies, the command is answered 502. ``reject_bare_newline``: a
    message that servers could end elsewhere is refused. A dialogue that cannot be followed any more ends if the server
    is to blame and ``close_in_doubt``, or the client and not ``pass_client_doubt``; else it crosses unread.
    ``balancer``: the client may begin with the PROXY protocol."""

    policy: Policy | None = None
    strip_starttls: bool = False
    reject_bare_newline: bool = False
    close_in_doubt: bool = False
    pass_client_doubt: bool = False
    balancer: bool = False
    limits: Limits = DEFAULT_LIMITS

    @property
    def guarded(self) -> bool:
        """Some commands must not cross, so none may before it is understood."""
        return self.policy is not None or self.strip_starttls


TRANSPARENT = Rules()
