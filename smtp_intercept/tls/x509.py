"""Certificates read, judged and made, by the library `cryptography`: a server's chain, a leaf, an authority.

Asks nobody and opens no file. What a stranger's certificate holds is data: a broken one is untrusted, and copied by
nobody.
"""

from __future__ import annotations

import hashlib
import warnings
from collections.abc import Iterable, Iterator, Sequence
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from ipaddress import ip_address, ip_network
from typing import TypeAlias

from cryptography import x509
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, ed448, ed25519, rsa
from cryptography.utils import CryptographyDeprecationWarning
from cryptography.x509 import verification
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from smtp_intercept.tls.certificates import Authority, Certificate, Leaf, UnmintableError
from smtp_intercept.tls.names import Constraints

Key: TypeAlias = ec.EllipticCurvePrivateKey | rsa.RSAPrivateKey | ed25519.Ed25519PrivateKey | ed448.Ed448PrivateKey
MAX_NAMES = 1_000  # of one certificate; the largest in the wild have some hundreds
_MAX_COMMON_NAME = 64  # RFC 5280, ub-common-name
_BEGIN, _END = b"-----BEGIN CERTIFICATE-----", b"-----END CERTIFICATE-----"
_EVERYWHERE = (ip_network("0.0.0.0/0"), ip_network("::/0"))
_NOT_FOR = ("digital_signature", "content_commitment", "key_encipherment", "data_encipherment", "key_agreement")
_SIGNING = x509.KeyUsage(
    **dict.fromkeys(_NOT_FOR, False), encipher_only=False, decipher_only=False, key_cert_sign=True, crl_sign=True
)
# What a parser says of a stranger's octets.
_BROKEN = (ValueError, UnsupportedAlgorithm, x509.DuplicateExtension, x509.UnsupportedGeneralNameType)
# RFC 5280 §4.1.2.2 wants a positive number; roots that every system trusts have none. `cryptography` says so on stderr.
warnings.filterwarnings("ignore", "Parsed a serial number", CryptographyDeprecationWarning)


def certificates_in(pem: bytes) -> list[x509.Certificate]:
    """Those that can be read, in their order."""
    found = []
    for piece in pem.split(_BEGIN)[1:]:
        with suppress(*_BROKEN):
            found.append(x509.load_pem_x509_certificate(_BEGIN + piece.partition(_END)[0] + _END + b"\n"))
    return found


class Trust:
    """The roots that the box trusts; of none nobody is trusted."""

    def __init__(self, roots: Iterable[x509.Certificate]) -> None:
        known = list(roots)
        self._store = verification.Store(known) if known else None

    def __bool__(self) -> bool:
        return self._store is not None

    def trusts(self, leaf: x509.Certificate, others: Sequence[x509.Certificate], now: float) -> bool:
        """Somebody trusted has signed it, for one of the names that it has. Of its dates it is not asked."""
        names = [name for name in names_of(leaf)[0] if name]
        if self._store is None or not names:
            return False
        within = min(max(_utc(now), leaf.not_valid_before_utc), leaf.not_valid_after_utc)
        try:
            builder = verification.PolicyBuilder().store(self._store).time(within.replace(tzinfo=None))
            builder = builder.extension_policies(ca_policy=_CA_POLICY, ee_policy=_EE_POLICY)
            verifier = builder.build_server_verifier(x509.DNSName(names[0].replace("*", "any", 1)))
            verifier.verify(leaf, list(others))
        except (verification.VerificationError, *_BROKEN):
            return False
        return True


def _signs(policy: object, certificate: x509.Certificate, usage: x509.KeyUsage | None) -> None:
    if usage is not None and not usage.key_cert_sign:
        raise ValueError("a certificate that signs none has signed one")


# As the Web's, but private authorities lack some extensions; their servers' certificates too.
_CA_POLICY = (
    verification.ExtensionPolicy.webpki_defaults_ca()
    .may_be_present(x509.KeyUsage, verification.Criticality.AGNOSTIC, _signs)
    .may_be_present(x509.SubjectKeyIdentifier, verification.Criticality.AGNOSTIC, None)
    .may_be_present(x509.AuthorityKeyIdentifier, verification.Criticality.AGNOSTIC, None)
)
_EE_POLICY = verification.ExtensionPolicy.webpki_defaults_ee().may_be_present(
    x509.AuthorityKeyIdentifier, verification.Criticality.AGNOSTIC, None
)


def read_chain(chain: Sequence[bytes], trust: Trust, now: float) -> Certificate:
    """What a server has shown, DER, its own first. One that cannot be read is nobody's."""
    try:
        leaf, *others = map(x509.load_der_x509_certificate, chain)
        return facts_of(leaf, trusted=trust.trusts(leaf, others, now))
    except _BROKEN:
        return Certificate((), 0.0, 0.0)


def facts_of(certificate: x509.Certificate, *, trusted: bool = False) -> Certificate:
    """What is asked about it."""
    names, addresses = names_of(certificate)
    return Certificate(
        names=names,
        addresses=addresses,
        not_before=certificate.not_valid_before_utc.timestamp(),
        not_after=certificate.not_valid_after_utc.timestamp(),
        common_name=_common_name(certificate.subject),
        self_signed=certificate.issuer == certificate.subject,
        trusted=trusted,
    )


def names_of(certificate: x509.Certificate) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """Hosts' names in lower case, and addresses."""
    try:
        found = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    except x509.ExtensionNotFound:
        return (), ()
    hosts = tuple(name.lower() for name in found.get_values_for_type(x509.DNSName))
    return hosts[:MAX_NAMES], tuple(map(str, found.get_values_for_type(x509.IPAddress)))[:MAX_NAMES]


def _common_name(name: x509.Name) -> str:
    return next((str(each.value) for each in name.get_attributes_for_oid(NameOID.COMMON_NAME)), "")


class Signer:
    """An authority's certificate and key; every leaf of one process has the same key. ValueError: the key is not the
    certificate's, or this is no authority."""

    def __init__(self, certificate: x509.Certificate, key: Key) -> None:
        if certificate.public_key() != key.public_key():
            raise ValueError("the key is not the certificate's")
        if not _is_authority(certificate):
            raise ValueError("the certificate is no authority's (basicConstraints without CA:TRUE)")
        self._certificate, self._key = certificate, key
        self._leaf_key = ec.generate_private_key(ec.SECP256R1())
        self.leaf_key = _pem(self._leaf_key)
        self.authority = Authority(
            certificate.not_valid_before_utc.timestamp(),
            certificate.not_valid_after_utc.timestamp(),
            _constraints(certificate),
        )

    def mint(self, leaf: Leaf) -> bytes:
        """Its chain, PEM. `UnmintableError`."""
        try:
            builder = _leaf_builder(leaf, self._leaf_key.public_key())
            if leaf.signed:
                made = _sign(builder.issuer_name(self._certificate.subject), self._certificate, self._key)
                return _cert_pem(made) + _cert_pem(self._certificate)
            return _cert_pem(builder.issuer_name(_subject(leaf)).sign(self._leaf_key, hashes.SHA256()))
        except (*_BROKEN, TypeError) as error:
            raise UnmintableError(str(error)) from error


def _leaf_builder(leaf: Leaf, key: ec.EllipticCurvePublicKey) -> x509.CertificateBuilder:
    subject = _subject(leaf)
    names: list[x509.GeneralName] = [*map(x509.DNSName, leaf.names)]
    names += [x509.IPAddress(ip_address(address)) for address in leaf.addresses]
    if not (names or len(subject)):
        raise UnmintableError("the server's certificate names nobody")
    builder = (
        x509.CertificateBuilder()
        .subject_name(subject)
        .public_key(key)
        .serial_number(x509.random_serial_number())
        .not_valid_before(_utc(leaf.not_before))
        .not_valid_after(_utc(max(leaf.not_after, leaf.not_before)))
        .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
        .add_extension(x509.ExtendedKeyUsage([ExtendedKeyUsageOID.SERVER_AUTH]), critical=False)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key), critical=False)
    )
    return builder.add_extension(x509.SubjectAlternativeName(names), critical=not len(subject)) if names else builder


def _subject(leaf: Leaf) -> x509.Name:
    name = leaf.common_name[:_MAX_COMMON_NAME]
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)] if name else [])


def _sign(builder: x509.CertificateBuilder, by: x509.Certificate, key: Key) -> x509.Certificate:
    identifier = x509.AuthorityKeyIdentifier.from_issuer_public_key(by.public_key())  # type: ignore[arg-type]
    with suppress(x509.ExtensionNotFound):
        known = by.extensions.get_extension_for_class(x509.SubjectKeyIdentifier).value
        identifier = x509.AuthorityKeyIdentifier.from_issuer_subject_key_identifier(known)
    digest = None if isinstance(key, ed25519.Ed25519PrivateKey | ed448.Ed448PrivateKey) else hashes.SHA256()
    return builder.add_extension(identifier, critical=False).sign(key, digest)


def _is_authority(certificate: x509.Certificate) -> bool:
    try:
        return certificate.extensions.get_extension_for_class(x509.BasicConstraints).value.ca
    except x509.ExtensionNotFound:
        return False


def _constraints(certificate: x509.Certificate) -> Constraints:
    try:
        found = certificate.extensions.get_extension_for_class(x509.NameConstraints).value
    except x509.ExtensionNotFound:
        return Constraints()
    return Constraints(tuple(_hosts(found.permitted_subtrees)), tuple(_hosts(found.excluded_subtrees)))


def _hosts(names: Iterable[x509.GeneralName] | None) -> Iterator[str]:
    yield from (name.value.lower() for name in names or () if isinstance(name, x509.DNSName))


def make_authority(name: str, days: int, permitted: Sequence[str], now: float) -> tuple[bytes, bytes]:
    """A new one: certificate and key, PEM. With ``permitted`` it may speak for these domains only, and for no
    address."""
    key = ec.generate_private_key(ec.SECP256R1())
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
    builder = (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(subject)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(_utc(now) - timedelta(hours=1))  # clocks differ
        .not_valid_after(_utc(now) + timedelta(days=days))
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .add_extension(_SIGNING, critical=True)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
    )
    if permitted:
        builder = builder.add_extension(_only(permitted), critical=True)
    return _cert_pem(builder.sign(key, hashes.SHA256())), _pem(key)


def _only(permitted: Sequence[str]) -> x509.NameConstraints:
    """Addresses are another kind of name, which must be excluded by itself."""
    nowhere = [x509.IPAddress(network) for network in _EVERYWHERE]
    return x509.NameConstraints([x509.DNSName(name.lstrip(".")) for name in permitted], nowhere)


def load_key(pem: bytes) -> Key:
    """ValueError: it is none, or has a pass phrase."""
    try:
        key = serialization.load_pem_private_key(pem, None)
    except TypeError:
        raise ValueError("the key has a pass phrase") from None
    except UnsupportedAlgorithm as error:
        raise ValueError(str(error)) from None
    if not isinstance(key, Key):
        raise ValueError("the key is of a kind that signs no certificate")
    return key


def der_of(certificate: x509.Certificate) -> bytes:
    """As it is on the wire."""
    return certificate.public_bytes(serialization.Encoding.DER)


def fingerprint(der: bytes) -> str:
    """SHA-256, as tools show it."""
    return hashlib.sha256(der).hexdigest()


def _pem(key: ec.EllipticCurvePrivateKey) -> bytes:
    form, coded, bare = (
        serialization.Encoding.PEM,
        serialization.PrivateFormat.PKCS8,
        serialization.NoEncryption(),
    )
    return key.private_bytes(form, coded, bare)


def _cert_pem(certificate: x509.Certificate) -> bytes:
    return certificate.public_bytes(serialization.Encoding.PEM)


def _utc(seconds: float) -> datetime:
    return datetime.fromtimestamp(seconds, UTC).replace(microsecond=0)
