"""Stage release: gates on validation; a candidate that passes is scored on test once and becomes models/."""

import json
import os
import shutil
import warnings
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np

from service.models.card import Card, Release, read_card
from stages.common import StageError, load_params, run_stage, sha256_file, whole_file, write_json
from stages.data.image_sets import load_images
from stages.data.raw import NAMES, RAW
from stages.evaluation.assessment import ALPHA, AssessmentParams, assess
from stages.evaluation.gates import Gates, Measured, refusals
from stages.evaluation.ood import large_answers, large_photos
from stages.evaluation.scoring import figures_of, open_detector, score
from stages.evaluation.slices import cifar_classes

CANDIDATE = Path("build/model.onnx")
REFERENCE = Path("build/reference.npz")
METRICS = Path("reports/cifake/metrics.json")
ASSESSMENT = Path("reports/cifake/assessment.json")
TEST = Path("build/dataset/test.safetensors")
MODEL = Path("models/cifake/model.onnx")
MODEL_REFERENCE = Path("models/cifake/reference.npz")
CARD = Path("models/cifake/card.json")
PLOTS = Path("models/cifake/plots")
NEW_PLOTS = Path("build/release_plots")
LEDGER = Path("models/cifake/ledger.jsonl")  # one line for each reading of the test set
REPORT = Path("reports/cifake/release.json")
EXPERIMENT = "DVC_EXP_BASELINE_REV" in os.environ  # set by `dvc exp run`: never releases, never reads test
EXPERIMENTS = {  # by bench/: the file, and the training param that it changes
    "seeds": (Path("reports/seeds.json"), "seed"),
    "own_photos": (Path("reports/own_photos.json"), "epochs"),
}


class ReleaseParams(Gates, AssessmentParams):
    """Section `release` of params.yaml."""

    enabled: bool


def release(params: ReleaseParams) -> dict[str, Any]:
    """Release the candidate if it may be; return what was decided, and why."""
    from stages.tracking import git_commit

    decision: dict[str, Any] = {"candidate_sha256": sha256_file(CANDIDATE)}
    released = read_card(CARD.parent) if CARD.exists() else None
    detector = open_detector(CANDIDATE)
    if released and same_model(released, detector.card):
        print("release: the candidate is the released model")
        if not EXPERIMENT:
            _renew(released)
        return _report(released)
    if EXPERIMENT:
        return decision | {"decision": "skipped", "reasons": ["an experiment is never released"]}
    if not params.enabled:
        return decision | {"decision": "disabled", "reasons": ["release.enabled is false in params.yaml"]}
    validation = json.loads(METRICS.read_text(encoding="utf-8"))["validation"]
    measured = json.loads(ASSESSMENT.read_text(encoding="utf-8"))  # on validation, too
    if (large := large_photos()) is not None:  # a fault of theirs must not cost a reading of test
        measured["outside"]["large_photos"] = large_answers(detector, large, ALPHA)
    candidate = Measured(detector.card, validation, measured, CANDIDATE.stat().st_size / 1e6)
    if reasons := refusals(params, candidate, released):
        return decision | {"decision": "refused", "reasons": reasons}

    test = load_images(TEST)
    classes = cifar_classes(test.images, RAW, NAMES)
    own = test.flags["own"] == 1
    once = (test.flags["duplicate"] == 0) & (test.flags["leaked"] == 0)
    rows = {"test": ~own, "test_without_duplicates_and_leaks": ~own & once, "test_own_photos": own}
    # The line is written before the figures exist: a reading that crashed was a reading too.
    entry = {"read_at": datetime.now(UTC).isoformat(timespec="seconds"), "version": detector.version} | decision
    with LEDGER.open("a", encoding="utf-8") as ledger:
        ledger.write(json.dumps(entry) + "\n")
    scored = score(detector, test, "test")
    figures = figures_of(detector, test, scored, rows)
    assessment = assess(detector, test, scored, params, NEW_PLOTS, seed=1, classes=classes, large_photos=large)
    facts = {
        "git_commit": git_commit(),
        "released_at": entry["read_at"],
        "validation": validation,
        "metrics": figures,
        "assessment": assessment,
        "experiments": experiments(detector.card),
    }
    card = detector.card.model_copy(
        update={"sha256": decision["candidate_sha256"], "release": Release.model_validate(facts)}
    )
    pictures = [(picture, PLOTS / picture.name) for picture in sorted(NEW_PLOTS.glob("*.png"))]
    for source, target in ((CANDIDATE, MODEL), (REFERENCE, MODEL_REFERENCE), *pictures):
        with whole_file(target) as temporary:
            shutil.copyfile(source, temporary)
    with whole_file(CARD) as temporary:
        temporary.write_text(card.to_json() + "\n", encoding="utf-8")
    enrol(card)
    return _report(card)


def same_model(one: Card, other: Card) -> bool:
    """Tell whether two cards are of one version of one model.

    The files' bytes are not asked: another processor's arithmetic gives the statistics in them other last digits.
    """
    return all(getattr(one, key) == getattr(other, key) for key in ("version", "checkpoint_sha256", "data", "params"))


def experiments(card: Card) -> dict[str, Any]:
    """Return what bench/seeds.py and bench/own_photos.py found on validation with this model's own training params."""
    found: dict[str, Any] = {}
    for name, (path, free) in EXPERIMENTS.items():
        if path.exists():
            experiment = json.loads(path.read_text(encoding="utf-8"))
            params = experiment.pop("train")
            if all(card.params["train"].get(key) == value for key, value in params.items() if key != free):
                found[name] = experiment
            else:
                print(f"release: {path} stays out of the card: it is of other training params")
    return found


def _renew(released: Card) -> None:
    """Let the released model have what came since and needs no test: experiments, and drift's new columns."""
    known = released.released.model_extra or {}
    if known.get("experiments") != (found := experiments(released)):
        release = released.released.model_copy(update={"experiments": found})
        with whole_file(CARD) as temporary:
            temporary.write_text(released.model_copy(update={"release": release}).to_json() + "\n", encoding="utf-8")
    with np.load(REFERENCE) as candidate, np.load(MODEL_REFERENCE) as current:
        same = set(candidate.files) == set(current.files)
    if not same:
        with whole_file(MODEL_REFERENCE) as temporary:
            shutil.copyfile(REFERENCE, temporary)


def _report(card: Card) -> dict[str, Any]:
    return {"candidate_sha256": card.sha256, "decision": "released", "reasons": [], "version": card.version}


def enrol(card: Card) -> None:
    """Register the release in MLflow's registry as `challenger`, where a tracking server is set."""
    if not os.environ.get("MLFLOW_TRACKING_URI", "").startswith("http"):
        return
    import mlflow

    from tools.registry import register

    try:
        number = register(MODEL.parent)
        mlflow.MlflowClient().set_registered_model_alias(card.name, "challenger", number)
    except (mlflow.MlflowException, StageError) as error:  # the release stands: models/ is complete
        warnings.warn(f"MLflow's registry did not take version {card.version}: {error}", stacklevel=2)


def main() -> None:
    """Decide about the candidate as params.yaml says; a refusal is an answer, not an error."""
    params = load_params("release", ReleaseParams)
    for needed in (CANDIDATE, REFERENCE, METRICS, ASSESSMENT):
        if not needed.exists():
            raise StageError(f"{needed} is missing: run 'dvc repro'")
    decision = release(params)
    if not CARD.exists():  # DVC would complain of missing outputs, and not say why they are missing
        raise StageError(f"nothing is released yet, and the candidate is not: {'; '.join(decision['reasons'])}")
    PLOTS.mkdir(exist_ok=True)  # an output: DVC would miss it beside a release from before there were plots
    write_json(REPORT, decision)
    print(f"release: {decision['decision']}", *decision["reasons"], sep="\n  ")


if __name__ == "__main__":
    run_stage(main)
