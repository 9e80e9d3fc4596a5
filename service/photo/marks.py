"""What a file says about its own making, unsigned: traces that generators, sites and phones leave.

They stand beside the pixels' answer: anyone can remove or add them. docs/PROVENANCE.md has this table with its sources.
"""

import base64
import binascii
import html
import json
import logging
import re
from collections.abc import Callable
from typing import Any, NamedTuple

from service.photo.fields import Fields, fields_of
from service.photo.manifests import GENERATED, PARTLY_GENERATED
from service.photo.metadata import Metadata
from service.photo.provenance import Mark
from service.photo.text import short

logger = logging.getLogger(__name__)

SHOWN = "shown"  # says nothing of AI by itself

_MOST = 20  # marks of a file that are told
# Digital source types that say something of AI: the same terms as in Content Credentials.
_SOURCE_TYPES = dict.fromkeys(GENERATED, "generated") | dict.fromkeys(PARTLY_GENERATED, "edited")
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
_OWN_WORDS = {  # of generators, as they name themselves in `Software`
    name: re.compile(rf"\b(?:{pattern})\b", re.IGNORECASE)
    for name, pattern in {
        "Adobe Firefly": "adobe firefly", "ChatGPT": "chatgpt", "ComfyUI": "comfyui", "DALL-E": "dall[-·]e",
        "Draw Things": "draw things", "Fooocus": "(?:ruined)?fooocus", "Ideogram": "ideogram", "InvokeAI": "invokeai",
        "Leonardo": "leonardo[. ]ai", "Midjourney": "midjourney", "NovelAI": "novelai", "OpenAI": "openai",
        "Recraft": "recraft", "Stable Diffusion": "stable diffusion",
    }.items()
}  # fmt: skip
_VERSION = r"(?:[ .-]?v?\d+(?:\.\d+)*)?"
_KIND = r"(?:[ .-](?:dev|flash|image|imagine|kontext|max|preview|pro|schnell|ultra))*"
# Cameras and other programs use these, too: they count alone, or with their maker, a version, a kind of model.
_SHARED_WORDS = {
    name: re.compile(rf"(?:{maker} )?{name}{_VERSION}{_KIND}", re.IGNORECASE)
    for name, maker in {
        "Firefly": "adobe", "FLUX": "black forest labs", "Gemini": "google", "Grok": "xai", "Leonardo": "leonardo",
        "Sora": "openai",
    }.items()
}  # fmt: skip
_WEB_UI, _COMFY, _INVOKE = "Stable Diffusion web UI", "ComfyUI", "InvokeAI"
_KEYS = {  # keys of PNG text that only generators write
    "prompt": _COMFY, "workflow": _COMFY, "invokeai_metadata": _INVOKE, "invokeai_graph": _INVOKE,
    "sd-metadata": _INVOKE, "Dream": _INVOKE, "sui_image_params": "SwarmUI", "fooocus_scheme": "Fooocus",
    "smproj": "Stability Matrix", "parameters-json": "Stability Matrix", "generation_data": "TensorArt",
}  # fmt: skip
_LINE = 1_000  # characters of a name or a sentence that are looked at
_PARAMETERS = 100_000  # of parameters, likewise
_NOTHING = frozenset({"", "-", "false", "n/a", "na", "no", "none", "not applicable"})
_UUID = re.compile(r"[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}", re.IGNORECASE)
_DRAW_THINGS = re.compile(r"draw things(?: v?[\d.]+)?", re.IGNORECASE)
_STEPS = re.compile(r"\bSteps: \d{1,5}\b")
_NODES = re.compile(r"\s{0,9}(?:prompt|workflow) ?: ?\{\s{0,99}\"", re.IGNORECASE)
_AIGC_FIELDS = frozenset({"ContentProducer", "ProduceID", "ContentPropagator", "PropagateID"})
_AIGC_LABELS = {"1": "generated", "2": "possibly_generated", "3": "suspected_generated"}


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
        The marks, in the order of `TABLE`; and those that older clients know, in their words, sorted. Both are
        empty where the file says nothing, which proves nothing.
    """
    fields = fields_of(metadata)
    if not fields:
        return [], []
    marks = (
        Mark(row.kind, place, found[0], short(found[1]))
        for row in TABLE
        for place in row.places
        for text in fields.get(place, ())
        if (found := _tried(row, text, fields)) is not None
    )
    return list(dict.fromkeys(marks))[:_MOST], _ai_markers(fields)


def _tried(row: Row, text: str, fields: Fields) -> Found | None:
    try:
        return row.test(text, fields)
    except Exception:  # whatever a stranger wrote there: a mark never fails a photo
        logger.warning("a mark of the kind %s could not be read", row.kind, exc_info=True)
        return None


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


def _source_type_of_a_part(text: str, _: Fields) -> Found | None:
    return ("edited", None) if _term(text) in _SOURCE_TYPES else None


def _credit(text: str, _: Fields) -> Found | None:
    return _CREDITS.get(text.strip().casefold())


def _ai_system(text: str, fields: Fields) -> Found | None:
    system = next(iter(fields.get("xmp:Iptc4xmpExt:AISystemUsed", ())), None)
    if {text.strip().casefold(), (system or "x").strip().casefold()} & _NOTHING:
        return None
    # The source type says how much of the picture is AI's; one that is not AI is a photo that AI only helped with.
    terms = {_term(value) for value in fields.get("xmp:Iptc4xmpExt:DigitalSourceType", ())} - {None}
    whole = not terms or any(_SOURCE_TYPES.get(term or "") == "generated" for term in terms)
    return "generated" if whole else "edited", system


def _aigc(text: str, _: Fields) -> Found | None:
    return _aigc_of(_unescaped_json(text))


def _aigc_comment(text: str, _: Fields) -> Found | None:
    value = _unescaped_json(text)
    return _aigc_of(value) if isinstance(value, dict) and "AIGC" in value else None


def _unescaped_json(text: str) -> Any:
    for _depth in range(4):  # entities of entities occur
        if (value := _json(text)) is not None:
            return value
        text = html.unescape(text)
    return None


def _aigc_of(value: Any) -> Found | None:
    inner = value.get("AIGC", value) if isinstance(value, dict) else None
    inner = _unescaped_json(inner) if isinstance(inner, str) else inner
    if not isinstance(inner, dict):
        return None
    label = _AIGC_LABELS.get(str(inner.get("Label", "")).strip())
    if label is None and not inner.keys() & _AIGC_FIELDS:  # a label alone may be of anything
        return None
    return label or "possibly_generated", str(inner.get("ContentProducer") or "") or None


def _grok(text: str, fields: Fields) -> Found | None:
    if not _any(fields, "exif:Artist", _UUID.fullmatch):
        return None
    signed = re.fullmatch(r"Signature: ([A-Za-z0-9+/=]{40,4000})", text.strip()[:5_000])
    try:
        return ("generated", "xAI Grok") if signed and base64.b64decode(signed[1], validate=True) else None
    except binascii.Error:
        return None


def _midjourney(text: str, _: Fields) -> Found | None:
    job = text.rpartition("Job ID:")[2]
    return ("generated", "Midjourney") if _UUID.match(job.strip()) else None


def _image_guid(text: str, fields: Fields) -> Found | None:
    # Picture agencies number files by this field, too: it counts beside the two texts that Midjourney writes into PNG.
    if not _UUID.fullmatch(text.strip()) or not {"png:Author", "png:Description"} <= fields.keys():
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
        return "generated", _COMFY if _has_nodes(value) else None
    return ("generated", _WEB_UI) if _STEPS.search(text[-_PARAMETERS:]) else ("possibly_generated", None)


def _user_comment(text: str, fields: Fields) -> Found | None:
    value = _json(text)
    steps = _has_steps(text)
    artist = _any(fields, "exif:Artist", lambda artist: artist == "ai")
    if artist and _any(fields, "exif:Software", _UUID.fullmatch) and (steps or isinstance(value, dict)):
        return "generated", "Civitai"
    if isinstance(value, dict):
        known = _has_nodes(value) or {"sui_image_params", "fooocus_scheme"} & value.keys()
        return _parameters(text, fields) if known else None
    return ("generated", _WEB_UI) if steps else None


def _has_nodes(value: dict[str, Any]) -> bool:
    """Tell whether this is ComfyUI's: a graph of nodes under its own names."""
    return any(isinstance(value.get(key), dict) for key in ("prompt", "workflow"))


def _has_steps(text: str) -> bool:
    """Tell whether this is how web UIs write parameters: the prompt, then "Steps: 20, Sampler: …, Seed: …"."""
    found = _STEPS.search(text := text[-_PARAMETERS:])
    rest = text[found.end() :] if found else ""
    return "Sampler: " in rest and ("Seed: " in rest or "CFG scale: " in rest)


def _hidden(text: str, fields: Fields) -> Found | None:
    value = _json(text)
    if isinstance(value, dict) and (named := _named(str(value.get("Software")), fields)):
        return named
    return _parameters(text, fields) if isinstance(value, dict) or _has_steps(text) else None


def _comfy_nodes(text: str, _: Fields) -> Found | None:
    return ("generated", _COMFY) if _NODES.match(text) else None


def _novelai(text: str, _: Fields) -> Found | None:
    return ("generated", "NovelAI") if text.strip() in {"NovelAI generated image", "AI generated image"} else None


def _novelai_source(text: str, _: Fields) -> Found | None:
    return ("generated", "NovelAI") if text.startswith("NovelAI") else None


def _named(text: str, _: Fields) -> Found | None:
    text = text.strip()[:_LINE]
    own = (name for name, pattern in _OWN_WORDS.items() if pattern.search(text))
    shared = (name for name, pattern in _SHARED_WORDS.items() if pattern.fullmatch(text))
    name = next(own, None) or next(shared, None)
    return None if name is None else ("generated", name)


def _draw_things(text: str, _: Fields) -> Found | None:
    return ("generated", "Draw Things") if _DRAW_THINGS.fullmatch(text.strip()[:_LINE]) else None


def _ideogram(text: str, _: Fields) -> Found | None:
    return ("generated", "Ideogram") if text.strip().casefold() == "ideogram ai" else None


def _samsung_edit(text: str, _: Fields) -> Found | None:
    value = _json(text)
    kind = value.get("genAIType") if isinstance(value, dict) else None
    return ("edited", "Samsung Photo Editor") if isinstance(kind, int) and kind > 0 else None


def _shown(generator: str) -> Test:
    return lambda _, __: (SHOWN, generator)


def _key(generator: str) -> Test:
    """Return the test of a key that a generator writes: what else stands there says only that one may have."""

    def test(text: str, _: Fields) -> Found:
        looks_right = text.lstrip().startswith("{") or (
            generator == _INVOKE and re.search(r" -[sS] ?\d", text[-_LINE:])
        )
        return ("generated", generator) if looks_right or generator == "Fooocus" else ("possibly_generated", None)

    return test


TABLE: tuple[Row, ...] = (
    Row(
        "iptc_digital_source_type",
        ("xmp:Iptc4xmpExt:DigitalSourceType", "xmp:Iptc4xmpExt:DigitalSourceFileType"),
        _source_type,
    ),
    Row("iptc_digital_source_type", ("xmp:part:Iptc4xmpExt:DigitalSourceType",), _source_type_of_a_part),
    Row(
        "iptc_ai_system",
        (
            "xmp:Iptc4xmpExt:AISystemUsed", "xmp:Iptc4xmpExt:AISystemVersionUsed",
            "xmp:Iptc4xmpExt:AIPromptInformation", "xmp:Iptc4xmpExt:AIPromptWriterName",
        ),
        _ai_system,
    ),
    Row("gb45438_aigc", ("xmp:TC260:AIGC", "png:AIGC"), _aigc),
    Row("gb45438_aigc", ("exif:UserComment",), _aigc_comment),
    Row("credit", ("xmp:photoshop:Credit", "iim:2:110"), _credit),
    Row("grok", ("exif:ImageDescription", "exif:UserComment"), _grok),
    Row("midjourney", ("png:Description",), _midjourney),
    Row("midjourney", ("xmp:Iptc4xmpExt:DigImageGUID",), _image_guid),
    Row("generation_parameters", ("png:parameters",), _parameters),
    *(Row("generation_parameters", (f"png:{key}",), _key(generator)) for key, generator in _KEYS.items()),
    Row("generation_parameters", ("exif:UserComment",), _user_comment),
    Row("generation_parameters", ("exif:Make", "exif:Model", "exif:ImageDescription"), _comfy_nodes),
    Row("hidden_parameters", ("pixels:stealth_pnginfo",), _hidden),
    Row("software", ("exif:Software", "png:Software"), _named),
    Row("software", ("png:Source",), _novelai_source),
    Row("software", ("png:Title", "exif:DocumentName"), _novelai),
    Row("software", ("exif:Make",), _ideogram),
    Row("software", ("xmp:xmp:CreatorTool",), _draw_things),
    Row("samsung_photo_editor", ("samsung:PhotoEditor_Re_Edit_Data",), _samsung_edit),
    Row("samsung_photo_editor", ("samsung:PEg_Info",), _shown("Samsung Photo Editor")),
)  # fmt: skip


# ---- what older clients know

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


def _any(fields: Fields, place: str, holds: Callable[[str], object]) -> bool:
    return any(holds(text.strip()) for text in fields.get(place, ()))


def _json(text: str) -> Any:
    if not text.lstrip().startswith("{"):
        return None
    try:
        return json.loads(text)
    except (ValueError, RecursionError):
        return None
