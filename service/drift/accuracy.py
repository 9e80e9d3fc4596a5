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


def reviewed(rows: Sequence[Mapping[str, Any]], labels: Mapping[str, str]) -> Reviewed | None:
    """Return the figures of the photos in a window that moderators reviewed; None with too few.

    They are no random choice: people look at what was sent to review.

    Args:
        rows: of the prediction log.
        labels: request id -> what a moderator said.
    """
    pairs = [(row["prediction"], labels[row["request_id"]]) for row in rows if row["request_id"] in labels]
    if len(pairs) < REVIEWED_MINIMUM:
        return None
    right = sum(said == label for said, label in pairs)
    generated = sum(label == "ai_generated" for _, label in pairs)
    return Reviewed(
        photos=len(pairs),
        accuracy=right / len(pairs),
        ai_share=generated / len(pairs),
        false_accusations=sum(said == "ai_generated" != label for said, label in pairs),
        missed=sum(said == "real" != label for said, label in pairs),
    )


def reviewed_report(rows: Sequence[Mapping[str, Any]], labels: Mapping[str, str]) -> str:
    """Return Evidently's classification page of the reviewed photos; at least one of each label is needed."""
    import pandas as pd
    from evidently import BinaryClassification, DataDefinition, Dataset, Report
    from evidently.presets import ClassificationPreset

    seen = [row for row in rows if row["request_id"] in labels]
    frame = pd.DataFrame(
        {
            "moderator": [labels[row["request_id"]] for row in seen],
            "detector": [row["prediction"] for row in seen],
            "probability": [row["probability"] for row in seen],
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
