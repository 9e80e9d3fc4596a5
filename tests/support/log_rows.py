"""Rows of the prediction log."""

from datetime import datetime
from typing import Any


def row(number: int = 0, version: str = "1.0.0", **changed: Any) -> dict[str, Any]:
    """Return a row of the log."""
    return {
        "request_id": f"request-{number}",
        "time": datetime(2026, 1, 1, 12, 0, number % 60),  # noqa: DTZ001 - the log keeps UTC without a zone
        "model": "cifake",
        "model_version": version,
        "score": 0.9,
        "probability": 0.8,
        "prediction": "ai_generated",
        "decision": "review",
        "in_domain": False,
        "ood_score": 3.0,
        "brightness": 0.5,
        "contrast": 0.2,
        "sharpness": 0.3,
        "embedding": [0.5] * 8,
        "width": 640,
        "height": 480,
        "jpeg_quality": 90,
        "credential": None,
        "ai_prior": 0.5,
        "flag_threshold": 0.9,
        "clear_threshold": 0.4,
        "calibration": None,
        "shop_group": None,
        "listing": None,
        **changed,
    }
