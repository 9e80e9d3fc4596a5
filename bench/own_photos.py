"""What your own photos change: train without and with them, and compare on photos held out by group.

python bench/own_photos.py photos.tar --epochs 6 --pretrained efficientnet_lite0.safetensors

`photos.tar` (or a zip or folder) holds real/ and ai_generated/. Both trainings run the pipeline's stages as params.yaml
says, on the data of the last `dvc repro`, in build/own_photos; stopped and started again, they go on. A third run
proves that nothing assumes 32 pixels: the same photos at 128 pixels, on another backbone, from pretrained weights, with
the synthetic set in CIFAKE's place. Held out means validation: test is read at releases only. The answer is
reports/own_photos.json, and `python -m tools.report` writes it into README.md and docs/MODEL_CARD.md.
"""

import argparse
from pathlib import Path
from typing import Any

import numpy as np
from workspace import MODEL, REPO, Workspace

from stages.common import LABELS, write_json
from stages.data.image_sets import load_images
from stages.data.own_photos import SUFFIXES
from stages.data.sources import members
from stages.evaluation.figures import figures
from stages.evaluation.runner import rounded
from stages.evaluation.scoring import open_detector, score
from stages.paths import ModelPaths

CANDIDATE = ModelPaths(MODEL).candidate
OUT = REPO / "reports/own_photos.json"
LARGE: dict[str, dict[str, Any]] = {  # the third run
    "download": {"dataset": "synthetic", "synthetic_size": 128},
    "preprocess": {"image_size": 128},
    "train": {
        "backbone": "tf_efficientnet_lite0", "backbone_args": {}, "stem": "stock",
        "mean": [0.5, 0.5, 0.5], "std": [0.5, 0.5, 0.5],
        "epochs": 6, "batch_size": 32, "optimizer": "adamw", "learning_rate": 0.001,
    },
    "evaluate": {"robustness_images": 100, "explained_images": 50, "ood_images": 20},
}  # fmt: skip


def unpack(source: Path, folder: Path) -> None:
    """Write the photos of an archive as <folder>/<label>/<name>."""
    for name, data in members(source):
        folders = Path(name).parts[:-1]
        label = next((part for part in folders if part in LABELS), None)
        if label is not None and Path(name).suffix.lower() in SUFFIXES:
            target = folder.joinpath(*folders[folders.index(label) :], Path(name).name)  # groups stay groups
            target.parent.mkdir(parents=True, exist_ok=True)
            target.write_bytes(data)


def compared(workspace: Workspace, validation: Path) -> dict[str, Any]:
    """Return what the workspace's model says on CIFAKE's validation photos and on the held-out own ones."""
    detector = open_detector(workspace.folder / CANDIDATE.model)
    data = load_images(validation)
    own = data.flags["own"] == 1
    scored = score(detector, data, workspace.folder.name)
    geometry = detector.card.domain.geometry
    result: dict[str, Any] = {"known_widths": [geometry.min_width, geometry.max_width]}
    for name, rows in {"dataset": ~own, "own_photos": own}.items():
        found = rounded(figures(scored.take(np.flatnonzero(rows)), detector.card))
        result[name] = {key: found[key] for key in ("images", "accuracy", "auc", "ece", "in_domain_share")}
        result[name]["decisions"] = found["decisions"]["alpha_0.01"]
    return result


def main() -> None:
    """Run all three trainings."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("photos", type=Path)
    parser.add_argument("--epochs", type=int, required=True, help="of the first two trainings")
    parser.add_argument("--pretrained", type=Path, required=True, help="weights for the third: tf_efficientnet_lite0's")
    parser.add_argument("--folder", type=Path, default=REPO / "build/own_photos")
    arguments = parser.parse_args()
    epochs = {"epochs": arguments.epochs}
    large = LARGE | {"train": LARGE["train"] | {"pretrained": str(arguments.pretrained.resolve())}}
    spaces = {
        "before": Workspace(arguments.folder / "before", train=epochs, preprocess={"own_photos_min": 0}),
        "after": Workspace(arguments.folder / "after", train=epochs),
        "at_128_pixels": Workspace(arguments.folder / "at_128_pixels", **large),
    }
    for name, space in spaces.items():
        if name != "before":
            unpack(arguments.photos, space.folder / "data")
        last = ModelPaths(MODEL).metrics if name == "at_128_pixels" else CANDIDATE.model
        if (space.folder / last).exists():
            continue
        if name == "at_128_pixels":
            space.run("download", "preprocess")
        else:
            space.take("build/cifake/raw")
            space.run("preprocess")
        if not (space.folder / CANDIDATE.checkpoint).exists():
            space.run("train")
        space.run("export", *(["evaluate"] if name == "at_128_pixels" else []))
    after = spaces["after"].folder / "build/cifake/dataset/validation.safetensors"
    report = spaces["after"].json("reports/cifake/dataset.json")["own_photos"]
    metrics = spaces["at_128_pixels"].json("reports/cifake/metrics.json")
    write_json(
        OUT,
        {
            "train": spaces["after"].params["train"],
            "own_photos": report,
            "epochs": arguments.epochs,
            "before": compared(spaces["before"], after),
            "after": compared(spaces["after"], after),
            "at_128_pixels": {
                "backbone": LARGE["train"]["backbone"],
                "own_photos": {key: metrics["own_photos"][key] for key in ("images", "accuracy", "auc", "ece")},
                "file_mb": round((spaces["at_128_pixels"].folder / CANDIDATE.model).stat().st_size / 1e6, 1),
            },
        },
    )
    print(OUT.read_text(encoding="utf-8"))


if __name__ == "__main__":
    main()
