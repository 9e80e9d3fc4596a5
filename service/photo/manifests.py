"""A C2PA manifest store: what each manifest of a picture's history declares, the state of each, and what may decide.

Pure functions of the JSON that c2pa-python reads out of a file. A stranger may have written any of it, in any form.
Source: C2PA specification 2.2, 15 (validation) and 18 (actions, ingredients), c2pa.org.
"""

import re
from collections import deque
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from typing import Any

from service.photo.provenance import CredentialVersion, Relationship, Saying, State
from service.photo.text import short

# IPTC digital source types (cv.iptc.org/newscodes/digitalsourcetype), and one of C2PA's (c2pa.org/digitalsourcetype).
GENERATED = ("trainedAlgorithmicMedia", "trainedAlgorithmicData")
PARTLY_GENERATED = ("compositeWithTrainedAlgorithmicMedia", "compositeSynthetic")

MOST = 20  # items that are repeated of what a stranger wrote
_VERSIONS = 50  # manifests of one picture that are followed
_TERM = re.compile(r"https?://(?:cv\.iptc\.org/newscodes|c2pa\.org)/digitalsourcetype/", re.IGNORECASE)
_KNOWN = {term.casefold(): term for term in GENERATED + PARTLY_GENERATED}
_LABEL = re.compile(r"jumbf=/?c2pa/([^/]+)")  # of the manifest that a validation code is about
_OF_THE_WHOLE = frozenset({"c2pa.created", "c2pa.opened", "c2pa.edited"})  # actions; others are about a part
_ORDER: dict[Any, Relationship] = {"parentOf": "parentOf", "componentOf": "componentOf", "inputTo": "inputTo"}

TRUSTED, UNTRUSTED = "signingCredential.trusted", "signingCredential.untrusted"
EXPIRED, REVOKED = "signingCredential.expired", "signingCredential.revoked"
UNFIT = "signingCredential.invalid"  # such as a key usage that no signer has
_HOLDS, _IN_TIME, _OUT_OF_TIME = (
    "claimSignature.validated", "claimSignature.insideValidity", "claimSignature.outsideValidity",
)  # fmt: skip


@dataclass(frozen=True)
class Facts:
    """Four facts about one manifest, each None where it is not known.

    Attributes:
        signature_holds: the claim is the one that was signed.
        unchanged: picture and statements are those of the claim.
        signer_trusted: the signer's certificate leads to one of the trust list.
        in_time: it was signed within the certificate's time; without a trusted time stamp: it is still valid today.
    """

    signature_holds: bool | None = None
    unchanged: bool | None = None
    signer_trusted: bool | None = None
    in_time: bool | None = None


@dataclass
class _Codes:
    """Validation codes about one manifest: what the library found, and what those who used the picture recorded."""

    found: set[str] = field(default_factory=set)  # successes
    failure: list[str] = field(default_factory=list)
    recorded: set[str] = field(default_factory=set)  # successes
    recorded_failure: list[str] = field(default_factory=list)

    def successes(self) -> list[str]:
        """Return all successes: the library keeps to itself what is recorded already."""
        return [*self.found, *self.recorded]

    def failures(self) -> list[str]:
        """Return all failures, without those about trust: the service has its own list of trusted signers."""
        ours = TRUSTED in self.found and UNTRUSTED not in self.failure
        return self.failure + [code for code in self.recorded_failure if not (ours and code == UNTRUSTED)]


def facts(success: Iterable[str], failure: Iterable[str]) -> Facts:
    """Read the four facts out of C2PA validation codes about one manifest."""
    good, bad = set(success), set(failure)
    holds = None
    if bad & {"claimSignature.mismatch", "claimSignature.missing"}:
        holds = False
    elif _HOLDS in good:
        holds = True
    unchanged = None
    if any(code.endswith(("Hash.mismatch", "hashedURI.mismatch")) for code in bad):
        unchanged = False
    elif holds and any(code.endswith("Hash.match") for code in good):  # else the hash itself may be anybody's
        unchanged = True
    trusted = None
    if REVOKED in bad or (UNTRUSTED in bad and not bad & {EXPIRED, UNFIT}):  # of those, too, the library says untrusted
        trusted = False
    elif TRUSTED in good and UNTRUSTED not in bad:
        trusted = True
    in_time = None
    if bad & {EXPIRED, _OUT_OF_TIME}:
        in_time = False
    elif _IN_TIME in good:  # the library says so of expired ones, too
        in_time = True
    return Facts(holds, unchanged, trusted, in_time)


def state(found: Facts, failure: Iterable[str]) -> State:
    """Sum up one manifest: only what concerns the signer or the time leaves it whole."""
    failures = list(failure)
    if any(map(_breaks, failures)) or not found.signature_holds or found.unchanged is False:
        return "invalid"
    return "valid" if found.signer_trusted and not failures else "untrusted"


def active_codes(store: dict[str, Any]) -> tuple[list[str], list[str]]:
    """Return the active manifest's successes and failures."""
    part = _active(store)
    return _of(part, "success"), _of(part, "failure")


def failures_before(store: dict[str, Any]) -> list[str]:
    """Return the failures that the library found in the manifests before the active one, and nobody had recorded."""
    return [code for part in _deltas(store) for code in _of(part, "failure")]


def broken(failure: Iterable[str]) -> bool:
    """Tell whether any of these failures concerns more than the signer or the time."""
    return any(map(_breaks, failure))


def only_trusting(store: dict[str, Any], signers: dict[str, Any]) -> dict[str, Any]:
    """Return a store in which nobody is trusted for having issued time stamps.

    A time-stamp authority's root may have issued other certificates, and C2PA's library knows but one list.

    Args:
        store: read with the time-stamp authorities' certificates, too. It is changed.
        signers: the same file, read without.
    """
    known = {each.get("url") for part in _parts(signers) for each in _list(part.get("success")) if _is(each, TRUSTED)}
    for part in _parts(store):
        part["success"] = [e for e in _list(part.get("success")) if not _is(e, TRUSTED) or e.get("url") in known]
    _active(store).setdefault("failure", []).extend(_strangers(_active(signers)))
    before = [each for part in _deltas(signers) for each in _strangers(part)]
    store["validation_results"].setdefault("ingredientDeltas", []).append({"validationDeltas": {"failure": before}})
    return store


def versions(store: dict[str, Any]) -> tuple[CredentialVersion, ...]:
    """Return the active manifest and those before it: first parents, then components and inputs.

    A manifest decides if it is valid and everyone up to it is, too. What was only put in makes a picture partly
    generated. One case is the picture itself: a manifest without any action, over one component and nothing else, as
    ChatGPT wrote it in spring 2025.
    """
    manifests = _dict(store.get("manifests"))
    codes = _codes(store, manifests)
    found: dict[str, CredentialVersion] = {}
    whole: Saying | None = None if broken(failures_before(store)) else "generated"
    todo: deque[tuple[Any, Relationship, Saying | None]] = deque([(store["active_manifest"], "active", whole)])
    while todo and len(found) < _VERSIONS:
        label, relationship, most = todo.popleft()
        if label in found or not isinstance(manifest := manifests.get(label), dict):
            continue
        if relationship == "active":
            success, failure = active_codes(store)  # an update manifest's hash is that of the version before
        else:
            success, failure = codes[label].successes(), codes[label].failures()
        own = state(facts(success, failure), failure)
        most = most if own == "valid" else None
        found[label] = CredentialVersion(
            relationship=relationship,
            status=own,
            declares=unique(term for _, term in _terms(manifest)),
            generator=generator(manifest),
            signer=signer(manifest),
            decides=_decides(manifest, most),
        )
        before = sorted(_ingredients(manifest), key=lambda each: list(_ORDER).index(each[0]))
        alone = len(_list(manifest.get("ingredients"))) == 1 and not any(_actions(manifest))
        for kind, parent in before:
            if kind == "parentOf":
                todo.appendleft((parent, kind, most))
            else:
                part = most if alone else most and "partly_generated"
                todo.append((parent, kind, part if kind == "componentOf" else None))
    return tuple(found.values())


def generator(manifest: dict[str, Any]) -> str | None:
    """Return the name of the program that wrote a manifest."""
    program: dict[str, Any] = next(iter(_list(manifest.get("claim_generator_info"))), {})
    names = [part for part in (program.get("name"), program.get("version")) if part]
    return short(" ".join(map(str, names)) or manifest.get("claim_generator"))


def signer(manifest: dict[str, Any]) -> str | None:
    """Return whose certificate signed a manifest."""
    signed = _dict(manifest.get("signature_info"))
    names = [str(part) for part in (signed.get("common_name"), signed.get("issuer")) if part]
    return short(", ".join(dict.fromkeys(names)))


def identity(manifest: dict[str, Any]) -> str | None:
    """Return the label of a manifest's identity assertion (cawg.io), which says who made the picture; None: no such."""
    labels = (str(each.get("label")) for each in _list(manifest.get("assertions")))
    return next((short(label) for label in labels if label.startswith("cawg.identity")), None)


def unique(words: Iterable[Any]) -> tuple[str, ...]:
    """Return the words, each once, fit to be repeated."""
    found: dict[str, None] = {}
    for word in words:
        if (text := short(word)) is not None:
            found[text] = None
        if len(found) == MOST:
            break
    return tuple(found)


def _breaks(code: str) -> bool:
    return code != _OUT_OF_TIME and not code.startswith(("signingCredential.", "timeStamp."))


def _codes(store: dict[str, Any], manifests: dict[str, Any]) -> dict[str, _Codes]:
    """Sort validation codes by the manifest that they are about."""
    codes, nobody = {label: _Codes() for label in manifests}, _Codes()
    for part in _deltas(store):
        for each in _list(part.get("success")):
            codes.get(_about(each), nobody).found.add(str(each.get("code")))
        for each in _list(part.get("failure")):
            codes.get(_about(each), nobody).failure.append(str(each.get("code")))
    for manifest in manifests.values():
        for ingredient in _list(_dict(manifest).get("ingredients")):
            own = str(ingredient.get("active_manifest"))  # older codes name places in the manifest alone
            for each, good in _recorded(ingredient):
                about = codes.get(_about(each) or own, nobody)
                if good:
                    about.recorded.add(str(each.get("code")))
                else:
                    about.recorded_failure.append(str(each.get("code")))
    return codes


def _recorded(ingredient: dict[str, Any]) -> Iterator[tuple[dict[str, Any], bool]]:
    """Yield what whoever used a picture recorded of it, and whether that is good.

    Ingredient assertions of version 3 hold results, older ones a list of codes, mostly of failures.
    """
    results = _dict(ingredient.get("validation_results"))
    for part in [_dict(results.get("activeManifest")), *_deltas(ingredient)]:
        yield from ((each, True) for each in _list(part.get("success")))
        yield from ((each, False) for each in _list(part.get("failure")))
    for each in _list(ingredient.get("validation_status")):
        good = str(each.get("code")).endswith((".validated", ".insideValidity", ".trusted", ".match", ".notRevoked"))
        yield each, good


def _about(entry: dict[str, Any]) -> str:
    found = _LABEL.search(str(entry.get("url")))
    return found[1] if found else ""


def _decides(manifest: dict[str, Any], most: Saying | None) -> Saying | None:
    terms = [(term, action in _OF_THE_WHOLE) for action, term in _terms(manifest)]
    if any(term in GENERATED and whole for term, whole in terms):
        return most
    return most and ("partly_generated" if any(term in _KNOWN.values() for term, _ in terms) else None)


def _terms(manifest: dict[str, Any]) -> Iterator[tuple[str, str]]:
    """Yield each action and its digital source type, as IPTC spells it."""
    for action in _actions(manifest):
        if (kind := action.get("digitalSourceType")) is not None:
            term = _TERM.sub("", str(kind).strip(), count=1)
            yield str(action.get("action")), _KNOWN.get(term.casefold(), term)


def _actions(manifest: dict[str, Any]) -> Iterator[dict[str, Any]]:
    for assertion in _list(manifest.get("assertions")):
        if str(assertion.get("label")).startswith("c2pa.actions"):
            yield from _list(_dict(assertion.get("data")).get("actions"))


def _ingredients(manifest: dict[str, Any]) -> Iterator[tuple[Relationship, str]]:
    for each in _list(manifest.get("ingredients")):
        if (kind := _ORDER.get(str(each.get("relationship")))) and isinstance(each.get("active_manifest"), str):
            yield kind, each["active_manifest"]


def _strangers(part: dict[str, Any]) -> list[dict[str, Any]]:
    return [each for each in _list(part.get("failure")) if _is(each, UNTRUSTED)]


def _is(entry: dict[str, Any], code: str) -> bool:
    return bool(entry.get("code") == code)


def _parts(store: dict[str, Any]) -> list[dict[str, Any]]:
    return [_active(store), *_deltas(store)]


def _active(store: dict[str, Any]) -> dict[str, Any]:
    return _dict(_dict(store.get("validation_results")).get("activeManifest"))


def _deltas(store: dict[str, Any]) -> list[dict[str, Any]]:
    deltas = _list(_dict(store.get("validation_results")).get("ingredientDeltas"))
    return [_dict(each.get("validationDeltas")) for each in deltas]


def _of(part: dict[str, Any], kind: str) -> list[str]:
    return [str(each.get("code")) for each in _list(part.get(kind))]


def _dict(value: Any) -> dict[str, Any]:
    return value if isinstance(value, dict) else {}


def _list(value: Any) -> list[dict[str, Any]]:
    return [each for each in value if isinstance(each, dict)] if isinstance(value, list) else []
