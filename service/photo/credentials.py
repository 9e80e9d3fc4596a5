"""C2PA Content Credentials: what a signed statement in the file says about its making, and whether it can be believed.

Nothing is fetched: no remote manifest, no revocation list. Source: C2PA specification 2.2, c2pa.org.
"""

import io
import json
import re
import ssl
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any, Literal

from c2pa import C2paError, Context, Reader

from service.photo import manifests
from service.photo.formats import Format, format_of
from service.photo.provenance import Credential

LibraryState = Literal["Trusted", "Valid", "Invalid"]

# What a claim signer's certificate may be for, beside e-mail (C2PA specification 2.2, 14.5.1): documents, C2PA claims.
KEY_USAGES = ("1.3.6.1.5.5.7.3.36", "1.3.6.1.4.1.62558.2.1")

_MIME: dict[Format, str] = {
    "JPEG": "image/jpeg", "PNG": "image/png", "WEBP": "image/webp", "AVIF": "image/avif", "HEIF": "image/heif",
}  # fmt: skip
_UNPACKED_MB = 10  # of a compressed manifest, at most
_PEM = re.compile(r"-----BEGIN CERTIFICATE-----[^-]*-----END CERTIFICATE-----")
_OID = re.compile(r"[0-2](\.(0|[1-9]\d*))+")
_LINK = re.compile(rb"dcterms:provenance\s*(?:=\s*[\"']|>)\s*https?://")  # in XMP: C2PA specification 2.2, 11.4


class CredentialReader:
    """Reads Content Credentials; may be shared by threads."""

    def __init__(
        self, trust_anchors: str = "", *, time_stamp_anchors: str = "", key_usages: tuple[str, ...] = KEY_USAGES
    ) -> None:
        """Take the certificates of those who are trusted.

        Args:
            trust_anchors: root or signing certificates, PEM, one after the other. Without any, no signer is trusted.
            time_stamp_anchors: likewise, of those who are trusted to say when a credential was signed, and for nothing
                else; the signers' anchors are, too.
            key_usages: object identifiers of extended key usages, one of which a signer's certificate must have, if it
                is not for e-mail.

        Raises:
            ValueError: these are not certificates, or not object identifiers.
        """
        for anchors in filter(None, (trust_anchors, time_stamp_anchors)):
            _check_certificates(anchors)
        _check_key_usages(key_usages)
        usages = "\n".join(key_usages)
        self._anybody, self._authorities = bool(trust_anchors), bool(time_stamp_anchors)
        self._context = _context(f"{trust_anchors}\n{time_stamp_anchors}".strip(), usages)
        # Whom the signers' anchors know at the time that anyone stamped: the library calls an expired one unknown.
        self._signers = _context(trust_anchors, usages, any_time=True)

    def read(self, data: bytes, *, kind: Format | None = None, xmp: bytes | None = None) -> Credential | None:
        """Read and verify a file's credentials.

        Args:
            data: a file that `service.photo.decode` accepts.
            kind: its format, as `service.photo.decode` gives it; None: it is told by the first bytes.
            xmp: its XMP packet, unpacked, as `service.photo.decode` gives it; None: the file is searched.

        Returns:
            None where the file has none, which proves nothing: most photos have none, and anyone can remove them.
        """
        # The name of every manifest store: other files cost no more than this look.
        found = self._embedded(data, kind or format_of(data)) if b"c2pa" in data else None
        return Credential("elsewhere") if found is None and _links(data if xmp is None else xmp) else found

    def _embedded(self, data: bytes, kind: Format | None) -> Credential | None:
        try:
            return self._verified(data, kind) if kind else None
        except C2paError.ManifestNotFound:
            return None
        except C2paError as error:
            if str(error).startswith("Remote"):  # the library has no class for it
                return Credential("elsewhere")
            return Credential("unreadable", problems=manifests.unique([error]))
        except Exception:  # a store of another form than the library writes: whatever it is, the photo gets its answer
            return Credential("unreadable", problems=("unreadable",))

    def _verified(self, data: bytes, kind: Format) -> Credential:
        store, signers = _store(data, kind, self._context), None
        if self._authorities or (self._anybody and manifests.EXPIRED in manifests.active_codes(store)[1]):
            signers = _store(data, kind, self._signers)
        if signers is not None and self._authorities:
            store = manifests.only_trusting(store, signers)
        found = _credential(store)
        if found.signer_trusted is None and found.signature_holds:
            known = manifests.facts(*manifests.active_codes(signers)).signer_trusted if signers else None
            found = replace(found, signer_trusted=known if self._anybody else False)
        return found


def library_state(credential: Credential) -> LibraryState:
    """Return what c2pa-python should call a file whose credential could be read, by what we say of it."""
    if credential.status == "valid" and not credential.problems:
        return "Trusted"
    whole = credential.signature_holds and credential.in_time
    return "Valid" if whole and set(credential.problems) <= {manifests.UNTRUSTED} else "Invalid"


def read_certificates(path: Path | None) -> str:
    """Return the certificates in a file, PEM; none if there is no file.

    Raises:
        ValueError: it cannot be read, or holds none.
    """
    if path is None:
        return ""
    try:
        pem = path.read_text(encoding="utf-8")  # names between them, as published lists have, in any language
    except (OSError, UnicodeDecodeError) as error:
        raise ValueError(f"it cannot be read: {error}") from None
    _check_certificates(pem := "\n".join(_PEM.findall(pem)))
    return pem


def read_key_usages(text: str) -> tuple[str, ...]:
    """Read object identifiers, comma-separated or one a line in the file that the text names.

    In a file, what begins with `//` or `#` is a comment, as in those that other programs of C2PA read.

    Raises:
        ValueError: the file cannot be read, or one is not an object identifier.
    """
    if re.fullmatch(r"[\d., ]*", text):
        usages = [part.strip() for part in text.split(",")]
    else:
        try:
            lines = Path(text).read_text(encoding="utf-8").splitlines()
        except (OSError, UnicodeDecodeError) as error:
            raise ValueError(f"it is neither a list of object identifiers nor a file: {error}") from None
        usages = [line.strip() for line in lines if not line.lstrip().startswith(("//", "#"))]
    found = tuple(usage for usage in usages if usage)
    _check_key_usages(found)
    return found


def _check_certificates(pem: str) -> None:  # the library would pass over what is none
    try:
        ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT).load_verify_locations(cadata=pem)
    except (ssl.SSLError, ValueError) as error:
        raise ValueError(f"it holds no PEM certificates ({getattr(error, 'reason', None) or error})") from None


def _check_key_usages(usages: tuple[str, ...]) -> None:  # likewise
    for usage in usages:
        if not _OID.fullmatch(usage):
            raise ValueError(f"'{usage}' is not an object identifier such as {KEY_USAGES[0]}")


def _context(anchors: str, usages: str, *, any_time: bool = False) -> Context:
    settings: dict[str, Any] = {
        "verify": {
            "verify_trust": True,
            "verify_timestamp_trust": not any_time,
            "remote_manifest_fetch": False,
            "ocsp_fetch": False,
        },
        "core": {
            "max_decompressed_manifest_size_in_mb": _UNPACKED_MB,
            "allowed_network_hosts": [],
            # Most cannot be checked without asking somebody else, and one that fails would make the picture's fail.
            "decode_identity_assertions": False,
        },
        "trust": {"trust_config": usages},
    }
    if anchors:
        settings["trust"]["trust_anchors"] = anchors
    return Context.from_dict(settings)


def _store(data: bytes, kind: Format, context: Context) -> dict[str, Any]:
    with Reader(_MIME[kind], io.BytesIO(data), context=context) as reader:
        store: dict[str, Any] = json.loads(reader.json())
    return store


def _credential(store: dict[str, Any]) -> Credential:
    active = store["manifests"][store["active_manifest"]]
    success, failure = manifests.active_codes(store)
    before = manifests.failures_before(store)
    versions = manifests.versions(store)
    return Credential(
        status="invalid" if manifests.broken(before) else versions[0].status,
        declares=manifests.unique(
            word for each in versions if each.relationship != "inputTo" for word in each.declares
        ),
        generator=versions[0].generator,
        signer=versions[0].signer,
        problems=manifests.unique([*failure, *before]),
        identity=manifests.identity(active),
        versions=versions,
        **asdict(manifests.facts(success, failure)),
    )


def _links(data: bytes) -> bool:
    return b"dcterms:provenance" in data and _LINK.search(data) is not None  # the plain look is the faster by far
