"""What a file says of its making, over HTTP: each kind of evidence, and metadata that mean harm."""

import struct
import zlib
from typing import Any

import pytest
from starlette.testclient import TestClient

from service.models.decision import Decision, with_evidence
from service.models.detector import Detector
from service.photo.provenance import Credential, CredentialStatus, CredentialVersion, Saying
from tests.support.marked import MARKED, XMP
from tests.support.photos import chunk, encode, photo, with_chunk
from tests.support.server import released_model
from tests.support.signing import IDENTITY, MIME, ODD, STRANGER, TRUSTED, tampered

GENERATED = ["trainedAlgorithmicMedia"]
JPEG, PNG, WEBP = (encode(photo(), kind) for kind in ("JPEG", "PNG", "WEBP"))


@pytest.mark.parametrize("name", MARKED)
def test_a_marker_is_told_and_changes_nothing(client: TestClient, name: str) -> None:
    data, marker = MARKED[name]
    answer = ask(client, data)
    provenance = answer["provenance"]
    assert provenance["marks"]
    assert (provenance["c2pa"], provenance["ai_markers"], provenance["trust"]) == (None, [marker], "claimed")
    assert answer["decided_by"] == "pixels"


@pytest.mark.parametrize("kind", MIME)
def test_a_valid_credential_that_declares_ai_flags(client: TestClient, kind: str) -> None:
    plain = encode(photo(), kind)
    before, answer = ask(client, plain), ask(client, TRUSTED.sign(plain, kind, GENERATED))
    assert before["decision"] != "flag"
    assert (answer["decision"], answer["decided_by"]) == ("flag", "credential")
    assert (answer["probability"], answer["prediction"]) == (before["probability"], before["prediction"])
    said = {
        "status": "valid", "declares": GENERATED, "generator": "Throw-away Paint 1.0",
        "signer": "Trusted Makers signer, Trusted Makers",
    }  # fmt: skip
    facts = dict.fromkeys(("signature_holds", "unchanged", "signer_trusted", "in_time"), True)
    version = said | {"relationship": "active", "decides": "generated"}
    assert answer["provenance"] == {
        "c2pa": said | facts | {"problems": [], "identity": None, "versions": [version]},
        "marks": [], "ai_markers": [], "trust": "verified",
    }  # fmt: skip


def test_ai_over_an_unsigned_photo_decides(client: TestClient) -> None:
    generated = ask(client, TRUSTED.sign(JPEG, "JPEG", GENERATED, JPEG, action="c2pa.edited"))
    assert (generated["decision"], generated["decided_by"]) == ("flag", "credential")
    plain = ask(client, JPEG)
    filled = ask(
        client, TRUSTED.sign(JPEG, "JPEG", ["compositeWithTrainedAlgorithmicMedia"], JPEG, action="c2pa.edited")
    )
    (version,) = filled["provenance"]["c2pa"]["versions"]
    assert version["decides"] == "partly_generated"
    assert filled["decision"] == ("review" if plain["decision"] == "clear" else plain["decision"])


def test_no_other_credential_does(client: TestClient) -> None:
    decision = ask(client, JPEG)["decision"]
    files = {
        "untrusted": STRANGER.sign(JPEG, "JPEG", GENERATED),
        "invalid": tampered(TRUSTED.sign(JPEG, "JPEG", GENERATED)),
        "valid": TRUSTED.sign(JPEG, "JPEG", ["digitalCapture"]),
        "untrusted, an odd certificate": ODD.sign(JPEG, "JPEG", GENERATED),
        "untrusted, a parent": STRANGER.sign(JPEG, "JPEG", parent=TRUSTED.sign(JPEG, "JPEG", GENERATED)),
        "untrusted, an identity": STRANGER.sign(JPEG, "JPEG", GENERATED, assertions=[IDENTITY]),
        "elsewhere": TRUSTED.sign(JPEG, "JPEG", GENERATED, link="http://127.0.0.1:1/manifest"),
    }
    for name, data in files.items():
        status = name.partition(",")[0]
        answer = ask(client, data)
        assert answer["provenance"]["c2pa"]["status"] == status
        assert answer["provenance"]["trust"] == ("verified" if status == "valid" else "claimed")
        assert answer["decided_by"] == "pixels"
        if status != "invalid":  # those are other pixels
            assert answer["decision"] == decision


@pytest.mark.parametrize(
    ("status", "decides", "becomes"),  # of what was clear, review, flag by the pixels
    [
        ("valid", "generated", ("flag", "flag", "flag")),
        ("valid", "partly_generated", ("review", "review", "flag")),
        ("valid", None, ("clear", "review", "flag")),
        ("untrusted", None, ("clear", "review", "flag")),
        ("invalid", "generated", ("clear", "review", "flag")),  # its history is broken
        ("elsewhere", None, ("clear", "review", "flag")),
    ],
)
def test_what_a_credential_makes_of_a_decision(
    status: CredentialStatus, decides: Saying | None, becomes: tuple[str, ...]
) -> None:
    before: tuple[Decision, ...] = ("clear", "review", "flag")
    credential = Credential(status, versions=(CredentialVersion("active", "valid", decides=decides),))
    assert tuple(with_evidence(each, credential, False)[0] for each in before) == becomes
    assert tuple(with_evidence(each, None, False)[0] for each in before) == before


def test_a_mark_turns_clear_into_review_where_it_is_to() -> None:
    before: tuple[Decision, ...] = ("clear", "review", "flag")
    assert [with_evidence(each, None, True) for each in before] == [
        ("review", "mark"), ("review", "pixels"), ("flag", "pixels"),
    ]  # fmt: skip
    generated = Credential("valid", versions=(CredentialVersion("active", "valid", decides="generated"),))
    assert [with_evidence(each, generated, True)[1] for each in before] == ["credential", "credential", "pixels"]


def app1(content: bytes) -> bytes:
    """Return a JPEG with an APP1 segment after its start."""
    return JPEG[:2] + b"\xff\xe1" + struct.pack(">H", len(content) + 2) + content + JPEG[2:]


def app11(content: bytes) -> bytes:
    """Return a JPEG with a piece of JUMBF, the box format of C2PA, in an APP11 segment."""
    box = b"JP\x00\x01\x00\x00\x00\x01" + content
    return JPEG[:2] + b"\xff\xeb" + struct.pack(">H", len(box) + 2) + box + JPEG[2:]


def riff(kind: bytes, content: bytes) -> bytes:
    """Return a WebP file with another chunk at its end."""
    body = WEBP[8:] + kind + struct.pack("<I", len(content)) + content + b"\0" * (len(content) % 2)
    return b"RIFF" + struct.pack("<I", len(body)) + body


def nested(depth: int) -> bytes:
    """Return boxes in boxes, each said to be a superbox of C2PA."""
    content = b""
    for _ in range(depth):
        content = struct.pack(">I", 8 + len(content)) + b"jumb" + content
    return content


DESCRIPTION = struct.pack(">I", 30) + b"jumdc2pa\x00\x11\x00\x10\x80\x00\x00\xaa\x00\x38\x9b\x71\x03c2pa\x00"
STORE = struct.pack(">I", 8 + len(DESCRIPTION)) + b"jumb" + DESCRIPTION
SIGNED = STRANGER.sign(JPEG, "JPEG", GENERATED)
SIGNED_PNG = STRANGER.sign(PNG, "PNG", GENERATED)
EXIF = b"Exif\0\0"
XAP = b"http://ns.adobe.com/xap/1.0/\0"
ENTITIES = b'<!DOCTYPE x [<!ENTITY a "aaaaaaaaaa">' + b"".join(
    b'<!ENTITY %c "%s">' % (letter, b"&%c;" % (letter - 1) * 10) for letter in range(ord("b"), ord("k"))
)
MALFORMED: dict[str, bytes] = {
    # Content Credentials
    "c2pa_word_only": app1(b"c2pa"),
    "c2pa_empty_store": app11(STORE),
    "c2pa_no_box": app11(b"c2pa" * 1000),
    "c2pa_length_zero": app11(b"\0\0\0\0jumb" + b"c2pa"),
    "c2pa_length_huge": app11(b"\xff\xff\xff\xffjumb" + b"c2pa"),
    "c2pa_64_bit_length": app11(b"\0\0\0\x01jumb" + b"\xff" * 8 + b"c2pa"),
    "c2pa_nested": app11(nested(3000) + b"c2pa"),
    "c2pa_cut_short": SIGNED.replace(b"jumdc2cl", b"jumdc2c", 1),
    "c2pa_no_signature": SIGNED.replace(b"c2pa.signature", b"c2pa.signaturf"),
    "c2pa_no_claim": SIGNED.replace(b"c2pa.claim", b"c2pa.clain"),
    "c2pa_cbor_bomb": SIGNED.replace(b"digitalSourceType", b"\x9b\xff\xff\xff\xff\xff\xff\xff\xff" + b"a" * 8),
    "c2pa_png": with_chunk(PNG, b"caBX", STORE + b"c2pa"),
    "c2pa_png_cut": with_chunk(PNG, b"caBX", SIGNED_PNG[60:900]),
    "c2pa_webp": riff(b"C2PA", nested(200) + b"c2pa"),
    "c2pa_webp_noise": riff(b"C2PA", b"c2pa" + bytes(range(256)) * 50),
    # EXIF
    "exif_empty": app1(EXIF),
    "exif_no_header": app1(EXIF + b"\0" * 40),
    "exif_loop": app1(EXIF + b"MM\0*\0\0\0\x08\0\x01\x01\x31\0\x02\0\0\0\x05\0\0\0\x08\0\0\0\x08"),
    "exif_offset_outside": app1(EXIF + b"II*\0\xff\xff\xff\x7f"),
    "exif_count_huge": app1(EXIF + b"MM\0*\0\0\0\x08\0\x01\x01\x31\0\x02\xff\xff\xff\xff\0\0\0\x1a\0\0\0\0"),
    "exif_number_for_text": app1(EXIF + b"MM\0*\0\0\0\x08\0\x01\x01\x31\0\x03\0\0\0\x01\0\x07\0\0\0\0\0\0"),
    "exif_png": with_chunk(PNG, b"eXIf", b"MM\0*" + b"\xff" * 100),
    "exif_webp": riff(b"EXIF", b"II*\0" + b"\xff" * 100),
    # XMP
    "xmp_empty": app1(XAP),
    "xmp_no_xml": app1(XAP + bytes(range(256)) * 10),
    "xmp_entities": app1(XAP + ENTITIES + b"]><x>&j;</x>"),
    "xmp_external": app1(XAP + b'<!DOCTYPE x [<!ENTITY a SYSTEM "file:///etc/passwd">]><x>&a;</x>'),
    "xmp_deep": app1(XAP + b"<a>" * 15_000),
    "xmp_webp_utf16": riff(b"XMP ", XMP.decode().encode("utf-16")),
    # PNG text
    "text_no_end": with_chunk(PNG, b"tEXt", b"parameters"),
    "text_empty": with_chunk(PNG, b"iTXt", b""),
    "text_packed_wrong": with_chunk(PNG, b"zTXt", b"parameters\0\0no zlib"),
    "text_key_long": with_chunk(PNG, b"tEXt", b"k" * 100_000 + b"\0text"),
    "text_many": PNG[:33] + chunk(b"tEXt", b"prompt\0x") * 3_000 + PNG[33:],
    "text_bomb": with_chunk(PNG, b"zTXt", b"workflow\0\0" + zlib.compress(b"\0" * 60_000_000)),
    "xmp_png_bomb": with_chunk(PNG, b"iTXt", b"XML:com.adobe.xmp\0\x01\0\0\0" + zlib.compress(b"<" * 60_000_000)),
}  # fmt: skip


@pytest.mark.parametrize("name", MALFORMED)
def test_malformed_metadata_do_no_harm(client: TestClient, name: str) -> None:
    answer = client.post("/predict", files={"file": MALFORMED[name]})
    assert answer.status_code in {200, 413, 422}, answer.text
    if answer.status_code == 200:
        body = answer.json()
        assert body["decided_by"] == "pixels"
        status = (body["provenance"]["c2pa"] or {"status": None})["status"]
        assert status in {None, "invalid", "untrusted", "unreadable"}
    assert ask(client, PNG)["probability"] == pytest.approx(_plain(), abs=1e-5)


def test_there_are_thirty_of_them() -> None:
    assert len(MALFORMED) >= 30


def _plain() -> float:
    from service.photo import decode

    detector = Detector(released_model())
    pixels = detector.prepare(decode(PNG).image)
    return float(detector.score(pixels[None]).probability[0])


def ask(client: TestClient, data: bytes) -> dict[str, Any]:
    """Return the answer for a file."""
    answer = client.post("/predict", files={"file": data})
    assert answer.status_code == 200, answer.text
    body: dict[str, Any] = answer.json()
    return body
