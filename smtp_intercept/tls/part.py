"""What one process has for taking part in TLS: identities, an authority, roots, and the memory of who is left alone.

Holds keys and opens nothing. Decides by `manners`; what it shows to a client is never worth more than the server's own.
"""

from __future__ import annotations

import hashlib
import ssl
from collections import Counter, OrderedDict
from collections.abc import Callable, Hashable
from dataclasses import dataclass, replace
from ipaddress import ip_address
from typing import Any, TypeVar

from bridge.client import client_of
from smtp_intercept.passage import Passage
from smtp_intercept.tls.anchors import Anchors, Found
from smtp_intercept.tls.certificates import Certificate, UnmintableError, Verified, leaf_for, verify
from smtp_intercept.tls.contexts import towards_client, towards_server
from smtp_intercept.tls.left_alone import LeftAlone
from smtp_intercept.tls.manners import Asked, Decision, Failure, Identity, Means, Mint, Why, decide, lesson
from smtp_intercept.tls.x509 import Signer, Trust, read_chain

# Servers whose certificates are remembered, and the leaves made for them; a context has some 50 KB.
MAX_SHOWN, MAX_READ = 256, 2_048
MOST_TOLD = 50  # of those who are left alone, the last

TAKEN = "taken_part_in"  # beside the values of `Why`

K = TypeVar("K", bound=Hashable)
V = TypeVar("V")


@dataclass(frozen=True, slots=True)
class Own:
    """An identity with its key, ready to be shown. ``der`` is its certificate's."""

    identity: Identity
    context: ssl.SSLContext
    der: bytes


@dataclass(frozen=True, slots=True)
class Shown:
    """What a client gets to see. ``own``: octet by octet what the server has shown."""

    context: ssl.SSLContext
    own: bool


class Part:
    """``clock`` gives UTC seconds; ``required``: servers whose certificates are not sound are refused.
    ``anchors``: what the DNS says of other people's servers; None: nobody asks it."""

    def __init__(
        self,
        means: Means,
        own: tuple[Own, ...],
        signer: Signer | None,
        trust: Trust,
        *,
        minimum: ssl.TLSVersion,
        required: bool,
        clock: Callable[[], float],
        anchors: Anchors | None = None,
    ) -> None:
        self._means, self._own = means, {each.identity.number: each for each in own}
        self._signer, self._trust, self._minimum, self.required = signer, trust, minimum, required
        self._clock, self._left, self._anchors = clock, LeftAlone(), anchors
        self.towards_server = towards_server(minimum)
        self._read: OrderedDict[tuple[bytes, ...], Certificate] = OrderedDict()
        self._shown: OrderedDict[bytes, ssl.SSLContext] = OrderedDict()
        self.taken = 0
        self.left_alone: Counter[str] = Counter()

    def asked(self, passage: Passage, name: str) -> Asked:
        """One connection, as `manners` has it."""
        client, server = passage.client[0], passage.server
        return Asked(
            direction=passage.arrival.direction,
            client=ip_address(client).packed,
            client_network=client_of(client).network,
            server=ip_address(server[0]).packed,
            port=server[1],
            name=name,
        )

    def anchor(self, asked: Asked, found: Found) -> None:
        """What the DNS says, where that can change anything: told now or in a moment."""
        minted = isinstance(decide(asked, self._means, self._left, self._clock()), Mint)
        if minted and asked.name and self._anchors is not None:
            self._anchors.find(asked, found)
        else:
            found(None)

    def decide(self, asked: Asked) -> Decision:
        """Counted."""
        decision = decide(asked, self._means, self._left, self._clock())
        if isinstance(decision, Why):
            self.left_alone[decision.value] += 1
        return decision

    def learn(self, failure: Failure, asked: Asked, *, own: bool) -> Why | None:
        """Why it is left alone from now on, if it is."""
        learned = lesson(failure, asked, own=own)
        if learned is not None:
            self._left.remember(*learned, now=self._clock())
        return learned and learned[1]

    def renew(self, own: Own) -> None:
        """In the place of the identity with its number; sessions under way keep what they were shown."""
        number, known = own.identity.number, self._means.identities
        self._own[number] = own
        identities = tuple(own.identity if each.number == number else each for each in known)
        self._means = replace(self._means, identities=identities)

    def judge(self, chain: list[bytes], name: str) -> tuple[Certificate, Verified]:
        """What a server has shown."""
        now = self._clock()
        found = _kept(self._read, tuple(chain), MAX_READ, lambda: read_chain(chain, self._trust, now))
        return found, verify(found, name, now)

    def show(self, decision: Decision, chain: list[bytes], certificate: Certificate) -> Shown:
        """What the client gets to see. `UnmintableError`."""
        if isinstance(decision, Identity):
            own = self._own[decision.number]
            return Shown(own.context, own.der in chain[:1])
        if self._signer is None:
            raise UnmintableError("there is no authority")
        signer, leaf = self._signer, leaf_for(certificate, self._signer.authority)
        if leaf is None:
            raise UnmintableError("the authority may speak for none of the server's names")
        key = hashlib.sha256(b"".join(chain) + bytes([certificate.trusted])).digest()
        made = _kept(
            self._shown, key, MAX_SHOWN, lambda: towards_client(signer.mint(leaf), signer.leaf_key, self._minimum)
        )
        return Shown(made, own=False)

    def report(self) -> dict[str, Any]:
        """For `status`: sessions by what became of them, and who is left alone for now, by reason."""
        now = self._clock()
        left = list(self._left.all(now))
        told = [
            {"name": _told(who), "why": why, "until": round(now + left_s)} for who, why, left_s in left[-MOST_TOLD:]
        ]
        return {
            "tls": {TAKEN: self.taken, **self.left_alone},
            "tls_remembered": dict(Counter(why for _, why, _ in left)),
            "tls_left": told,
        }


def _told(who: Any) -> str:
    """As `Asked` names them."""
    server, port, *more = who
    words = f"{ip_address(server)} port {port}"
    if len(more) > 1:
        return f"{words}, for {more[0]}"
    return f"{words}, as {more[0] or 'nobody'}" if more else words


def _kept(kept: OrderedDict[K, V], key: K, most: int, make: Callable[[], V]) -> V:
    """The one that was used longest ago goes."""
    if key not in kept:
        kept[key] = make()
        if len(kept) > most:
            kept.popitem(last=False)
    kept.move_to_end(key)
    return kept[key]
