"""Does the heat map show what the answer rests on? Deletion and insertion curves against random masks.

Petsiuk, Das & Saenko 2018 (RISE, arXiv 1806.07421): take the places that the map calls most important out of a photo
first, and the probability of the answer must fall fast; put them first into an empty photo, and it must rise fast.
"""

from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import Image
from tqdm import tqdm

from service.models.detector import Detector
from stages.common import StageError
from stages.data.image_sets import ImageSet
from stages.evaluation.plots import save_figure
from stages.evaluation.robustness import blur
from stages.evaluation.types import Data

Float = npt.NDArray[np.float64]
Float32 = npt.NDArray[np.float32]

STEPS = 16  # parts in which a photo's pixels are taken out or put in


class Evaluator:
    """Deletion and insertion curves of the heat map."""

    name = "explanation"

    def __call__(self, detector: Detector, data: Data) -> dict[str, Any]:
        """Return the figures of `faithfulness`; write deletion_insertion.png."""
        found = faithfulness(detector, data.first(data.params.explained_images))
        draw_curves(data.plots / "deletion_insertion.png", found)
        return found


def faithfulness(detector: Detector, data: ImageSet) -> dict[str, Any]:
    """Return deletion and insertion curves of the heat map and of random masks as rough as it, and their areas.

    What is taken out becomes a strong blur of the photo (sigma an eighth of its side): black or grey would be places
    that the model never saw, and speak for themselves.

    Args:
        detector: the model.
        data: photos as large as the model takes them.

    Returns:
        `images`; for `deletion` and `insertion` the curves `map` and `random` (share of the pixels -> the answer's mean
        probability then), and their areas in 0..1, `map_area` and `random_area`. A map that shows what matters has the
        smaller area of deletion, and the larger of insertion.
    """
    rng = np.random.default_rng(0)
    answers: dict[tuple[str, str, int], list[Float32]] = {}  # curve, map, step -> probabilities of the first answer
    for photos in tqdm(data.batches(512), desc="deletion and insertion", unit=" batches", mininterval=2):
        scores = detector.score(photos)
        if scores.heatmap is None:
            raise StageError("explanation: only class activation maps are judged, and this model explains by windows")
        generated = scores.probability >= 0.5
        maps = {
            "map": np.where(generated[:, None, None], scores.heatmap, -scores.heatmap),
            "random": rng.standard_normal(scores.heatmap.shape, np.float32),
        }
        empty = blur(photos, photos.shape[1] / 8)
        for name, each in maps.items():
            rank = _order(each, photos.shape[1:3])
            for curve, (start, end) in {"deletion": (photos, empty), "insertion": (empty, photos)}.items():
                for step in range(STEPS + 1):
                    changed = np.where((rank < step / STEPS)[..., None], end, start)
                    probability = detector.score(changed).probability
                    answer = np.where(generated, probability, 1 - probability)
                    answers.setdefault((curve, name, step), []).append(answer)
    result: dict[str, Any] = {"images": len(data)}
    for curve in ("deletion", "insertion"):
        result[curve] = {}
        for name in ("map", "random"):
            means = [float(np.concatenate(answers[curve, name, step]).mean()) for step in range(STEPS + 1)]
            result[curve][name] = {f"{step / STEPS:g}": mean for step, mean in enumerate(means)}
            result[curve][f"{name}_area"] = float(np.trapezoid(means, dx=1 / STEPS))
    return result


def draw_curves(path: Path, found: dict[str, Any]) -> None:
    """Write the curves of `faithfulness` as one picture."""

    def panel(ax: Any) -> None:
        shares = np.linspace(0, 1, STEPS + 1)
        for curve, colour in (("deletion", "C3"), ("insertion", "C0")):
            for name, style in (("map", "-"), ("random", ":")):
                area = found[curve][f"{name}_area"]
                ax.plot(
                    shares, list(found[curve][name].values()), colour + style, label=f"{curve}, {name}: area {area:.3f}"
                )
        ax.set(xlabel="share of pixels taken out or put in", ylabel="mean probability of the first answer", ylim=(0, 1))
        ax.legend(loc="lower center")

    save_figure(path, panel)


def _order(maps: npt.NDArray[np.float32], size: tuple[int, int]) -> Float:
    """Return each pixel's place among its photo's, 0 = the map is highest there: [N, h, w] -> float64 [N, H, W]."""
    height, width = size
    large = np.stack([np.asarray(Image.fromarray(m).resize((width, height), Image.Resampling.BICUBIC)) for m in maps])
    places = np.argsort(np.argsort(-large.reshape(len(maps), -1), axis=1, kind="stable"), axis=1)
    shares: Float = (places / places.shape[1]).reshape(-1, height, width)
    return shares
