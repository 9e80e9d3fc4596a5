"""What files say of their own making, unsigned: each row of the table, in each container that may hold it."""

import html
import json
import struct
import zlib
from pathlib import Path

import pytest
from PIL.PngImagePlugin import PngImageFile

from service.photo import decode, marks, xmp
from service.photo.marks import Mark
from tests.support import marked
from tests.support.marked import CONTAINERS, IPTC
from tests.support.photos import GOOD, chunk, encode, photo
from tests.support.signing import STRANGER

UUID = "4800156b-8880-4786-9056-7ca3da449d8c"
STEPS = "a shoe on a table\nNegative prompt: blurry\nSteps: 20, Sampler: Euler a, CFG scale: 7, Seed: 1, Size: 64x64"
AIGC = json.dumps({"Label": "1", "ContentProducer": "001191110102", "ProduceID": "e35"})
SOURCE_TYPE = "xmp:Iptc4xmpExt:DigitalSourceType"


def read(data: bytes) -> list[Mark]:
    return marks.read(decode(data).metadata)[0]


def markers(data: bytes) -> list[str]:
    return marks.read(decode(data).metadata)[1]


def told(data: bytes) -> list[tuple[str, str, str | None]]:
    return [(mark.where, mark.says, mark.generator) for mark in read(data)]


@pytest.mark.parametrize("name", GOOD)
def test_a_plain_photo_says_nothing(name: str) -> None:
    assert read(GOOD[name]) == []
    assert markers(GOOD[name]) == []


# ---- XMP


@pytest.mark.parametrize("kind", CONTAINERS)
@pytest.mark.parametrize("element", [True, False], ids=["element", "attribute"])
@pytest.mark.parametrize(
    ("value", "says"),
    [
        (f"{IPTC}trainedAlgorithmicMedia", "generated"),
        (f"{IPTC.replace('http:', 'https:')}trainedAlgorithmicMedia", "generated"),
        ("trainedAlgorithmicMedia", "generated"),
        ("TrainedAlgorithmicMedia", "generated"),
        ("http://c2pa.org/digitalsourcetype/trainedAlgorithmicData", "generated"),
        (f"{IPTC}compositeWithTrainedAlgorithmicMedia", "edited"),
        ("compositeSynthetic", "edited"),
        *((f"{IPTC}{term}", term) for term in (
            "algorithmicMedia", "screenCapture", "virtualRecording", "humanEdits", "algorithmicallyEnhanced",
            "computationalCapture", "digitalCapture",
        )),
    ],
)  # fmt: skip
def test_iptc_digital_source_type(kind: str, element: bool, value: str, says: str) -> None:
    data = marked.with_xmp(kind, marked.xmp(element, Iptc4xmpExt_DigitalSourceType=value))
    assert read(data) == [Mark("iptc_digital_source_type", SOURCE_TYPE, says)]
    known = {f"{IPTC}trainedAlgorithmicMedia", "trainedAlgorithmicMedia", f"{IPTC}compositeWithTrainedAlgorithmicMedia"}
    if value in known:
        assert markers(data) == [f"iptc:{value.removeprefix(IPTC)}"]


@pytest.mark.parametrize("value", ["trainedAlgorithmicMedi", "https://shop.example/trainedAlgorithmicMedia", "yes"])
def test_what_is_no_source_type_says_nothing(value: str) -> None:
    assert read(marked.with_xmp("JPEG", marked.xmp(Iptc4xmpExt_DigitalSourceType=value))) == []


@pytest.mark.parametrize("kind", CONTAINERS)
def test_apples_clean_up_is_an_edit(kind: str) -> None:
    packet = marked.xmp(
        Iptc4xmpExt_DigitalSourceType=f"{IPTC}compositeWithTrainedAlgorithmicMedia",
        photoshop_Credit="Apple Photos Clean Up",
    )
    assert told(marked.with_xmp(kind, packet)) == [
        (SOURCE_TYPE, "edited", "Apple Photos Clean Up"),
        ("xmp:photoshop:Credit", "edited", "Apple Photos Clean Up"),
    ]


@pytest.mark.parametrize("kind", CONTAINERS)
@pytest.mark.parametrize(
    ("name", "value", "says", "generator"),
    [
        ("Iptc4xmpExt_AISystemUsed", "Imagen", "generated", "Imagen"),
        ("Iptc4xmpExt_AISystemVersionUsed", "4", "generated", None),
        ("Iptc4xmpExt_AIPromptInformation", "a shoe", "generated", None),
        ("Iptc4xmpExt_AIPromptWriterName", "N. N.", "generated", None),
        ("photoshop_Credit", "Made with Google AI", "generated", "Google AI"),
        ("photoshop_Credit", "Edited with Google AI", "edited", "Google AI"),
        ("photoshop_Credit", "AI Generated", "generated", None),
        ("xmp_CreatorTool", "Draw Things", "generated", "Draw Things"),
        ("TC260_AIGC", AIGC, "generated", "001191110102"),
        ("TC260_AIGC", html.escape(AIGC), "generated", "001191110102"),
    ],
)
def test_other_properties_of_xmp(kind: str, name: str, value: str, says: str, generator: str | None) -> None:
    for element in (True, False):
        data = marked.with_xmp(kind, marked.xmp(element, **{name: value}))
        assert told(data) == [(f"xmp:{name.replace('_', ':')}", says, generator)]


def test_xmp_properties_in_lists_and_in_utf_16() -> None:
    packet = (
        marked.xmp(element=True, photoshop_Credit="X")
        .replace(b">X<", b"><rdf:Alt><rdf:li>AI Generated</rdf:li></rdf:Alt><")
        .decode()
    )
    for data in (packet.encode(), packet.encode("utf-16"), b"\xef\xbb\xbf" + packet.encode()):
        assert xmp.properties(data).own["http://ns.adobe.com/photoshop/1.0/", "Credit"] == ["AI Generated"]


def test_xmp_that_means_harm_ends_where_it_does() -> None:
    credit = ("http://ns.adobe.com/photoshop/1.0/", "Credit")
    packet = marked.xmp(element=True, photoshop_Credit="AI Generated")
    assert xmp.properties(packet[: packet.index(b"</rdf:Desc")]).own[credit] == ["AI Generated"]
    assert xmp.properties(b'<!DOCTYPE x [<!ENTITY a "AI Generated">]>' + packet).own == {}
    assert xmp.properties(b"<a>" * 300_000).own == {}
    many = packet.replace(
        b"</photoshop:Credit>", b"</photoshop:Credit>" + b"<photoshop:Credit>y</photoshop:Credit>" * 50_000
    )
    assert len(xmp.properties(many).own[credit]) <= 10_001


# ---- EXIF


@pytest.mark.parametrize("container", CONTAINERS)
@pytest.mark.parametrize("form", ["ascii", "utf-16-be", "utf-16-le", "bare"])
@pytest.mark.parametrize(
    ("text", "found"),
    [
        (STEPS, ("generation_parameters", "generated", "Stable Diffusion web UI")),
        (json.dumps({"sui_image_params": {"prompt": "a shoe"}}), ("generation_parameters", "generated", "SwarmUI")),
        (json.dumps({"prompt": {"1": {}}, "workflow": {}}), ("generation_parameters", "generated", "ComfyUI")),
        (json.dumps({"AIGC": json.loads(AIGC)}), ("gb45438_aigc", "generated", "001191110102")),
        (json.dumps({"AIGC": {"Label": 2, "ProduceID": "1"}}), ("gb45438_aigc", "possibly_generated", None)),
        (json.dumps({"AIGC": {"Label": "3", "ProduceID": "1"}}), ("gb45438_aigc", "suspected_generated", None)),
    ],
)
def test_exif_user_comment(container: str, form: str, text: str, found: tuple[str, str, str | None]) -> None:
    data = marked.with_exif(container, marked.comments(text)[form])
    kind, says, generator = found
    assert read(data) == [Mark(kind, "exif:UserComment", says, generator)]


@pytest.mark.parametrize("kind", CONTAINERS)
@pytest.mark.parametrize(
    ("fields", "where", "generator"),
    [
        ({"Software": "Midjourney v7"}, "exif:Software", "Midjourney"),
        ({"Software": "NovelAI Diffusion V4.5 C02D4F98"}, "exif:Software", "NovelAI"),
        ({"Software": "FLUX.1-dev"}, "exif:Software", "FLUX"),
        ({"Software": "OpenAI ChatGPT"}, "exif:Software", "ChatGPT"),
        ({"Make": "Ideogram AI"}, "exif:Make", "Ideogram"),
        ({"Model": 'prompt:{"1": {}}'}, "exif:Model", "ComfyUI"),
        ({"Make": 'Workflow: {"id": 1}'}, "exif:Make", "ComfyUI"),
        ({"ImageDescription": 'Prompt: {"id": 1}'}, "exif:ImageDescription", "ComfyUI"),
    ],
)
def test_exif_fields(kind: str, fields: dict[str, str], where: str, generator: str) -> None:
    assert told(marked.with_exif(kind, **fields)) == [(where, "generated", generator)]


@pytest.mark.parametrize("kind", CONTAINERS)
def test_grok_and_civitai_need_all_of_their_fields(kind: str) -> None:
    signed = "Signature: " + "IoR6YcSlkWo/83blBnOA15zT7nnWuDE3tT3xAgkhEQ5l/y2INMmO1Q=="
    comment = b"ASCII\0\0\0" + signed.encode()
    assert told(marked.with_exif(kind, comment, Artist=UUID, ImageDescription=signed)) == [
        ("exif:ImageDescription", "generated", "xAI Grok"),
        ("exif:UserComment", "generated", "xAI Grok"),
    ]
    assert read(marked.with_exif(kind, comment)) == []
    assert read(marked.with_exif(kind, b"ASCII\0\0\0Signature: me", Artist=UUID)) == []
    resources = marked.comments('{"resource-stack": {}}')["utf-16-be"]
    assert told(marked.with_exif(kind, resources, Artist="ai", Software=UUID)) == [
        ("exif:UserComment", "generated", "Civitai")
    ]
    assert read(marked.with_exif(kind, resources, Artist="ai")) == []


@pytest.mark.parametrize("kind", CONTAINERS)
def test_a_cameras_exif_says_nothing(kind: str) -> None:
    fields = {
        "Make": "Leica",
        "Model": "Q3",
        "Software": "Firmware 1.2",
        "Artist": "A. Ida",
        "ImageDescription": "steps",
    }
    assert read(marked.with_exif(kind, b"ASCII\0\0\0Steps: three, to the house", **fields)) == []


# ---- PNG text, and what PNG keeps as text

FORMS = ["tEXt", "zTXt", "iTXt", "iTXt packed"]


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize(
    ("key", "text", "says", "generator"),
    [
        ("parameters", STEPS, "generated", "Stable Diffusion web UI"),
        ("parameters", '{"sui_image_params": {}}', "generated", "SwarmUI"),
        ("parameters", '{"software": "RuinedFooocus"}', "generated", "RuinedFooocus"),
        ("parameters", '{"version": "Fooocus v2.5"}', "generated", "Fooocus"),
        ("parameters", '{"prompt": "a shoe", "Model": "x"}', "generated", None),
        ("prompt", "{}", "generated", "ComfyUI"),
        ("workflow", "{}", "generated", "ComfyUI"),
        ("invokeai_metadata", "{}", "generated", "InvokeAI"),
        ("invokeai_graph", "{}", "generated", "InvokeAI"),
        ("sd-metadata", "{}", "generated", "InvokeAI"),
        ("Dream", '"a shoe" -s50 -W512 -C7.5 -S1', "generated", "InvokeAI"),
        ("workflow", "order to cash", "possibly_generated", None),
        ("parameters", "alpha=0.1", "possibly_generated", None),
        ("sui_image_params", "{}", "generated", "SwarmUI"),
        ("fooocus_scheme", "fooocus", "generated", "Fooocus"),
        ("smproj", "{}", "generated", "Stability Matrix"),
        ("generation_data", "{}", "generated", "TensorArt"),
        ("AIGC", AIGC, "generated", "001191110102"),
        ("Description", f"a shoe --v 7 Job ID: {UUID}", "generated", "Midjourney"),
        ("Software", "NovelAI", "generated", "NovelAI"),
        ("Software", "ChatGPT", "generated", "ChatGPT"),
        ("Source", "NovelAI Diffusion V4.5", "generated", "NovelAI"),
        ("Title", "NovelAI generated image", "generated", "NovelAI"),
    ],
)
def test_png_text(form: str, key: str, text: str, says: str, generator: str | None) -> None:
    assert told(marked.png_text(key, text, form)) == [(f"png:{key}", says, generator)]


@pytest.mark.parametrize("form", FORMS)
def test_xmp_in_each_kind_of_png_text(form: str) -> None:
    """libvips packs it, and so every shop that makes its photos small with sharp."""
    packet = marked.xmp(Iptc4xmpExt_DigitalSourceType=f"{IPTC}trainedAlgorithmicMedia").decode()
    assert told(marked.png_text("XML:com.adobe.xmp", packet, form)) == [(SOURCE_TYPE, "generated", None)]
    assert read(marked.png_text("Comment", packet, form)) == []


def test_midjourneys_number_counts_beside_png_text_alone() -> None:
    packet = marked.xmp(Iptc4xmpExt_DigImageGUID=UUID)
    assert read(marked.with_xmp("JPEG", packet)) == []  # picture agencies number photos so
    text = chunk(b"tEXt", b"Author\0me") + chunk(b"tEXt", b"Description\0a shoe")
    data = marked.with_xmp("PNG", packet)
    assert told(data[:33] + text + data[33:]) == [("xmp:Iptc4xmpExt:DigImageGUID", "generated", "Midjourney")]


@pytest.mark.parametrize("kind", ["JPEG", "PNG"])
@pytest.mark.parametrize(
    ("credit", "found"),
    [
        ("Made with Google AI", [("iim:2:110", "generated", "Google AI")]),
        ("AI Generated", [("iim:2:110", "generated", None)]),
        ("Photo: A. Ida", []),
    ],
)
def test_iptc_iim_credit(kind: str, credit: str, found: list[tuple[str, str, str | None]]) -> None:
    assert told(marked.with_iim(kind, credit)) == found


def test_raw_profiles_of_exif_and_xmp() -> None:
    packet = marked.xmp(photoshop_Credit="AI Generated")
    data = marked.png_text("Raw profile type xmp", f"\nxmp\n{len(packet):8}\n{packet.hex()}\n", "zTXt")
    assert told(data) == [("xmp:photoshop:Credit", "generated", None)]
    jpeg = marked.with_exif("JPEG", Software="Midjourney")
    block = marked.sample(jpeg).info["exif"]
    data = marked.png_text("Raw profile type exif", f"\nexif\n{len(block):8}\n{block.hex()}\n", "zTXt")
    assert told(data) == [("exif:Software", "generated", "Midjourney")]


# ---- hidden in pixels, and behind the end


@pytest.mark.parametrize("kind", ["PNG", "WEBP"])
@pytest.mark.parametrize("packed", [True, False])
@pytest.mark.parametrize(
    ("text", "generator"),
    [(STEPS, "Stable Diffusion web UI"), (json.dumps({"Software": "NovelAI", "Comment": "{}"}), "NovelAI")],
)
def test_text_hidden_in_transparency(kind: str, packed: bool, text: str, generator: str) -> None:
    assert told(marked.with_hidden(kind, text, packed)) == [("pixels:stealth_pnginfo", "generated", generator)]


def test_hidden_text_is_bounded_and_must_be_parameters() -> None:
    assert read(marked.with_hidden("PNG", "good evening", packed=True)) == []
    bomb = decode(marked.with_hidden("PNG", "{" + " " * 300_000, packed=True)).metadata.hidden
    assert bomb is not None
    assert len(bomb) <= 1_000_000
    cut = decode(marked.with_hidden("PNG", STEPS, packed=False)).image
    assert marks.read(decode(encode(cut)).metadata) == ([], [])


@pytest.mark.parametrize("kind", ["JPEG", "PNG"])
def test_samsungs_records_behind_the_end(kind: str) -> None:
    edited = marked.with_samsung(kind, "PhotoEditor_Re_Edit_Data", {"genAIType": 1})
    assert told(edited) == [("samsung:PhotoEditor_Re_Edit_Data", "edited", "Samsung Photo Editor")]
    assert read(marked.with_samsung(kind, "PhotoEditor_Re_Edit_Data", {"genAIType": 0})) == []
    shown = read(marked.with_samsung(kind, "PEg_Info", {"genImageVersion": "v1", "genAIType": 8}))
    assert [(mark.says, mark.is_ai) for mark in shown] == [("shown", False)]
    assert read(encode(photo(), kind) + b'PhotoEditor_Re_Edit_Data{"genAIType": 1}') == []  # no trailer of Samsung's


def test_what_stands_behind_the_end_counts_for_nothing() -> None:
    png = encode(photo())
    assert read(marked.behind_the_end(png, "parameters", STEPS)) == []
    packet = marked.xmp(Iptc4xmpExt_DigitalSourceType=f"{IPTC}trainedAlgorithmicMedia")
    for kind in CONTAINERS:
        assert read(encode(photo(marked.SIDE, marked.SIDE), kind) + packet) == []


def test_a_credential_is_no_mark() -> None:
    signed = STRANGER.sign(encode(photo(), "JPEG"), "JPEG", ["trainedAlgorithmicMedia"])
    assert read(signed) == []  # it stands in the credential, which is judged as such


# ---- bounds, and earlier clients


def test_much_is_cut_short() -> None:
    one = chunk(b"zTXt", b"parameters\0\0" + zlib.compress(b'{"software": "' + b"x" * 900_000 + b'"}'))
    png = encode(photo())
    found = read(png[:33] + one * 8 + png[33:])
    assert len(found) == 1
    text = "\u202e\n" + "x" * 1000
    (mark,) = read(marked.with_xmp("JPEG", marked.xmp(Iptc4xmpExt_AISystemUsed=text)))
    assert mark.generator is not None
    assert len(mark.generator) == 200
    assert mark.generator.isprintable()


def test_a_png_is_opened_once(monkeypatch: pytest.MonkeyPatch) -> None:
    opened = []
    whole = PngImageFile._open  # type: ignore[attr-defined]
    monkeypatch.setattr(PngImageFile, "_open", lambda image: (opened.append(1), whole(image))[1])
    read(GOOD["png"])
    assert opened == [1]


def test_earlier_clients_read_the_words_they_know() -> None:
    png = marked.png_text("parameters", '{"sui_image_params": {}}')
    assert markers(png) == ["png:parameters (Stable Diffusion web UI)"]
    assert markers(marked.with_exif("JPEG", Software="Midjourney v7")) == ["exif:midjourney"]
    assert markers(marked.with_exif("JPEG", Software="ChatGPT")) == []  # they know no such name


def test_the_docs_have_every_row_of_the_table() -> None:
    text = (Path(__file__).resolve().parents[2] / "docs" / "PROVENANCE.md").read_text(encoding="utf-8")
    section = text[text.index("## Unsigned marks") :]
    for row in marks.TABLE:
        assert f"| `{row.kind}` |" in section, row.kind
        for place in row.places:
            assert place.split(":", 1)[1].rpartition(":")[2] in section, place


# ---- found by those who tried to break it


def test_no_text_makes_a_photo_fail_or_a_worker_wait() -> None:
    """Each of these took seconds, gigabytes, or the photo's answer."""
    long = "x" * 900_000
    rows = [
        marked.png_text("AIGC", "&#" + "9" * 5000 + ";"),
        marked.with_xmp("JPEG", marked.xmp(TC260_AIGC="&#" + "9" * 5000 + ";")),
        marked.with_exif("WEBP", marked.comments("Steps: 1, " * 50_000)["ascii"]),
        marked.with_exif("WEBP", marked.comments("Signature: " + "A" * 40 + " " * 50_000 + "!")["ascii"], Artist=UUID),
        marked.with_xmp("WEBP", f'<a xmlns:p="u:{long}">'.encode() + b"<p:b>" * 3000 + b"</a>"),
        _samsung_bomb(),
    ]
    png = encode(photo())
    texts = (
        chunk(b"zTXt", b"\0\0" + zlib.compress(b"\0" * 10**6)) * 200,
        chunk(b"iTXt", b"parameters\0\1\1\0\0" + zlib.compress(b"{" + b" " * 900_000 + b"}")) * 50,
        chunk(b"zTXt", b"parameters\0\0" + zlib.compress(b"{" + b" " * 900_000 + b"}")) * 30,
    )
    rows += [png[:33] + text + png[33:] for text in texts]
    for data in rows:
        found = read(data)
        assert all(mark.kind == "generation_parameters" for mark in found)
        assert sum(len(text) for _, text in decode(data).metadata.texts) <= 5_000_000


def _samsung_bomb() -> bytes:
    record = struct.pack("<HHI", 0, 0x0D91, 24) + b"PhotoEditor_Re_Edit_Data" + b" " * 900_000
    entries = struct.pack("<HHII", 0, 0x0D91, len(record), len(record)) * 1000
    directory = b"SEFH" + struct.pack("<II", 107, 1000) + entries
    return encode(photo(), "JPEG") + record + directory + struct.pack("<I", len(directory)) + b"SEFT"


@pytest.mark.parametrize("name", [
    "Flux 3D Viewer", "FLUX 3D Viewer", "Gemini Observatory", "Gemini 2 Duplicate Finder", "Sora Camera 3",
    "Leonardo 2.0 Scanner", "Grok JPEG 2000 v10", "FIREFLY 8SE V1.2", "Point Grey Firefly MV", "Dalle Photo",
])  # fmt: skip
def test_other_programs_of_a_like_name_are_none(name: str) -> None:
    assert read(marked.with_exif("JPEG", Software=name)) == []


@pytest.mark.parametrize(
    ("name", "generator"),
    [
        ("Gemini", "Gemini"), ("Google Gemini", "Gemini"), ("Gemini 2.5 Flash Image", "Gemini"), ("Sora 2", "Sora"),
        ("FLUX.1-schnell", "FLUX"), ("Adobe Firefly 3", "Adobe Firefly"), ("Leonardo.Ai", "Leonardo"),
        ("xAI Grok", "Grok"),
    ],
)  # fmt: skip
def test_generators_of_a_shared_name_are_told(name: str, generator: str) -> None:
    assert told(marked.with_exif("JPEG", Software=name)) == [("exif:Software", "generated", generator)]


@pytest.mark.parametrize("data", [
    marked.with_exif("JPEG", marked.comments('{"Label":"Shoes"}')["ascii"]),
    marked.with_exif("JPEG", marked.comments('{"prompt":"say cheese"}')["ascii"]),
    marked.with_exif("JPEG", marked.comments("Steps: 3, stairs up. Sampler: blue fabric swatch")["ascii"]),
    marked.with_exif("JPEG", ImageDescription="workflow: {final} approved"),
    marked.png_text("AIGC", '{"Label":"Red"}'),
    marked.png_text("Description", "Print job. Job ID: 20260114"),
    marked.png_text("Source", "Gemini North telescope"),
    marked.png_text("Title", "AI generated images: a debate"),
    marked.with_xmp("JPEG", marked.xmp(xmp_CreatorTool="Draw things with chalk")),
    marked.with_xmp("JPEG", marked.xmp(Iptc4xmpExt_AISystemUsed="None")),
])  # fmt: skip
def test_an_honest_sellers_words_are_no_mark(data: bytes) -> None:
    assert read(data) == []


def test_what_ai_helped_with_is_edited() -> None:
    for term, says in (("digitalCapture", "edited"), ("compositeWithTrainedAlgorithmicMedia", "edited")):
        packet = marked.xmp(Iptc4xmpExt_AISystemUsed="Denoise", Iptc4xmpExt_DigitalSourceType=term)
        assert {mark.says for mark in read(marked.with_xmp("JPEG", packet))} <= {says, term}
    region = (
        b"<Iptc4xmpExt:ImageRegion><rdf:Bag><rdf:li rdf:parseType='Resource'><Iptc4xmpExt:DigitalSourceType>"
        b"trainedAlgorithmicMedia</Iptc4xmpExt:DigitalSourceType></rdf:li></rdf:Bag></Iptc4xmpExt:ImageRegion>"
    )
    packet = marked.xmp(element=True, Iptc4xmpExt_DigitalSourceType="digitalCapture")
    packet = packet.replace(b"</rdf:Description>", region + b"</rdf:Description>")
    assert told(marked.with_xmp("JPEG", packet)) == [
        (SOURCE_TYPE, "digitalCapture", None), ("xmp:part:Iptc4xmpExt:DigitalSourceType", "edited", None),
    ]  # fmt: skip


def test_a_resource_is_a_value() -> None:
    packet = marked.xmp(element=True, Iptc4xmpExt_DigitalSourceType="X").replace(
        b"<Iptc4xmpExt:DigitalSourceType>X</Iptc4xmpExt:DigitalSourceType>",
        f'<Iptc4xmpExt:DigitalSourceType rdf:resource="{IPTC}trainedAlgorithmicMedia"/>'.encode(),
    )
    assert told(marked.with_xmp("JPEG", packet)) == [(SOURCE_TYPE, "generated", None)]
    segment = b"http://ns.adobe.com/xap/1.0/\0" + packet
    data = marked.png_text("Raw profile type APP1", f"\nAPP1\n{len(segment):8}\n{segment.hex()}\n", "zTXt")
    assert told(data) == [(SOURCE_TYPE, "generated", None)]


@pytest.mark.parametrize("code", [b"UNICODE\0\xff\xfe", b"Unicode\0", b"JIS\0\0\0\0\0", b"ASCII   ", b"\0" * 8])
def test_character_sets_as_programs_write_them(code: bytes) -> None:
    text = STEPS.encode("utf-16-le") if code.endswith(b"\xff\xfe") else STEPS.encode()
    assert [mark.generator for mark in read(marked.with_exif("JPEG", code + text))] == ["Stable Diffusion web UI"]
