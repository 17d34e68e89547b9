"""Certificates that something is wrong with, made by an authority of the tests' own."""

from __future__ import annotations

import ssl
import tempfile
from datetime import datetime, timedelta, timezone
from ipaddress import ip_address
from pathlib import Path

import trustme
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import padding, rsa
from cryptography.x509.oid import NameOID

NOW = datetime.now(timezone.utc)
DAY = timedelta(days=1)
# Object identifiers in DER, of one length.
SHA256_WITH_RSA = bytes.fromhex("06092a864886f70d01010b")
SHA1_WITH_RSA = bytes.fromhex("06092a864886f70d010105")


class Root:
    """An authority that signs anything."""

    def __init__(self, *, only: str | None = None, since: datetime = NOW - DAY) -> None:
        """``only`` is the one host name that it may sign for; it lasts a year."""
        self.key = rsa.generate_private_key(65537, 2048)
        self.name = _name("the tests' authority")
        builder = _builder(self.name, self.name, self.key, since).add_extension(x509.BasicConstraints(True, None), True)
        if only:
            builder = builder.add_extension(x509.NameConstraints([x509.DNSName(only)], None), True)
        self.certificate = builder.sign(self.key, hashes.SHA256())

    @property
    def pem(self) -> bytes:
        return self.certificate.public_bytes(serialization.Encoding.PEM)

    def write(self, path: Path) -> Path:
        path.write_bytes(self.pem)
        return path

    def context(self, *, bits: int = 2048, since: datetime = NOW - DAY, sha1: bool = False) -> ssl.SSLContext:
        """A server's context for localhost; ``bits`` of its key, ``since`` when it is valid, ``sha1`` how signed."""
        key = rsa.generate_private_key(65537, bits)
        names = x509.SubjectAlternativeName([x509.DNSName("localhost"), x509.IPAddress(ip_address("127.0.0.1"))])
        builder = _builder(_name("localhost"), self.name, key, since).add_extension(names, False)
        certificate = builder.sign(self.key, hashes.SHA256())
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.set_ciphers("DEFAULT:@SECLEVEL=0")  # else this side would refuse what is too weak
        with tempfile.NamedTemporaryFile(suffix=".pem") as file:
            file.write((self._with_sha1(certificate) if sha1 else certificate).public_bytes(serialization.Encoding.PEM))
            file.write(
                key.private_bytes(
                    serialization.Encoding.PEM,
                    serialization.PrivateFormat.TraditionalOpenSSL,
                    serialization.NoEncryption(),
                )
            )
            file.flush()
            context.load_cert_chain(file.name)
        return context

    def _with_sha1(self, certificate: x509.Certificate) -> x509.Certificate:
        """Sign it anew as nobody should: the library makes no such certificate, but signs any bytes."""
        body = certificate.tbs_certificate_bytes.replace(SHA256_WITH_RSA, SHA1_WITH_RSA)
        signature = self.key.sign(body, padding.PKCS1v15(), hashes.SHA1())
        der = certificate.public_bytes(serialization.Encoding.DER).replace(SHA256_WITH_RSA, SHA1_WITH_RSA)
        return x509.load_der_x509_certificate(der[: -len(signature)] + signature)


def without_its_chain(folder: Path) -> tuple[ssl.SSLContext, Path]:
    """A server's context that leaves out the certificate between it and its authority, and the authority's file."""
    root = trustme.CA()
    leaf = root.create_child_ca().issue_cert("localhost")
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    with tempfile.NamedTemporaryFile(suffix=".pem") as file:
        file.write(leaf.private_key_pem.bytes() + leaf.cert_chain_pems[0].bytes())
        file.flush()
        context.load_cert_chain(file.name)
    root.cert_pem.write_to_path(folder / "root.pem")
    return context, folder / "root.pem"


def _name(text: str) -> x509.Name:
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, text)])


def _builder(
    subject: x509.Name, issuer: x509.Name, key: rsa.RSAPrivateKey, since: datetime = NOW - DAY
) -> x509.CertificateBuilder:
    return x509.CertificateBuilder(
        issuer_name=issuer,
        subject_name=subject,
        public_key=key.public_key(),
        serial_number=x509.random_serial_number(),
        not_valid_before=since,
        not_valid_after=since + 365 * DAY,
    )
