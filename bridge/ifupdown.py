"""Ports that ifupdown configures, which it would do again behind our back: interfaces(5), read and only told of."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator
from pathlib import Path

# The last is where Debian's cloud images write one for every card that they find.
FILES = tuple(map(Path, ("/etc/network/interfaces", "/etc/network/interfaces.d", "/run/network/interfaces.d")))


def stanzas(text: str) -> Iterator[tuple[int, str, str]]:
    """Line, link and method of each ``iface LINK FAMILY METHOD``. Pure."""
    for number, line in enumerate(text.splitlines(), start=1):
        match line.split():
            case ["iface", link, _, method, *_]:
                yield number, link, method


def conflicts(ports: Collection[str], files: Iterable[Path] = FILES) -> list[str]:
    """A sentence for each stanza that gives one of the ports an address or asks for one."""
    return [
        f"{path}:{number}: ifupdown configures {link}, a port of the bridge; write: iface {link} inet manual"
        for path in _expanded(files)
        for number, link, method in stanzas(_text(path))
        if link in ports and method != "manual"
    ]


def _expanded(files: Iterable[Path]) -> Iterator[Path]:
    for path in files:
        yield from sorted(path.iterdir()) if path.is_dir() else (path,)


def _text(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8", errors="replace")
    except OSError:
        return ""
