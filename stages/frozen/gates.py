"""The gates of a release of the recipe `frozen`: what a candidate must keep on sources that its head never saw."""

from collections.abc import Iterator
from typing import Any

from service.models.card import Card
from stages.frozen.params import ReleaseParams
from stages.releasing.gates import Row, broken_gates


def refusals(
    params: ReleaseParams, card: Card, metrics: dict[str, Any], assessment: dict[str, Any], released: Card | None
) -> list[str]:
    """Return why a candidate may not be released, each with the figure, its bound and the param; empty where it may.

    Args:
        params: the gates.
        card: the candidate's.
        metrics: as evaluate wrote them.
        assessment: likewise.
        released: the card of the model now in models/, if there is one.
    """
    reasons = []
    if card.data.dataset != params.dataset:
        reasons.append(f"it learned from '{card.data.dataset}', and release.dataset is '{params.dataset}'")
    if released is not None and card.version == released.version:
        reasons.append(f"version {card.version} is released already: raise export.version")
    return reasons + broken_gates([*_rows(params, metrics, assessment), *_beside(params, metrics, released)])


def _rows(params: ReleaseParams, metrics: dict[str, Any], assessment: dict[str, Any]) -> Iterator[Row]:
    for view in ("validation", "as_found"):
        figures, on = metrics[view], f"on '{view}'"
        yield f"auc {on}", figures["auc"], "<", params.min_auc, "min_auc"
        yield f"ece {on}", figures["ece"], ">", params.max_ece, "max_ece"
        out = 1 - figures["in_domain_share"]
        yield f"share of photos out of domain {on}", out, ">", params.max_out_of_domain, "max_out_of_domain"
        recall = figures["decisions"]["alpha_0.01"]["recall"]
        yield f"share of AI images flagged {on}", recall, "<", params.min_recall, "min_recall"
        for name, row in figures["decisions"].items():
            most = float(name.removeprefix("alpha_")) + params.max_false_positive_rate_excess
            what = f"share of real photos flagged at {name.replace('_', ' ')} {on}"
            yield what, row["false_positive_rate"], ">", most, "max_false_positive_rate_excess"
        if (renders := figures["flagged"].get("renders")) is not None:
            yield f"share of renders flagged {on}", renders, ">", params.max_render_flagged, "max_render_flagged"
        if (own := figures.get("own_photos", {}).get("false_positive_rate")) is not None:
            yield f"share of your own real photos flagged {on}", own, ">", params.max_own_flagged, "max_own_flagged"
    worst = assessment["sources"]["worst_real_source_at_2"]
    yield "share flagged of the worst source of real photos", worst, ">", params.max_worst_source, "max_worst_source"
    agreement = assessment["rewrites"]["agreement"]["all_survive"]
    yield "share of decisions that survive all rewrites", agreement, "<", params.min_agreement, "min_agreement"
    difference = assessment["served"]["largest_difference"]
    what = "difference between the file's probability and the features'"
    yield what, difference, ">", params.max_served_difference, "max_served_difference"
    yield "MB of its files", metrics["file"]["mb"], ">", params.max_file_mb, "max_file_mb"


def _beside(params: ReleaseParams, metrics: dict[str, Any], released: Card | None) -> Iterator[Row]:
    if released is not None:
        floor = released.released.validation["auc"] - params.max_auc_loss
        yield "auc, beside the released model's,", metrics["validation"]["auc"], "<", floor, "max_auc_loss"
