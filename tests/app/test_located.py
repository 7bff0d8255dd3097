"""On which line a key of a TOML text is defined."""

from __future__ import annotations

import pytest

from smtp_intercept.app.located import line_of, spelled

TEXT = """\
# a comment

title = "x"
dotted.key.one = 1
dotted.key.two = 2
long = [
  "a", # ]
  '''
  b]''',
]
inline = { a = { b = 1 } }
[table]
text = \"\"\"
[not.a.table]
key = 1
\"\"\"
after = 1

[[list]]
a = 1
[list.sub]
c = 3
[[list]]
b = 2
[table."quoted.name"]
d = 4
"""


@pytest.mark.parametrize(
    ("path", "line"),
    [
        (("title",), 3),
        (("dotted", "key", "one"), 4),
        (("dotted", "key", "two"), 5),
        (("long",), 6),
        (("long", 1), 6),
        (("inline", "a", "b"), 11),
        (("table",), 12),
        (("table", "text"), 13),
        (("table", "after"), 17),
        (("list",), 19),
        (("list", 0, "a"), 20),
        (("list", 0, "sub", "c"), 22),
        (("list", 1), 23),
        (("list", 1, "b"), 24),
        (("table", "quoted.name", "d"), 26),
        # missing: the nearest that is there
        (("table", "missing"), 12),
        (("list", 1, "missing"), 23),
        (("list", 7), 19),
        (("title", "not a table"), 3),
        (("missing", "altogether"), None),
        ((), None),
    ],
)
def test_the_line_of_a_key(path: tuple[str | int, ...], line: int | None) -> None:
    assert line_of(TEXT, path) == line


@pytest.mark.parametrize(
    ("path", "text"),
    [
        ((), ""),
        (("bridge",), "bridge"),
        (("protected", 0, "servers", 2), "protected[0].servers[2]"),
        (("pickup", "port", "52:54:00:00:00:01", "local"), 'pickup.port."52:54:00:00:00:01".local'),
    ],
)
def test_a_key_is_spelled_as_people_write_it(path: tuple[str | int, ...], text: str) -> None:
    assert spelled(path) == text
