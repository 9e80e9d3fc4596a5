"""The model at work: one forward pass gives probability, embedding, OOD score and, of most models, the heat map."""

import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import Image

from service.models import decision, images
from service.models.card import ModelError, open_model

Float32 = npt.NDArray[np.float32]

_OUTPUTS = {"probability": 1, "embedding": 2, "heatmap": 3, "ood_score": 1}  # name -> number of dimensions
# Of one forward pass: beyond either memory grows and speed does not. A vision transformer takes 120 MB for 336 x 336.
_CHUNK, _CHUNK_PIXELS = 32, 2**18
_CERTAIN = 1e-7  # a probability is taken to be this far from 0 and 1: nearer, float32 has lost its logit


@dataclass(frozen=True)
class Scores:
    """What the model says about N photos.

    Attributes:
        probability: float32 [N], calibrated P(AI-generated) at the card's `calibration.prior_ai`.
        embedding: float32 [N, D], pooled features.
        heatmap: float32 [N, h, w], class activation map in units of the calibrated logit: its mean plus the card's
            `head_bias` is the logit of `probability`. [N, V, h, w] where V views of each photo were scored. None: the
            model explains itself by windows, which `explain` scores.
        ood_score: float32 [N], how unlike the training photos; 99 % of those have less than 1.
        inference_ms: milliseconds spent in the model, for all N together.
    """

    probability: Float32
    embedding: Float32
    heatmap: Float32 | None
    ood_score: Float32
    inference_ms: float


class Detector:
    """A released model file, checked and ready.

    Attributes:
        card: its card.
        path: where it was loaded from.
        name: the card's.
        version: likewise.
        height: rows of the photos that `score` takes.
        width: their columns.
        alpha: the share of real photos that may be flagged.
        ai_prior: the share of AI images that reported probabilities assume.
        thresholds: where a decision begins, at `ai_prior`.
    """

    def __init__(self, path: str | Path, *, alpha: float = 0.01, ai_prior: float = 0.5, threads: int = 1) -> None:
        """Load and verify a model file, and run it once.

        Args:
            path: a model's folder, or an ONNX file.
            alpha: one of the levels in the card's `thresholds.flag`.
            ai_prior: the share of AI images, above 0 and below 1.
            threads: cores used for one forward pass.

        Raises:
            ModelError: the file is missing, truncated or no detector of this project, or its card has no
                threshold for `alpha` or a policy of resizing that is not known here.
        """
        self.path = Path(path)
        self._session, self.card = open_model(path, threads)
        self.name, self.version = self.card.name, self.card.version
        self.sha256 = self.card.sha256 or ""  # never empty: open_model sets it
        self.height, self.width = self.card.input.height, self.card.input.width
        self.alpha = alpha
        self.ai_prior = ai_prior
        self._by_windows = self.card.explains_by.kind == "windows"
        given = {entry.name for entry in self._session.get_outputs()}
        self._names = [name for name in _OUTPUTS if name != "heatmap" or not self._by_windows]
        # Files older than format 2 call it `distance`.
        self._outputs = [name if name in given or name != "ood_score" else "distance" for name in self._names]
        self._chunk = max(1, min(_CHUNK, _CHUNK_PIXELS // (self.height * self.width)))
        try:
            self._verify()
            self.thresholds = decision.thresholds(self.card, alpha, ai_prior)
        except ValueError as error:
            raise ModelError(f"model {path}: {error}") from error

    def prepare(self, photo: Image.Image) -> npt.NDArray[np.uint8]:
        """Return what `score` takes of a photo of mode RGB, as `images.prepare` makes it."""
        return images.prepare(photo, self.card.input)

    def score(self, pixels: npt.NDArray[np.uint8]) -> Scores:
        """Score photos.

        Args:
            pixels: uint8 [N, height, width, 3], RGB, as `prepare` makes them; N at least 1. Or
                [N, V, height, width, 3], V views of each photo, whose logits, embeddings and OOD scores are averaged.

        Raises:
            ValueError: the array has another type or shape, or no photo.
        """
        size = (self.height, self.width, 3)
        if pixels.dtype != np.uint8 or pixels.ndim not in (4, 5) or pixels.shape[-3:] != size or pixels.size == 0:
            wanted = f"uint8 [N, {self.height}, {self.width}, 3]"
            raise ValueError(f"photos must be {wanted}, not {pixels.dtype} {list(pixels.shape)}")
        flat = pixels.reshape(-1, *size)
        started = time.perf_counter()
        parts = [self._run(flat[start : start + self._chunk]) for start in range(0, len(flat), self._chunk)]
        elapsed = (time.perf_counter() - started) * 1000
        outputs = {name: np.concatenate(part) for name, part in zip(self._names, zip(*parts, strict=True), strict=True)}
        if pixels.ndim == 5:
            outputs = {name: part.reshape(*pixels.shape[:2], *part.shape[1:]) for name, part in outputs.items()}
            if self._by_windows:
                logit = _logit(outputs["probability"]).mean(1)
            else:  # its mean has the logit; a probability near 1 has lost it
                logit = outputs["heatmap"].mean((1, 2, 3), dtype=np.float64) + self.card.head_bias
            outputs |= {name: outputs[name].mean(1) for name in ("embedding", "ood_score")}
            outputs["probability"] = (1 / (1 + np.exp(-logit))).astype(np.float32)
        return Scores(heatmap=outputs.pop("heatmap", None), **outputs, inference_ms=elapsed)

    def explain(self, photo: Image.Image, scores: Scores) -> tuple[Float32, list[images.Box]]:
        """Return which places of a photo speak for its answer; a model with windows scores them now.

        Args:
            photo: upright, mode RGB, at its own size.
            scores: what `score` said of it alone.

        Returns:
            Heat maps float32 [V, h, w] in logits, above 0 speaks for "AI-generated"; a window's map is 1 x 1. And the
            part of the photo that each of them is of, in its pixels.
        """
        if scores.heatmap is not None:
            heat = scores.heatmap[0] + self.card.head_bias
            return heat.reshape(-1, *heat.shape[-2:]), images.boxes(*photo.size, self.card.input)
        by = self.card.explains_by
        boxes = images.windows(*photo.size, self.card.input, across=by.across, down=by.down, share=by.share)
        pixels = np.stack([images.resize(photo, self.height, self.width, box) for box in boxes])
        return _logit(self.score(pixels).probability).astype(np.float32)[:, None, None], boxes

    def reported(self, probability: float) -> float:
        """Return P(AI-generated) at `ai_prior` for one of `Scores.probability`."""
        return decision.shift_prior(probability, self.ai_prior, self.card.calibration.prior_ai)

    def _run(self, pixels: npt.NDArray[np.uint8]) -> list[Any]:
        outputs: list[Any] = self._session.run(self._outputs, {"images": pixels})
        return outputs

    def _verify(self) -> None:
        """Raise ValueError unless the file takes and gives what a detector does; warms it up, too."""
        inputs = [(entry.name, entry.type) for entry in self._session.get_inputs()]
        if inputs != [("images", "tensor(uint8)")]:
            raise ValueError(f"takes {inputs}, not uint8 'images': it is not a detector of this project")
        missing = set(self._outputs) - {entry.name for entry in self._session.get_outputs()}
        if missing:
            raise ValueError(f"does not give {', '.join(sorted(missing))}: it is not a detector of this project")
        try:
            outputs = self._run(np.full((2, self.height, self.width, 3), 127, dtype=np.uint8))
        except Exception as error:  # onnxruntime's own exception classes
            raise ValueError(f"cannot be run on {self.height}x{self.width} photos: it is damaged") from error
        for name, output in zip(self._names, outputs, strict=True):
            fits = output.dtype == np.float32 and output.ndim == _OUTPUTS[name] and len(output) == 2
            if not (fits and np.isfinite(output).all()):
                shape = f"{output.dtype} {list(output.shape)}"
                raise ValueError(f"gives a wrong '{name}' ({shape}): it is damaged")


def _logit(probability: Float32) -> npt.NDArray[np.float64]:
    clipped = np.clip(probability.astype(np.float64), _CERTAIN, 1 - _CERTAIN)
    return np.log(clipped / (1 - clipped))
