"""What happens to photos on their way to a shop, and what the detector says then, at the threshold it had before."""

from collections.abc import Callable
from itertools import repeat
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import Image
from scipy import ndimage
from sklearn.metrics import roc_auc_score

from service.models.detector import Detector
from stages.data.image_sets import ImageSet
from stages.evaluation.plots import save_figure
from stages.evaluation.scoring import score_batches
from stages.evaluation.types import Data
from stages.exporting.ood_pictures import as_jpeg

Uint8 = npt.NDArray[np.uint8]
Change = Callable[[Uint8, float], Uint8]


def jpeg(images: Uint8, quality: float) -> Uint8:
    """Encode as JPEG and decode again; `quality` is libjpeg's, 1 to 95, with its usual halved colour planes."""
    return _each(images, lambda photo: as_jpeg(photo, int(quality)))


def blur(images: Uint8, sigma: float) -> Uint8:
    """Gaussian blur; `sigma` in pixels of the size that the model sees."""
    return _back(ndimage.gaussian_filter(images.astype(np.float32), (0, sigma, sigma, 0), mode="mirror"))


def noise(images: Uint8, sigma: float) -> Uint8:
    """Gaussian noise, another value for each pixel and colour; `sigma` as a part of the range from black to white."""
    drawn = np.random.default_rng(0).standard_normal(images.shape, dtype=np.float32)
    return _back(images + 255 * sigma * drawn)


def resize(images: Uint8, factor: float) -> Uint8:
    """Scale down by `factor` (below 1) and up again, bicubic both ways."""

    def there_and_back(photo: Image.Image) -> Image.Image:
        small = (max(1, round(photo.width * factor)), max(1, round(photo.height * factor)))
        return photo.resize(small, Image.Resampling.BICUBIC).resize(photo.size, Image.Resampling.BICUBIC)

    return _each(images, there_and_back)


def brightness(images: Uint8, factor: float) -> Uint8:
    """Multiply every pixel by `factor`; what passes white is white."""
    return _back(images.astype(np.float32) * factor)


def contrast(images: Uint8, factor: float) -> Uint8:
    """Multiply every pixel's distance to the photo's mean by `factor`."""
    centre = images.mean((1, 2, 3), keepdims=True, dtype=np.float32)
    return _back((images - centre) * factor + centre)


CHANGES: dict[str, tuple[Change, tuple[float, ...]]] = {  # name -> how, and strengths from mild to strong
    "jpeg": (jpeg, (90, 75, 60, 50, 40)),
    "blur": (blur, (0.3, 0.6, 0.8, 1.0)),
    "noise": (noise, (0.02, 0.05, 0.1)),
    "resize": (resize, (0.75, 0.625, 0.5)),
    "brightness": (brightness, (0.6, 0.8, 1.2, 1.4)),
    "contrast": (contrast, (0.6, 0.8, 1.2, 1.4)),
}


class Evaluator:
    """What JPEG, blur, noise and the like do to accuracy and to flags."""

    name = "robustness"

    def __call__(self, detector: Detector, data: Data) -> dict[str, Any]:
        """Return the figures of `robustness`; write robustness.png."""
        found = robustness(detector, data.first(data.params.robustness_images), data.alpha)
        draw_robustness(data.plots / "robustness.png", found)
        return found


def robustness(detector: Detector, data: ImageSet, alpha: float = 0.01) -> dict[str, dict[str, dict[str, float]]]:
    """Return accuracy, AUC and the shares of flags (false positive rate, recall) for every change and strength.

    Accuracy is that of the unchanged threshold (probability 0.5), reals are flagged at the unchanged threshold for
    `alpha`: nothing is fitted to the changed photos.

    Args:
        detector: the model.
        data: photos of both classes, as large as the model takes them.
        alpha: one of the card's levels.
    """
    reals = data.labels == 0

    def measured(what: str, change: Change | None = None, strength: float = 0.0) -> dict[str, float]:
        batches = data.batches() if change is None else map(change, data.batches(1000), repeat(strength))
        scored = score_batches(detector, batches, data.labels, what)
        made = scored.decisions(detector.card, alpha)
        return {
            "accuracy": float(((scored.probability >= 0.5) == (data.labels == 1)).mean()),
            "auc": float(roc_auc_score(data.labels, scored.probability)),
            "false_positive_rate": float((made[reals] == "flag").mean()),
            "recall": float((made[~reals] == "flag").mean()),
            "in_domain_share": float(scored.in_domain(detector.card).mean()),
        }

    result: dict[str, Any] = {"images": len(data), "unchanged": measured("unchanged")}
    for name, (change, strengths) in CHANGES.items():
        result[name] = {f"{s:g}": measured(f"{name} {s:g}", change, s) for s in strengths}
    return result


def draw_robustness(path: Path, found: dict[str, Any]) -> None:
    """Write one panel for each change: accuracy and AUC (left), false positive rate (right) over its strength."""
    start = found["unchanged"]
    everything = [start, *(row for change in CHANGES for row in found[change].values())]
    lowest = min(0.8, *(row["accuracy"] for row in everything), *(row["auc"] for row in everything))
    most = max(0.05, *(row["false_positive_rate"] for row in everything)) * 1.1

    def panel(axes: Any) -> None:
        for ax, change in zip(axes.flat, CHANGES, strict=True):
            rows = {"none": start, **found[change]}
            if change in {"brightness", "contrast"}:  # 1 is the photo itself
                rows = dict(sorted(({"1": start} | found[change]).items(), key=lambda row: float(row[0])))
            right = ax.twinx()
            for name, side, style in (
                ("accuracy", ax, "C0o-"),
                ("auc", ax, "C1o-"),
                ("false_positive_rate", right, "C3o:"),
            ):
                side.plot(list(rows), [row[name] for row in rows.values()], style, label=name.replace("_", " "))
            ax.set(title=change, ylim=(lowest - 0.01, 1.005))
            right.set(ylim=(0, most))
            ax.grid(visible=True, alpha=0.3)
            if ax is axes.flat[0]:
                ax.legend(handles=[*ax.lines, *right.lines], loc="center left")

    save_figure(path, panel, rows=2, columns=3)


def _each(images: Uint8, change: Callable[[Image.Image], Image.Image]) -> Uint8:
    return np.stack([np.asarray(change(Image.fromarray(photo))) for photo in images])


def _back(values: npt.NDArray[np.float32]) -> Uint8:
    return values.round().clip(0, 255).astype(np.uint8)
