"""How good the answers of a window are: estimated without labels, and counted where moderators gave some."""

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from service.schemas import Reviewed

REVIEWED_MINIMUM = 20  # reviewed photos; with fewer no figure is given


def estimated_accuracy(probability: npt.NDArray[np.float64]) -> tuple[float, float, float]:
    """Return the accuracy to be expected of calibrated probabilities, and its 95 % interval.

    Confidence-based performance estimation (CBPE): an answer with P(AI-generated) = p is right with probability
    max(p, 1 - p), if the calibration still holds. The interval is that of a sum of independent Bernoulli variables;
    what the calibration itself may be wrong by is not in it.

    Args:
        probability: float64 [n], as answered; n at least 1.
    """
    right = np.maximum(probability, 1 - probability)
    mean = float(right.mean())
    half = 1.96 * math.sqrt(float((right * (1 - right)).sum())) / len(right)
    return mean, max(0.0, mean - half), min(1.0, mean + half)


def reviewed(labelled: Sequence[tuple[Mapping[str, Any], str]]) -> Reviewed | None:
    """Return the figures of the photos in a window that moderators reviewed; None with too few.

    They are not a random sample: people look at what was sent to review.

    Args:
        labelled: rows of the prediction log, each with what a moderator said.
    """
    if len(labelled) < REVIEWED_MINIMUM:
        return None
    pairs = [(row["prediction"], label) for row, label in labelled]
    right = sum(said == label for said, label in pairs)
    generated = sum(label == "ai_generated" for _, label in pairs)
    return Reviewed(
        photos=len(pairs),
        accuracy=right / len(pairs),
        ai_share=generated / len(pairs),
        false_accusations=sum(said == "ai_generated" != label for said, label in pairs),
        missed=sum(said == "real" != label for said, label in pairs),
    )


def reviewed_report(labelled: Sequence[tuple[Mapping[str, Any], str]]) -> str:
    """Return Evidently's classification page of reviewed photos as `reviewed` takes them; both labels are needed."""
    import pandas as pd
    from evidently import BinaryClassification, DataDefinition, Dataset, Report
    from evidently.presets import ClassificationPreset

    frame = pd.DataFrame(
        {
            "moderator": [label for _, label in labelled],
            "detector": [row["prediction"] for row, _ in labelled],
            "probability": [row["probability"] for row, _ in labelled],
        }
    )
    classes = BinaryClassification(
        target="moderator",
        prediction_labels="detector",
        prediction_probas="probability",
        pos_label="ai_generated",
    )
    definition = DataDefinition(
        classification=[classes],
        numerical_columns=["probability"],
        categorical_columns=["moderator", "detector"],
    )
    page: str = Report([ClassificationPreset()]).run(Dataset.from_pandas(frame, definition), None).get_html_str(False)
    return page
