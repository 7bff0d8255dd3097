"""A message's id: the microsecond of its arrival in digits and capitals without vowels.

Pure. So no id is a word, ids sort by arrival, and case does not matter.
"""

from __future__ import annotations

ALPHABET = "0123456789BCDFGHJKLMNPQRSTVWXYZ"
WIDTH = 11  # to the year 2774; then they grow
_VALUES = {letter: value for value, letter in enumerate(ALPHABET)}


def of_number(number: int) -> str:
    """From the database's own number, which is not negative."""
    letters: list[str] = []
    while number or len(letters) < WIDTH:
        number, digit = divmod(number, len(ALPHABET))
        letters.append(ALPHABET[digit])
    return "".join(reversed(letters))


def number_of(text: str) -> int | None:
    """None for what no message is called."""
    if len(text) != WIDTH or not all(letter in _VALUES for letter in text.upper()):
        return None
    number = 0
    for letter in text.upper():
        number = number * len(ALPHABET) + _VALUES[letter]
    return number
