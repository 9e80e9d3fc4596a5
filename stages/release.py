"""Stage release: gates on validation; a candidate that passes is scored on test once and becomes models/<name>."""

import json
import os
import shutil
import warnings
from datetime import UTC, datetime
from typing import Any

from service.models.card import Card, Release, read_card
from stages.common import StageError, load_params, run_stage, whole_file, write_json, write_text
from stages.data.image_sets import load_images
from stages.data.raw import IMAGES, NAMES
from stages.evaluation.ood import large_answers, large_photos
from stages.evaluation.runner import evaluate
from stages.evaluation.scoring import open_detector, score
from stages.evaluation.slices import cifar_classes
from stages.evaluation.types import EvaluationParams
from stages.paths import ModelPaths
from stages.releasing.gates import Gates, Measured, refusals
from stages.releasing.swap import publish, repair

EXPERIMENT = "DVC_EXP_BASELINE_REV" in os.environ  # set by `dvc exp run`: never releases, never reads test


class ReleaseParams(Gates, EvaluationParams):
    """Section `release` of params.yaml."""

    enabled: bool


def release(params: ReleaseParams, paths: ModelPaths, released: Card | None) -> dict[str, Any]:
    """Release the candidate if it may be; return what was decided, and why.

    Args:
        params: gates, and how much is measured on test.
        paths: the model's files.
        released: the card of the last release, if there is one.
    """
    from stages.tracking import git_commit

    detector = open_detector(paths.candidate.path)
    if released and same_model(released, detector.card):
        print("release: the candidate is the released model")
        return _report(released)
    decision: dict[str, Any] = {"candidate_sha256": detector.card.sha256}
    if not params.enabled:
        return decision | {"decision": "disabled", "reasons": ["release.enabled is false in params.yaml"]}
    validation = json.loads(paths.metrics.read_text(encoding="utf-8"))["validation"]
    measured = json.loads(paths.assessment.read_text(encoding="utf-8"))  # on validation, too
    large = large_photos()  # a fault of theirs must not cost a reading of test
    if large is not None and "ood" in measured:
        measured["ood"]["large_photos"] = large_answers(detector, large)
    candidate = Measured(detector.card, validation, measured, paths.candidate.model.stat().st_size / 1e6)
    if reasons := refusals(params, candidate, released):
        return decision | {"decision": "refused", "reasons": reasons}

    test = load_images(paths.dataset / "test.safetensors")
    classes = cifar_classes(test.images, paths.raw / IMAGES, paths.raw / NAMES)
    own = test.flags["own"] == 1
    once = (test.flags["duplicate"] == 0) & (test.flags["leaked"] == 0)
    rows = {"test": ~own, "test_without_duplicates_and_leaks": ~own & once, "test_own_photos": own}
    # The line is written before the figures exist: a reading that crashed was a reading too.
    entry = {"read_at": datetime.now(UTC).isoformat(timespec="seconds"), "version": detector.version} | decision
    paths.released.path.mkdir(parents=True, exist_ok=True)
    with paths.released.ledger.open("a", encoding="utf-8") as ledger:
        ledger.write(json.dumps(entry) + "\n")
    scored = score(detector, test, "test")
    plots = paths.next_release.plots
    assessment = evaluate(
        detector, test, scored, rows, params, plots=plots, seed=1, classes=classes, large_photos=large
    )
    figures = assessment.pop("figures")
    card = detector.card.model_copy(
        update={
            "release": Release(
                git_commit=git_commit(),
                released_at=entry["read_at"],
                validation=validation,
                metrics=figures,
                assessment=assessment,
            )
        }
    )
    _put_together(paths, card)
    publish(paths)
    enrol(paths, card)
    return _report(card)


def same_model(one: Card, other: Card) -> bool:
    """Tell whether two cards are of one version of one model.

    The files' bytes are not asked: another processor's arithmetic gives the statistics in them other last digits.
    """
    return all(getattr(one, key) == getattr(other, key) for key in ("version", "checkpoint_sha256", "data", "params"))


def _put_together(paths: ModelPaths, card: Card) -> None:
    """Add to the next release, which has its plots already, all its other files."""
    candidate, whole = paths.candidate, paths.next_release
    for source, target in (
        (candidate.model, whole.model),
        (candidate.checkpoint, whole.checkpoint),
        (candidate.reference, whole.reference),
        (candidate.plots / "training.png", whole.plots / "training.png"),
        (paths.released.ledger, whole.ledger),
    ):
        with whole_file(target) as temporary:
            shutil.copyfile(source, temporary)
    write_text(whole.card, card.to_json() + "\n")


def _report(card: Card) -> dict[str, Any]:
    return {"candidate_sha256": card.sha256, "decision": "released", "reasons": [], "version": card.version}


def enrol(paths: ModelPaths, card: Card) -> None:
    """Register the release in MLflow's registry as `challenger`, where a tracking server is set."""
    if not os.environ.get("MLFLOW_TRACKING_URI", "").startswith("http"):
        return
    import mlflow

    from tools.registry import register

    try:
        number = register(paths.released.path)
        mlflow.MlflowClient().set_registered_model_alias(card.name, "challenger", number)
    except (mlflow.MlflowException, StageError) as error:  # the release stands: the folder is complete
        warnings.warn(f"MLflow's registry did not take version {card.version}: {error}", stacklevel=2)


def main(paths: ModelPaths) -> None:
    """Decide about the candidate as params.yaml says; a refusal is an answer, not an error."""
    params = load_params("release", ReleaseParams, paths.name)
    repair(paths)
    candidate = paths.candidate
    for needed in (candidate.card, candidate.model, candidate.reference, paths.metrics, paths.assessment):
        if not needed.exists():
            raise StageError(f"{needed} is missing: run 'dvc repro'")
    released = read_card(paths.released.path) if paths.released.card.exists() else None
    if EXPERIMENT:
        decision: dict[str, Any] = {"decision": "skipped", "reasons": ["an experiment is never released"]}
    else:
        decision = release(params, paths, released)
    if not paths.released.card.exists():  # DVC would say that the output is missing, and not why
        reasons = "; ".join(decision["reasons"])
        raise StageError(f"{paths.name} has no release yet, and the candidate is not released: {reasons}")
    write_json(paths.release_report, decision)
    print(f"release: {decision['decision']}", *decision["reasons"], sep="\n  ")


if __name__ == "__main__":
    run_stage(main)
