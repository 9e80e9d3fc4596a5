"""Files with C2PA Content Credentials, signed with throw-away certificates."""

import io
import json
from collections.abc import Iterable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from c2pa import Builder, C2paSignerInfo, Context, Signer
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

VOCABULARY = "http://cv.iptc.org/newscodes/digitalsourcetype/"
MIME = {"JPEG": "image/jpeg", "PNG": "image/png", "WEBP": "image/webp"}


class Authority:
    """A certificate authority and one signer whom it knows."""

    def __init__(self, name: str) -> None:
        """Make both."""
        root, signer = ec.generate_private_key(ec.SECP256R1()), ec.generate_private_key(ec.SECP256R1())
        issuer, subject = _name(f"{name} root", name), _name(f"{name} signer", name)
        authority = (
            _certificate(issuer, issuer, root.public_key())
            .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
            .add_extension(_usage(key_cert_sign=True, crl_sign=True), critical=True)
            .sign(root, hashes.SHA256())
        )
        leaf = (
            _certificate(subject, issuer, signer.public_key())
            .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
            .add_extension(_usage(digital_signature=True), critical=True)
            .add_extension(x509.ExtendedKeyUsage([ExtendedKeyUsageOID.EMAIL_PROTECTION]), critical=False)
            .add_extension(x509.AuthorityKeyIdentifier.from_issuer_public_key(root.public_key()), critical=False)
            .sign(root, hashes.SHA256())
        )
        self.anchors = authority.public_bytes(serialization.Encoding.PEM).decode()
        self._chain = leaf.public_bytes(serialization.Encoding.PEM) + self.anchors.encode()
        self._key = signer.private_bytes(
            serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
        )

    def sign(self, data: bytes, kind: str, source_types: Iterable[str] = (), parent: bytes | None = None) -> bytes:
        """Return the file with a credential that declares these source types, or that it was made of `parent`."""
        actions: list[dict[str, Any]] = [
            {"action": "c2pa.created", "digitalSourceType": VOCABULARY + each} for each in source_types
        ]
        if parent is not None:
            actions = [{"action": "c2pa.opened", "parameters": {"ingredientIds": ["parent"]}}]
        manifest = {
            "claim_generator_info": [{"name": "Throw-away Paint", "version": "1.0"}],
            "assertions": [{"label": "c2pa.actions.v2", "data": {"actions": actions}}],
        }
        signed = io.BytesIO()
        # Without a thumbnail of the photo, which would be most of the file.
        context = Context.from_dict({"builder": {"thumbnail": {"enabled": False}}})
        info = C2paSignerInfo(b"es256", self._chain, self._key, None)
        with Signer.from_info(info) as signer, Builder(json.dumps(manifest), context=context) as builder:
            if parent is not None:
                ingredient = {"relationship": "parentOf", "label": "parent", "title": "before"}
                builder.add_ingredient(json.dumps(ingredient), MIME[kind], io.BytesIO(parent))
            builder.sign(signer, MIME[kind], io.BytesIO(data), signed)
        return signed.getvalue()


def tampered(signed: bytes) -> bytes:
    """Return a signed JPEG with other pixels."""
    place = signed.rindex(b"\xff\xda") + 20  # in the scan, behind its header
    return signed[:place] + bytes([signed[place] ^ 0x10]) + signed[place + 1 :]


def anchors_file(folder: Path) -> Path:
    """Write what C2PA_TRUST_ANCHORS names: the certificates of `TRUSTED`."""
    path = folder / "anchors.pem"
    path.write_text(TRUSTED.anchors, encoding="ascii")
    return path


def _name(common: str, organization: str) -> x509.Name:
    return x509.Name(
        [
            x509.NameAttribute(NameOID.COMMON_NAME, common),
            x509.NameAttribute(NameOID.ORGANIZATION_NAME, organization),
        ]
    )


def _certificate(subject: x509.Name, issuer: x509.Name, key: ec.EllipticCurvePublicKey) -> x509.CertificateBuilder:
    now = datetime.now(UTC)
    return (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer)
        .public_key(key)
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - timedelta(days=1))
        .not_valid_after(now + timedelta(days=30))
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key), critical=False)
    )


def _usage(**used: bool) -> x509.KeyUsage:
    names = (
        "digital_signature", "content_commitment", "key_encipherment", "data_encipherment", "key_agreement",
        "key_cert_sign", "crl_sign", "encipher_only", "decipher_only",
    )  # fmt: skip
    return x509.KeyUsage(**{name: used.get(name, False) for name in names})


TRUSTED = Authority("Trusted Makers")
STRANGER = Authority("Stranger")
