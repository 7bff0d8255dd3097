"""The links of Markdown pages, as a reader follows them: files that are there, headings that they have."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from pathlib import Path, PurePosixPath

_LINK = re.compile(r"\]\(([^)\s]+)\)")
_HEADING = re.compile(r"^#{1,6} +(.+)$", re.MULTILINE)
_CODE = re.compile(r"^```.*?^```", re.MULTILINE | re.DOTALL)


def links(text: str) -> list[str]:
    """What a page links to, outside code; addresses in the Web are not followed."""
    plain = re.sub(r"`[^`]*`", "", _CODE.sub("", text))
    return [link for link in _LINK.findall(plain) if not re.match(r"[a-z]+:", link)]


def anchors(text: str) -> set[str]:
    """As GitHub makes them of headings."""
    plain = _HEADING.findall(_CODE.sub("", text))
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in plain}


def dead(root: Path, page: str, present: Callable[[str], bool]) -> Iterator[str]:
    """The links of ``page`` (below ``root``) that lead nowhere. ``present`` says of a path whether it is there."""
    for link in links((root / page).read_text()):
        name, _, heading = link.partition("#")
        target = _joined(page, name) if name else page
        if not present(target):
            yield f"{page}: {link}: no such file"
        elif heading and heading not in anchors((root / target).read_text()):
            yield f"{page}: {link}: no such heading"


def _joined(page: str, name: str) -> str:
    parts: list[str] = []
    for part in (PurePosixPath(page).parent / name).parts:
        if part == ".." and parts:
            parts.pop()
        else:
            parts.append(part)
    return "/".join(parts)
