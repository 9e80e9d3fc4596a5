"""Answers of the service in plain words, and as HTML."""

import base64
import html
import io
from collections.abc import Iterable
from typing import Any

from pi_heif import register_heif_opener
from PIL import Image, ImageOps

register_heif_opener()

THRESHOLDS = {
    "released": "the release's: set on photos of other catalogues",
    "shop": "this shop's own: set on its own real photos",
}
LABELS = {"real": "real", "ai_generated": "AI-generated"}
_MEANING = {
    "flag": "Flag it: few real photos get this answer.",
    "clear": "Nothing speaks against it.",
    "review": "Look at it yourself: this is too close to call.",
}
_DECLARED = {"flag": "AI-generated", "review": "partly AI-generated"}  # what a credential can make of a decision
_TRUST = {
    "verified": "the signature is valid and its signer is trusted",
    "claimed": "not at all: anyone could have written or removed them",
    "none": "the file says nothing of its making, which proves nothing",
}
_BEFORE = {
    "parentOf": "the version before",
    "componentOf": "a picture put into it",
    "inputTo": "a picture it was made from",
}
_VERSION = {"valid": "valid", "untrusted": "cannot be vouched for", "invalid": "broken"}
_UNNAMED = "an unnamed signer"
_SHOWN = 800  # pixels of the photo's longer side


def headline(answer: dict[str, Any]) -> str:
    """Say an answer in a sentence, such as `Likely AI-generated, 97 %: flag`."""
    if answer["decided_by"] == "mark":
        return "The file says that AI had a part in it: review"
    if answer["decided_by"] == "credential":
        return f"Declared {_DECLARED[answer['decision']]} by a valid signature: {answer['decision']}"
    if not answer["in_domain"]:
        return "Unlike the photos this model knows: look at it yourself"
    return f"Likely {leaning(answer)}: {answer['decision']}"


def leaning(answer: dict[str, Any]) -> str:
    """Return the likelier label and how likely it is, such as `real, 88 %`."""
    probability = answer["probability"]
    return f"{LABELS[answer['prediction']]}, {percent(max(probability, 1 - probability))}"


def reason(answer: dict[str, Any]) -> str:
    """Say what the decision means, and why."""
    if answer["decided_by"] == "credential":
        return f"{answer['provenance']['c2pa']['signer']} signed for it. {_by_pixels(answer)}"
    if answer["decided_by"] == "mark":
        return f"The mark is not signed: anyone could have written it. {_by_pixels(answer)}"
    if answer["in_domain"]:
        return _MEANING[answer["decision"]]
    reasons = []
    if not answer["domain"]["geometry"]:
        reasons.append("its size is not that of the training photos")
    if not answer["domain"]["embedding"]:
        reasons.append("to the network it is unlike them")
    return f"The model knows no such photos, and cannot tell: {' and '.join(reasons)}."


def _by_pixels(answer: dict[str, Any]) -> str:
    if not answer["in_domain"]:
        return "Its pixels say nothing: the model knows no such photos."
    return f"By its pixels alone: likely {leaning(answer)}."


def marks(answer: dict[str, Any]) -> str:
    """Say what the file says of its making, unsigned."""
    found = answer["provenance"].get("marks", [])  # an older service sends none
    said = []
    for mark in found:
        by = f" by {mark['generator']}" if mark["generator"] else ""
        said.append(f"{mark['says'].replace('_', ' ')}{by} ({mark['where']})")
    return ", ".join(said) or "none"


def credential(found: dict[str, Any] | None) -> str:
    """Say what a file's Content Credentials come to, and what each version of the picture declares."""
    if found is None:
        return "none"
    if found["status"] == "elsewhere":
        return "kept elsewhere, not fetched"
    # Those of a valid one are the versions' before it, whose states are told below.
    problems = f" ({', '.join(found['problems'])})" if found["problems"] and found["status"] != "valid" else ""
    if found["status"] == "unreadable":
        return f"unreadable{problems}"
    active, *before = found.get("versions") or [found]  # an older service tells of the active one alone
    said = [f"{_state(found)}{problems}; declares {', '.join(active['declares']) or 'nothing'}"]
    said += [
        f"{_BEFORE[each['relationship']]} ({_VERSION[each['status']]}, signed by {each['signer'] or _UNNAMED}) "
        f"declares {', '.join(each['declares'])}"
        for each in before
        if each["declares"]
    ]
    if found.get("identity"):
        said.append(f"says who made it ({found['identity']}), which is not checked")
    return "; ".join(said)


def _state(found: dict[str, Any]) -> str:
    """Say why a credential is believed, or not. "Changed" accuses the seller: it is said only where it is known."""
    signer = found["signer"] or _UNNAMED
    if found["status"] == "valid":
        return f"valid, signed by {signer}"
    if found.get("unchanged") is False:
        return "broken: changed after it was signed"
    if found.get("signature_holds") is False:
        return "broken: the signature does not hold"
    if found["status"] == "invalid":
        return "broken: it, or a version before it, breaks a rule of C2PA"
    reasons = []
    if found.get("signer_trusted") is False:
        reasons.append(f"this service does not trust {signer}")
    if found.get("in_time") is False:
        reasons.append("the certificate had expired, or nobody trusted says when it was signed")
    if "signingCredential.invalid" in found["problems"]:
        reasons.append("the certificate is meant for something else")
    if "signingCredential.revoked" in found["problems"]:
        reasons.append("the certificate was revoked")
    return f"whole; cannot be vouched for: {' and '.join(reasons) or 'its signer could not be checked'}"


def model(answer: dict[str, Any]) -> str:
    """Return which model answered, such as `cifake 1.3.0`; an older service tells the version, or nothing."""
    return " ".join(filter(None, (answer.get("model"), answer.get("model_version"))))


def percent(share: float) -> str:
    """Return a share such as `97 %`; never 0 % or 100 % for a share between them."""
    number = "over 99" if share > 0.99 else "under 1" if share < 0.01 else f"{100 * share:.0f}"
    return f"{number}\u00a0%"


def span(low: int, high: int) -> str:
    """Return a range of pixels, such as `32 px` or `32 to 640 px`."""
    return f"{high} px" if low == high else f"{low} to {high} px"


def verdict(answer: dict[str, Any]) -> str:
    """Return the answer as HTML: headline, meaning, probability bar, facts."""
    probability = answer["probability"]
    # Outside the domain the probability says nothing, so neither it nor a confidence is shown.
    confidence = answer["confidence"] if answer["in_domain"] else "none: the model knows no such photos"
    shown = facts([
        ("Content Credentials", credential(answer["provenance"]["c2pa"])),
        ("Unsigned marks", marks(answer)),
        ("How far to trust them", _TRUST[answer["provenance"]["trust"]]),
        ("Confidence", confidence),
        *(("Passed over", note) for note in answer.get("notes", [])),
        ("Model", model(answer)),
        ("Thresholds", THRESHOLDS[answer.get("calibration", "released")]),  # an older service has the release's alone
        ("Request", answer["request_id"]),
    ])  # fmt: skip
    bar = (
        f'<div class="bar" role="meter" aria-label="probability that it is AI-generated" aria-valuemin="0" '
        f'aria-valuemax="100" aria-valuenow="{100 * probability:.0f}"><div style="width: {100 * probability:.1f}%">'
        f'</div></div><div class="ends"><span>real</span><span>AI-generated: {percent(probability)}</span></div>'
        if answer["in_domain"]
        else ""
    )
    return _box(answer["decision"], "status", headline(answer), f"<p>{html.escape(reason(answer))}</p>{bar}{shown}")


def problem(sentence: str) -> str:
    """Return a sentence that says what went wrong, as HTML."""
    return _box("problem", "alert", sentence, "")


def hint(sentence: str) -> str:
    """Return a sentence other than a verdict, as HTML."""
    return f'<p role="status">{html.escape(sentence)}</p>'


def lines(text: str) -> str:
    """Return several lines as HTML."""
    shown = "<br>".join(html.escape(line) for line in text.splitlines())
    return f'<p role="status">{shown}</p>'


def drift(found: dict[str, Any]) -> str:
    """Return what the monitor saw as HTML."""
    window = f"{found['window_size']:,} photos"
    title = {
        "ok": f"No drift: the last {window} are like the reference",
        "drift": f"Drift: the last {window} are unlike the reference",
        "insufficient_data": f"Too few photos yet to tell: {found['window_size']:,}",
    }[found["status"]]
    alerts = "".join(f"<li>{html.escape(alert)}</li>" for alert in found["alerts"])
    rows = [
        ("Called AI-generated", f"{found['prediction_ratio']['ai_generated']:.1%}"),
        ("Unsure answers", f"{found['low_confidence_ratio']:.1%}"),
    ]
    if (accuracy := found["estimated_accuracy"]) is not None:
        low, high = found["estimated_accuracy_interval"]
        rows.append(("Estimated accuracy", f"{accuracy:.1%} ({low:.1%} to {high:.1%}), if the calibration still holds"))
    if (reference := found["reference"]) is not None:
        rows.append(("Reference", f"{reference['name']}, {reference['rows']:,} photos"))
    rows.append(("Looked at", found["timestamp"].replace("T", " ").replace("Z", " UTC")))
    return _box(found["status"], "status", title, (f"<ul>{alerts}</ul>" if alerts else "") + facts(rows))


def frame(page: str, title: str) -> str:
    """Return an HTML page within a page: its scripts run, and reach nothing of what is around it."""
    return f'<iframe title="{html.escape(title)}" sandbox="allow-scripts" srcdoc="{html.escape(page)}"></iframe>'


def facts(rows: Iterable[tuple[str, Any]]) -> str:
    """Return names and what they stand for, as HTML."""
    shown = "".join(f"<dt>{name}</dt><dd>{html.escape(str(value))}</dd>" for name, value in rows)
    return f'<dl class="facts">{shown}</dl>'


def heat(path: str, heatmap_base64: str) -> str:
    """Return photo and heat map as HTML, one over the other; the page's slider sets how much shows through.

    Args:
        path: of the photo.
        heatmap_base64: JPEG of the same shape, as the service sends it.
    """
    shown = upright(path)
    return (
        f'<div class="heat"><img alt="the photo" src="{picture(shown)}">'
        '<img alt="heat map over it: red speaks for AI-generated, blue for real" '
        f'src="data:image/jpeg;base64,{html.escape(heatmap_base64)}"></div>'
    )


def upright(path: str) -> Image.Image:
    """Return a photo as it is shown: upright, mode RGB, small."""
    with Image.open(path) as photo:
        photo.info.pop("xmp", None)  # an orientation that stands there alone turns nothing, as in browsers
        shown = ImageOps.exif_transpose(photo).convert("RGB")
    shown.thumbnail((_SHOWN, _SHOWN))
    return shown


def picture(image: Image.Image) -> str:
    """Return an image as the address of an <img>."""
    buffer = io.BytesIO()
    image.convert("RGB").save(buffer, "JPEG", quality=88)
    return f"data:image/jpeg;base64,{base64.b64encode(buffer.getvalue()).decode()}"


def _box(kind: str, role: str, title: str, content: str) -> str:
    return f'<div class="verdict {kind}" role="{role}"><h2>{html.escape(title)}</h2>{content}</div>'
