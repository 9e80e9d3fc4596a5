"""Content Credentials: who is believed, and what hostile ones can do."""

import io
import json
import random
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from typing import Any

import pytest
from c2pa import Context, Reader

from service.photo import manifests
from service.photo.credentials import CredentialReader, _credential, library_state
from service.settings import load_settings
from tests.support.photos import GOOD, encode, photo
from tests.support.signing import IDENTITY, MIME, ODD, STRANGER, TRUSTED, VOCABULARY, Authority, tampered

GENERATED = ["trainedAlgorithmicMedia"]
PARTLY = ["compositeWithTrainedAlgorithmicMedia"]
UNTRUSTED = "signingCredential.untrusted"
BOTH = TRUSTED.anchors + STRANGER.anchors


@pytest.fixture(scope="module")
def reader() -> CredentialReader:
    """Trusts `TRUSTED` alone."""
    return CredentialReader(TRUSTED.anchors)


@pytest.fixture(scope="module")
def files() -> dict[str, bytes]:
    """Plain photos by kind."""
    return {kind: encode(photo(64, 48), kind) for kind in MIME}


@pytest.mark.parametrize("kind", MIME)
def test_a_trusted_signers_word_counts(reader: CredentialReader, files: dict[str, bytes], kind: str) -> None:
    found = reader.read(TRUSTED.sign(files[kind], kind, GENERATED))
    assert found is not None
    assert (found.status, found.declares, found.problems) == ("valid", ("trainedAlgorithmicMedia",), ())
    assert (found.generator, found.signer) == ("Throw-away Paint 1.0", "Trusted Makers signer, Trusted Makers")
    assert (found.signature_holds, found.unchanged, found.signer_trusted, found.in_time) == (True,) * 4
    assert [(each.relationship, each.decides) for each in found.versions] == [("active", "generated")]
    assert found.says_generated
    assert not found.says_partly_generated


@pytest.mark.parametrize("kind", MIME)
def test_a_strangers_word_does_not(reader: CredentialReader, files: dict[str, bytes], kind: str) -> None:
    found = reader.read(STRANGER.sign(files[kind], kind, GENERATED))
    assert found is not None
    assert (found.status, found.problems) == ("untrusted", ("signingCredential.untrusted",))
    assert found.declares == ("trainedAlgorithmicMedia",)
    assert not found.says_generated


def test_by_default_nobody_is_trusted(files: dict[str, bytes]) -> None:
    found = CredentialReader().read(TRUSTED.sign(files["JPEG"], "JPEG", GENERATED))
    assert found is not None
    assert found.status == "untrusted"


def test_other_pixels_under_the_same_signature(reader: CredentialReader, files: dict[str, bytes]) -> None:
    found = reader.read(tampered(TRUSTED.sign(files["JPEG"], "JPEG", GENERATED)))
    assert found is not None
    assert found.status == "invalid"
    assert (found.signature_holds, found.unchanged, found.signer_trusted) == (True, False, True)
    assert "assertion.dataHash.mismatch" in found.problems
    assert not found.says_generated


def test_a_credential_moved_to_another_photo(reader: CredentialReader, files: dict[str, bytes]) -> None:
    tables = b"\xff\xdb\x00\x43\x00"  # marker, length, number: two bytes alone may stand in a signature
    signed = TRUSTED.sign(files["JPEG"], "JPEG", GENERATED)
    head = signed[: signed.index(tables)]  # the credential is among it
    other = encode(photo(64, 48, seed=1), "JPEG")
    found = reader.read(head + other[other.index(tables) :])
    assert found is not None
    assert found.status == "invalid"


@pytest.mark.parametrize("name", GOOD)
def test_a_photo_without_one(reader: CredentialReader, name: str) -> None:
    assert reader.read(GOOD[name]) is None


@pytest.mark.parametrize(
    ("term", "generated", "partly"),
    [
        ("trainedAlgorithmicMedia", True, False),
        ("http://c2pa.org/digitalsourcetype/trainedAlgorithmicData", True, False),
        (VOCABULARY.replace("http:", "https:") + "trainedAlgorithmicMedia", True, False),
        ("x:TRAINEDALGORITHMICMEDIA", False, False),
        (VOCABULARY + "TrainedAlgorithmicMEDIA", True, False),
        ("compositeWithTrainedAlgorithmicMedia", False, True),
        ("compositeSynthetic", False, True),
        ("algorithmicMedia", False, False),
        ("digitalCapture", False, False),
    ],
)
def test_what_is_ai(
    reader: CredentialReader, files: dict[str, bytes], term: str, generated: bool, partly: bool
) -> None:
    found = reader.read(TRUSTED.sign(files["PNG"], "PNG", [term]))
    assert found is not None
    assert (found.says_generated, found.says_partly_generated) == (generated, partly)


def test_terms_come_bare_too_and_what_was_placed_is_a_part() -> None:
    assert decided({"action": "c2pa.edited", "digitalSourceType": "trainedalgorithmicmedia"}) == "generated"
    assert decided({"action": "c2pa.placed", "digitalSourceType": "trainedAlgorithmicMedia"}) == "partly_generated"


def decided(action: dict[str, str]) -> str | None:
    """Return what a trusted manifest with this action decides."""
    return manifests.versions(store([{"assertions": [{"label": "c2pa.actions", "data": {"actions": [action]}}]}]))[
        0
    ].decides


def store(parts: list[dict[str, Any]], state: str = "trusted") -> dict[str, Any]:
    """Return a store of manifests `0`, `1`, … as the library writes it; the first is active, whole and trusted."""
    success = ["claimSignature.validated", "claimSignature.insideValidity", f"signingCredential.{state}"]
    return {
        "active_manifest": "0",
        "manifests": {str(place): part for place, part in enumerate(parts)},
        "validation_results": {
            "activeManifest": {"success": [{"code": code} for code in success], "failure": []},
            "ingredientDeltas": [],
        },
    }


def test_an_edited_generated_photo_stays_generated(reader: CredentialReader, files: dict[str, bytes]) -> None:
    generated = TRUSTED.sign(files["JPEG"], "JPEG", GENERATED)
    found = reader.read(TRUSTED.sign(encode(photo(48, 48), "JPEG"), "JPEG", parent=generated))
    assert found is not None
    assert (found.status, found.declares) == ("valid", ("trainedAlgorithmicMedia",))
    assert found.says_generated


def test_ai_over_an_unsigned_photo_counts(reader: CredentialReader, files: dict[str, bytes]) -> None:
    plain = files["JPEG"]
    for term, says in ((GENERATED, (True, False)), (PARTLY, (False, True))):
        found = reader.read(TRUSTED.sign(plain, "JPEG", term, plain, action="c2pa.edited"))
        assert found is not None
        assert (found.status, found.problems, found.declares) == ("valid", (), tuple(term))
        assert (found.says_generated, found.says_partly_generated) == says


def test_a_parent_of_the_older_kind_is_read(reader: CredentialReader, files: dict[str, bytes]) -> None:
    """Its ingredient assertion holds a list of codes, here that the library trusted nobody when it signed."""
    old = TRUSTED.sign(files["JPEG"], "JPEG", GENERATED, claim_version=1)
    signed = TRUSTED.sign(files["JPEG"], "JPEG", [], old, claim_version=1)
    with Reader("image/jpeg", io.BytesIO(signed)) as raw:
        made = json.loads(raw.json())
    (ingredient,) = made["manifests"][made["active_manifest"]]["ingredients"]
    assert "validation_results" not in ingredient
    assert [each["code"] for each in ingredient["validation_status"]] == [UNTRUSTED]
    found = reader.read(signed)
    assert found is not None
    assert [(each.relationship, each.status) for each in found.versions] == [("active", "valid"), ("parentOf", "valid")]
    assert found.says_generated


@pytest.mark.parametrize(
    ("recorded", "status"),
    [
        ([], "valid"),
        ([UNTRUSTED], "valid"),  # whom we trust, we know
        (["claimSignature.mismatch"], "invalid"),
        (["assertion.dataHash.mismatch", UNTRUSTED], "invalid"),
        (["signingCredential.expired"], "untrusted"),
    ],
)
def test_what_was_recorded_of_a_parent_stays(recorded: list[str], status: str) -> None:
    ingredient = {
        "relationship": "parentOf", "active_manifest": "1",
        "validation_status": [{"code": code, "url": "self#jumbf=c2pa.signature"} for code in recorded],
    }  # fmt: skip
    made = store([{"ingredients": [ingredient]}, {}])
    success = ["claimSignature.validated", "signingCredential.trusted"]
    success_of_parent = [{"code": code, "url": "self#jumbf=/c2pa/1/c2pa.signature"} for code in success]
    made["validation_results"]["ingredientDeltas"] = [{"validationDeltas": {"success": success_of_parent}}]
    assert [each.status for each in manifests.versions(made)] == ["valid", status]


def test_a_stranger_cannot_record_that_he_is_trusted() -> None:
    """What is recorded already, the library does not repeat: also not that it finds somebody unknown."""
    codes = {"success": ["claimSignature.validated", "signingCredential.trusted"], "failure": [UNTRUSTED]}
    entries = {
        kind: [{"code": code, "url": "self#jumbf=/c2pa/1/c2pa.signature"} for code in each]
        for kind, each in codes.items()
    }
    ingredient = {
        "relationship": "parentOf", "active_manifest": "1", "validation_results": {"activeManifest": entries},
    }  # fmt: skip
    made = store([{"ingredients": [ingredient]}, {}])
    assert [each.status for each in manifests.versions(made)] == ["valid", "untrusted"]


def test_a_parent_that_cannot_be_believed_is_shown_and_decides_nothing(
    reader: CredentialReader, files: dict[str, bytes]
) -> None:
    for parent, status in (
        (tampered(TRUSTED.sign(files["JPEG"], "JPEG", GENERATED)), "invalid"),
        (STRANGER.sign(files["JPEG"], "JPEG", GENERATED), "untrusted"),
    ):
        found = reader.read(TRUSTED.sign(encode(photo(48, 48), "JPEG"), "JPEG", parent=parent))
        assert found is not None
        assert (found.status, found.declares) == ("valid", ("trainedAlgorithmicMedia",))
        assert [(each.status, each.declares) for each in found.versions] == [
            ("valid", ()),
            (status, ("trainedAlgorithmicMedia",)),
        ]
        assert not found.says_generated


def test_whom_a_trusted_signer_trusts_is_not_whom_we_trust(files: dict[str, bytes]) -> None:
    parent = STRANGER.sign(files["JPEG"], "JPEG", GENERATED)
    signed = TRUSTED.sign(
        files["JPEG"], "JPEG", ["digitalCapture"], parent, trusts=STRANGER.anchors, action="c2pa.edited"
    )
    for anchors, status, state in ((TRUSTED.anchors, "untrusted", "Valid"), (BOTH, "valid", "Trusted")):
        found = CredentialReader(anchors).read(signed)
        assert found is not None
        assert [each.status for each in found.versions] == ["valid", status]
        assert (found.status, found.says_generated, library_state(found)) == ("valid", status == "valid", state)


def test_a_trusted_parent_of_an_untrusted_version_decides_nothing(
    reader: CredentialReader, files: dict[str, bytes]
) -> None:
    parent = TRUSTED.sign(files["JPEG"], "JPEG", GENERATED)
    found = reader.read(STRANGER.sign(files["JPEG"], "JPEG", parent=parent))
    assert found is not None
    assert [(each.status, each.declares) for each in found.versions] == [("untrusted", ()), ("valid", tuple(GENERATED))]
    assert not found.says_generated


def test_a_component_is_a_part_and_an_input_is_none(reader: CredentialReader, files: dict[str, bytes]) -> None:
    generated = TRUSTED.sign(files["JPEG"], "JPEG", GENERATED)
    for relationship, shown, partly in (("componentOf", True, True), ("inputTo", False, False)):
        signed = TRUSTED.sign(files["JPEG"], "JPEG", ["digitalCapture"], generated, relationship=relationship)
        found = reader.read(signed)
        assert found is not None
        assert found.versions[1].relationship == relationship
        assert ("trainedAlgorithmicMedia" in found.declares) == shown
        assert (found.says_generated, found.says_partly_generated) == (False, partly)


def test_a_component_alone_under_a_manifest_without_actions_is_the_picture(
    reader: CredentialReader, files: dict[str, bytes]
) -> None:
    """ChatGPT wrote so in spring 2025."""
    generated = TRUSTED.sign(files["JPEG"], "JPEG", GENERATED, claim_version=1)
    signed = TRUSTED.sign(files["JPEG"], "JPEG", [], generated, claim_version=1, relationship="componentOf")
    found = reader.read(signed)
    assert found is not None
    assert (found.status, found.says_generated) == ("valid", True)


@pytest.fixture(scope="module")
def expired(files: dict[str, bytes]) -> tuple[Authority, dict[str, bytes]]:
    """An authority and what its signer signed while the certificate was valid: a file, and a later version of it."""
    authority = Authority("Expired", lasts=timedelta(seconds=5))
    until = time.time() + 5
    signed = authority.sign(files["JPEG"], "JPEG", GENERATED, claim_version=1)
    later = TRUSTED.sign(files["JPEG"], "JPEG", PARTLY, signed, action="c2pa.edited", claim_version=1)
    time.sleep(max(0.0, until - time.time()) + 1)
    return authority, {"signed": signed, "later": later}


def test_an_expired_certificate_is_no_change(expired: tuple[Authority, dict[str, bytes]]) -> None:
    authority, files = expired
    for anchors, known in (("", False), (authority.anchors, None)):  # the library does not say whether it knew it
        found = CredentialReader(anchors).read(files["signed"])
        assert found is not None
        assert (found.status, "signingCredential.expired" in found.problems) == ("untrusted", True)
        assert (found.signature_holds, found.unchanged, found.signer_trusted, found.in_time) == (
            (True, True, known, False)
        )  # fmt: skip
        assert library_state(found) == "Invalid"
        assert not found.says_generated


def test_an_expired_parent_leaves_a_trusted_version_its_word(expired: tuple[Authority, dict[str, bytes]]) -> None:
    authority, files = expired
    found = CredentialReader(TRUSTED.anchors + authority.anchors).read(files["later"])
    assert found is not None
    assert [each.status for each in found.versions] == ["valid", "untrusted"]
    assert (found.status, found.says_generated, found.says_partly_generated) == ("valid", False, True)
    assert found.problems == ("signingCredential.expired",)
    assert library_state(found) == "Invalid"


def test_an_unexpected_key_usage_is_no_change(files: dict[str, bytes]) -> None:
    signed = ODD.sign(files["JPEG"], "JPEG", GENERATED)
    found = CredentialReader(ODD.anchors).read(signed)
    assert found is not None
    assert (found.status, "signingCredential.invalid" in found.problems) == ("untrusted", True)
    assert (found.signature_holds, found.unchanged, found.in_time) == (True, True, True)
    allowed = CredentialReader(ODD.anchors, key_usages=("1.3.6.1.4.1.99999.1",)).read(signed)
    assert allowed is not None
    assert (allowed.status, allowed.says_generated) == ("valid", True)


def test_a_signature_that_does_not_hold(reader: CredentialReader, files: dict[str, bytes]) -> None:
    signed = TRUSTED.sign(files["JPEG"], "JPEG", GENERATED)
    place = signed.index(b"Throw-away Paint")  # in the claim
    found = reader.read(signed[:place] + b"t" + signed[place + 1 :])
    assert found is not None
    assert (found.status, found.signature_holds, found.unchanged) == ("invalid", False, None)
    assert not found.says_generated


HERE = Path(__file__).parent


def test_a_trusted_time_stamp_outlives_the_certificate() -> None:
    """`stamped.jpg`: signed by a throw-away certificate of five seconds, stamped by a throw-away authority."""
    data = (HERE / "stamped.jpg").read_bytes()
    signers, stamps = ((HERE / f"stamped_{name}.pem").read_text() for name in ("signer", "time"))
    alone = CredentialReader(signers).read(data)
    assert alone is not None
    assert (alone.status, alone.signer_trusted, alone.in_time) == ("untrusted", True, False)
    both = CredentialReader(signers, time_stamp_anchors=stamps).read(data)
    assert both is not None
    assert (both.status, both.signer_trusted, both.in_time, both.problems) == ("valid", True, True, ())
    assert both.says_generated


def test_who_stamps_is_not_trusted_to_sign(files: dict[str, bytes]) -> None:
    data = (HERE / "stamped.jpg").read_bytes()
    signers, stamps = ((HERE / f"stamped_{name}.pem").read_text() for name in ("signer", "time"))
    for anchors in ("", TRUSTED.anchors):
        reader = CredentialReader(anchors, time_stamp_anchors=stamps + signers + STRANGER.anchors)
        found = reader.read(data)
        assert found is not None
        assert (found.status, found.signer_trusted, found.in_time) == ("untrusted", False, True)
        found = reader.read(STRANGER.sign(files["JPEG"], "JPEG", GENERATED))
        assert found is not None
        assert (found.status, found.signer_trusted) == ("untrusted", False)
    parent = STRANGER.sign(files["JPEG"], "JPEG", GENERATED)
    found = reader.read(TRUSTED.sign(files["JPEG"], "JPEG", parent=parent))
    assert found is not None
    assert [each.status for each in found.versions] == ["valid", "untrusted"]
    assert not found.says_generated


def test_an_identity_assertion_is_told_apart(reader: CredentialReader, files: dict[str, bytes]) -> None:
    signed = TRUSTED.sign(files["JPEG"], "JPEG", GENERATED, assertions=[IDENTITY])
    with Reader("image/jpeg", io.BytesIO(signed)) as raw:  # as it is checked by default
        assert any("cawg" in each["code"] for each in json.loads(raw.json())["validation_status"])
    found = reader.read(signed)
    assert found is not None
    assert (found.status, found.problems, found.identity) == ("valid", (), "cawg.identity")
    assert found.says_generated


@pytest.mark.parametrize(
    "anchors", ["no certificate", "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n"]
)
def test_anchors_that_are_none(anchors: str) -> None:
    with pytest.raises(ValueError, match="holds no PEM certificates"):
        CredentialReader(anchors)


def test_threads_share_a_reader(reader: CredentialReader, files: dict[str, bytes]) -> None:
    signed = [
        authority.sign(files[kind], kind, GENERATED)
        for authority in (TRUSTED, STRANGER)
        for kind in MIME
        for _ in range(4)
    ]
    with ThreadPoolExecutor(4) as threads:
        found = [each.status for each in threads.map(reader.read, signed * 5) if each]
    assert found == (["valid"] * 12 + ["untrusted"] * 12) * 5


@pytest.mark.parametrize("path", ["c2pa", "manifest"])
def test_nothing_is_fetched(reader: CredentialReader, files: dict[str, bytes], path: str) -> None:
    """XMP may name a manifest elsewhere; asking for it would let a stranger make the service call anyone."""
    asked: list[str] = []

    class Watch(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            asked.append(self.path)
            self.send_error(404)

    server = HTTPServer(("127.0.0.1", 0), Watch)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    link = f"http://127.0.0.1:{server.server_port}/{path}"
    packet = (
        '<x:xmpmeta xmlns:x="adobe:ns:meta/"><rdf:RDF xmlns:rdf="http://www.w3.org/1999/02/22-rdf-syntax-ns#">'
        '<rdf:Description xmlns:dcterms="http://purl.org/dc/terms/"'
        f' dcterms:provenance="{link}"/></rdf:RDF></x:xmpmeta>'
    ).encode()
    pointing = {
        "by hand": encode(photo(64, 48), "JPEG", xmp=packet),
        **{f"by the library, {kind}": TRUSTED.sign(files[kind], kind, GENERATED, link=link) for kind in MIME},
    }
    for name, data in pointing.items():
        found = reader.read(data)
        assert found is not None, name
        assert (found.status, found.problems, found.versions) == ("elsewhere", (), ()), name
        assert not found.says_generated
    packed = reader.read(files["PNG"], kind="PNG", xmp=packet)
    assert packed is not None
    assert packed.status == "elsewhere"
    server.shutdown()
    assert asked == []


def test_what_was_in_the_file_once_is_not_elsewhere(reader: CredentialReader) -> None:
    packet = b'<rdf:Description dcterms:provenance="self#jumbf=/c2pa/adobe:urn:uuid:1/c2pa.claim"/>'
    assert reader.read(encode(photo(64, 48), "JPEG", xmp=packet)) is None


def test_a_strangers_words_are_cut_short() -> None:
    long = "x\u202e\n" * 1000
    manifest: dict[str, Any] = {
        "claim_generator_info": [{"name": long}], "signature_info": {"issuer": long}, "ingredients": [],
        "assertions": [{"label": "c2pa.actions", "data": {"actions": [
            {"action": "c2pa.created", "digitalSourceType": f"{number}{long}"} for number in range(100)
        ]}}],
    }  # fmt: skip
    many = [
        {**manifest, "ingredients": [{"relationship": "parentOf", "active_manifest": str(n)}]} for n in range(1, 99)
    ]
    found = _credential(store([*many, manifest]))
    assert len(found.declares) == 20
    assert len(found.versions) == 50
    for text in (*found.declares, *found.versions[-1].declares, found.generator, found.signer):
        assert text is not None
        assert len(text) <= 200
        assert text.isprintable()


def test_versions_in_a_circle_end() -> None:
    parent = {"relationship": "parentOf", "active_manifest": "0"}
    found = _credential(store([{"ingredients": [parent], "assertions": []}]))
    assert (found.status, len(found.versions)) == ("valid", 1)


@pytest.mark.parametrize("wrong", [None, "text", 3, [None], [[]], [{"label": "c2pa.actions", "data": 3}], {"a": 1}])
def test_parts_of_another_form_are_passed_over(wrong: Any) -> None:
    manifest = dict.fromkeys(("assertions", "ingredients", "claim_generator_info", "signature_info"), wrong)
    found = _credential(store([manifest]))
    assert (found.status, found.declares) == ("valid", ())


@pytest.mark.parametrize("kind", MIME)
def test_damaged_ones_never_gain_trust(reader: CredentialReader, files: dict[str, bytes], kind: str) -> None:
    """Bytes of the file are changed at random; whatever comes out is no exception, and no stranger is trusted."""
    dice = random.Random(0)
    signed = STRANGER.sign(files[kind], kind, GENERATED)
    for _ in range(200):
        data = bytearray(signed)
        for _ in range(dice.choice([1, 1, 4, 64])):
            data[dice.randrange(4, len(data))] = dice.randrange(256)
        if dice.random() < 0.2:
            del data[dice.randrange(4, len(data)) :]
        found = reader.read(bytes(data))
        assert found is None or found.status in {"untrusted", "invalid", "unreadable"}
        assert found is None or not (found.says_generated or found.signer_trusted)


def test_our_state_is_the_librarys(files: dict[str, bytes]) -> None:
    """`Valid` is C2PA's word for a whole credential of anybody."""
    signed = {
        "Trusted": TRUSTED.sign(files["JPEG"], "JPEG", GENERATED),
        "Valid": STRANGER.sign(files["JPEG"], "JPEG", GENERATED),
        "Invalid": tampered(TRUSTED.sign(files["JPEG"], "JPEG", GENERATED)),
    }
    context = Context.from_dict({"trust": {"trust_anchors": TRUSTED.anchors}})
    for state, data in signed.items():
        with Reader("image/jpeg", io.BytesIO(data), context=context) as raw:
            assert json.loads(raw.json())["validation_state"] == state
        found = CredentialReader(TRUSTED.anchors).read(data)
        assert found is not None
        assert library_state(found) == state


@pytest.mark.parametrize(
    ("name", "value", "message"),
    [
        ("C2PA_TRUST_ANCHORS", "none.pem", "it cannot be read"),
        ("C2PA_TRUST_ANCHORS", "text", "it holds no PEM certificates"),
        ("C2PA_TIME_STAMP_ANCHORS", "none.pem", "it cannot be read"),
        ("C2PA_TIME_STAMP_ANCHORS", "text", "it holds no PEM certificates"),
        ("C2PA_KEY_USAGES", "1.3.6,9", "'9' is not an object identifier such as 1.3.6"),
        ("C2PA_KEY_USAGES", "text", "'no certificate' is not an object identifier"),
        ("C2PA_KEY_USAGES", "nothing.cfg", "it is neither a list of object identifiers nor a file"),
    ],
)
def test_wrong_settings_are_told_in_one_line(
    name: str, value: str, message: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "text").write_text("no certificate")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv(name, value)
    with pytest.raises(SystemExit) as stopped:
        load_settings()
    assert f"error: {name}={value}: {message}" in str(stopped.value)
    assert "\n" not in str(stopped.value)


def test_settings_are_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, files: dict[str, bytes]) -> None:
    """A published list has names between the certificates, and comments between the usages."""
    (tmp_path / "anchors").write_text(
        f"Subject: Überall\n{ODD.anchors}\nSubject: x\n{TRUSTED.anchors}", encoding="utf-8"
    )
    (tmp_path / "usages").write_text("// odd\n\n1.3.6.1.4.1.99999.1\n# more\n1.3.6.1.5.5.7.3.36 \n")
    monkeypatch.setenv("C2PA_TRUST_ANCHORS", str(tmp_path / "anchors"))
    signed = ODD.sign(files["JPEG"], "JPEG", GENERATED)
    for usages, status in ((str(tmp_path / "usages"), "valid"), ("1.3.6.1.4.1.99999.1", "valid"), ("", "untrusted")):
        monkeypatch.setenv("C2PA_KEY_USAGES", usages)
        found = load_settings().credential_reader().read(signed)
        assert found is not None
        assert found.status == status
