"""Certificates for tests: roots, chains and single ones, good and bad."""

from __future__ import annotations

import time
from datetime import UTC, datetime

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from smtp_intercept.tls.x509 import Key, certificates_in, load_key, make_authority

DAY = 86_400.0


class Root:
    """One that signs."""

    def __init__(self, permitted: tuple[str, ...] = ()) -> None:
        self.pem, self.key = make_authority("Test Root", 60, permitted, time.time() - 30 * DAY)
        self.certificate = certificates_in(self.pem)[0]

    def issue(self, *names: str, days: tuple[float, float] = (-1, 10)) -> tuple[bytes, bytes]:
        """Chain (without the root) and key, PEM."""
        return issue(names, days, self.certificate.subject, load_key(self.key))


def issue(
    names: tuple[str, ...], days: tuple[float, float], issuer: x509.Name | None = None, signer: Key | None = None
) -> tuple[bytes, bytes]:
    """Self-signed without a signer."""
    key = ec.generate_private_key(ec.SECP256R1())
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, names[0] if names else "nobody")])
    begin, end = (datetime.fromtimestamp(time.time() + day * DAY, UTC).replace(microsecond=0) for day in days)
    builder = (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer or subject)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(begin)
        .not_valid_after(end)
    )
    if names:
        builder = builder.add_extension(x509.SubjectAlternativeName([*map(x509.DNSName, names)]), critical=False)
    made = builder.sign(signer or key, hashes.SHA256())
    pem = key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    return made.public_bytes(serialization.Encoding.PEM), pem


def der(pem: bytes) -> bytes:
    """Of the first certificate."""
    return certificates_in(pem)[0].public_bytes(serialization.Encoding.DER)
