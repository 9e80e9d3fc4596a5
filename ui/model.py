"""Tab "Model": which models are in service, what each was measured to do, and its plots."""

import base64
import html
from pathlib import PurePosixPath
from typing import Any

import gradio as gr

from client.service import Service, ServiceError
from ui import choice, words

_FIGURES = {
    "accuracy": "accuracy",
    "auc": "area under the ROC curve",
    "precision": "precision at 0.5",
    "recall": "recall at 0.5",
    "ece": "expected calibration error",
}
_DECISIONS = {  # by the figure's name, and the one it has in older releases
    ("false_positive_rate", "reals_flagged"): "real photos flagged",
    ("recall", "generated_flagged"): "AI images flagged",
    ("miss_rate", "generated_cleared"): "AI images cleared",
    ("review_rate", "reviewed"): "sent to a person",
}


def build(client: Service, tab: gr.Tab) -> None:
    """Fill the tab; it asks when somebody opens it."""
    model = choice.choice()
    said = gr.HTML()
    figures = gr.Dataframe(interactive=False, label="Measured once, at release, on official test images", visible=False)
    plots = gr.HTML()

    def look(name: str | None) -> tuple[Any, ...]:
        try:
            cards = {card["name"]: card for card in client.models()}
            name, choices = choice.chosen(name, list(cards))
            card = cards[name]
            shown = "".join(_figure(url, client.picture(url)) for url in card["plots"])
        except ServiceError as error:
            return gr.skip(), words.problem(str(error)), gr.Dataframe(visible=False), ""
        rows = measured(card)
        return (
            choices,
            words.facts(described(card)),
            gr.Dataframe(rows, headers=["figure", "value"], visible=bool(rows)),
            f'<div class="plots">{shown}</div>',
        )

    for event in (tab.select, model.input):
        event(look, model, [model, said, figures, plots])


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
        ("Thresholds", promise(limits)),
        ("File", f"SHA-256 {card['sha256']}"),
    ]


def promise(limits: dict[str, Any]) -> str:
    """Say whose thresholds they are, and what they promise."""
    if (shop := limits.get("shop")) is None:  # an older service knows no other than the release's
        return words.THRESHOLDS["released"]
    groups = f"; groups: {', '.join(shop['groups'])}" if shop["groups"] else ""
    return (
        f"{words.THRESHOLDS['shop']}, {shop['photos']:,} of {shop['products']:,} products, {shop['made_at']}; with "
        f"95 % confidence at most {shop['upper']:.1%} of real photos like them are flagged; of the AI images of the "
        f"release's evaluation {shop['recall']:.0%} are{groups}"
    )


def measured(card: dict[str, Any]) -> list[list[str]]:
    """Return the release's figures on test, those of the level in use last."""
    if not card["metrics"]:
        return []
    test = card["metrics"]["test"]
    known = {key: name for key, name in _FIGURES.items() if key in test}  # not every model is measured by all of them
    rows = [["test images", f"{test['images']:,}"], *([name, f"{test[key]:.4f}"] for key, name in known.items())]
    if (decisions := test["decisions"].get(f"alpha_{card['thresholds']['alpha']:g}")) is not None:
        rows += [
            [said, f"{decisions.get(name, decisions.get(older)):.2%}"] for (name, older), said in _DECISIONS.items()
        ]
    return rows


def _figure(url: str, png: bytes) -> str:
    name = html.escape(PurePosixPath(url).stem.replace("_", " "))
    return f'<figure><img alt="plot: {name}" src="data:image/png;base64,{base64.b64encode(png).decode()}"></figure>'
