"""Stage evaluate of the recipe `frozen`: judge the head on sources that it never saw, and try the exported file."""

import csv
import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from sklearn import metrics as sk
from tqdm import tqdm

from service.models import decision
from service.models.card import Card
from service.models.detector import Detector
from stages.common import LABELS, StageError, load_params, run_stage, sha256_file, whole_file, write_json
from stages.evaluation.plots import save_figure
from stages.evaluation.runner import rounded
from stages.evaluation.scoring import decisions, open_detector
from stages.exporting.ood_pictures import KINDS
from stages.frozen import judging, rewrites, views
from stages.frozen.dataset import DRAWINGS, PHOTOS, RENDER, PhotoSet, kept_array, load, read_photos
from stages.frozen.encoder import ENCODER, Encoder, encoder_file, load_encoder
from stages.frozen.export import VIEWS, known_domain, place_encoder
from stages.frozen.features import cache_folder, features_of, opened_photo
from stages.frozen.graph import Domain
from stages.frozen.head import FOUND, HEADS, Float, Fold, Head, fitted_folds, held_out, load_head, source_weights
from stages.frozen.params import EvaluateParams, ExportParams, PreprocessParams, TrainParams
from stages.frozen.rewrites import ORDINARY, REWRITES
from stages.paths import ModelPaths

_RETOUCHED = {  # rewrites that look like what people and phones do to real photos before they upload them
    "sharpened": "sharpened", "denoised": "denoised", "enlarged": "half size and back", "screenshots": "screenshot",
}  # fmt: skip
_AS_FOUND, _REWRITTEN = range(len(VIEWS))
Bools = npt.NDArray[np.bool_]


def main(paths: ModelPaths) -> None:
    """Write metrics, plots and the reference for drift detection."""
    from stages.tracking import tracked_run

    params = load_params("evaluate", EvaluateParams, paths.name)
    preprocess = load_params("preprocess", PreprocessParams, paths.name)
    candidate, photos = paths.candidate, load(paths.dataset)
    file = encoder_file(paths, preprocess.encoder)
    place_encoder(file, candidate.path)
    detector = open_detector(candidate.path)
    card, features = detector.card, photos.seen.features
    head, config = load_head(candidate.checkpoint)
    fitted = fitted_folds(photos, TrainParams.model_validate(config["params"]), kept=paths.build / HEADS)
    domain, _ = known_domain(
        photos, np.load(paths.dataset / DRAWINGS), ExportParams.model_validate(card.params["export"])
    )
    probability = calibrated(card, held_out(fitted, features[:, VIEWS]))
    in_domain = np.stack([domain.score(domain.embedding(features[:, view])) for view in VIEWS]) <= card.domain.threshold

    chosen = sample(photos, params.rewritten_photos)
    files = read_photos(paths.dataset / PHOTOS, photos.rows.sha256[chosen].tolist())
    encoder = load_encoder(file, preprocess.encoder).ready(preprocess.precision)
    results = {
        name: judged(card, photos, probability[..., view], in_domain[view])
        for name, view in (("validation", _REWRITTEN), ("as_found", _AS_FOUND))
    }
    held = probability[..., _REWRITTEN]
    in_order = {digest: files[digest] for digest in photos.rows.sha256[chosen].tolist()}
    seen = rewritten_features(detector, encoder, in_order, cache_folder(paths.build, preprocess))
    changed = rewritten(card, photos, chosen, seen, fitted=fitted, domain=domain)
    assessment = {
        "sources": judging.by_source(photos.rows, held),
        "generators": judging.by_generator(photos.rows, held),
        "pairs": judging.pairs(photos.rows, held),
        "slices": judging.slices(photos, held),
        "rewrites": changed,
        "hard": {
            **hard_photos(card, photos, held, in_domain[_REWRITTEN]),
            **{name: changed["changes"][change]["reals"] for name, change in _RETOUCHED.items()},
            **graphics(detector, encoder, head, domain, params.graphics),
        },
        "served": served(detector, photos, chosen[: params.served_photos], files, head),
    }
    for name, found in results.items():
        print(f"{name}: AUC {found['auc']:.4f} on {found['images']:,} photos of sources that the head never saw")
    draw(candidate.plots, photos, held.mean(0), assessment, paths.curves)
    with whole_file(candidate.reference) as temporary, temporary.open("wb") as out:
        np.savez(out, allow_pickle=False, **reference(photos, probability, domain, params.reference_components))
    kept = photos.rows.label != RENDER
    with whole_file(paths.predictions) as temporary, temporary.open("w", encoding="utf-8") as out:
        out.write("actual,predicted\n")
        for label, p in zip(photos.rows.label[kept], held.mean(0)[kept], strict=True):
            out.write(f"{LABELS[label]},{LABELS[int(p >= 0.5)]}\n")
    megabytes = sum(each.stat().st_size for each in (candidate.model, candidate.path / ENCODER)) / 1e6
    write_json(paths.metrics, rounded(results) | {"file": {"mb": round(megabytes, 2)}})
    write_json(paths.assessment, rounded(assessment))
    with tracked_run("evaluate", paths.name, sha256_file(candidate.checkpoint)) as run:
        run.log_metrics(rounded(results))
        run.log_artifact(candidate.model)
        for picture in sorted(candidate.plots.glob("*.png")):
            run.log_artifact(picture)


def calibrated(card: Card, logits: Float) -> Float:
    """Return probabilities of a head's own logits."""
    slope, intercept = card.calibration.slope, card.calibration.intercept
    if slope is None or intercept is None:
        raise StageError("the card has no calibration: run 'dvc repro'")
    probability: Float = 1 / (1 + np.exp(-(slope * logits + intercept)))
    return probability


def judged(card: Card, photos: PhotoSet, probability: Float, in_domain: Bools) -> dict[str, Any]:
    """Return the figures of all photos, and of your own; the mean of all draws, with their spread.

    Args:
        card: the candidate's.
        photos: N of them.
        probability: float64 [draws, N], of heads that never saw the photos' sources.
        in_domain: bool [N].
    """
    rows = photos.rows
    weights = source_weights(rows)
    each = [judging.figures(card, rows, one, in_domain, weights) for one in probability]
    pooled = [judging.figures(card, rows, one, in_domain, np.ones(len(rows))) for one in probability]
    found = mean_of(each)
    found["auc_spread"] = float(np.std([one["auc"] for one in each]))
    found["photos_alike"] = {key: value for key, value in mean_of(pooled).items() if key in ("auc", "recall_at")}
    limit = card.thresholds.flag[0.02] if 0.02 in card.thresholds.flag else card.thresholds.flag[judging.ALPHA]
    found["flagged"] = mean_of([judging.shares_flagged(one, rows, limit) for one in probability])
    if rows.own.any():
        flag = card.thresholds.flag[judging.ALPHA]
        own = rows.take(np.flatnonzero(rows.own))
        found["own_photos"] = {"images": len(own)} | mean_of(
            [judging.shares_flagged(one[rows.own], own, flag) for one in probability]
        )
    return found


def mean_of(tables: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Return the mean of each number of several tables of the same shape."""
    first = tables[0]
    return {
        key: mean_of([table[key] for table in tables])
        if isinstance(value, Mapping)
        else (value if isinstance(value, int) else float(np.mean([table[key] for table in tables])))
        for key, value in first.items()
    }


def sample(photos: PhotoSet, count: int) -> npt.NDArray[np.int64]:
    """Return rows of photos of both labels, as many of each, spread over as many sources as there are."""
    chosen: list[int] = []
    for label in (0, 1):
        rows = np.flatnonzero(photos.rows.label == label)
        place = np.zeros(len(rows), np.int64)  # of the photo within its source, in the order of digests
        for source in np.unique(photos.rows.source[rows]):
            mask = photos.rows.source[rows] == source
            place[mask] = np.arange(mask.sum())
        chosen += rows[np.argsort(place, kind="stable")[: count // 2]].tolist()
    # Both labels in turns, so that a part from the front holds both.
    half = len(chosen) // 2
    return np.array([row for pair in zip(chosen[:half], chosen[half:], strict=False) for row in pair], np.int64)


def rewritten_features(
    detector: Detector, encoder: Encoder, files: Mapping[str, bytes], cache: Path
) -> npt.NDArray[np.float16]:
    """Return what the encoder sees of photos as found and after each rewrite: float16 [M, 1 + rewrites, D].

    Args:
        detector: whose way of taking photos is used.
        encoder: of the features.
        files: contents of M photos, by digest.
        cache: the folder in which features of this encoder are kept.
    """
    code = hashlib.sha256(Path(rewrites.__file__).read_bytes() + Path(views.__file__).read_bytes()).hexdigest()
    folder = cache / f"rewrites-{code[:16]}"

    def made(digest: str) -> npt.NDArray[np.float16]:
        photo = opened_photo(files[digest], digest).image
        pixels = [detector.prepare(change(photo)) for change in (lambda same: same, *REWRITES.values())]
        return features_of(encoder, np.stack(pixels))

    bar = tqdm(files, "rewrites", unit=" photos", mininterval=2)
    return np.stack([kept_array(folder / f"{digest}.npy", partial(made, digest)) for digest in bar])


def rewritten(
    card: Card,
    photos: PhotoSet,
    chosen: npt.NDArray[np.int64],
    features: npt.NDArray[np.float16],
    *,
    fitted: Sequence[Fold],
    domain: Domain,
) -> dict[str, Any]:
    """Return what each rewrite does to decisions at the thresholds as they are, and how many decisions survive.

    Args:
        card: the candidate's.
        photos: N of them.
        chosen: int64 [M], rows of those that are rewritten.
        features: float16 [M, 1 + rewrites, D], as `rewritten_features` gives them.
        fitted: heads; each judges photos of sources that it never saw.
        domain: of the candidate.
    """
    rows = photos.rows.take(chosen)
    names = ["as found", *REWRITES]
    place = np.full(len(photos), -1)
    place[chosen] = np.arange(len(chosen))
    of_chosen = [replace(fold, held_out=(found := place[fold.held_out])[found >= 0]) for fold in fitted]
    probability = calibrated(card, held_out(of_chosen, features))
    draws = len(probability)
    distance = np.stack([domain.score(domain.embedding(features[:, view])) for view in range(len(names))], 1)
    inside = distance <= card.domain.threshold
    limits = decision.thresholds(card, judging.ALPHA, card.calibration.prior_ai)
    made = np.stack([
        decisions(probability[draw].ravel(), inside.ravel(), limits).reshape(inside.shape) for draw in range(draws)
    ])  # fmt: skip
    reals, generated = rows.label == 0, rows.label == 1
    table = {
        name: {
            "false_positive_rate": float((made[:, reals, view] == "flag").mean()),
            "recall": float((made[:, generated, view] == "flag").mean()),
            "review_rate": float((made[..., view] == "review").mean()),
            "auc": float(np.mean([sk.roc_auc_score(rows.label, each) for each in probability[..., view]])),
            "same_decision": float((made[..., view] == made[..., 0]).mean()),
            "turned_round": float(_turned(made[..., view], made[..., 0]).mean()),
            "reals": outcomes(made[:, reals, view]),
        }
        for view, name in enumerate(names)
    }
    ordinary = [names.index(name) for name in ORDINARY]
    same = made[..., ordinary] == made[..., :1]
    return {
        "photos": len(chosen),
        "changes": table,
        "agreement": {
            "rewrites": len(ordinary),
            "all_survive": float(same.all(-1).mean()),
            "one_survives": float(same.mean()),
            "never_turned_round": float((~_turned(made[..., ordinary], made[..., :1])).all(-1).mean()),
        },
    }


def outcomes(made: npt.NDArray[np.str_]) -> dict[str, Any]:
    """Return how many photos there are and how often each decision was made: str [..., N]."""
    return {"photos": made.shape[-1]} | {name: float((made == name).mean()) for name in ("flag", "review", "clear")}


def hard_photos(card: Card, photos: PhotoSet, probability: Float, in_domain: Bools) -> dict[str, Any]:
    """Return what happens to photos that other detectors are known to get wrong.

    Args:
        card: the candidate's.
        photos: N of them.
        probability: float64 [draws, N], of heads that never saw the photos' sources.
        in_domain: bool [N].
    """
    limits = decision.thresholds(card, judging.ALPHA, card.calibration.prior_ai)
    made = np.stack([decisions(each, in_domain, limits) for each in probability])
    reals = photos.rows.label == 0
    parts = {
        "cut out on white": reals & judging.on_white(photos),
        "people and clothes": reals & (photos.rows.subject == "clothes"),
        "dark": reals & judging.dark(photos),
        "renders and mock-ups": photos.rows.label == RENDER,
    }
    return {name: outcomes(made[:, part]) for name, part in parts.items() if part.any()}


def graphics(detector: Detector, encoder: Encoder, head: Head, domain: Domain, count: int) -> dict[str, Any]:
    """Return what happens to `count` pictures of each kind that is drawn and no photo: posters, sketches, patterns."""
    card = detector.card
    limits = decision.thresholds(card, judging.ALPHA, card.calibration.prior_ai)
    found = {}
    for kind, draw_one in tqdm(KINDS.items(), "graphics", delay=2):
        rng = np.random.default_rng(1)
        features = features_of(encoder, np.stack([detector.prepare(draw_one(rng, 640, 640)) for _ in range(count)]))
        inside = domain.score(domain.embedding(features)) <= card.domain.threshold
        found[kind] = outcomes(decisions(calibrated(card, head.logit(features)), inside, limits))
    return found


def _turned(one: npt.NDArray[np.str_], other: npt.NDArray[np.str_]) -> Bools:
    """Tell where a flag became a clearance, or the other way round."""
    turned: Bools = ((one == "flag") & (other == "clear")) | ((one == "clear") & (other == "flag"))
    return turned


def served(
    detector: Detector, photos: PhotoSet, chosen: npt.NDArray[np.int64], files: Mapping[str, bytes], head: Head
) -> dict[str, Any]:
    """Score photos through the exported file and the service's code, and compare with the features' own result."""
    digests = photos.rows.sha256[chosen].tolist()
    bar = tqdm(digests, "served", unit=" photos", mininterval=2)
    prepared = (detector.prepare(opened_photo(files[digest], digest).image) for digest in bar)
    scored = np.array([detector.score(pixels[None]).probability[0] for pixels in prepared])
    expected = calibrated(detector.card, head.logit(photos.seen.features[chosen, FOUND]))
    difference = np.abs(scored - expected)
    return {
        "photos": len(chosen),
        "largest_difference": float(difference.max()),
        "mean_difference": float(difference.mean()),
    }


def reference(photos: PhotoSet, probability: Float, domain: Domain, components: int) -> dict[str, npt.NDArray[Any]]:
    """Return what traffic is compared with: the columns of the prediction log, for photos as found.

    Beside them `label`; the `generator` of AI images, numbers of `generator_names`; the number of the `source`, the
    group in which photos depend on each other; and `source_photos`, how many photos there are of the same source: with
    1 / source_photos as weights every source counts the same.
    """
    kept = np.flatnonzero(photos.rows.label != RENDER)
    embedding = domain.embedding(photos.seen.features[kept, FOUND])
    columns = {
        "probability": probability[0, kept, _AS_FOUND],  # one draw: a mean of several would be narrower
        "distance": domain.score(embedding),
        "embedding": embedding[:, :components],
        **dict(zip(("brightness", "contrast", "sharpness"), photos.seen.statistics[kept].T, strict=True)),
    }
    generators, generator = np.unique(photos.rows.generator[kept], return_inverse=True)
    _, source = np.unique(photos.rows.source[kept], return_inverse=True)
    # Rounded, so that the last bits of another processor's arithmetic do not make another file.
    rounded_columns = {name: values.round(5).astype(np.float32) for name, values in columns.items()}
    return {
        "label": photos.rows.label[kept].astype(np.uint8),
        "generator": generator.astype(np.uint16),
        "generator_names": generators,
        "source": source.astype(np.uint16),
        "source_photos": photos.rows.of_source[kept].astype(np.uint16),
        **rounded_columns,
    }


def draw(folder: Path, photos: PhotoSet, probability: Float, assessment: dict[str, Any], curves: Path) -> None:
    """Write the pictures: roc.png, scores.png, sources.png, generators.png, rewrites.png, training.png."""
    kept = photos.rows.label != RENDER
    labels, mean = photos.rows.label[kept], probability[kept]
    weights = source_weights(photos.rows)[kept]
    save_figure(
        folder / "roc.png", lambda ax: sk.RocCurveDisplay.from_predictions(labels, mean, sample_weight=weights, ax=ax)
    )
    save_figure(folder / "scores.png", lambda ax: _histogram(ax, labels, mean, weights))
    reals = {
        name: row["flagged_at_2"]
        for name, row in assessment["sources"]["real"].items()
        if row["images"] >= judging.ENOUGH
    }
    save_figure(folder / "sources.png", lambda ax: _bars(ax, _largest(reals), "share flagged at 2 % of the others"))
    recall = {name: row["recall"] for name, row in assessment["generators"].items() if row["images"] >= judging.PAIR}
    save_figure(folder / "generators.png", lambda ax: _bars(ax, _smallest(recall), "share found at 1 %"))
    changes = {name: row["recall"] for name, row in assessment["rewrites"]["changes"].items()}
    save_figure(folder / "rewrites.png", lambda ax: _bars(ax, changes, "AI images flagged"))
    with curves.open(encoding="utf-8", newline="") as file:
        rows = [{key: float(value) for key, value in row.items()} for row in csv.DictReader(file)]
    save_figure(folder / "training.png", lambda ax: _curve(ax, rows))


def _histogram(ax: Any, labels: npt.NDArray[np.int64], probability: Float, weights: Float) -> None:
    for label, name in enumerate(LABELS):
        mask = labels == label
        ax.hist(probability[mask], np.linspace(0, 1, 26), weights=weights[mask] / weights[mask].sum(), alpha=0.6,
                label=name)  # fmt: skip
    ax.set(xlabel="probability", ylabel="share, every source alike")
    ax.legend()


def _largest(values: Mapping[str, float], count: int = 15) -> dict[str, float]:
    return dict(sorted(values.items(), key=lambda item: -item[1])[:count])


def _smallest(values: Mapping[str, float], count: int = 25) -> dict[str, float]:
    return dict(sorted(values.items(), key=lambda item: item[1])[:count])


def _bars(ax: Any, values: Mapping[str, float], what: str) -> None:
    ax.barh([name[:30] for name in values][::-1], list(values.values())[::-1])
    ax.tick_params(axis="y", labelsize=5)
    ax.set(xlabel=what)


def _curve(ax: Any, rows: Sequence[Mapping[str, float]]) -> None:
    ax.semilogx([row["inverse_penalty"] for row in rows], [row["validation_loss"] for row in rows], "o-")
    ax.set(xlabel="C of the logistic regression", ylabel="loss on held-out sources")


if __name__ == "__main__":
    run_stage(main)
