"""What parts are called, however a sender hides it: each way that mail programs see a name is one that rules see."""

from __future__ import annotations

import base64
import io
import struct
import time
import zipfile

import pytest
from hypothesis import given
from hypothesis import strategies as st

from smtp_intercept.inspect.archive import MAX_ENTRIES, archived
from smtp_intercept.inspect.parts import (
    MAX_BOUNDARIES,
    MAX_FIELDS,
    MAX_HEADER_BYTES,
    MAX_NESTED,
    MAX_PARTS,
    Parts,
    look,
)
from smtp_intercept.inspect.patterns import Wild, fold

EXE = Wild("*.exe").compiled()


def holds(found: Parts) -> bool:
    """As a rule with attachment = "*.exe" does."""
    return any(EXE.fullmatch(fold(name)) for name in found.names)


def message(*parts: bytes, boundary: bytes = b"B", of: bytes = b'multipart/mixed; boundary="B"') -> bytes:
    body = b"".join(b"--" + boundary + b"\r\n" + part + b"\r\n" for part in parts)
    return b"Subject: x\r\nContent-Type: " + of + b"\r\n\r\npreamble\r\n" + body + b"--" + boundary + b"--\r\n"


def attached(said: bytes, field: bytes = b"Content-Disposition: attachment; ") -> bytes:
    return message(b"Content-Type: text/plain\r\n\r\nhello", field + said + b"\r\n\r\nMZ")


NAMES = {
    "quoted": b'filename="evil.exe"',
    "unquoted": b"filename=evil.exe",
    "with spaces": b"filename=my evil.exe",
    "case": b'FileName="EVIL.ExE"',
    "double extension": b'filename="evil.pdf.exe"',
    "trailing dots and spaces": b'filename="evil.exe. . "',
    "no end of the quote": b'filename="evil.exe',
    "words behind the quote": b'filename="evil.exe" x',
    "words behind without a quote": b"filename=evil.exe x",
    "comment": b"filename=evil.exe(x)",
    "single quotes": b"filename='evil.exe'",
    "backslashes": b'filename="evil\\.e\\xe"',
    "path": b'filename="C:\\\\dir\\\\evil.exe"',
    "stream": b'filename="evil.exe:x.txt"',
    "nul": b'filename="evil.exe\0.txt"',
    "nul inside": b'filename="evil.e\0xe"',
    "nul in the field": b'file\0name="evil.exe"',
    "right to left": 'filename="evil\u202e.exe\u200b"'.encode(),
    "full width": 'filename="evil．ｅｘｅ"'.encode(),
    "space around": b'filename = "evil.exe"',
    "folded": b'\r\n\tfilename=\r\n "evil.exe"',
    "encoded word": b'filename="=?utf-8?B?ZXZpbC5leGU=?="',
    "two encoded words": b'filename="=?utf-8?q?evil=2E?=\r\n =?utf-8?q?exe?="',
    "encoded word, not quoted": b"filename==?utf-8?q?evil=2Eexe?=",
    "extended": b"filename*=utf-8''evil%2Eexe",
    "extended, strange": b"filename*=x'y'evil%2eexe",
    "extended, no set": b"filename*=evil%2Eexe",
    "extended, quoted": b"filename*=\"utf-8''evil%2Eexe\"",
    "continued": b'filename*0="evil."; filename*1="exe"',
    "continued, in disorder": b'filename*1="exe"; filename*0="evil."',
    "continued and extended": b"filename*0*=utf-8''evil%2E; filename*1=exe",
    "continued, with a gap": b'filename*0="evil."; filename*7="exe"',
    "a name in front": b'filename="a.txt"; filename="evil.exe"',
    "a semicolon in front": b'x="a;b"; filename="evil.exe"',
    "an open quote in front": b'x="a; filename="evil.exe"',
    "name": b'name="evil.exe"',
    "no semicolon": b'x=y name="evil.exe"',
    # As reported of other filters.
    "extended without a set": b'filename*0*="\'\'evil%2E"; filename*1*="%65"; filename*2=xe',
    "quoted-printable in the header": b'name=3D"evil.exe"',
    "not indented": b'x-unix-mode=0600;\r\nname="evil.exe"',
    "an empty line before it": b'x-unix-mode=0600;\r\n\r\nname="evil.exe"',
    "an empty line and a field": b"x-unix-mode=0600;\r\n\r\nContent-Disposition: attachment; filename=evil.exe",
    "a continuation of many lines": b"\r\n filename*0*=iso-8859-1''" + b"x" * 60 + b";\r\n filename*1=x.exe",
    "a folded name": b'filename="evil.e\r\n xe"',
    "a name folded at its space": b'filename="my\r\n evil.exe"',
    "a comment in front": b'filename (x) = "evil.exe"',
    "a slash behind": b'filename="evil.exe/"',
    "a backslash behind": b'filename="evil.exe\\\\"',
    "an encoded word in sections": b'filename*0="=?utf-8?B?ZXZp"; filename*1="bC5leGU=?="',
    "an encoded word of another alphabet": b'filename="=?utf-7?q?evil+AC4-exe?="',
    "twice": b"filename*=utf-8''a%20evil.exe; filename=\"a evil.exe\"",
}


@pytest.mark.parametrize("said", NAMES.values(), ids=NAMES)
def test_a_name_is_seen_however_it_is_written(said: bytes) -> None:
    for field in (b"Content-Disposition: attachment; ", b"CONTENT-TYPE : application/x; ", b"content-disposition:x;"):
        whole = attached(said, field)
        assert holds(look(whole)), field
        assert holds(look(whole.replace(b"\r\n", b"\n"))), field
        assert holds(look(whole.replace(b"\r\n.", b"\r\n.."), dotted=True)), field


def test_what_is_not_there_is_not_seen() -> None:
    found = look(attached(b'filename="evil.txt"; x="evil.exe"; filenames="evil.exe"'))
    assert not holds(found)
    assert found.unreadable == ""
    assert [*found.types] == ["multipart/mixed", "text/plain"]


def test_a_field_that_ends_in_a_semicolon_is_a_field() -> None:
    """What stands behind the empty line is a text like any other."""
    text = b"Content-Type: text/plain; charset=utf-8;\r\n\r\nHello,\r\nname=evil.exe\r\n\r\nname=evil.exe\r\n"
    assert not holds(look(text))
    zipped_part = b"Content-Transfer-Encoding: base64\r\nContent-Type: application/zip;\r\n\r\n"
    assert holds(look(zipped_part + base64.encodebytes(PLAIN)))


def nested(depth: int) -> bytes:
    inner = attached(b'filename="evil.exe"')
    for _ in range(depth):
        inner = message(b"Content-Type: message/rfc822\r\n\r\n" + inner, boundary=b"B%d" % len(inner)).replace(
            b'"B"', b'"B%d"' % len(inner), 1
        )
    return inner


EXE_PART = b'Content-Disposition: attachment; filename="evil.exe"\r\n\r\nMZ'
ENCODED = base64.encodebytes(attached(b'filename="evil.exe"')).replace(b"\n", b"\r\n")
STRUCTURES = {
    "in a message in a message": nested(3),
    "of the message itself": b'Content-Disposition: attachment; filename="evil.exe"\r\n\r\nMZ',
    "behind the end": message(b"\r\nx") + b"--B\r\n" + EXE_PART,
    "in front of the first line": b'Content-Type: multipart/mixed; boundary="B"\r\n\r\n--B\r\n' + EXE_PART,
    "no empty line": b'Content-Type: multipart/mixed; boundary="B"\r\n--B\r\n' + EXE_PART,
    "no end": message(EXE_PART)[: -len(b"--B--\r\n")],
    "the outer boundary inside": message(
        b'Content-Type: multipart/mixed; boundary="C"\r\n\r\n--C\r\n\r\nx\r\n--B\r\n' + EXE_PART
    ),
    "a boundary that begins like another": message(
        b'Content-Type: multipart/mixed; boundary="BB"\r\n\r\n--BB\r\n' + EXE_PART + b"\r\n--BB--"
    ),
    "two boundaries": message(EXE_PART, boundary=b"C", of=b'multipart/mixed; boundary="B"; boundary="C"'),
    "two content types": message(EXE_PART, boundary=b"C").replace(
        b"Subject: x", b'Content-Type: multipart/mixed; boundary="C"'
    ),
    "a boundary in sections": message(EXE_PART, boundary=b"BC", of=b"multipart/mixed; boundary*0=B; boundary*1=C"),
    "white space behind the boundary": message(EXE_PART).replace(b"--B\r\n", b"--B \t\r\n"),
    "words behind the boundary": message(EXE_PART).replace(b"--B\r\n", b"--Bxyz\r\n"),
    "a boundary with spaces": message(EXE_PART, boundary=b"B C", of=b"multipart/mixed; boundary=B C"),
    "a boundary behind spaces": message(EXE_PART, of=b'multipart/mixed; boundary="  B"'),
    "a boundary with a quote": message(EXE_PART, boundary=b'B"C', of=b'multipart/mixed; boundary="B\\"C"'),
    "a boundary in encoded sections": message(
        EXE_PART, boundary=b"BC", of=b"multipart/mixed; boundary*0*=us-ascii''%42; boundary*1=C"
    ),
    "a boundary in an encoded word": message(EXE_PART, of=b'multipart/mixed; boundary="=?us-ascii?q?=42?="'),
    "a boundary with a NUL": message(EXE_PART, of=b'multipart/mixed; boundary="B\0C"'),
    "a boundary with a comment": message(EXE_PART, of=b'multipart/mixed; boundary (x) = "B"'),
    "a boundary of no type": message(EXE_PART, of=b'; boundary="B"'),
    "an end that is none": message(b"\r\nx", b"").replace(b"--B\r\n\r\n", b"--B--x\r\n") + EXE_PART,
    "behind an end": message(b"\r\nx") + EXE_PART,
    "in a digest": message(
        b"\r\n" + attached(b'filename="evil.exe"').replace(b"B", b"C"), of=b"multipart/digest; boundary=B"
    ),
    "behind empty lines of a message": b"Content-Type: message/rfc822\r\n\r\n\r\n\r\n"
    + attached(b'filename="evil.exe"'),
    "a message that is not encoded as it says": b"Content-Type: message/rfc822\r\nContent-Transfer-Encoding: base64"
    b"\r\n\r\n" + attached(b'filename="evil.exe"'),
    "a message by its name": b'Content-Type: application/octet-stream; name="A.EML"\r\n\r\n'
    + attached(b'filename="evil.exe"'),
    "an encoded message by its name": b'Content-Type: application/x; name="a.eml"\r\n'
    b"Content-Transfer-Encoding: base64\r\n\r\n" + ENCODED,
    "an encoding with a comment": b"Content-Type: message/rfc822\r\nContent-Transfer-Encoding: (x) base64 (y)\r\n\r\n"
    + ENCODED,
    "space in front of the colon": b"Content-Disposition" + b" " * 60 + EXE_PART.removeprefix(b"Content-Disposition"),
    "uuencoded, encoded": b"Content-Transfer-Encoding: quoted-printable\r\n\r\nbegin=20644 evil=2Eexe\r\n",
    "carriage returns alone": message(EXE_PART).replace(b"\r\n", b"\r"),
    "an empty line to some": attached(b'filename="evil.exe"').replace(
        b"Content-Disposition", b"X: a\r\rb\r\nContent-Disposition"
    ),
    "a message in base64": b"Content-Type: message/rfc822\r\nContent-Transfer-Encoding: base64\r\n\r\n" + ENCODED,
    "parts in base64": b'Content-Type: multipart/mixed; boundary="B"\r\nContent-Transfer-Encoding: base64\r\n\r\n'
    + ENCODED,
    "a message in quoted-printable": b"Content-Type: message/rfc822\r\n"
    b'Content-Transfer-Encoding: Quoted-Printable\r\n\r\nContent-Type: text/x; name=3D"evil=2Eexe"\r\n\r\nx',
    "uuencoded": message(b"Content-Type: text/plain\r\n\r\nhello\r\nbegin 644 evil.exe\r\n#0V%T\r\n`\r\nend"),
}


@pytest.mark.parametrize("content", STRUCTURES.values(), ids=STRUCTURES)
def test_a_part_is_seen_wherever_it_is(content: bytes) -> None:
    assert holds(look(content))


@pytest.mark.parametrize("size", [8_190, 8_191, 8_192, 8_193, (1 << 20) - 3, (1 << 20) - 2, (1 << 20) - 1, 1 << 20])
def test_wherever_the_pieces_end(size: int) -> None:
    """Content is looked at in pieces: of a header, and of a body."""
    for around in range(-20, 3):
        padding = b"x" * 60 + b"\r\n"
        filled = (padding * (size // 62 + 1))[: size + around]
        assert holds(look(b'Content-Type: multipart/mixed; boundary="B"\r\n\r\n' + filled + b"\r\n--B\r\n" + EXE_PART))
    if size < MAX_HEADER_BYTES // 2:
        assert holds(look(b"X: " + b"x" * (size - 20) + b"\r\n" + EXE_PART))


def zipped(*names: str) -> bytes:
    octets = io.BytesIO()
    with zipfile.ZipFile(octets, "w", zipfile.ZIP_DEFLATED) as archive:
        for name in names:
            archive.writestr(name, b"x" * 1000)
    return octets.getvalue()


def in_base64(octets: bytes) -> bytes:
    return message(
        b"Content-Type: text/plain\r\nContent-Transfer-Encoding: base64\r\n\r\n" + base64.encodebytes(octets)
    )


PLAIN = zipped("dir/evil.exe", "b.txt")
LOCAL = PLAIN.index(b"PK\1\2")
ARCHIVES = {
    "as it is": PLAIN,
    "only the directory": PLAIN[:4] + b"\0" * 60 + PLAIN[LOCAL:],
    "only the files": PLAIN[:LOCAL],
    "another name in the directory": PLAIN[:LOCAL] + PLAIN[LOCAL:].replace(b"evil.exe", b"nice.txt"),
    "another name at the file": PLAIN[:LOCAL].replace(b"evil.exe", b"nice.txt") + PLAIN[LOCAL:],
    "a NUL": PLAIN.replace(b"evil.exe", b"v.exe\0xx"),
    "backslashes": PLAIN.replace(b"dir/evil.exe", b"dir\\evil.exe"),
    "one in front of another": zipped("a.txt") + PLAIN,
    "encrypted content": PLAIN.replace(b"PK\3\4\x14\0\0\0", b"PK\3\4\x14\0\1\0"),
    "split": b"PK00" + PLAIN,
    "behind something else": b"MZ" * 40_000 + PLAIN,
    "between": b"GIF89a" + PLAIN + b"x" * 100_000,
    "another name in Unicode": zipped("a.txt").replace(b"a.txt", b"a.txt")[:26]
    + struct.pack("<HH", 5, 17)
    + b"a.txt"
    + struct.pack("<HHBI", 0x7075, 13, 1, 0)
    + b"evil.exe",
}


@pytest.mark.parametrize("octets", ARCHIVES.values(), ids=ARCHIVES)
def test_names_in_an_archive(octets: bytes) -> None:
    assert holds(look(in_base64(octets)))
    binary = b"Content-Type: application/zip\r\nContent-Transfer-Encoding: binary\r\n\r\n" + octets
    assert holds(look(binary))


def test_an_archive_in_base64_with_junk() -> None:
    encoded = base64.encodebytes(PLAIN).replace(b"\n", b"!\r\n")
    for junk in (encoded, encoded.replace(b"U", b"\0U"), b" . " + encoded, encoded[:40] + b"==\r\n" + encoded):
        head = b"Content-Type: x/y\r\nContent-Transfer-Encoding: x\r\nContent-Transfer-Encoding: BASE64 \r\n\r\n"
        assert holds(look(head + junk)), junk[:60]


def test_an_archive_that_is_encoded_and_does_not_say_so() -> None:
    assert holds(look(b"Content-Type: application/zip\r\n\r\n" + base64.encodebytes(PLAIN)))


def test_what_only_looks_like_an_archive_is_none() -> None:
    for octets in (b"x" * 100 + b"PK\5\6" + b"x" * 100, b"x" + b"PK\3\4" * 10):
        found = look(in_base64(octets))
        assert (found.unreadable, [*found.names]) == ("", [])


def test_large_sizes_and_bombs_cost_nothing() -> None:
    """Nothing is unpacked: 64-bit sizes, a file of 4 GiB of nothing, one that is said to be larger than all disks."""
    octets = io.BytesIO()
    with (
        zipfile.ZipFile(octets, "w", zipfile.ZIP_DEFLATED) as archive,
        archive.open("evil.exe", "w", force_zip64=True) as file,
    ):
        for _ in range(100):
            file.write(bytes(1 << 20))
    assert len(octets.getvalue()) < 200_000
    lying = octets.getvalue().replace(struct.pack("<Q", 100 << 20), b"\xff" * 8)
    for each in (octets.getvalue(), lying):
        began_s = time.process_time()
        assert holds(look(in_base64(each)))
        assert time.process_time() - began_s < 2


@pytest.mark.parametrize(
    ("content", "why"),
    [
        (message(*[b"\r\nx"] * (MAX_PARTS + 1)), f"more than {MAX_PARTS} parts"),
        (b"Content-Type: message/rfc822\r\n\r\n" * (MAX_PARTS + 1) + b"x", f"more than {MAX_PARTS} parts"),
        (
            b"".join(
                b"Content-Type: multipart/x; boundary=B%d\r\n\r\n--B%d\r\n" % (n, n) for n in range(MAX_BOUNDARIES + 1)
            ),
            f"more than {MAX_BOUNDARIES} boundaries",
        ),
        (b"Content-Type: x/y\r\n" * (MAX_FIELDS + 1) + b"\r\n", f"more than {MAX_FIELDS} fields about one part"),
        (b"Content-Type: x/y" + b"; name=a" * 3_000 + b"\r\n\r\n", "a field of more than 16384 octets"),
        (b"X: y\r\n" * 200_000, "a header of more than 1048576 octets"),
        (b"Content-Type: multipart/mixed\r\n\r\n--B\r\n" + EXE_PART, "a multipart without a boundary"),
        (
            message(EXE_PART, of=b'multipart/x; boundary="B"; boundary="' + b"C" * 257 + b'"'),
            "a boundary of more than 256",
        ),
        (b'Content-Type: message/partial; number=2\r\n\r\nil.exe"', "a piece of a message"),
        (message(*[b"\r\nx"] * 10_000), f"more than {MAX_PARTS} parts"),
        (nested(1000), f"more than {MAX_BOUNDARIES} boundaries"),
        (in_base64(b"PK\3\4"), "a broken archive"),
        (
            in_base64(PLAIN.replace(b"PK\1\2\x14\3\x14\0\0\0", b"PK\1\2\x14\3\x14\0\0\x20")),
            "an archive whose names are e",
        ),
        (in_base64(zipped(*(str(n) for n in range(MAX_ENTRIES + 1)))), f"an archive of more than {MAX_ENTRIES} files"),
    ],
)
def test_what_has_too_much_is_unreadable(content: bytes, why: str) -> None:
    assert look(content).unreadable.startswith(why)


def test_messages_in_encodings_have_an_end() -> None:
    content = attached(b'filename="evil.exe"')
    for number in range(MAX_NESTED + 1):
        assert holds(look(content)), number
        content = b"Content-Type: message/rfc822\r\nContent-Transfer-Encoding: base64\r\n\r\n" + base64.encodebytes(
            content
        )
    assert look(content).unreadable == f"more than {MAX_NESTED} messages in one another"


def test_what_was_found_counts_when_the_time_is_over() -> None:
    asked = iter([False] * 8 + [True] * 100)
    found = look(message(EXE_PART, *[b"\r\nx"] * 50), lambda: next(asked))
    assert found.unreadable == "it took too long"
    assert holds(found)


@pytest.mark.parametrize(
    "content",
    [
        b'Content-Type: multipart/x; boundary="B"\r\n\r\n' + b"--x\n" * 500_000,
        b"Content-Type: x/y" + b";name=a" * 2_000 + b"\r\n\r\nx",
        b"X: y\r\n" + b" x\r\n" * 200_000,
        b'Content-Type: x/y; name="' + b"\\" * 16_000 + b"\r\n\r\n",
        b"Content-Type: x/y; name=" + b"=?a?q?x" * 2_000 + b"\r\n\r\n",
        b"Content-Type: x/y; name*=punycode''" + b"a" * 8_000 + b"-" + b"b" * 8_000 + b"\r\n\r\n",
        b"Content-Type: x/y;" + b"=" * 16_000 + b"\r\n\r\n",
        b"Content-Type: x/y;" + b'"' * 16_000 + b"\r\n\r\n",
        b"\r\n" + b"\r" * 1_000_000,
        b"\r\n" + b"begin 644 " * 200_000,
        in_base64(b"PK\3\4" * 100_000),
    ],
)
def test_nothing_takes_longer_than_its_length(content: bytes) -> None:
    began_s = time.process_time()
    look(content)
    assert time.process_time() - began_s < 5


TOKENS = [
    *(b"\r\n", b"\n", b"\r", b"--B", b"--", b"--B--", b"Content-Type: ", b"multipart/mixed", b'; boundary="B"', b"; "),
    *(
        b"message/rfc822",
        b"name=",
        b"filename*0*=",
        b'"',
        b"evil.exe",
        b"=?utf-8?q?a?=",
        b"%41",
        b"\0",
        b"PK\3\4",
        b" ",
    ),
    *(b"Content-Transfer-Encoding: base64", b"UEsDBA==", b"Content-Disposition: attachment", b"\xff", b"begin 644 x"),
]


@given(st.lists(st.sampled_from(TOKENS), max_size=60).map(b"".join), st.booleans())
def test_anything_is_looked_into(content: bytes, dotted: bool) -> None:
    found = look(content, dotted=dotted)
    assert all(found.names)
    assert found.number >= 1


@given(st.binary(max_size=200))
def test_any_archive_is_looked_into(octets: bytes) -> None:
    archived(b"PK\3\4" + octets)
