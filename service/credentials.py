"""C2PA Content Credentials: what a signed statement in the file says about its making, and whether it can be believed.

Nothing is fetched: no remote manifest, no revocation list. Source: C2PA specification 2.2, c2pa.org.
"""

import io
import json
import ssl
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Literal

from c2pa import C2paError, Context, Reader

Status = Literal["valid", "untrusted", "invalid"]

GENERATED = "trainedAlgorithmicMedia"  # IPTC digital source types: cv.iptc.org/newscodes/digitalsourcetype
PARTLY_GENERATED = "compositeWithTrainedAlgorithmicMedia"
_VOCABULARY = "http://cv.iptc.org/newscodes/digitalsourcetype/"
_FORMATS = {b"\xff\xd8": "image/jpeg", b"\x89P": "image/png", b"RI": "image/webp"}  # of the files that are accepted
_UNPACKED_MB = 10  # of a compressed manifest, at most
_MOST, _LENGTH = 20, 200  # items and characters that are repeated of what a stranger wrote
_TRUSTED, _UNTRUSTED = "signingCredential.trusted", "signingCredential.untrusted"
_PARENTS = 50  # versions of one picture that are followed


@dataclass(frozen=True)
class Credential:
    """What a file's Content Credentials come to.

    Attributes:
        status: `valid`: whole, of this very picture, signed by a trusted signer; `untrusted`: whole, but anybody may
            have signed it; `invalid`: changed after it was signed, expired, or damaged.
        declares: IPTC digital source types in the active manifest's actions and in those of the versions before it,
            such as `trainedAlgorithmicMedia` (AI-generated) or `digitalCapture` (a camera's).
        generator: the program that wrote the claim.
        signer: whose certificate signed it.
        problems: C2PA validation codes, such as `assertion.dataHash.mismatch`.
    """

    status: Status
    declares: tuple[str, ...] = ()
    generator: str | None = None
    signer: str | None = None
    problems: tuple[str, ...] = ()

    @property
    def says_generated(self) -> bool:
        """Whether it can be believed that the whole picture was generated."""
        return self.status == "valid" and GENERATED in self.declares

    @property
    def says_partly_generated(self) -> bool:
        """Whether it can be believed that parts of the picture were generated."""
        return self.status == "valid" and PARTLY_GENERATED in self.declares


class CredentialReader:
    """Reads Content Credentials; may be shared by threads."""

    def __init__(self, trust_anchors: str = "") -> None:
        """Take the certificates of those who are trusted.

        Args:
            trust_anchors: root or signing certificates, PEM, one after the other. Without any, no signer is trusted.

        Raises:
            ValueError: that is no list of certificates.
        """
        settings: dict[str, Any] = {
            "verify": {"verify_trust": True, "remote_manifest_fetch": False, "ocsp_fetch": False},
            "core": {"max_decompressed_manifest_size_in_mb": _UNPACKED_MB, "allowed_network_hosts": []},
        }
        if trust_anchors:
            settings["trust"] = {"trust_anchors": trust_anchors}
            try:  # the library would pass over what is no certificate
                ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT).load_verify_locations(cadata=trust_anchors)
            except ssl.SSLError as error:
                raise ValueError(f"it holds no PEM certificates ({error.reason or error})") from None
        self._context = Context.from_dict(settings)

    def read(self, data: bytes) -> Credential | None:
        """Read and verify a file's credentials.

        Args:
            data: a file that `images.decode` accepts.

        Returns:
            None where the file has none, which proves nothing: most photos have none, and anyone can remove them.
        """
        if b"c2pa" not in data:  # the name of every manifest store: other files cost no more than this look
            return None
        try:
            with Reader(_FORMATS[data[:2]], io.BytesIO(data), context=self._context) as reader:
                store = json.loads(reader.json())
            return _credential(store)
        except C2paError as error:
            if isinstance(error, C2paError.ManifestNotFound):
                return None
            return Credential("invalid", problems=(type(error).__name__.removeprefix("_C2pa"),))
        except Exception:  # a store of another form than the library writes: whatever it is, the photo gets its answer
            return Credential("invalid", problems=("unreadable",))


def _credential(store: dict[str, Any]) -> Credential:
    active = store["manifests"][store["active_manifest"]]
    signed = active.get("signature_info") or {}
    names = [part for part in (signed.get("common_name"), signed.get("issuer")) if part]
    programs = active.get("claim_generator_info") or [{"name": active.get("claim_generator")}]
    status: Status
    match store["validation_state"]:
        case "Trusted":
            status = "valid"
        case "Valid":
            status = "untrusted"
        case _:
            status = "invalid"
    results = store.get("validation_results") or {}
    changes = [delta["validationDeltas"] for delta in results.get("ingredientDeltas") or []]
    found = [results.get("activeManifest") or {}, *changes]
    failures = [each["code"] for part in found for each in part.get("failure") or []]
    trusted = {each["url"] for part in changes for each in part.get("success") or [] if each["code"] == _TRUSTED}
    return Credential(
        status=status,
        declares=_unique(kind for manifest in _versions(store, active, trusted) for kind in _source_types(manifest)),
        generator=_short(" ".join(str(part) for part in (programs[0].get("name"), programs[0].get("version")) if part)),
        signer=_short(", ".join(dict.fromkeys(map(str, names)))),
        problems=_unique(iter(failures)),
    )


def _versions(store: dict[str, Any], manifest: dict[str, Any] | None, trusted: set[str]) -> Iterator[dict[str, Any]]:
    """Yield the active manifest and those of the versions of the picture before it that were whole when it was made."""
    seen: list[str] = []
    while manifest is not None and len(seen) < _PARENTS:
        yield manifest
        parents = [each for each in manifest.get("ingredients") or [] if each.get("relationship") == "parentOf"]
        label = parents[0].get("active_manifest") if parents and _was_whole(parents[0], trusted) else None
        if label is None or label in seen:
            return
        seen.append(label)
        manifest = store["manifests"].get(label)


def _was_whole(ingredient: dict[str, Any], trusted: set[str]) -> bool:
    """Tell whether whoever used this picture found it whole; of its signer's trust, we know better than they did."""
    failures = ingredient["validation_results"]["activeManifest"].get("failure") or []
    return all(each["code"] == _UNTRUSTED and each["url"] in trusted for each in failures)


def _source_types(manifest: dict[str, Any]) -> Iterator[str]:
    for assertion in manifest.get("assertions") or []:
        if str(assertion.get("label")).startswith("c2pa.actions"):
            for action in assertion["data"]["actions"]:
                if (kind := action.get("digitalSourceType")) is not None:
                    yield str(kind).removeprefix(_VOCABULARY)


def _unique(words: Iterator[str]) -> tuple[str, ...]:
    return tuple(dict.fromkeys(short for word in words if (short := _short(word)) is not None))[:_MOST]


def _short(text: Any) -> str | None:
    """Make what a stranger wrote fit to be repeated."""
    return "".join(character for character in str(text or "") if character.isprintable())[:_LENGTH] or None
