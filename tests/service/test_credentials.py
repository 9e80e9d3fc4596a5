"""Content Credentials: who is believed, and what hostile ones can do."""

import io
import json
import random
import threading
from concurrent.futures import ThreadPoolExecutor
from http.server import BaseHTTPRequestHandler, HTTPServer

import pytest
from c2pa import Reader

from service.credentials import Credential, CredentialReader, _credential
from tests.service.photos import GOOD, encode, photo
from tests.service.signing import MIME, STRANGER, TRUSTED, tampered

GENERATED = ["trainedAlgorithmicMedia"]


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
    assert found == Credential(
        "valid", ("trainedAlgorithmicMedia",), "Throw-away Paint 1.0", "Trusted Makers signer, Trusted Makers"
    )
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
    assert "assertion.dataHash.mismatch" in found.problems
    assert not found.says_generated


def test_a_credential_moved_to_another_photo(reader: CredentialReader, files: dict[str, bytes]) -> None:
    signed = TRUSTED.sign(files["JPEG"], "JPEG", GENERATED)
    head = signed[: signed.index(b"\xff\xdb")]  # up to the quantization tables: the credential is among it
    other = encode(photo(64, 48, seed=1), "JPEG")
    found = reader.read(head + other[other.index(b"\xff\xdb") :])
    assert found is not None
    assert found.status == "invalid"


@pytest.mark.parametrize("name", GOOD)
def test_a_photo_without_one(reader: CredentialReader, name: str) -> None:
    assert reader.read(GOOD[name]) is None


def test_parts_and_cameras(reader: CredentialReader, files: dict[str, bytes]) -> None:
    parts = reader.read(TRUSTED.sign(files["PNG"], "PNG", ["compositeWithTrainedAlgorithmicMedia"]))
    assert parts is not None
    assert (parts.says_generated, parts.says_partly_generated) == (False, True)
    camera = reader.read(TRUSTED.sign(files["PNG"], "PNG", ["digitalCapture"]))
    assert camera is not None
    assert (camera.says_generated, camera.says_partly_generated) == (False, False)


def test_an_edited_generated_photo_stays_generated(reader: CredentialReader, files: dict[str, bytes]) -> None:
    generated = TRUSTED.sign(files["JPEG"], "JPEG", GENERATED)
    found = reader.read(TRUSTED.sign(encode(photo(48, 48), "JPEG"), "JPEG", parent=generated))
    assert found is not None
    assert (found.status, found.declares) == ("valid", ("trainedAlgorithmicMedia",))


def test_a_parent_that_cannot_be_believed_declares_nothing(reader: CredentialReader, files: dict[str, bytes]) -> None:
    for parent in (
        tampered(TRUSTED.sign(files["JPEG"], "JPEG", GENERATED)),
        STRANGER.sign(files["JPEG"], "JPEG", GENERATED),
    ):
        found = reader.read(TRUSTED.sign(encode(photo(48, 48), "JPEG"), "JPEG", parent=parent))
        assert found is not None
        assert (found.status, found.declares) == ("valid", ())


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


def test_nothing_is_fetched(reader: CredentialReader, files: dict[str, bytes]) -> None:
    """XMP may name a manifest elsewhere; asking for it would let a stranger make the service call anyone."""
    asked: list[str] = []

    class Watch(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            asked.append(self.path)
            self.send_error(404)

    server = HTTPServer(("127.0.0.1", 0), Watch)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    link = f"http://127.0.0.1:{server.server_port}/c2pa"
    xmp = (
        '<x:xmpmeta xmlns:x="adobe:ns:meta/"><rdf:RDF xmlns:rdf="http://www.w3.org/1999/02/22-rdf-syntax-ns#">'
        '<rdf:Description xmlns:dcterms="http://purl.org/dc/terms/"'
        f' dcterms:provenance="{link}"/></rdf:RDF></x:xmpmeta>'
    )
    data = encode(photo(64, 48), "JPEG", xmp=xmp.encode())
    assert b"c2pa" in data  # so the library is asked
    found = reader.read(data)
    server.shutdown()
    assert asked == []
    assert found is None or found.status == "invalid"


def test_a_strangers_words_are_cut_short() -> None:
    long = "x\u202e\n" * 1000
    manifest = {
        "claim_generator_info": [{"name": long}], "signature_info": {"issuer": long}, "ingredients": [],
        "assertions": [{"label": "c2pa.actions", "data": {"actions": [
            {"action": "c2pa.created", "digitalSourceType": f"{number}{long}"} for number in range(100)
        ]}}],
    }  # fmt: skip
    found = _credential({"active_manifest": "a", "manifests": {"a": manifest}, "validation_state": "Invalid"})
    assert len(found.declares) == 20
    for text in (*found.declares, found.generator, found.signer):
        assert text is not None
        assert len(text) <= 200
        assert text.isprintable()


def test_versions_in_a_circle_end() -> None:
    whole = {"activeManifest": {"failure": []}}
    parent = {"relationship": "parentOf", "active_manifest": "a", "validation_results": whole}
    manifest = {"ingredients": [parent], "assertions": []}
    found = _credential({"active_manifest": "a", "manifests": {"a": manifest}, "validation_state": "Trusted"})
    assert found.status == "valid"


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
        assert found is None or found.status in {"untrusted", "invalid"}


def test_the_library_says_trusted_and_valid_as_we_read_it(files: dict[str, bytes]) -> None:
    """`Valid` is C2PA's word for a whole credential of anybody."""
    with Reader("image/jpeg", io.BytesIO(STRANGER.sign(files["JPEG"], "JPEG", GENERATED))) as found:
        assert json.loads(found.json())["validation_state"] == "Valid"
