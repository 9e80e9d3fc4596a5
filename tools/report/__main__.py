"""Write the figures of models/cifake/card.json into README.md and docs/MODEL_CARD.md: python -m tools.report

Not a stage: the README is prose around figures that the release stage wrote.
"""

import re
from pathlib import Path

from service.models.card import Card, read_card
from tools.report.model_card import experiments, image_sets, model_card, rivals, sizes, table

CARD = Path("models/cifake/card.json")
MODEL_CARD = Path("docs/MODEL_CARD.md")
README = Path("README.md")
API = Path("docs/API.md")
ANSWER = re.compile(r"```json\n.*?```", re.DOTALL)
BLOCK = re.compile(r"(<!-- (figures|limits|rivals) of models/cifake/card.json -->\n).*?(<!-- end of \2 -->)", re.DOTALL)


def figures_table(card: Card) -> str:
    """Return the released model's figures as a Markdown table."""
    columns = image_sets(card)
    rows = [["images", *(f"{c['images']:,}" for c in columns.values())]]
    for name, key in (("accuracy", "accuracy"), ("AUC", "auc"), ("F1", "f1"), ("ECE (15 bins)", "ece")):
        rows.append([name, *(f"{c[key]:.4f}" for c in columns.values())])
    for name, key in (
        ("real photos flagged (at most 1 % promised)", "reals_flagged"),
        ("AI images flagged", "generated_flagged"),
        ("sent to review", "reviewed"),
    ):
        rows.append([name, *(f"{c['decisions']['alpha_0.01'][key]:.2%}" for c in columns.values())])
    return table([f"version {card.version}", *columns], rows)


def limits(card: Card) -> str:
    """Return what a shop may expect of the released model, and of one that knows its photos: what was measured."""
    known = card.domain.geometry
    source = "those of the one public data set it learned from"
    if (known.min_width, known.min_height) != (known.max_width, known.max_height):
        source = "those of a public data set and of the own photos it learned from"
    lines = [f"**As released it knows photos of {sizes(known)}, {source}.**"]
    if (large := card.released.assessment["outside"].get("large_photos")) is not None:
        decided = large["flagged"] + large["cleared"]
        who = f"Of {large['images']:,} photos as shops have them"
        lines.append(f"{who} it decided on {decided or 'none'}, and left the rest to a person.")
    else:
        lines.append("How it answers photos as shops have them was not measured for this release.")
    advice = "To have it decide on yours, [train it on them](docs/OWN_PHOTOS.md)"
    if (experiment := experiments(card).get("own_photos")) is not None:
        own = experiment["at_128_pixels"]["own_photos"]
        style = "their two classes differ in style, too:"
        lines += [
            f"{advice}: on {own['images']} held-out {'ones of those' if large is not None else 'photos of shops'}",
            f"a network for 128 pixels reached an accuracy of {own['accuracy']:.2f}; " + style,
            "expect less.",
        ]
    else:
        lines.append(f"{advice}.")
    return "\n".join(lines) + "\n"


def with_figures(readme: str, card: Card) -> str:
    """Return the README with the card's figures between their marks."""
    tables = {"figures": figures_table, "limits": limits, "rivals": rivals}
    return BLOCK.sub(lambda match: match[1] + tables[match[2]](card) + match[3], readme)


def with_answer(readme: str, api: str) -> str:
    """Return the README with the first answer of docs/API.md, which a test tries."""
    tried = ANSWER.search(api)
    return ANSWER.sub(lambda _: tried[0], readme, count=1) if tried else readme


def main() -> None:
    """Bring both up to date."""
    card = read_card(CARD.parent)
    readme = with_answer(README.read_text(encoding="utf-8"), API.read_text(encoding="utf-8"))
    README.write_text(with_figures(readme, card), encoding="utf-8")
    MODEL_CARD.write_text(model_card(card), encoding="utf-8")


if __name__ == "__main__":
    main()
