"""What a file says about its own making, unsigned: traces that generators, sites and phones leave.

They stand beside the pixels' answer: anyone can remove or add them. docs/PROVENANCE.md has this table with its sources.
"""

import base64
import binascii
import html
import json
import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple

from service.photo import xmp
from service.photo.metadata import Metadata
from service.photo.text import short

AI: frozenset[str] = frozenset({"generated", "edited", "possibly_generated", "suspected_generated"})
SHOWN = "shown"  # says nothing of AI by itself

_MOST = 20  # marks of a file that are told
_EXIF = {  # tag -> name: of EXIF 3.0, TIFF 6.0
    0x010D: "DocumentName",
    0x010E: "ImageDescription",
    0x010F: "Make",
    0x0110: "Model",
    0x0131: "Software",
    0x013B: "Artist",
    0x9286: "UserComment",
}
_EXIF_IFD = 0x8769
_IPTC_EXT = "http://iptc.org/std/Iptc4xmpExt/2008-02-29/"
_XMP = {  # namespace and name -> as people write it
    (_IPTC_EXT, "DigitalSourceType"): "Iptc4xmpExt:DigitalSourceType",
    (_IPTC_EXT, "DigitalSourceFileType"): "Iptc4xmpExt:DigitalSourceFileType",  # sic: Google writes it
    (_IPTC_EXT, "DigImageGUID"): "Iptc4xmpExt:DigImageGUID",
    (_IPTC_EXT, "AISystemUsed"): "Iptc4xmpExt:AISystemUsed",
    (_IPTC_EXT, "AISystemVersionUsed"): "Iptc4xmpExt:AISystemVersionUsed",
    (_IPTC_EXT, "AIPromptInformation"): "Iptc4xmpExt:AIPromptInformation",
    (_IPTC_EXT, "AIPromptWriterName"): "Iptc4xmpExt:AIPromptWriterName",
    ("http://ns.adobe.com/photoshop/1.0/", "Credit"): "photoshop:Credit",
    ("http://ns.adobe.com/xap/1.0/", "CreatorTool"): "xmp:CreatorTool",
    ("http://www.tc260.org.cn/ns/AIGC/1.0/", "AIGC"): "TC260:AIGC",
}
_SOURCE_TYPES = {  # IPTC digital source types (cv.iptc.org/newscodes/digitalsourcetype), and what they say of AI
    "trainedAlgorithmicMedia": "generated",
    "trainedAlgorithmicData": "generated",  # C2PA's own
    "compositeWithTrainedAlgorithmicMedia": "edited",
    "compositeSynthetic": "edited",
}
_OTHER_SOURCE_TYPES = (
    "algorithmicMedia", "algorithmicallyEnhanced", "composite", "compositeCapture", "computationalCapture",
    "dataDrivenMedia", "digitalArt", "digitalCapture", "digitalCreation", "humanEdits", "minorHumanEdits",
    "negativeFilm", "positiveFilm", "print", "screenCapture", "softwareImage", "virtualRecording",
)  # fmt: skip
_BY_TERM = {term.casefold(): term for term in (*_SOURCE_TYPES, *_OTHER_SOURCE_TYPES)}
_SOURCE_TYPE_URI = re.compile(
    r"https?://(?:cv\.iptc\.org/newscodes/digitalsourcetype|c2pa\.org/digitalsourcetype)/(\w+)/?", re.IGNORECASE
)
_CREDITS = {  # credit lines, casefolded -> what they say, and who writes them
    "made with google ai": ("generated", "Google AI"),
    "edited with google ai": ("edited", "Google AI"),
    "apple photos clean up": ("edited", "Apple Photos Clean Up"),
    "ai generated": ("generated", None),
    "ai-generated": ("generated", None),
}
_NAMES = {  # of generators, as they name themselves in `Software`
    name: re.compile(rf"\b{pattern}\b", re.IGNORECASE)
    for name, pattern in {
        "Adobe Firefly": "firefly", "ChatGPT": "chatgpt", "ComfyUI": "comfyui", "DALL-E": "dall[-·]?e",
        "Draw Things": "draw things", "FLUX": r"flux(?:[ .-]?\d\S*)?", "Fooocus": "(?:ruined)?fooocus",
        "Gemini": "gemini", "Grok": "grok", "Ideogram": "ideogram",
        "InvokeAI": "invokeai", "Leonardo": r"leonardo(?:\.ai)?", "Midjourney": "midjourney", "NovelAI": "novelai",
        "OpenAI": "openai", "Recraft": "recraft", "Sora": "sora", "Stable Diffusion": "stable diffusion",
    }.items()
}  # fmt: skip
_WEB_UI, _COMFY, _INVOKE = "Stable Diffusion web UI", "ComfyUI", "InvokeAI"
_KEYS = {  # keys of PNG text that only generators write
    "prompt": _COMFY, "workflow": _COMFY, "invokeai_metadata": _INVOKE, "invokeai_graph": _INVOKE,
    "sd-metadata": _INVOKE, "Dream": _INVOKE, "sui_image_params": "SwarmUI", "fooocus_scheme": "Fooocus",
    "smproj": "Stability Matrix", "parameters-json": "Stability Matrix", "generation_data": "TensorArt",
}  # fmt: skip
_UUID = re.compile(r"[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}", re.IGNORECASE)
_STEPS = re.compile(r"\bSteps: \d+, .*\bSampler: ", re.DOTALL)
_NODES = re.compile(r"\s*(?:prompt|workflow) ?: ?\{", re.IGNORECASE)
_AIGC_FIELDS = frozenset({
    "Label", "ContentProducer", "ProduceID", "ReservedCode1", "ContentPropagator", "PropagateID", "ReservedCode2",
})  # fmt: skip
_AIGC_LABELS = {"1": "generated", "2": "possibly_generated", "3": "suspected_generated"}


@dataclass(frozen=True)
class Mark:
    """One statement of a file.

    Attributes:
        kind: what kind of statement, such as `iptc_digital_source_type`.
        where: container and field, such as `xmp:Iptc4xmpExt:DigitalSourceType`.
        says: `generated`, `edited`, `possibly_generated`, `suspected_generated` (`AI`); of an IPTC source type that is
            not AI its own name, such as `digitalCapture`; `shown`: nothing of AI by itself.
        generator: who or what made it, by its own words; None: it does not say.
    """

    kind: str
    where: str
    says: str
    generator: str | None = None

    @property
    def is_ai(self) -> bool:
        """Whether it says that AI made or changed the picture."""
        return self.says in AI


Fields = Mapping[str, list[str]]  # place, such as `exif:Software` -> what stands there
Found = tuple[str, str | None]  # what it says, and the generator
Test = Callable[[str, Fields], Found | None]


class Row(NamedTuple):
    """One row of the table: where it is looked for, and what must hold.

    Attributes:
        kind: of the mark.
        places: container and field.
        test: takes the text that stands there and all fields; returns what the mark says, None: it is none.
    """

    kind: str
    places: tuple[str, ...]
    test: Test


def read(metadata: Metadata) -> tuple[list[Mark], list[str]]:
    """List what a file says about its own making.

    Args:
        metadata: as `service.photo.decode` gives it.

    Returns:
        The marks, in the order of `TABLE`; and those that clients of before know, in their words, sorted. Both are
        empty where the file says nothing, which proves nothing.
    """
    fields = _fields(metadata)
    if not fields:
        return [], []
    marks = (
        Mark(row.kind, place, found[0], short(found[1]))
        for row in TABLE
        for place in row.places
        for text in fields.get(place, ())
        if (found := row.test(text, fields)) is not None
    )
    return list(dict.fromkeys(marks))[:_MOST], _ai_markers(fields)


# ---- the tests of TABLE


def _term(text: str) -> str | None:
    """Return the digital source type that a URI or a bare code names, in any letter case."""
    match = _SOURCE_TYPE_URI.fullmatch(text.strip())
    return _BY_TERM.get((match[1] if match else text.strip()).casefold())


def _source_type(text: str, fields: Fields) -> Found | None:
    term = _term(text)
    if term is None:
        return None
    credit = next(iter(fields.get("xmp:photoshop:Credit", ())), "")
    return _SOURCE_TYPES.get(term, term), _CREDITS.get(credit.casefold(), ("", None))[1]


def _credit(text: str, _: Fields) -> Found | None:
    return _CREDITS.get(text.strip().casefold())


def _ai_system(text: str, fields: Fields) -> Found | None:
    return ("generated", next(iter(fields.get("xmp:Iptc4xmpExt:AISystemUsed", ())), None)) if text.strip() else None


def _aigc(text: str, _: Fields) -> Found | None:
    for _depth in range(3):  # entities of entities occur
        value = _json(text)
        inner = value.get("AIGC", value) if isinstance(value, dict) else None
        inner = _json(inner) if isinstance(inner, str) else inner
        if isinstance(inner, dict) and inner.keys() & _AIGC_FIELDS:
            says = _AIGC_LABELS.get(str(inner.get("Label", "")).strip(), "possibly_generated")
            return says, str(inner.get("ContentProducer") or "") or None
        text = html.unescape(text)
    return None


def _grok(text: str, fields: Fields) -> Found | None:
    signed = re.fullmatch(r"Signature: ([A-Za-z0-9+/=\s]{40,})\s*", text)
    if signed is None or not _any(fields, "exif:Artist", _UUID.fullmatch):
        return None
    try:
        base64.b64decode(re.sub(r"\s", "", signed[1]), validate=True)
    except binascii.Error:
        return None
    return "generated", "xAI Grok"


def _midjourney(text: str, _: Fields) -> Found | None:
    return ("generated", "Midjourney") if re.search(r"\bJob ID: ?[0-9a-f-]{8,}", text, re.IGNORECASE) else None


def _image_guid(text: str, fields: Fields) -> Found | None:
    # Picture agencies number JPEG files by this field, too: it counts where PNG text stands beside it.
    if not _UUID.fullmatch(text.strip()) or not any(place.startswith("png:") for place in fields):
        return None
    return "generated", "Midjourney"


def _parameters(text: str, _: Fields) -> Found | None:
    """Tell apart who writes generation parameters: web UIs as text, others as JSON."""
    value = _json(text)
    if isinstance(value, dict):
        if "sui_image_params" in value:
            return "generated", "SwarmUI"
        named = str(value.get("software") or value.get("version") or "")
        if "fooocus" in named.casefold() or "fooocus_scheme" in value:
            return "generated", "RuinedFooocus" if "ruined" in named.casefold() else "Fooocus"
        if {"prompt", "workflow"} & value.keys():
            nodes = any(isinstance(value.get(key), dict) for key in ("prompt", "workflow"))
            return "generated", _COMFY if nodes else None
        return "generated", None
    return "generated", _WEB_UI


def _user_comment(text: str, fields: Fields) -> Found | None:
    if _any(fields, "exif:Artist", lambda artist: artist.strip() == "ai") and _any(
        fields, "exif:Software", _UUID.fullmatch
    ):
        return "generated", "Civitai"
    value = _json(text)
    if isinstance(value, dict) and value.keys() & {"sui_image_params", "prompt", "workflow", "fooocus_scheme"}:
        return _parameters(text, fields)
    return ("generated", _WEB_UI) if _STEPS.search(text) else None


def _hidden(text: str, fields: Fields) -> Found | None:
    value = _json(text)
    if isinstance(value, dict) and (named := _named(str(value.get("Software")), fields)):
        return named
    return _parameters(text, fields) if isinstance(value, dict) or _STEPS.search(text) else None


def _comfy_nodes(text: str, _: Fields) -> Found | None:
    return ("generated", _COMFY) if _NODES.match(text) else None


def _novelai(text: str, _: Fields) -> Found | None:
    return ("generated", "NovelAI") if text.startswith(("NovelAI generated image", "AI generated image")) else None


def _named(text: str, _: Fields) -> Found | None:
    return next((("generated", name) for name, pattern in _NAMES.items() if pattern.search(text)), None)


def _draw_things(text: str, _: Fields) -> Found | None:
    return ("generated", "Draw Things") if "draw things" in text.casefold() else None


def _ideogram(text: str, _: Fields) -> Found | None:
    return ("generated", "Ideogram") if text.strip().casefold() == "ideogram ai" else None


def _samsung_edit(text: str, _: Fields) -> Found | None:
    value = _json(text)
    kind = value.get("genAIType") if isinstance(value, dict) else None
    return ("edited", "Samsung Photo Editor") if isinstance(kind, int) and kind > 0 else None


def _shown(generator: str) -> Test:
    return lambda _, __: (SHOWN, generator)


def _key(generator: str) -> Test:
    return lambda _, __: ("generated", generator)


TABLE: tuple[Row, ...] = (
    Row(
        "iptc_digital_source_type",
        ("xmp:Iptc4xmpExt:DigitalSourceType", "xmp:Iptc4xmpExt:DigitalSourceFileType"),
        _source_type,
    ),
    Row(
        "iptc_ai_system",
        (
            "xmp:Iptc4xmpExt:AISystemUsed", "xmp:Iptc4xmpExt:AISystemVersionUsed",
            "xmp:Iptc4xmpExt:AIPromptInformation", "xmp:Iptc4xmpExt:AIPromptWriterName",
        ),
        _ai_system,
    ),
    Row("gb45438_aigc", ("xmp:TC260:AIGC", "png:AIGC", "exif:UserComment"), _aigc),
    Row("credit", ("xmp:photoshop:Credit", "iim:2:110"), _credit),
    Row("grok", ("exif:ImageDescription", "exif:UserComment"), _grok),
    Row("midjourney", ("png:Description",), _midjourney),
    Row("midjourney", ("xmp:Iptc4xmpExt:DigImageGUID",), _image_guid),
    Row("generation_parameters", ("png:parameters",), _parameters),
    *(Row("generation_parameters", (f"png:{key}",), _key(generator)) for key, generator in _KEYS.items()),
    Row("generation_parameters", ("exif:UserComment",), _user_comment),
    Row("generation_parameters", ("exif:Make", "exif:Model", "exif:ImageDescription"), _comfy_nodes),
    Row("hidden_parameters", ("pixels:stealth_pnginfo",), _hidden),
    Row("software", ("exif:Software", "png:Software", "png:Source"), _named),
    Row("software", ("png:Title", "exif:DocumentName"), _novelai),
    Row("software", ("exif:Make",), _ideogram),
    Row("software", ("xmp:xmp:CreatorTool",), _draw_things),
    Row("samsung_photo_editor", ("samsung:PhotoEditor_Re_Edit_Data",), _samsung_edit),
    Row("samsung_photo_editor", ("samsung:PEg_Info",), _shown("Samsung Photo Editor")),
)  # fmt: skip


# ---- what clients of before know

_KEYS_OF_BEFORE = {"parameters": _WEB_UI} | {
    key: _KEYS[key] for key in ("prompt", "workflow", "invokeai_metadata", "sd-metadata", "Dream")
}
_NAMES_OF_BEFORE = (
    "adobe firefly", "comfyui", "dall-e", "dall·e", "ideogram", "invokeai", "leonardo.ai", "midjourney", "novelai",
    "openai", "stable diffusion",
)  # fmt: skip
_TERMS_OF_BEFORE = frozenset({"trainedAlgorithmicMedia", "compositeWithTrainedAlgorithmicMedia"})


def _ai_markers(fields: Fields) -> list[str]:
    found = {f"png:{key} ({name})" for key, name in _KEYS_OF_BEFORE.items() if f"png:{key}" in fields}
    software = " ".join(fields.get("exif:Software", ())).lower()
    found |= {f"exif:{name}" for name in _NAMES_OF_BEFORE if name in software}
    terms = {_term(text) for text in fields.get("xmp:Iptc4xmpExt:DigitalSourceType", ())}
    return sorted(found | {f"iptc:{term}" for term in terms if term in _TERMS_OF_BEFORE})


# ---- what stands where


def _fields(metadata: Metadata) -> Fields:
    found: dict[str, list[str]] = {}

    def add(place: str, text: str) -> None:
        if text:
            found.setdefault(place, []).append(text)

    for key, text in metadata.texts:
        add(f"png:{key}", text)
    for name, text in _exif_texts(metadata):
        add(f"exif:{name}", text)
    if metadata.xmp:
        for known, values in xmp.properties(metadata.xmp).items():
            for value in values if known in _XMP else ():
                add(f"xmp:{_XMP[known]}", value)
    for text in _iim_credits(metadata.iim):
        add("iim:2:110", text)
    for name, text in metadata.samsung:
        add(f"samsung:{name}", text)
    add("pixels:stealth_pnginfo", metadata.hidden or "")
    return found


def _exif_texts(metadata: Metadata) -> Iterator[tuple[str, str]]:
    if not metadata.exif:
        return
    for block in (0, _EXIF_IFD):
        try:
            values = metadata.exif.get_ifd(block) if block else metadata.exif
            for tag, name in _EXIF.items():
                if tag in values and (text := _exif_text(values[tag])):
                    yield name, text
        except Exception:  # a damaged block says nothing from there on
            return


def _exif_text(value: Any) -> str:
    """Return a field's text; `UserComment` begins with 8 bytes that name its character set (EXIF 3.0, 4.6.6)."""
    if isinstance(value, str):
        return value.strip("\0 ")
    if not isinstance(value, bytes):
        return ""
    if value.startswith(b"UNICODE\0"):
        text = value[8:]
        # UTF-16 of either order, whatever the EXIF block's own is: Latin text tells by its zero bytes.
        return text.decode("utf-16-be" if text[::2].count(0) > text[1::2].count(0) else "utf-16-le", "replace").strip(
            "\0 "
        )
    return value.removeprefix(b"ASCII\0\0\0").decode("utf-8", "replace").strip("\0 ")


def _iim_credits(records: bytes) -> Iterator[str]:
    """Yield the texts of IPTC-IIM data set 2:110, Credit; IIM 4.2, 1.5: 0x1C, record, data set, length, text."""
    at = 0
    while at + 5 <= len(records) and records[at] == 0x1C:
        length = int.from_bytes(records[at + 3 : at + 5])
        if length & 0x8000:  # an extended data set: none of those that are looked for
            return
        if (records[at + 1], records[at + 2]) == (2, 110):
            yield records[at + 5 : at + 5 + length].decode("utf-8", "replace")
        at += 5 + length


def _any(fields: Fields, place: str, holds: Callable[[str], object]) -> bool:
    return any(holds(text.strip()) for text in fields.get(place, ()))


def _json(text: str) -> Any:
    if not text.lstrip().startswith("{"):
        return None
    try:
        return json.loads(text)
    except (ValueError, RecursionError):
        return None
