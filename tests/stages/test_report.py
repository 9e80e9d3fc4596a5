"""Pages are written of any card that a release can write, and of reports: optional parts may be missing."""

import copy
import json
import re
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from service.models.card import Card, read_card
from stages.common import StageError
from tools.report.__main__ import main, outdated, write
from tools.report.render import BLOCK, block, model_card, with_blocks

REPO = Path(__file__).resolve().parents[2]
CARD: dict[str, Any] = json.loads((REPO / "models/cifake/card.json").read_text(encoding="utf-8"))
LARGE = {"images": 1068, "embedding_alone_in_domain": 0.99, "embedding_in_domain": 0.74, "geometry_in_domain": 0.0,
         "in_domain": 0.0, "called_ai_generated": 0.38, "flagged": 3, "cleared": 4}  # fmt: skip


@pytest.fixture(autouse=True)
def in_the_repository(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(REPO)


def whole() -> dict[str, Any]:
    """Return a card with every part that a release can write."""
    card = copy.deepcopy(CARD)
    release = card["release"]
    release["assessment"]["ood"]["large_photos"] = LARGE
    release["metrics"]["test_own_photos"] = release["metrics"]["test"] | {"images": 77}
    release["assessment"]["slices"]["class"] = release["assessment"]["slices"]["brightness"]
    return card


def written(card: dict[str, Any]) -> tuple[str, str]:
    """Return the blocks of README.md about a card, and its model card."""
    read = Card.model_validate(card)
    return "".join(block(name, read) for name in ("limits", "figures", "rivals")), model_card(read)


def test_every_page_is_up_to_date() -> None:
    assert outdated() == [], "run 'python -m tools.report'"


def test_a_whole_card_tells_everything() -> None:
    readme, page = written(whole())
    assert "Of 1,068 photos as shops have them it decided on 7, and left the rest" in readme
    assert "on 198 held-out ones of those a network for\n128 pixels reached an accuracy of 0.97" in readme
    assert "| own photos of test |" in readme
    assert "| photos as shops have them | 1068 |" in page
    assert "## Other seeds" in page
    assert "## Your own photos at work" in page
    assert "| own photos of test |" in page


def without_large_photos(card: dict[str, Any]) -> None:
    del card["release"]["assessment"]["ood"]["large_photos"]


def of_other_training_params(card: dict[str, Any]) -> None:
    card["params"]["train"]["learning_rate"] = 0.5


def without_own_photos_in_test(card: dict[str, Any]) -> None:
    del card["release"]["metrics"]["test_own_photos"]


def without_classes(card: dict[str, Any]) -> None:
    del card["release"]["assessment"]["slices"]["class"]


def without_slices(card: dict[str, Any]) -> None:
    card["release"]["assessment"]["slices"] = {"brightness": {}, "sharpness": {}}


def without_flags(card: dict[str, Any]) -> None:
    for found in card["release"]["assessment"]["flag_precision"].values():
        for name in ("precision", "precision_at_least", "precision_with_ai_prior_0.5"):
            del found[name]


def without_git(card: dict[str, Any]) -> None:
    del card["release"]["git_commit"]


def of_another_network(card: dict[str, Any]) -> None:
    train = card["params"]["train"]
    train["backbone_args"] = {}
    train["pretrained"] = True


def of_own_photos_of_many_sizes(card: dict[str, Any]) -> None:
    card["domain"]["geometry"] |= {"max_width": 240, "max_height": 180}


def of_the_synthetic_set(card: dict[str, Any]) -> None:
    card["data"]["dataset"] = "synthetic"


def of_figures_alone(card: dict[str, Any]) -> None:
    card["release"]["assessment"] = {}  # all other evaluators are off


WORDS: dict[Callable[[dict[str, Any]], None], tuple[str, str]] = {  # what README and model card say then
    without_large_photos: ("How it answers photos as shops have them was not measured for this release.", ""),
    of_other_training_params: ("[train it on them](docs/OWN_PHOTOS.md).", ""),
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
    of_figures_alone: ("was not measured for this release", "## Accuracy"),
}


@pytest.mark.parametrize("change", WORDS, ids=lambda change: change.__name__)
def test_any_card_is_rendered(change: Callable[[dict[str, Any]], None]) -> None:
    card = whole()
    change(card)
    readme, page = written(card)
    assert WORDS[change][0] in readme
    assert WORDS[change][1] in page
    assert not re.search(r"\bNone\b(?! states)", readme + page)
    assert "nan" not in (readme + page).split()
    assert "\n\n\n" not in page
    heads = ("## Other seeds", "## Your own photos at work")
    same_params = change not in (of_other_training_params, of_another_network)
    assert [head in page for head in heads] == [same_params, same_params]


def test_no_line_of_prose_is_longer_than_120_characters() -> None:
    for line in model_card(Card.model_validate(whole())).splitlines():
        assert len(line) <= 120 or line.startswith("|"), line


def test_faults_of_a_block_are_one_line() -> None:
    page = "<!-- {} of {} -->\nold\n<!-- end -->\n"
    for name, path, words in (
        ("colours", "reports/seeds.json", "has no macro 'colours'"),
        ("bulk", "reports/missing.json", "reports/missing.json is missing"),
        ("bulk", "reports/seeds.json", "the block 'bulk of reports/seeds.json' cannot be written"),
    ):
        with pytest.raises(StageError, match=words):
            with_blocks(page.format(name, path))
    candidate = read_card(Path("models/cifake")).of_file
    with pytest.raises(StageError, match="is a candidate"):
        model_card(candidate)


def test_a_page_out_of_date_is_named_and_mended(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """In a repository with two models and one page."""
    (tmp_path / "docs").mkdir()
    (tmp_path / "reports").symlink_to(REPO / "reports")
    for name in ("cifake", "photos"):
        (tmp_path / "models" / name).mkdir(parents=True)
        (tmp_path / "models" / name / "card.json").write_text(json.dumps(whole() | {"name": name}), encoding="utf-8")
    (tmp_path / "README.md").write_text(
        "# Of photos\n\n<!-- figures of models/photos/card.json -->\nold\n<!-- end -->\n", encoding="utf-8"
    )
    (tmp_path / "docs/OTHER.md").write_text("no figures\n", encoding="utf-8")
    monkeypatch.chdir(tmp_path)
    names = ["README.md", "docs/MODEL_CARD.md", "docs/MODEL_CARD_photos.md"]
    monkeypatch.setattr(sys, "argv", ["tools.report", "--check"])
    with pytest.raises(StageError, match=r"^out of date: .*MODEL_CARD.md.*Run 'python -m tools.report'$"):
        main()
    assert sorted(map(str, outdated())) == names
    write()
    assert outdated() == []
    assert "| version 1.3.0 |" in (tmp_path / "README.md").read_text(encoding="utf-8")
    assert (tmp_path / "docs/MODEL_CARD_photos.md").read_text(encoding="utf-8").startswith("# Model card: photos 1.3.0")


def test_no_macro_is_left_over() -> None:
    texts = [page.read_text(encoding="utf-8") for page in (Path("README.md"), *Path("docs").glob("*.md"))]
    names = {match[2] for text in texts for match in BLOCK.finditer(text)}
    for template in Path("tools/report").glob("model_card*.j2"):
        imported = re.search(r'from "tables.md.j2" import (.*) with context', template.read_text(encoding="utf-8"))
        assert imported is not None
        names |= set(imported[1].split(", "))
    macros = re.findall(r"{% macro (\w+)", Path("tools/report/tables.md.j2").read_text(encoding="utf-8"))
    assert names == set(macros)
