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

    def __init__(
        self,
        name: str,
        usage: x509.ObjectIdentifier = ExtendedKeyUsageOID.EMAIL_PROTECTION,
        *,
        lasts: timedelta = timedelta(days=30),
    ) -> None:
        """Make both.

        Args:
            name: of the authority.
            usage: what the signer's certificate is for.
            lasts: how long that is valid from now on: the library signs with no other.
        """
        root, signer = ec.generate_private_key(ec.SECP256R1()), ec.generate_private_key(ec.SECP256R1())
        issuer, subject = _name(f"{name} root", name), _name(f"{name} signer", name)
        authority = (
            _certificate(issuer, issuer, root.public_key(), timedelta(days=30))
            .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
            .add_extension(_usage(key_cert_sign=True, crl_sign=True), critical=True)
            .sign(root, hashes.SHA256())
        )
        leaf = (
            _certificate(subject, issuer, signer.public_key(), lasts)
            .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
            .add_extension(_usage(digital_signature=True), critical=True)
            .add_extension(x509.ExtendedKeyUsage([usage]), critical=False)
            .add_extension(x509.AuthorityKeyIdentifier.from_issuer_public_key(root.public_key()), critical=False)
            .sign(root, hashes.SHA256())
        )
        self._usage = usage.dotted_string  # the library signs for no other
        self.anchors = authority.public_bytes(serialization.Encoding.PEM).decode()
        self._chain = leaf.public_bytes(serialization.Encoding.PEM) + self.anchors.encode()
        self._key = signer.private_bytes(
            serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
        )

    def sign(
        self,
        data: bytes,
        kind: str,
        source_types: Iterable[str] = (),
        parent: bytes | None = None,
        *,
        action: str = "c2pa.created",
        relationship: str = "parentOf",
        claim_version: int = 2,
        assertions: Iterable[dict[str, Any]] = (),
        link: str | None = None,
        trusts: str = "",
    ) -> bytes:
        """Return the file with a credential that declares these source types, or that it was made of `parent`.

        Args:
            data: the file.
            kind: its format.
            source_types: IPTC's terms, or whole addresses.
            parent: another file, signed or not.
            action: what declares the source types.
            relationship: of the parent.
            claim_version: 1 writes what programs older than C2PA 2 do.
            assertions: further ones.
            link: the credential is not put into the file, which points here for it.
            trusts: certificates of those whom the signer trusts, and records that of `parent`.
        """
        actions: list[dict[str, Any]] = [
            {"action": action, "digitalSourceType": each if ":" in each else VOCABULARY + each} for each in source_types
        ]
        if parent is not None and relationship == "parentOf":
            actions.insert(0, {"action": "c2pa.opened", "parameters": {"ingredientIds": ["parent"]}})
        label = "c2pa.actions.v2" if claim_version == 2 else "c2pa.actions"
        manifest = {
            "claim_version": claim_version,
            "claim_generator_info": [{"name": "Throw-away Paint", "version": "1.0"}],
            "assertions": [*([{"label": label, "data": {"actions": actions}}] if actions else []), *assertions],
        }
        signed = io.BytesIO()
        # Without a thumbnail of the photo, which would be most of the file.
        settings = {
            "builder": {"thumbnail": {"enabled": False}},
            "verify": {"verify_after_sign": False},
            "trust": {"trust_config": self._usage} | ({"trust_anchors": trusts} if trusts else {}),
        }
        context = Context.from_dict(settings)
        info = C2paSignerInfo(b"es256", self._chain, self._key, None)
        with Signer.from_info(info) as signer, Builder(json.dumps(manifest), context=context) as builder:
            if parent is not None:
                ingredient = {"relationship": relationship, "label": "parent", "title": "before"}
                builder.add_ingredient(json.dumps(ingredient), MIME[kind], io.BytesIO(parent))
            if link is not None:
                builder.set_remote_url(link)
                builder.set_no_embed()
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


def _certificate(
    subject: x509.Name, issuer: x509.Name, key: ec.EllipticCurvePublicKey, lasts: timedelta
) -> x509.CertificateBuilder:
    now = datetime.now(UTC)
    return (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer)
        .public_key(key)
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - timedelta(days=1))
        .not_valid_after(now + lasts)
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
ODD = Authority("Odd", x509.ObjectIdentifier("1.3.6.1.4.1.99999.1"))
IDENTITY = {  # of an assertion of cawg.io that nobody could check
    "label": "cawg.identity",
    "data": {
        "signer_payload": {"referenced_assertions": [], "sig_type": "cawg.x509.cose"}, "signature": [1], "pad1": [],
    },
}  # fmt: skip
