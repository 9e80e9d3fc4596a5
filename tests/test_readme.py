"""What the README claims comes out of files that the pipeline wrote."""

import hashlib
import json
import re
from pathlib import Path

from stages.model_card import model_card
from stages.report import BLOCK, with_figures

REPO = Path(__file__).resolve().parents[1]


def test_the_figures_are_those_of_the_released_model() -> None:
    readme = (REPO / "README.md").read_text(encoding="utf-8")
    card = json.loads((REPO / "models/card.json").read_text(encoding="utf-8"))
    assert BLOCK.search(readme)
    assert with_figures(readme, card) == readme, "run 'python -m stages.report'"


def test_the_model_card_is_that_of_the_released_model() -> None:
    card = json.loads((REPO / "models/card.json").read_text(encoding="utf-8"))
    written = (REPO / "docs/MODEL_CARD.md").read_text(encoding="utf-8")
    assert model_card(card) == written, "run 'python -m stages.report'"
    for picture in re.findall(r"!\[[^]]*\]\(([^)]+)\)", written):
        assert (REPO / "docs" / picture).resolve().is_file(), picture


def test_the_released_model_keeps_its_promises() -> None:
    """As measured on test, at release."""
    card = json.loads((REPO / "models/card.json").read_text(encoding="utf-8"))
    test, robustness = card["metrics"]["test"], card["assessment"]["robustness"]
    assert test["ece"] <= 0.01
    assert 1 - test["in_domain_share"] <= card["model"]["domain"]["out_share"] + 0.003  # both counted on samples
    for found in test["decisions"].values():
        assert found["reals_flagged"] <= found["reals_flagged_at_most"]
    assert robustness["jpeg"]["40"]["accuracy"] >= 0.958
    assert robustness["blur"]["0.6"]["accuracy"] >= 0.874
    assert robustness["noise"]["0.1"]["accuracy"] >= 0.95
    outside = dict(card["assessment"]["outside"])
    assert outside.pop("large_photos")["flagged"] == 0
    assert all(found["flagged"] == 0 for ways in outside.values() for found in ways.values())
    explained = card["assessment"]["explanation"]
    assert explained["deletion"]["map_area"] < explained["deletion"]["random_area"]
    assert explained["insertion"]["map_area"] > explained["insertion"]["random_area"]


def test_the_page_is_as_fast_as_the_readme_says() -> None:
    readme = (REPO / "README.md").read_text(encoding="utf-8")
    measured = json.loads((REPO / "reports/page_latency.json").read_text(encoding="utf-8"))
    assert f"it takes {measured['page_over_api']:.0f} times the API's own answer" in readme


def test_the_service_is_as_fast_as_the_readme_says() -> None:
    readme = (REPO / "README.md").read_text(encoding="utf-8")
    measured = json.loads((REPO / "reports/bench_serving.json").read_text(encoding="utf-8"))["ratios"]
    single, batch = measured["single_over_floor"], measured["batch_over_floor"]
    assert f"it answers at {single:.0%} of the speed of a bare loop around the model, batches at {batch:.0%}" in readme


def test_the_released_files_fit_together() -> None:
    """One release: the card, the file it describes, the checkpoint that file was exported from."""
    card = json.loads((REPO / "models/card.json").read_text(encoding="utf-8"))
    for path, digest in {
        "models/detector.onnx": card["sha256"],
        "models/checkpoint.safetensors": card["model"]["checkpoint_sha256"],
    }.items():
        data = (REPO / path).read_bytes()
        assert hashlib.sha256(data).hexdigest() == digest
        assert len(data) < 12_000_000
    ledger = [
        json.loads(line) for line in (REPO / "reports/test_ledger.jsonl").read_text(encoding="utf-8").splitlines()
    ]
    assert [entry["version"] for entry in ledger].count(card["version"]) == 1
