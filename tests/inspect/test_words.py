"""Encoded words as programs read them, and in a time that no sender can make long."""

from __future__ import annotations

import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from smtp_intercept.inspect.words import decoded, words


@pytest.mark.parametrize(
    ("text", "read"),
    [
        ("plain", "plain"),
        ("=?utf-8?q?Gr=C3=BC=C3=9Fe?=", "Grüße"),
        ("=?UTF-8?B?R3LDvMOfZQ==?=", "Grüße"),
        ("=?utf-8?b?R3LDvMOfZQ?=", "Grüße"),  # no padding
        ("=?utf-8*de?q?a_b?=", "a b"),
        ("x =?utf-8?q?a?= y", "x a y"),
        ("=?utf-8?q?a?= =?utf-8?q?b?=", "ab"),
        ("=?utf-8?q?=C3?= =?utf-8?q?=BC?=", "ü"),  # a letter in two words
        ("=?utf-8?q?a?= x =?utf-8?q?b?=", "a x b"),
        ("=?iso-8859-1?q?=FC?= =?utf-8?q?=C3=BC?=", "üü"),
        ("=?utf-8?q?what?ever?=", "what?ever"),
        ("=?unknown?q?=FC?=", "ü"),
        ("=?punycode?q?a-b?=", "a-b"),
        ("=?utf-8?q?open", "=?utf-8?q?open"),
        ("=?utf-8?x?a?=", "=?utf-8?x?a?="),
        ("Ü =?utf-8?q?a?=", "Ü a"),
    ],
)
def test_words(text: str, read: str) -> None:
    assert words(text) == read


@given(st.text(alphabet="=?qbB utf-8_Ü*", max_size=60))
def test_any_text_is_read(text: str) -> None:
    assert "=?utf-8?q?" not in text or isinstance(words(text), str)


@pytest.mark.parametrize("text", ["=?a?q?x" * 9_000, "=?" * 32_000, "=?a?q??=" * 8_000, "=?a?b?A?= " * 6_000])
def test_no_text_takes_long(text: str) -> None:
    began_s = time.process_time()
    words(text)
    assert time.process_time() - began_s < 0.5


@pytest.mark.parametrize(
    "charset", ["punycode", "IDNA", "unicode_escape", "raw-unicode-escape", "nonsense", "zlib", ""]
)
def test_what_is_no_character_set_of_mail(charset: str) -> None:
    assert decoded(b"a\\u0041-\xfc", charset) == "a\\u0041-ü"
