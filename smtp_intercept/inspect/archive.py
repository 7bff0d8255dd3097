"""The names in a zip archive: nothing is unpacked, so that none can be a bomb.

Pure. An archive has its names twice, in front of each file and in the directory at its end, and programs go by the one
or by the other: all of them count, wherever they lie.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator

MAX_ENTRIES = 10_000
_LOCAL, _CENTRAL, _END = b"PK\x03\x04", b"PK\x01\x02", b"PK\x05\x06"
_BEGINNINGS = (_LOCAL, _CENTRAL, _END, b"PK\x07\x08", b"PK00PK\x03\x04")  # APPNOTE §8.5: split archives, too
# APPNOTE §4.3.7 and §4.3.12: the octets before the name; where the flags are, and the two lengths.
_RECORDS = ((_LOCAL, 30, 6, 26), (_CENTRAL, 46, 8, 28))
_MASKED = 0x2000  # §4.4.4, bit 13
_UNICODE_PATH, _PATH_AT = 0x7075, 9  # §4.6.9


def may_be_archive(octets: bytes) -> bool:
    """One may stand behind anything (§4.1.9), and programs find it by the directory at its end."""
    return octets.startswith(_BEGINNINGS) or (_END in octets and (_LOCAL in octets or _CENTRAL in octets))


def archived(octets: bytes) -> tuple[list[str], str]:
    """The names in every reading, and why there may be more, "" if not."""
    names, number = dict[str, None](), 0
    for mark, fixed, flags_at, lengths_at in _RECORDS:
        at = octets.find(mark)
        while 0 <= at <= len(octets) - fixed:
            number += 1
            if number > 2 * MAX_ENTRIES:
                return [*names], f"an archive of more than {MAX_ENTRIES} files"
            (flags,) = struct.unpack_from("<H", octets, at + flags_at)
            name_bytes, extra_bytes = struct.unpack_from("<HH", octets, at + lengths_at)
            name_end = at + fixed + name_bytes
            for each in (octets[at + fixed : name_end], *_unicode_paths(octets[name_end : name_end + extra_bytes])):
                names.update(dict.fromkeys(_readings(each)))
            if flags & _MASKED:
                return [*names], "an archive whose names are encrypted"
            at = octets.find(mark, at + len(mark))
    return [*names], "" if number or octets.startswith(_END) else "a broken archive"


def _readings(name: bytes) -> Iterator[str]:
    """§4.4.4, bit 11: UTF-8, or the code page of the PC that made it; what stands before a NUL is a name to some."""
    for octets in {name, name.partition(b"\0")[0]}:
        if octets:
            yield octets.decode("utf-8", "replace")
            yield octets.decode("cp437")


def _unicode_paths(extra: bytes) -> Iterator[bytes]:
    at = 0
    while at + 4 <= len(extra):
        kind, size = struct.unpack_from("<HH", extra, at)
        if kind == _UNICODE_PATH:
            yield extra[at + _PATH_AT : at + 4 + size]
        at += 4 + size
