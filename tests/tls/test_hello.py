"""What is read from a ClientHello: OpenSSL's own, in any cut and over any records; and what is none."""

from __future__ import annotations

import ssl

import pytest
from hypothesis import given
from hypothesis import strategies as st

from smtp_intercept.tls.hello import MAX_HELLO_BYTES, UNREADABLE, ClientHello, read_client_hello


def hello(name: str | None = "mx.example.com", protocols: tuple[str, ...] = (), newest: bool = True) -> bytes:
    """A real one."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    if not newest:
        context.maximum_version = ssl.TLSVersion.TLSv1_2
    if protocols:
        context.set_alpn_protocols(list(protocols))
    inward, outward = ssl.MemoryBIO(), ssl.MemoryBIO()
    with pytest.raises(ssl.SSLWantReadError):
        context.wrap_bio(inward, outward, server_hostname=name).do_handshake()
    return outward.read()


def in_records(octets: bytes, sizes: list[int]) -> bytes:
    """The same handshake message in records of these sizes."""
    message, records = octets[5:], b""
    for size in [*sizes, len(message)]:
        piece, message = message[:size], message[size:]
        if piece:
            records += octets[:3] + len(piece).to_bytes(2) + piece
    return records


@pytest.mark.parametrize("name", ["mx.example.com", "MX.Example.COM", "_dmarc.x", "xn--bcher-kva.example"])
def test_the_name(name: str) -> None:
    assert read_client_hello(hello(name)) == ClientHello(name.lower(), (), (0x0304, 0x0303))


def test_what_else_is_asked_for() -> None:
    assert read_client_hello(hello(None, ("smtp", "h2"), newest=False)) == ClientHello("", (b"smtp", b"h2"), (0x0303,))


@given(st.integers(0, 600), st.lists(st.integers(1, 200), max_size=6))
def test_any_cut_and_any_records(cut: int, sizes: list[int]) -> None:
    whole = in_records(REAL, sizes)
    assert read_client_hello(whole) == ClientHello("mx.example.com", (), (0x0304, 0x0303))
    assert read_client_hello(whole + b"\x14\x03\x03\0\x01\x01") == read_client_hello(whole)
    short = whole[: min(cut, len(whole) - 1)]
    assert read_client_hello(short) is None


@given(st.binary(max_size=200))
def test_octets_of_any_kind_are_read(octets: bytes) -> None:
    for octets_ in (octets, b"\x16\x03\x01" + octets, b"\x16\x03\x01\x00\xc8\x01\0\0\xc4" + octets):
        found = read_client_hello(octets_)
        assert found is None or isinstance(found, ClientHello)


@given(st.integers(0, 2_000), st.integers(0, 255))
def test_one_octet_that_is_another(at: int, octet: int) -> None:
    spoilt = bytearray(REAL)
    spoilt[at % len(REAL)] = octet
    found = read_client_hello(bytes(spoilt))
    assert found is None or found.name == "" or found.name.isascii()


@pytest.mark.parametrize(
    "octets",
    [
        b"EHLO c.example\r\n",
        b"\x80\x2e\x01",
        b"\x16\x03\x01\0\0",
        b"\x16\x03\x01\0\x04\x02\0\0\0",
        b"\x16\x03\x01\0\x04\x01\0\0\0",
    ],
)
def test_what_is_none(octets: bytes) -> None:
    assert read_client_hello(octets) is UNREADABLE


@pytest.mark.parametrize("name", ["192.0.2.1", "a b", "-x", "a..b", ".a", "x" * 254, "a.1"])
def test_what_is_no_name(name: str) -> None:
    extension = b"\0" + len(name).to_bytes(2) + name.encode()
    extension = len(extension).to_bytes(2) + extension
    extensions = b"\0\0" + len(extension).to_bytes(2) + extension
    body = b"\x03\x03" + b"\0" * 33 + b"\0\x02\x13\x01" + b"\x01\0" + len(extensions).to_bytes(2) + extensions
    record = b"\x01" + len(body).to_bytes(3) + body
    assert read_client_hello(b"\x16\x03\x01" + len(record).to_bytes(2) + record) == ClientHello("", (), (0x0303,))


def test_one_without_end_is_not_waited_for() -> None:
    endless = b"\x16\x03\x01\xff\xff\x01\xff\xff\xff" + b"\0" * MAX_HELLO_BYTES
    assert read_client_hello(endless[: MAX_HELLO_BYTES - 1]) is None
    assert read_client_hello(endless[:MAX_HELLO_BYTES]) is UNREADABLE


REAL = hello()
