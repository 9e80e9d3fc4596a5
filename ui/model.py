"""Tab "Model": what is running, what it was measured to do, and its plots."""

import base64
import html
from pathlib import PurePosixPath
from typing import Any

import gradio as gr

from client.service import Service, ServiceError
from ui import words

_FIGURES = {
    "accuracy": "accuracy",
    "auc": "area under the ROC curve",
    "precision": "precision at 0.5",
    "recall": "recall at 0.5",
    "ece": "expected calibration error",
}
_DECISIONS = {
    "false_positive_rate": "real photos flagged",
    "recall": "AI images flagged",
    "miss_rate": "AI images cleared",
    "review_rate": "sent to a person",
}


def build(client: Service, tab: gr.Tab) -> None:
    """Fill the tab; it asks when somebody opens it."""
    said = gr.HTML()
    figures = gr.Dataframe(interactive=False, label="Measured once, at release, on official test images", visible=False)
    plots = gr.HTML()

    def look() -> tuple[Any, ...]:
        try:
            card = client.model()
            shown = "".join(_figure(url, client.picture(url)) for url in card["plots"])
        except ServiceError as error:
            return words.problem(str(error)), gr.Dataframe(visible=False), ""
        rows = measured(card)
        return (
            words.facts(described(card)),
            gr.Dataframe(rows, headers=["figure", "value"], visible=bool(rows)),
            f'<div class="plots">{shown}</div>',
        )

    tab.select(look, None, [said, figures, plots])


def described(card: dict[str, Any]) -> list[tuple[str, Any]]:
    """Return what the model is."""
    geometry, limits = card["model"]["domain"]["geometry"], card["thresholds"]
    widths = words.span(geometry["min_width"], geometry["max_width"])
    heights = words.span(geometry["min_height"], geometry["max_height"])
    return [
        ("Model", f"{card['name']} {card['version']}, {card['license']} licence"),
        ("Released", f"{card['released_at']}, commit {card['git_commit']}" if card["released_at"] else card["note"]),
        ("Trained on", card["data"].get("dataset", "unknown")),
        ("Knows photos", f"{widths} wide and {heights} high: others go to a person"),
        (
            "Flags",
            f"scores from {max(0.5, limits['flag']):.4f}, as at most {limits['alpha']:.1%} of real photos have",
        ),
        ("Clears", f"scores below {min(0.5, limits['clear']):.4f}"),
        ("File", f"SHA-256 {card['sha256']}"),
    ]


def measured(card: dict[str, Any]) -> list[list[str]]:
    """Return the release's figures on test, those of the level in use last."""
    if not card["metrics"]:
        return []
    test = card["metrics"]["test"]
    rows = [["test images", f"{test['images']:,}"], *([name, f"{test[key]:.4f}"] for key, name in _FIGURES.items())]
    if (decisions := test["decisions"].get(f"alpha_{card['thresholds']['alpha']:g}")) is not None:
        rows += [[name, f"{decisions[key]:.2%}"] for key, name in _DECISIONS.items()]
    return rows


def _figure(url: str, png: bytes) -> str:
    name = html.escape(PurePosixPath(url).stem.replace("_", " "))
    return f'<figure><img alt="plot: {name}" src="data:image/png;base64,{base64.b64encode(png).decode()}"></figure>'
