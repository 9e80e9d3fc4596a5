"""The gates of a release: the one list of what a candidate must keep on validation, before test is opened."""

import operator
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import Annotated, Any, Literal

from pydantic import Field

from service.models.card import Card
from stages.common import Params

Share = Annotated[float, Field(ge=0, le=1)]


class Gates(Params):
    """The part of section `release` of params.yaml that `refusals` reads: shares in 0..1, the file in 10^6 bytes."""

    dataset: Literal["cifake", "synthetic"]  # of a candidate; figures on another set do not compare
    min_accuracy: Share
    min_class_accuracy: Share  # of the real photos, and of the AI images
    min_auc: Share
    max_ece: Share
    min_recall: Share  # of flags, at the service's default ALPHA
    max_false_positive_rate_excess: Share  # at each alpha, beyond what the promise and chance allow
    max_out_of_domain: Share
    min_accuracy_jpeg_40: Share
    min_accuracy_blur_06: Share
    min_accuracy_noise_01: Share
    max_ood_flagged: Annotated[int, Field(ge=0)]  # pictures from outside the domain, of each kind
    min_map_gain: Annotated[float, Field(ge=-1, le=1)]  # area between the heat map's curves and random masks'
    max_file_mb: Annotated[float, Field(gt=0, le=100)]
    max_accuracy_loss: Share  # against the model now in models/


@dataclass(frozen=True)
class Measured:
    """A model and what was measured of it.

    Attributes:
        card: its own.
        figures: as `figures.figures` gives them.
        assessment: evaluator -> its figures.
        file_mb: size of its file, in 10^6 bytes.
    """

    card: Card
    figures: dict[str, Any]
    assessment: dict[str, Any]
    file_mb: float


def refusals(params: Gates, candidate: Measured, released: Card | None = None) -> list[str]:
    """Return why a candidate may not be released, each with the figure, its bound and the param; empty where it may.

    Args:
        params: the gates.
        candidate: as measured on validation.
        released: the card of the model now in models/, if there is one.
    """
    dataset, version = candidate.card.data.dataset, candidate.card.version
    reasons = []
    if dataset != params.dataset:
        reasons.append(f"it learned from '{dataset}', and release.dataset is '{params.dataset}'")
    rows = [*_figures(params, candidate.figures)]
    for name, gate in _ASSESSED.items():
        if name in candidate.assessment:
            rows += gate(params, candidate.assessment[name])
        else:
            reasons.append(f"'{name}' was not measured: add it to evaluate.evaluators and run 'dvc repro'")
    rows.append(("MB of its file", candidate.file_mb, ">", params.max_file_mb, "max_file_mb"))
    if released is not None:
        floor = released.released.validation["accuracy"] - params.max_accuracy_loss
        what = "accuracy, beside the released model's,"
        rows.append((what, candidate.figures["accuracy"], "<", floor, "max_accuracy_loss"))
        if version == released.version:
            reasons.append(f"version {version} is released already: raise export.version")
    return reasons + broken_gates(rows)


Figures = dict[str, Any]  # of one evaluator
# What was measured, the figure, the relation that refuses, the bound, and the param to change it.
Row = tuple[str, float, str, float, str]
_HOLDS = {"<": operator.ge, ">": operator.le, "<=": operator.gt}  # the opposite, as asked: so NaN passes no gate


def broken_gates(rows: Iterable[Row]) -> list[str]:
    """Return in words each row whose relation holds, at six decimals: what follows is noise of the arithmetic."""
    return [
        f"{what} {found:g} {broken} {bound:g} (release.{param})"
        for what, found, broken, bound, param in rows
        if not _HOLDS[broken](round(found, 6), round(bound, 6))
    ]


def _figures(params: Gates, figures: Figures) -> Iterator[Row]:
    yield "accuracy", figures["accuracy"], "<", params.min_accuracy, "min_accuracy"
    for label, called in figures["confusion"].items():
        share = called[label] / sum(called.values())
        yield f"accuracy on '{label}'", share, "<", params.min_class_accuracy, "min_class_accuracy"
    yield "auc", figures["auc"], "<", params.min_auc, "min_auc"
    yield "ece", figures["ece"], ">", params.max_ece, "max_ece"
    out = 1 - figures["in_domain_share"]
    yield "share of photos out of domain", out, ">", params.max_out_of_domain, "max_out_of_domain"
    recall = figures["decisions"]["alpha_0.01"]["recall"]
    yield "share of AI images flagged", recall, "<", params.min_recall, "min_recall"
    for name, row in figures["decisions"].items():
        what, param = f"share of real photos flagged at {name.replace('_', ' ')}", "max_false_positive_rate_excess"
        most = row["false_positive_rate_at_most"] + params.max_false_positive_rate_excess
        yield what, row["false_positive_rate"], ">", most, param


def _robustness(params: Gates, figures: Figures) -> Iterator[Row]:
    for change, strength in (("jpeg", "40"), ("blur", "0.6"), ("noise", "0.1")):
        param = f"min_accuracy_{change}_{strength.replace('.', '')}"
        found = figures[change][strength]["accuracy"]
        yield f"accuracy under {change} {strength}", found, "<", getattr(params, param), param


def _ood(params: Gates, figures: Figures) -> Iterator[Row]:
    kinds = dict(figures)
    counts = {"LARGE_PHOTOS": large["flagged"]} if (large := kinds.pop("large_photos", None)) is not None else {}
    counts |= {
        f"{kind}, {way}".replace("_", " "): row["flagged"] for kind, ways in kinds.items() for way, row in ways.items()
    }
    for name, count in counts.items():
        yield f"pictures flagged from outside ({name})", count, ">", params.max_ood_flagged, "max_ood_flagged"


def _explanation(params: Gates, figures: Figures) -> Iterator[Row]:
    """Yield how much better than random masks the map is: less area of deletion, more of insertion."""
    for curve, larger, smaller in (("deletion", "random", "map"), ("insertion", "map", "random")):
        areas = figures[curve]
        gain = areas[f"{larger}_area"] - areas[f"{smaller}_area"]  # 0: no better than a random map
        yield f"the heat map's gain over random masks in {curve}", gain, "<=", params.min_map_gain, "min_map_gain"


_ASSESSED: dict[str, Callable[[Gates, Figures], Iterator[Row]]] = {  # evaluator -> the gates that need its figures
    "robustness": _robustness,
    "ood": _ood,
    "explanation": _explanation,
}
