"""Which network, and how long: timm's backbones under one recipe as DVC experiments, and the released one whole.

python bench/backbones.py [--report reports/backbones.json]     hours on a CPU; stopped and started again, it goes on

Each experiment is `dvc exp run --temp`, so the working tree stays as it is; `dvc exp show` lists them, and
`dvc exp apply NAME` takes one up. Accuracy is that of the exported file on validation: calibrated, photo and mirror
image averaged, as it would be served. Forward passes of all files are timed in one run, on one core, in turns.
"""

import argparse
import json
import os
import re
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import dvc.api
import numpy as np
import yaml
from matplotlib.figure import Figure

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from service.models.detector import Detector
from stages.common import whole_file, write_json
from stages.training.model import load_checkpoint
from tools.report.render import block

ROOT = Path(__file__).resolve().parents[1]
PICTURE = ROOT / "docs" / "backbones.png"
EPOCHS = 2  # of every backbone
ROUNDS = 100
QUICK = (  # what the comparison does not ask for is measured as coarsely as can be
    "export.domain_images=2000", "export.domain_drawings=200",
    "evaluate.robustness_images=20", "evaluate.explained_images=1", "evaluate.ood_images=1",
)  # fmt: skip
STOCK = ("~train.backbone_args.layers", "~train.backbone_args.channels", "~train.backbone_args.stem_type",
         "~train.backbone_args.stem_width", "~train.backbone_args.output_stride")  # fmt: skip


@dataclass(frozen=True)
class Network:
    """One network of the comparison: its name in tables, and what to set in params.yaml for it."""

    name: str
    settings: tuple[str, ...] = ()

    def experiment(self, epochs: int) -> str:
        """Return the experiment's name."""
        return f"{self.name}-{epochs}-epochs"


RELEASED = Network("released")  # params.yaml as it is
NETWORKS = (  # two residual nets, then one of each other family
    RELEASED,
    Network("record", ("train.backbone_args.layers=[2,2,2,1]",)),  # what `make record` trains for long
    Network("regnetx_002", ("train.backbone=regnetx_002", *STOCK)),
    Network("mobilenetv4_conv_small", ("train.backbone=mobilenetv4_conv_small", *STOCK)),
    Network("efficientnet_b0", ("train.backbone=efficientnet_b0", *STOCK)),
    Network("convnext_atto", (
        "train.backbone=convnext_atto", *STOCK, "+train.backbone_args.output_stride=8",
        "+train.backbone_args.patch_size=2", "train.stem=stock",
    )),
)  # fmt: skip


def of_model(settings: Iterable[str]) -> list[str]:
    """Return settings of a model's sections as settings of params.yaml."""
    return [re.sub(r"^([~+]*)", r"\1models.cifake.", each) for each in settings]


def train(network: Network, epochs: int) -> None:
    """Run one experiment up to evaluate, unless it was run before."""
    listed = ["dvc", "exp", "list", "--name-only"]
    known = subprocess.run(listed, cwd=ROOT, check=True, capture_output=True, text=True)  # noqa: S603 - our own command
    name = network.experiment(epochs)
    if name in known.stdout.split():
        return
    settings = (f"train.epochs={epochs}", *network.settings, *QUICK)
    command = ["dvc", "exp", "run", "--temp", "--name", name, *(f"--set-param={each}" for each in of_model(settings))]
    # Other settings for a release that a shell may have do not belong to an experiment.
    environment = {k: v for k, v in os.environ.items() if k != "LARGE_PHOTOS"}
    subprocess.run([*command, "evaluate@cifake"], cwd=ROOT, env=environment, check=True)  # noqa: S603 - our own settings


def found(revision: str | None) -> dict[str, Any]:
    """Return what an experiment (or, for None, the working tree) has to show."""

    def read(path: str) -> bytes:
        if revision is None:
            return (ROOT / path).read_bytes()
        content: bytes = dvc.api.read(path, repo=str(ROOT), rev=revision, mode="rb")
        return content

    metrics = json.loads(read("reports/cifake/metrics.json"))
    params = yaml.safe_load(read("params.yaml"))["models"]["cifake"]["train"]
    with tempfile.TemporaryDirectory() as folder:
        checkpoint = Path(folder) / "checkpoint.safetensors"
        checkpoint.write_bytes(read("build/cifake/candidate/checkpoint.safetensors"))
        network, _ = load_checkpoint(checkpoint)
    return {
        "backbone": params["backbone"],
        "backbone_args": params["backbone_args"],
        "stem": params["stem"],
        "epochs": params["epochs"],
        "parameters": sum(each.numel() for each in network.parameters()),
        "validation_images": metrics["validation"]["images"],
        "accuracy": metrics["validation"]["accuracy"],
        "auc": metrics["validation"]["auc"],
        "onnx": read("build/cifake/candidate/model.onnx"),
    }


def milliseconds(files: dict[str, bytes]) -> dict[str, float]:
    """Return the median time of one photo through each file on one core, measured in turns."""
    with tempfile.TemporaryDirectory() as folder:
        detectors = {}
        for name, content in files.items():
            (path := Path(folder) / f"{name}.onnx").write_bytes(content)
            detectors[name] = Detector(path, threads=1)
    times: dict[str, list[float]] = {name: [] for name in files}
    for count in range(ROUNDS + 5):
        for name, detector in detectors.items():
            photo = np.random.default_rng(count).integers(0, 255, (1, detector.height, detector.width, 3), np.uint8)
            start = time.perf_counter()
            detector.score(photo)
            if count >= 5:  # the first ones warm up
                times[name].append(1000 * (time.perf_counter() - start))
    return {name: round(statistics.median(each), 2) for name, each in times.items()}


def front(rows: list[dict[str, Any]]) -> list[str]:
    """Return the networks that no other one beats: none is at least as accurate in less time."""
    kept, best = [], 0.0
    for row in sorted(rows, key=lambda row: (row["milliseconds"], -row["accuracy"])):
        if row["accuracy"] > best:
            kept.append(row["name"])
            best = row["accuracy"]
    return kept


def draw(rows: list[dict[str, Any]], path: Path) -> None:
    """Draw accuracy against time, and the line of those that none beats."""
    figure = Figure(figsize=(7.5, 4.2), layout="constrained")
    ax = figure.subplots()
    on_front = set(front(rows))
    line = sorted((row["milliseconds"], row["accuracy"]) for row in rows if row["name"] in on_front)
    ax.step(*zip(*line, strict=True), where="post", color="tab:blue", linewidth=1, alpha=0.6)
    for row in rows:
        colour = "tab:blue" if row["name"] in on_front else "tab:gray"
        ax.plot(row["milliseconds"], row["accuracy"], "o", color=colour)
        text = f"{row['name']}\n{row['parameters'] / 1e6:.1f}M"
        side, where = ("bottom", 6) if row["name"] in on_front else ("top", -6)
        ax.annotate(text, (row["milliseconds"], row["accuracy"]), (0, where), textcoords="offset points",
                    ha="center", va=side, fontsize=8)  # fmt: skip
    ax.set(xscale="log", xlabel="milliseconds a photo, ONNX Runtime on one core", ylabel="validation accuracy")
    ax.set_title(f"Backbones after {rows[0]['epochs']} epochs of the same recipe", fontsize=10)
    for axis in (ax.xaxis.set_major_formatter, ax.xaxis.set_minor_formatter):
        axis("{x:g}")
    ax.margins(x=0.12, y=0.2)
    ax.grid(alpha=0.3)
    with whole_file(path) as temporary:
        figure.savefig(temporary, format="png", dpi=110, metadata={"Software": None})


def main() -> None:
    """Run what is missing, compare, write report and picture."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--report", type=Path, default=ROOT / "reports" / "backbones.json")
    options = parser.parse_args()
    for network in NETWORKS:
        train(network, EPOCHS)

    rows = [{"name": network.name} | found(network.experiment(EPOCHS)) for network in NETWORKS]
    rows.append({"name": RELEASED.name} | found(None))  # as long as params.yaml says
    times = milliseconds({row["name"]: row.pop("onnx") for row in rows})  # of one network, however long it trained
    for row in rows:
        row["milliseconds"] = times[row["name"]]
        row["times_released"] = round(times[row["name"]] / times[RELEASED.name], 2)
    backbones = rows[: len(NETWORKS)]
    for row in backbones:
        row["on_front"] = row["name"] in front(backbones)
    released = [row for row in rows if row["name"] == RELEASED.name]
    pipeline = json.loads((ROOT / "reports" / "bench_pipeline.json").read_text(encoding="utf-8"))
    epoch = max((row for row in pipeline["rows"] if row["stage"] == "train"), key=lambda row: row["images"])
    report = {
        "recipe": yaml.safe_load((ROOT / "params.yaml").read_text(encoding="utf-8"))["models"]["cifake"]["train"],
        "backbones": backbones,
        "epochs": [
            {"epochs": row["epochs"], "minutes": round(row["epochs"] * epoch["seconds"] / 60)}
            | {key: row[key] for key in ("validation_images", "accuracy", "auc")}
            for row in released
        ],
    }
    write_json(options.report, report)
    draw(backbones, PICTURE)
    print(block("backbones", report))
    print(block("epochs", report))


if __name__ == "__main__":
    main()
