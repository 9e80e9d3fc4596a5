"""A model that is known by heart, and photos to measure it on."""

import copy
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from service.models.detector import Detector
from stages.data.image_sets import ImageSet
from stages.evaluation.scoring import score
from stages.evaluation.types import Data, EvaluationParams
from tests.support import tiny_model

MakeData = Callable[..., Data]


@pytest.fixture(scope="session")
def detector(tmp_path_factory: pytest.TempPathFactory) -> Detector:
    """A tiny model that is known by heart; all photos are in its domain."""
    card = copy.deepcopy(tiny_model.CARD)
    card["domain"]["threshold"] = 1e9
    return Detector(tiny_model.build(tmp_path_factory.mktemp("tiny") / "model.onnx", card))


@pytest.fixture(scope="session")
def photos() -> ImageSet:
    """Noisy photos of both classes, none of your own."""
    random = np.random.default_rng(0)
    images = random.integers(0, 256, (120, 32, 32, 3), dtype=np.uint8)
    return ImageSet(images, np.tile(np.array([0, 1], np.uint8), 60), {"own": np.zeros(120, np.uint8)})


@pytest.fixture
def make_data(detector: Detector, photos: ImageSet, tmp_path: Path) -> MakeData:
    """Make what evaluators get, of `photos`; keyword arguments replace its fields."""
    scores = score(detector, photos, "photos")
    params = EvaluationParams(evaluators=("figures",), robustness_images=40, explained_images=8, ood_images=3)

    def make(**fields: Any) -> Data:
        return Data(**{"images": photos, "scores": scores, "selections": {"all": scores}, "params": params,
                       "plots": tmp_path} | fields)  # fmt: skip

    return make
