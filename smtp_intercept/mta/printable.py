"""Text that strangers wrote, made fit for a header field or a letter: one line, bounded, nothing that acts.

Pure. Changes what it must and says so in escapes; judges nothing.
"""

from __future__ import annotations

import re

# A field's value: its line stays below the 998 octets of RFC 5322 §2.1.1, name and escapes included.
FIELD_CHARACTERS = 900

_XTEXT = re.compile(r"\+([0-9A-F]{2})")
# RFC 6533 §3: what an address of type utf-8 may hold as it is in 7 bits.
_NOT_QCHAR = re.compile(r"[^\x21-\x2a\x2c-\x3c\x3e-\x5b\x5d-\x7e]")


def one_line(text: str, most: int = FIELD_CHARACTERS) -> str:
    """Control characters, line ends, bidirectional overrides and lone surrogates as backslash escapes."""
    clean = "".join(c if c.isprintable() else c.encode("unicode_escape").decode("ascii") for c in text[:most])
    return _clipped(clean.strip(), most, "…")


def one_ascii_line(text: str, most: int = FIELD_CHARACTERS) -> str:
    """The same for 7 bits."""
    return _clipped(one_line(text, most).encode("ascii", "backslashreplace").decode("ascii"), most, "...")


def word(text: str, most: int = FIELD_CHARACTERS) -> str:
    """The same without blanks or comments: a host's name or address in a field of its own."""
    return re.sub(r"[\s();<>\"]", "_", one_ascii_line(text, most))


def xtext_decoded(text: str) -> str:
    """RFC 3461 §4. What it hides may be anything, line ends too: clean it afterwards."""
    return _XTEXT.sub(lambda found: chr(int(found[1], 16)), text)


def xtext_address(address: str) -> str:
    """An address outside ASCII in 7 bits, utf-8-addr-xtext of RFC 6533 §3."""
    return _clipped(_NOT_QCHAR.sub(lambda found: f"\\x{{{ord(found[0]):X}}}", address), FIELD_CHARACTERS, "...")


def _clipped(text: str, most: int, mark: str) -> str:
    return text if len(text) <= most else text[: most - len(mark)] + mark
