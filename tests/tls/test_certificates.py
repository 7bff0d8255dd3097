"""What a server's certificate is worth, and that the leaf shown instead is never worth more."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from smtp_intercept.tls.certificates import Authority, Certificate, Verified, leaf_for, verify
from smtp_intercept.tls.names import Constraints

GOOD = Certificate(("mx.example.com", "*.example.org"), 100.0, 200.0, trusted=True)
AUTHORITY = Authority(50.0, 180.0)
NAMES = st.sampled_from(["mx.example.com", "a.example.org", "b.example.net", "*.example.org", "example.com"])


@pytest.mark.parametrize(
    ("changed", "name", "now", "expected"),
    [
        ({}, "mx.example.com", 150, Verified.VERIFIED),
        ({}, "a.example.org", 150, Verified.VERIFIED),
        ({}, "", 150, Verified.UNNAMED),
        ({}, "b.example.net", 150, Verified.NAME_MISMATCH),
        ({}, "mx.example.com", 201, Verified.EXPIRED),
        ({}, "mx.example.com", 99, Verified.EXPIRED),
        ({"trusted": False}, "mx.example.com", 150, Verified.UNTRUSTED),
        ({"trusted": False, "self_signed": True}, "mx.example.com", 201, Verified.SELF_SIGNED),
        ({"self_signed": True}, "mx.example.com", 150, Verified.VERIFIED),  # a root of the box's own
    ],
)
def test_what_it_is_worth(changed: dict[str, Any], name: str, now: float, expected: Verified) -> None:
    assert verify(replace(GOOD, **changed), name, now) is expected
    assert expected.sound is (expected in {Verified.VERIFIED, Verified.UNNAMED})


@given(
    st.lists(NAMES, max_size=3, unique=True).map(tuple),
    st.floats(0, 300),
    st.floats(0, 300),
    st.booleans(),
    st.floats(0, 300),
    NAMES,
    st.sampled_from([Constraints(), Constraints(("example.org",)), Constraints((), ("example.com",))]),
)
def test_a_leaf_is_never_worth_more(
    names: tuple[str, ...], begin: float, end: float, trusted: bool, now: float, name: str, constraints: Constraints
) -> None:
    server = Certificate(names, begin, end, trusted=trusted)
    leaf = leaf_for(server, replace(AUTHORITY, constraints=constraints))
    if leaf is None:
        assert trusted
        assert not any(map(constraints.allow, names))
        return
    shown = Certificate(leaf.names, leaf.not_before, leaf.not_after, trusted=leaf.signed)
    assert leaf.not_before >= AUTHORITY.not_before
    if verify(shown, name, now).sound and AUTHORITY.not_before < now:
        assert verify(server, name, now).sound
    if leaf.signed:
        assert all(map(constraints.allow, leaf.names))


def test_addresses_are_left_out_where_only_names_are_permitted() -> None:
    server = replace(GOOD, addresses=("192.0.2.1",))
    assert getattr(leaf_for(server, AUTHORITY), "addresses", None) == ("192.0.2.1",)
    bound = replace(AUTHORITY, constraints=Constraints(("example.com",)))
    assert getattr(leaf_for(server, bound), "addresses", None) == ()
    assert getattr(leaf_for(server, bound), "names", None) == ("mx.example.com",)
