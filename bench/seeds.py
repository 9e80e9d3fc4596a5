"""How much of a figure is the seed's doing: train again with other seeds and compare on validation.

python bench/seeds.py 1 2        hours on a CPU; stopped and started again, it goes on

Each seed trains, exports and evaluates as params.yaml says, in build/seeds/<seed>, on the data of the last `dvc repro`.
reports/seeds.json then holds every seed's figures beside those of the repository's own training, mean and spread;
`python -m tools.report` writes them into docs/MODEL_CARD.md.
"""

import argparse
import json
import statistics
import sys
from pathlib import Path
from typing import Any

from workspace import MODEL, REPO, Workspace

from service.models.card import read_card
from stages.common import write_json
from stages.paths import ModelPaths

CANDIDATE = ModelPaths(MODEL).candidate
OUT = REPO / "reports/seeds.json"
FIGURES = {
    "accuracy": ("validation", "accuracy"),
    "auc": ("validation", "auc"),
    "ece": ("validation", "ece"),
    "false_positive_rate": ("validation", "decisions", "alpha_0.01", "false_positive_rate"),
    "recall": ("validation", "decisions", "alpha_0.01", "recall"),
    "accuracy_jpeg_40": ("robustness", "jpeg", "40", "accuracy"),
    "accuracy_blur_0.6": ("robustness", "blur", "0.6", "accuracy"),
    "accuracy_noise_0.1": ("robustness", "noise", "0.1", "accuracy"),
}


def reported(folder: Path) -> dict[str, Any]:
    """Return what evaluate wrote into a folder's reports."""
    metrics, assessment = (
        json.loads((folder / f"reports/cifake/{name}.json").read_text(encoding="utf-8"))
        for name in ("metrics", "assessment")
    )
    joined: dict[str, Any] = metrics | assessment
    return joined


def figures(metrics: dict[str, Any]) -> dict[str, float]:
    """Pick the compared figures out of what evaluate reported."""
    picked = {}
    for name, keys in FIGURES.items():
        value: Any = metrics
        for key in keys:
            value = value[key]
        picked[name] = value
    return picked


def summary(seeds: dict[str, dict[str, float]]) -> dict[str, dict[str, float]]:
    """Return mean and sample standard deviation of each figure over the seeds."""
    columns = {name: [found[name] for found in seeds.values()] for name in FIGURES}
    return {
        name: {"mean": round(statistics.mean(values), 6), "spread": round(statistics.stdev(values), 6)}
        for name, values in columns.items()
    }


def main() -> None:
    """Train every seed named on the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("seeds", type=int, nargs="+")
    parser.add_argument("--folder", type=Path, default=REPO / "build/seeds")
    arguments = parser.parse_args()
    train = read_card(REPO / CANDIDATE.model).params["train"]  # what reports/cifake/metrics.json is about
    if train["seed"] in arguments.seeds or len(set(arguments.seeds)) < len(arguments.seeds):
        parser.error(f"name each seed once, and other ones than params.yaml's, {train['seed']}")
    found = {str(train["seed"]): figures(reported(REPO))}
    for seed in arguments.seeds:
        workspace = Workspace(arguments.folder / str(seed), train={"seed": seed})
        if not (workspace.folder / "reports/cifake/metrics.json").exists():
            workspace.take("build/cifake/dataset", "build/cifake/raw", "reports/cifake/dataset.json")
            if not (workspace.folder / CANDIDATE.checkpoint).exists():
                workspace.run("train")
            workspace.run("export", "evaluate")
        trained = read_card(workspace.folder / CANDIDATE.model).params["train"]
        if trained | {"seed": None} != train | {"seed": None}:
            sys.exit("error: params.yaml changed since the last 'dvc repro': run that first")
        found[str(seed)] = figures(reported(workspace.folder))
    write_json(OUT, {"train": train, "seeds": found, "summary": summary(found)})
    print(OUT.read_text(encoding="utf-8"))


if __name__ == "__main__":
    main()
