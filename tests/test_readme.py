"""What the README claims comes out of files that the pipeline wrote."""

import hashlib
import json
from pathlib import Path

from stages.report import BLOCK, with_figures

REPO = Path(__file__).resolve().parents[1]


def test_the_figures_are_those_of_the_released_model() -> None:
    readme = (REPO / "README.md").read_text(encoding="utf-8")
    card = json.loads((REPO / "models/card.json").read_text(encoding="utf-8"))
    assert BLOCK.search(readme)
    assert with_figures(readme, card) == readme, "run 'python -m stages.report'"


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
