"""What the head of `photos` gains by each depth of the encoder, by each view and by each weight, on held-out sources.

python bench/encoders.py [--report reports/bench_encoders.json]

It reads build/photos/dataset, which `dvc repro preprocess@photos` writes: so it needs no pass of an encoder. Another
encoder is compared by its own entry in params.yaml (`-S models.photos.preprocess.encoder.timm=...`) and this bench
again. Every row is one draw of folds; every source weighs the same.
"""

import argparse
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from sklearn.metrics import roc_auc_score

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from stages.common import load_params, write_json
from stages.frozen.dataset import RENDER, PhotoSet, load
from stages.frozen.encoder import EncoderParams
from stages.frozen.head import FOUND, PLAIN, fit, fitted_folds, held_out, source_weights
from stages.frozen.params import PreprocessParams, TrainParams
from stages.frozen.thresholds import quantile_from_above
from stages.paths import ModelPaths

NAME = "photos"


def with_features(photos: PhotoSet, columns: list[int], views: list[int]) -> PhotoSet:
    """Return photos with some columns of their features, and some of their views, alone."""
    return replace(photos, seen=replace(photos.seen, features=photos.seen.features[:, views][..., columns]))


def judged(learned: PhotoSet, photos: PhotoSet, params: TrainParams, *, apart: bool = False) -> dict[str, Any]:
    """Return AUC, and the share of AI images found at 2 and 1 % of real photos flagged, of the plain and found view.

    Args:
        learned: what the heads are fitted to.
        photos: the same photos, by which they are judged.
        params: how they are fitted.
        apart: each fold's principal components are those of its own photos, not of all.
    """
    found: dict[str, Any] = {}
    fitted = fitted_folds(learned, params)
    if apart:
        every = np.arange(len(learned))
        fitted = [replace(one, head=fit(learned.take(np.setdiff1d(every, one.held_out)), params)) for one in fitted]
    rows = np.flatnonzero(photos.rows.label != RENDER)
    labels, weights = photos.rows.label[rows], source_weights(photos.rows)[rows]
    reals = labels == 0
    for name, view in (("rewritten", PLAIN), ("as_found", FOUND)):
        logits = held_out(fitted, photos.seen.features[:, view])[0][rows]
        found[name] = {"auc": round(float(roc_auc_score(labels, logits, sample_weight=weights)), 4)}
        for share in (0.02, 0.01):
            above = logits > quantile_from_above(logits[reals], weights[reals], share)
            recall = weights[above & ~reals].sum() / weights[~reals].sum()
            found[name][f"recall_at_{share:g}"] = round(float(recall), 4)
    return found


def variants(
    photos: PhotoSet, encoder: EncoderParams, params: TrainParams
) -> Iterator[tuple[str, PhotoSet, PhotoSet, TrainParams]]:
    """Yield what is compared: a name, photos to learn from, photos to be judged by, and how the head is fitted."""
    parts = [f"class token after {n}" for n in encoder.class_tokens] + [
        f"patch mean after {n}" for n in encoder.patch_means
    ]
    sizes = (encoder.image_size, *encoder.smaller_sizes)
    names = [f"{size} px, {part}" for size in sizes for part in parts]
    width = photos.seen.features.shape[-1] // len(names)
    every, views = list(range(photos.seen.features.shape[-1])), list(range(photos.seen.features.shape[1]))
    yield "all, as params.yaml has it", photos, photos, params
    columns = {name: every[place * width : (place + 1) * width] for place, name in enumerate(names)}
    if len(sizes) > 1:
        for place, size in enumerate(sizes):
            columns[f"{size} px"] = every[place * len(parts) * width : (place + 1) * len(parts) * width]
    for name, chosen in columns.items():
        part = with_features(photos, chosen, views)
        yield f"{name} alone", part, part, params
    chosen_views = {"the photo as found alone": [FOUND], "rewrites alone": views[PLAIN:], "one rewrite alone": [PLAIN]}
    for count in range(1, len(views) - 1):
        chosen_views[f"the photo as found and {count} of {len(views) - 1} rewrites"] = views[: count + 1]
    for name, learned in chosen_views.items():
        yield f"learned from {name}", with_features(photos, every, learned), photos, params
    changes: dict[str, dict[str, float]] = {
        "logistic regression alone": {"ridge_share": 0.0},
        "ridge regression alone": {"ridge_share": 1.0},
        **{f"source_exponent {value:g}": {"source_exponent": value} for value in (0.0, 0.5)},
        **{f"{value:,} components": {"components": value} for value in (512, 1024, 3072)},
        **{f"ridge_penalty {value:,}": {"ridge_penalty": value} for value in (10_000, 100_000)},
        **{f"inverse_penalty {value:g}": {"inverse_penalty": value} for value in (0.0005, 0.005)},
    }
    for name, change in changes.items():
        yield name, photos, photos, params.model_copy(update=change)


def main() -> None:
    """Measure, print, and write the report."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--report", type=Path, default=Path("reports/bench_encoders.json"))
    options = parser.parse_args()
    photos = load(ModelPaths(NAME).dataset)
    encoder = load_params("preprocess", PreprocessParams, NAME).encoder
    params = load_params("train", TrainParams, NAME).model_copy(update={"draws": 1})
    rows = {}
    for name, learned, part, how in variants(photos, encoder, params):
        rows[name] = judged(learned, part, how)
        print(name, rows[name], flush=True)
    name = "components of each fold's own photos"
    rows[name] = judged(photos, photos, params, apart=True)
    print(name, rows[name], flush=True)
    write_json(options.report, {"encoder": encoder.model_dump(mode="json"), "photos": len(photos), "rows": rows})


if __name__ == "__main__":
    main()
