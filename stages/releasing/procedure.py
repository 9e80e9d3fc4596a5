"""How a candidate becomes the release, the same for every recipe: gates, then test once, then one rename."""

import json
import os
import shutil
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from service.models.card import Card, Release, read_card
from service.models.detector import Detector
from stages.common import StageError, whole_file, write_json, write_text
from stages.evaluation.scoring import open_detector
from stages.paths import ModelPaths
from stages.releasing.swap import publish

EXPERIMENT = "DVC_EXP_BASELINE_REV" in os.environ  # set by `dvc exp run`: never releases, never reads test

Figures = dict[str, Any]


@dataclass(frozen=True)
class Recipe:
    """What differs from recipe to recipe.

    Attributes:
        refusals: takes the candidate and the card of the last release, if there is one; returns why it may not be
            released, in words.
        open_test: takes the candidate, and opens test; what it returns takes the folder for pictures, and returns the
            figures on test and what else was measured there.
    """

    refusals: Callable[[Detector, Card | None], list[str]]
    open_test: Callable[[Detector], Callable[[Path], tuple[Figures, Figures]]]


def run(paths: ModelPaths, recipe: Recipe, *, enabled: bool) -> None:
    """Decide about the candidate; a refusal is an answer, not an error.

    Raises:
        StageError: a file of the candidate is missing; or it is refused, and the model has no release yet.
    """
    candidate = paths.candidate
    for needed in (candidate.card, candidate.model, candidate.reference, paths.metrics, paths.assessment):
        if not needed.exists():
            raise StageError(f"{needed} is missing: run 'dvc repro'")
    released = read_card(paths.released.path) if paths.released.card.exists() else None
    if EXPERIMENT:
        decision: dict[str, Any] = {"decision": "skipped", "reasons": ["an experiment is never released"]}
    else:
        decision = _release(paths, recipe, released, enabled=enabled)
    if not paths.released.card.exists():  # DVC would say that the output is missing, and not why
        reasons = "; ".join(decision["reasons"])
        raise StageError(f"{paths.name} has no release yet, and the candidate is not released: {reasons}")
    write_json(paths.release_report, decision)
    print(f"release: {decision['decision']}", *decision["reasons"], sep="\n  ")


def _release(paths: ModelPaths, recipe: Recipe, released: Card | None, *, enabled: bool) -> dict[str, Any]:
    """Release the candidate if it may be; return what was decided, and why."""
    from stages.tracking import git_commit

    detector = open_detector(paths.candidate.path)
    if released and same_model(released, detector.card):
        print("release: the candidate is the released model")
        return _report(released)
    decision: dict[str, Any] = {"candidate_sha256": detector.card.sha256}
    if not enabled:
        return decision | {"decision": "disabled", "reasons": ["release.enabled is false in params.yaml"]}
    if reasons := recipe.refusals(detector, released):
        return decision | {"decision": "refused", "reasons": reasons}

    read_test = recipe.open_test(detector)
    # The line is written before the figures exist: a reading that crashed was a reading too.
    entry = {"read_at": datetime.now(UTC).isoformat(timespec="seconds"), "version": detector.version} | decision
    paths.released.path.mkdir(parents=True, exist_ok=True)
    with paths.released.ledger.open("a", encoding="utf-8") as ledger:
        ledger.write(json.dumps(entry) + "\n")
    figures, assessment = read_test(paths.next_release.plots)
    card = detector.card.model_copy(
        update={
            "release": Release(
                git_commit=git_commit(),
                released_at=entry["read_at"],
                validation=json.loads(paths.metrics.read_text(encoding="utf-8"))["validation"],
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
    files = [
        (candidate.model, whole.model),
        (candidate.checkpoint, whole.checkpoint),
        (candidate.reference, whole.reference),
        (candidate.plots / "training.png", whole.plots / "training.png"),
        (paths.released.ledger, whole.ledger),
    ]
    if card.encoder is not None:
        files.append((candidate.path / card.encoder.file, whole.path / card.encoder.file))
    for source, target in files:
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
