"""Stage export of the recipe `frozen`: calibrate the head, set thresholds, and write the file that serves."""

import json
import os
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from sklearn.decomposition import PCA

from service.models.card import Card
from stages.common import LABELS, load_params, run_stage, sha256_file, whole_file, write_text
from stages.exporting.calibration import above
from stages.exporting.ood_statistics import drawing_score
from stages.frozen.dataset import DRAWINGS, RENDER, PhotoSet, load
from stages.frozen.encoder import ENCODER, encoder_file, load_encoder
from stages.frozen.features import input_of
from stages.frozen.graph import Domain, InferenceGraph, write_onnx
from stages.frozen.head import (
    FOUND,
    HEADS,
    PLAIN,
    Float,
    fitted_folds,
    held_out,
    load_head,
    on_two_threads,
    source_weights,
)
from stages.frozen.params import ExportParams, PreprocessParams, TrainParams
from stages.frozen.thresholds import platt, quantile_from_above, robust_threshold
from stages.paths import ModelPaths

VIEWS = (FOUND, PLAIN)  # of each photo, for calibration and thresholds: shops get photos of both kinds


def main(paths: ModelPaths) -> None:
    """Export the head as params.yaml says."""
    params = load_params("export", ExportParams, paths.name)
    preprocess = load_params("preprocess", PreprocessParams, paths.name)
    candidate, photos = paths.candidate, load(paths.dataset)
    head, config = load_head(candidate.checkpoint)
    trained = TrainParams.model_validate(config["params"])
    file = encoder_file(paths, preprocess.encoder)
    encoder = load_encoder(file, preprocess.encoder)
    logits = held_out(fitted_folds(photos, trained, kept=paths.build / HEADS), photos.seen.features[:, VIEWS])
    calibration, thresholds, bias, weight = calibrate(photos, logits, head.weight, head.bias, params)
    domain, known = known_domain(photos, np.load(paths.dataset / DRAWINGS), params)
    report = json.loads(paths.dataset_report.read_text(encoding="utf-8"))
    place_encoder(file, candidate.path)
    side = {"min": params.min_side, "max": params.max_side}
    card = Card.model_validate({
        "name": paths.name,
        "version": params.version,
        "license": "MIT",
        "labels": LABELS,
        "input": input_of(preprocess.encoder).model_dump() | dict(zip(("mean", "std"), encoder.mean_std, strict=True)),
        "head_bias": 0.0,
        "heatmap": {"kind": "windows"},
        "encoder": {"file": ENCODER, "sha256": sha256_file(file), "name": preprocess.encoder.timm},
        "calibration": calibration,
        "thresholds": thresholds,
        "domain": known | {
            "out_share": params.domain_out_share,
            "geometry": {f"{edge}_{axis}": value for edge, value in side.items() for axis in ("width", "height")},
        },
        "data": {"dataset": report["dataset"], "digest": config["data_sha256"]},
        "checkpoint_sha256": sha256_file(candidate.checkpoint),
        "params": {
            "preprocess": preprocess.model_dump(mode="json"), "train": config["params"],
            "export": params.model_dump(mode="json"),
        },
    })  # fmt: skip
    graph = InferenceGraph(encoder, weight, bias, domain).eval()
    write_onnx(candidate.model, graph, card, candidate.path / ENCODER)
    whole_card = card.model_copy(update={"sha256": sha256_file(candidate.model)})
    write_text(candidate.card, whole_card.to_json() + "\n")
    print(f"{candidate.model}: {candidate.model.stat().st_size / 1e6:.1f} MB, version {card.version}")


def place_encoder(file: Path, folder: Path) -> None:
    """Put the encoder's file into a model's folder, without a second copy of its bytes where the disk allows that."""
    there = folder / ENCODER
    if there.exists() and there.samefile(file):
        return
    with whole_file(there) as temporary:
        temporary.unlink(missing_ok=True)
        try:
            os.link(file, temporary)
        except OSError:  # another disk
            shutil.copyfile(file, temporary)


def calibrate(
    photos: PhotoSet, logits: Float, weight: Float, bias: float, params: ExportParams
) -> tuple[dict[str, Any], dict[str, Any], float, Float]:
    """Return calibration and thresholds for the card, and bias and weight of the calibrated logit.

    Args:
        photos: N of them.
        logits: float64 [draws, N, V], of heads that never saw the photos' sources.
        weight: float64 [D], of the head.
        bias: likewise.
        params: alphas, and the share of AI images that may be cleared.
    """
    draws, _, views = logits.shape
    rows = np.flatnonzero(photos.rows.label != RENDER)
    flat = logits[:, rows].reshape(-1)
    labels = np.tile(np.repeat(photos.rows.label[rows], views), draws)
    sources = np.tile(np.repeat(photos.rows.source[rows], views), draws)
    weights = np.tile(np.repeat(source_weights(photos.rows)[rows], views), draws)
    slope, intercept = platt(flat, labels, weights)
    probability = 1 / (1 + np.exp(-(slope * flat + intercept)))
    reals, generated = labels == 0, labels == 1
    spread = {
        f"{alpha:g}": robust_threshold(probability[reals], sources[reals], alpha, params.confidence)
        for alpha in params.flag_alphas
    }
    calibration = {
        "method": "platt on held-out sources", "slope": slope, "intercept": intercept, "prior_ai": 0.5,
        "images": len(rows), "reals": int((photos.rows.label == 0).sum()),
        "sources": {
            name: len(np.unique(photos.rows.source[photos.rows.label == label])) for label, name in enumerate(LABELS)
        },
    }  # fmt: skip
    thresholds = {
        "flag": {alpha: above(found["threshold"]) for alpha, found in spread.items()},
        "flag_between": {alpha: [round(found["low"], 6), round(found["high"], 6)] for alpha, found in spread.items()},
        "clear": round(1 - quantile_from_above(1 - probability[generated], weights[generated], params.clear_miss), 6),
        "clear_miss": params.clear_miss,
    }
    return calibration, thresholds, slope * bias + intercept, slope * weight


def known_domain(photos: PhotoSet, drawn: npt.NDArray[Any], params: ExportParams) -> tuple[Domain, dict[str, Any]]:
    """Return what says how far a photo lies from the known ones, and the card's words about it.

    The features of known photos spread mostly in a few directions. A photo's coordinates there, scaled to variance 1,
    are its embedding; their length is its Mahalanobis distance, and a logistic regression on them knows drawings.

    Args:
        photos: N of them.
        drawn: float [M, D], features of pictures that are no photos.
        params: how many directions, and which share of photos may lie outside.
    """
    features = photos.seen.features[:, VIEWS].astype(np.float32)
    kept = photos.rows.label != RENDER
    known = features[kept].reshape(-1, features.shape[-1])
    components = min(params.domain_components, len(known) - 1)
    with on_two_threads():
        analysis = PCA(components, svd_solver="randomized", random_state=0).fit(known)
    # float32, as the graph has them.
    whitening = (analysis.components_ / np.sqrt(analysis.explained_variance_)[:, None]).T.astype(np.float32)
    centre = analysis.mean_.astype(np.float32)
    unit, weight, bias = drawing_score(*((part - centre) @ whitening for part in (known, drawn.astype(np.float32))))
    domain = Domain(centre.astype(np.float64), whitening.astype(np.float64), unit, weight, bias)
    score = domain.score(domain.embedding(features[kept, FOUND]))
    threshold = quantile_from_above(score, source_weights(photos.rows)[kept], params.domain_out_share)
    return domain, {
        "threshold": round(threshold, 4),
        "method": "mahalanobis and outlier exposure on the principal components of the features",
    }


if __name__ == "__main__":
    run_stage(main)
