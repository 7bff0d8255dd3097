"""Whose server an address is."""

from __future__ import annotations

from ipaddress import ip_address

import pytest

from smtp_intercept.names import Question, Standing, serving

PROTECTED = (
    ("example.com", ("192.0.2.20", "2001:db8:20::/64", "mail.example.com")),
    ("Example.NET.", ("192.0.2.0/28", "192.0.2.20")),
    ("example.org", ("mx", "192.0.2.0/24")),
)
STANDINGS = (
    Standing(Question("mail.example.com"), frozenset({"198.51.100.1", "2001:db8::1"})),
    Standing(Question("example.org", mx=True), frozenset({"198.51.100.1"})),
)

TABLE = [
    ("192.0.2.20", {"example.com", "Example.NET.", "example.org"}),
    ("192.0.2.1", {"Example.NET.", "example.org"}),
    ("192.0.2.99", {"example.org"}),
    ("2001:db8:20::7", {"example.com"}),
    ("2001:db8::1", {"example.com"}),
    ("198.51.100.1", {"example.com", "example.org"}),
    ("203.0.113.1", set()),
    ("2001:db8:21::7", set()),
]


@pytest.mark.parametrize(("address", "domains"), TABLE)
def test_domains_by_server(address: str, domains: set[str]) -> None:
    found = serving(PROTECTED, STANDINGS).by(ip_address(address).packed)
    assert set(found) == domains
    assert len(found) == len(domains)


def test_a_name_that_is_not_known_yet_serves_nobody() -> None:
    assert serving(PROTECTED, ()).by(ip_address("198.51.100.1").packed) == ()
