"""Certificates read and made: what OpenSSL makes of them, and strangers' octets."""

from __future__ import annotations

import ssl
import subprocess
import sys
import time
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from smtp_intercept.tls.certificates import Certificate, Verified, leaf_for, verify
from smtp_intercept.tls.contexts import towards_client
from smtp_intercept.tls.names import Constraints
from smtp_intercept.tls.x509 import Signer, Trust, certificates_in, facts_of, load_key, make_authority, read_chain
from tests.tls.pki import DAY, Root, der, issue

ROOT = Root()
TRUST = Trust([ROOT.certificate])
NOW = time.time()


def signer(root: Root) -> Signer:
    return Signer(root.certificate, load_key(root.key))


@pytest.mark.parametrize(
    ("chain", "name", "expected"),
    [
        (ROOT.issue("mx.example.com"), "mx.example.com", Verified.VERIFIED),
        (ROOT.issue("*.example.com", "a.example"), "mx.example.com", Verified.VERIFIED),
        (ROOT.issue("mx.example.com"), "", Verified.UNNAMED),
        (ROOT.issue("mx.example.com"), "other.example", Verified.NAME_MISMATCH),
        (ROOT.issue("mx.example.com", days=(-10, -1)), "mx.example.com", Verified.EXPIRED),
        (ROOT.issue("mx.example.com", days=(1, 2)), "mx.example.com", Verified.EXPIRED),
        (issue(("mx.example.com",), (-1, 10)), "mx.example.com", Verified.SELF_SIGNED),
        (Root().issue("mx.example.com"), "mx.example.com", Verified.UNTRUSTED),
        (ROOT.issue(), "mx.example.com", Verified.UNTRUSTED),  # it names nobody
    ],
)
def test_what_a_chain_is_worth(chain: tuple[bytes, bytes], name: str, expected: Verified) -> None:
    found = read_chain([der(chain[0])], TRUST, NOW)
    assert verify(found, name, NOW) is expected
    assert not read_chain([der(chain[0])], Trust([]), NOW).trusted


def test_a_leaf_that_signs_is_not_believed() -> None:
    chain, key = ROOT.issue("mx.example.com")
    forged, _ = issue(("bank.example",), (-1, 10), certificates_in(chain)[0].subject, load_key(key))
    assert not read_chain([der(forged), der(chain)], TRUST, NOW).trusted


def test_the_dates_and_names_are_the_servers() -> None:
    chain, _ = ROOT.issue("mx.example.com", "*.example.org", days=(-2, 3))
    server = read_chain([der(chain)], TRUST, NOW)
    box = Root()
    leaf = leaf_for(server, signer(box).authority)
    assert leaf is not None
    made = certificates_in(signer(box).mint(leaf))
    shown = facts_of(made[0])
    assert (shown.names, shown.common_name) == (server.names, server.common_name)
    assert shown.not_after == server.not_after
    assert made[1] == box.certificate


@pytest.mark.parametrize("names", [("mx.example.com",), ("mx.example.com", "*.example.org")])
def test_openssl_believes_a_leaf_as_far_as_the_server(names: tuple[str, ...]) -> None:
    box = Root()
    for root, believed in ((ROOT, True), (Root(), False)):
        server = read_chain([der(root.issue(*names)[0])], TRUST, NOW)
        assert talks(box, server, "mx.example.com") is believed


def test_openssl_holds_to_the_constraints() -> None:
    box = Root(("example.com",))
    assert signer(box).authority.constraints == Constraints(("example.com",))
    server = read_chain([der(ROOT.issue("mx.example.com", "mx.example.org")[0])], TRUST, NOW)
    assert talks(box, server, "mx.example.com")
    assert not talks(box, server, "mx.example.org")
    outside = read_chain([der(ROOT.issue("mx.example.org")[0])], TRUST, NOW)
    assert leaf_for(outside, signer(box).authority) is None


def talks(box: Root, server: Certificate, name: str) -> bool:
    """A client that trusts the box's authority finishes a handshake with the leaf."""
    it = signer(box)
    leaf = leaf_for(server, it.authority)
    assert leaf is not None
    shown = towards_client(it.mint(leaf), it.leaf_key, ssl.TLSVersion.TLSv1_2)
    client = ssl.create_default_context(cadata=box.pem.decode())
    a, b = ssl.MemoryBIO(), ssl.MemoryBIO()
    one, other = client.wrap_bio(a, b, server_hostname=name), shown.wrap_bio(b, a, server_side=True)
    for _ in range(4):
        for side in (one, other):
            try:
                side.do_handshake()
            except ssl.SSLWantReadError:
                continue
            except ssl.SSLCertVerificationError:
                return False
    return one.getpeercert() is not None


@given(st.binary(max_size=300))
def test_a_strangers_octets_are_nobodys(octets: bytes) -> None:
    assert not read_chain([octets], TRUST, NOW).trusted
    assert certificates_in(octets) == []


@pytest.mark.filterwarnings("ignore::cryptography.utils.CryptographyDeprecationWarning")
@given(st.integers(0, 2_000), st.integers(1, 255))
def test_one_octet_that_is_another(at: int, change: int) -> None:
    spoilt = bytearray(GOOD)
    spoilt[at % len(GOOD)] ^= change
    assert not read_chain([bytes(spoilt)], TRUST, NOW).trusted


def test_what_is_no_authority() -> None:
    chain, key = ROOT.issue("mx.example.com")
    with pytest.raises(ValueError, match="no authority's"):
        Signer(certificates_in(chain)[0], load_key(key))
    with pytest.raises(ValueError, match="not the certificate's"):
        Signer(ROOT.certificate, load_key(key))
    with pytest.raises(ValueError, match=r"."):
        load_key(b"-----BEGIN PRIVATE KEY-----\nAAAA\n-----END PRIVATE KEY-----\n")


def test_an_authority_has_begun_and_ends() -> None:
    pem, _ = make_authority("A", 10, (), NOW)
    found = facts_of(certificates_in(pem)[0])
    assert found.not_before < NOW < found.not_after <= NOW + 10 * DAY
    assert found.self_signed


GOOD = der(ROOT.issue("mx.example.com")[0])


def test_a_root_without_a_positive_number_is_read_in_silence(tmp_path: Path) -> None:
    """There are such among those that every system trusts; the library warns of each on standard error."""
    made = ["openssl", "req", "-x509", "-newkey", "ed25519", "-nodes", "-subj", "/CN=root", "-set_serial", "0"]
    subprocess.run([*made, "-keyout", tmp_path / "key", "-out", tmp_path / "pem"], check=True, capture_output=True)
    program = (
        "import sys; from smtp_intercept.tls import x509; print(len(x509.certificates_in(sys.stdin.buffer.read())))"
    )
    done = subprocess.run(
        [sys.executable, "-c", program], input=(tmp_path / "pem").read_bytes(), capture_output=True, check=True
    )
    assert (done.stdout, done.stderr) == (b"1\n", b"")
