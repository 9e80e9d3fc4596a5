"""README and model card are written of any card that a release can write: its optional parts may be missing."""

import copy
import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from service.models.card import Card
from tools.report.__main__ import with_figures
from tools.report.model_card import model_card

REPO = Path(__file__).resolve().parents[2]
CARD: dict[str, Any] = json.loads((REPO / "models/cifake/card.json").read_text(encoding="utf-8"))
LARGE = {"images": 1068, "embedding_alone_in_domain": 0.99, "embedding_in_domain": 0.74, "geometry_in_domain": 0.0,
         "in_domain": 0.0, "called_ai_generated": 0.38, "flagged": 3, "cleared": 4}  # fmt: skip
OWN = {"images": 198, "accuracy": 0.974747, "auc": 1.0, "ece": 0.026173}
COMPARED = {"accuracy": 0.95, "auc": 0.99, "in_domain_share": 0.9}
OWN_PHOTOS = {
    "own_photos": {"images": 1068, "real": 405, "ai_generated": 663}, "epochs": 3,
    **{when: {"dataset": COMPARED, "own_photos": COMPARED, "known_widths": [32, 240]} for when in ("before", "after")},
    "at_128_pixels": {"backbone": "tf_efficientnet_lite0", "own_photos": OWN, "file_mb": 21.2},
}  # fmt: skip
SEEDS = {"seeds": {"0": {"auc": 0.99}, "1": {"auc": 0.98}}, "summary": {"auc": {"mean": 0.985, "spread": 0.007}}}


def whole() -> dict[str, Any]:
    """Return a card with every part that a release can write."""
    card = copy.deepcopy(CARD)
    card["assessment"]["outside"]["large_photos"] = LARGE
    card["experiments"] = {"seeds": SEEDS, "own_photos": OWN_PHOTOS}
    card["metrics"]["test_own_photos"] = card["metrics"]["test"] | {"images": 77}
    card["assessment"]["slices"]["class"] = card["assessment"]["slices"]["brightness"]
    return card


def pages(card: dict[str, Any]) -> tuple[str, str]:
    """Return README and model card."""
    read = Card.model_validate(card)
    return with_figures((REPO / "README.md").read_text(encoding="utf-8"), read), model_card(read)


def test_a_whole_card_tells_everything() -> None:
    readme, page = pages(whole())
    assert "Of 1,068 photos as shops have them it decided on 7, and left the rest" in readme
    assert "on 198 held-out ones of those\na network for 128 pixels reached an accuracy of 0.97" in readme
    assert "| own photos of test |" in readme
    assert "| photos as shops have them | 1068 |" in page
    assert "## Other seeds" in page
    assert "## Your own photos at work" in page
    assert "| own photos of test |" in page


def without_large_photos(card: dict[str, Any]) -> None:
    del card["assessment"]["outside"]["large_photos"]


def without_own_photos_experiment(card: dict[str, Any]) -> None:
    del card["experiments"]["own_photos"]


def without_seeds(card: dict[str, Any]) -> None:
    del card["experiments"]["seeds"]


def without_experiments(card: dict[str, Any]) -> None:
    del card["experiments"]  # as releases wrote it before there were some


def without_own_photos_in_test(card: dict[str, Any]) -> None:
    del card["metrics"]["test_own_photos"]


def without_classes(card: dict[str, Any]) -> None:
    del card["assessment"]["slices"]["class"]


def without_slices(card: dict[str, Any]) -> None:
    card["assessment"]["slices"] = {"brightness": {}, "sharpness": {}}


def without_flags(card: dict[str, Any]) -> None:
    for found in card["assessment"]["flag_worth"].values():
        for name in ("flag_is_right", "flag_is_right_at_least", "with_ai_prior_0.5"):
            del found[name]


def without_git(card: dict[str, Any]) -> None:
    card["git_commit"] = None


def of_another_network(card: dict[str, Any]) -> None:
    train = card["model"]["params"]["train"]
    train["backbone_args"] = {}
    train["pretrained"] = True


def of_own_photos_of_many_sizes(card: dict[str, Any]) -> None:
    card["model"]["domain"]["geometry"] |= {"max_width": 240, "max_height": 180}


def of_the_synthetic_set(card: dict[str, Any]) -> None:
    card["model"]["data"]["dataset"] = "synthetic"


WORDS: dict[Callable[[dict[str, Any]], None], tuple[str, str]] = {  # what README and model card say then
    without_large_photos: ("How it answers photos as shops have them was not measured for this release.", ""),
    without_own_photos_experiment: ("[train it on them](docs/OWN_PHOTOS.md).", ""),
    without_seeds: ("", ""),
    without_experiments: ("[train it on them](docs/OWN_PHOTOS.md).", ""),
    without_own_photos_in_test: ("", ""),
    without_classes: ("", "| brightness 1 of 5"),
    without_slices: ("", "Not measured: no part of test holds both classes."),
    without_flags: ("", "| 1% | – | – | – |"),
    without_git: ("", "No commit: it was made outside of git."),
    of_another_network: ("(resnet18) | **98.35%** | 0.9985 | 11.2M | 32 | pretrained; test read once", ""),
    of_own_photos_of_many_sizes: (
        "32 x 32 to 240 x 180 pixels, those of a public data set and",
        "32 x 32 to 240 x 180",
    ),
    of_the_synthetic_set: ("this model was not measured on them", "pictures made from a seed"),
}


@pytest.mark.parametrize("change", WORDS, ids=lambda change: change.__name__)
def test_any_card_is_rendered(change: Callable[[dict[str, Any]], None]) -> None:
    card = whole()
    change(card)
    readme, page = pages(card)
    assert WORDS[change][0] in readme
    assert WORDS[change][1] in page
    assert not re.search(r"\bNone\b(?! states)", readme + page)
    assert "nan" not in (readme + page).split()


def test_a_card_of_a_first_release_is_rendered() -> None:
    """Nothing but `make release`: no photos as shops have them, no experiments, no photos of one's own."""
    card = whole()
    for change in (without_large_photos, without_own_photos_experiment, without_seeds, without_own_photos_in_test,
                   without_classes):  # fmt: skip
        change(card)
    readme, page = pages(card)
    assert "photos as shops have them was not measured" in readme
    assert "photos as shops have them" not in page
    for head in ("## Other seeds", "## Your own photos at work"):
        assert head not in page
