"""The linear head: fitted in seconds, judged on sources that it never saw."""

import hashlib
import json
from dataclasses import dataclass, replace
from functools import cache, partial
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save_file
from sklearn.decomposition import PCA
from sklearn.linear_model import LogisticRegression, Ridge
from threadpoolctl import threadpool_limits
from tqdm import tqdm

from stages.common import StageError, whole_file
from stages.frozen.dataset import RENDER, PhotoSet, Rows, kept_array
from stages.frozen.params import TrainParams

Float = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]

FOUND = 0  # place of the photo as it was found among its views
PLAIN = 1  # place of the view that is only shrunk and saved again
HEADS = "features/heads"  # in a model's build folder: heads that were fitted before
_PARTS = 16  # of columns
# On a machine of one core or of many: each thread rounds its own sum, so another number of them gives another head.
on_two_threads = partial(threadpool_limits, limits=2)


@dataclass(frozen=True)
class Head:
    """A linear layer on an encoder's features.

    Attributes:
        weight: float64 [D].
        bias: of the logit.
    """

    weight: Float
    bias: float

    def logit(self, features: npt.NDArray[Any]) -> Float:
        """Return the logit of P(AI-generated): features float [..., D] -> float64 [...]."""
        logit: Float = features.astype(np.float64) @ self.weight + self.bias
        return logit


@dataclass(frozen=True)
class Reduced:
    """Photos on the principal components of those that may be learned from, as found and shrunk.

    Without them each fit takes ten times as long.

    Attributes:
        axes: float64 [K, D]; a weight on the components times this is one on the features.
        origin: float64 [D], the features that lie at 0 on all components.
        scores: float32 [N, V, K].
    """

    axes: Float
    origin: Float
    scores: npt.NDArray[np.float32]


def reduced(photos: PhotoSet, params: TrainParams, kept: Path | None = None) -> Reduced:
    """Return photos on the principal components of their features, each feature with variance 1.

    No label is read. Nor do the directions of other photos help a layer: it lies in those that it learned from.

    Args:
        photos: N of them, with V views each.
        params: how many components.
        kept: a folder in which origin and axes are kept: those of the same photos come from it.
    """
    features = photos.seen.features
    width = features.shape[-1]
    file = kept and kept / f"{_digest(photos, params)}-components.npy"

    def made() -> Float:
        x = features[_learned(photos.rows)][:, [FOUND, PLAIN]].astype(np.float32).reshape(-1, width)
        origin = x.mean(0, dtype=np.float64)
        # Some columns at a time: in float64 all of them at once take more memory than all else here.
        spread = np.concatenate([part.std(0, dtype=np.float64) for part in np.array_split(x, _PARTS, 1)]) + 1e-6
        x -= origin.astype(np.float32)
        x /= spread.astype(np.float32)
        analysis = PCA(min(params.components, *x.shape), copy=False, iterated_power=1, random_state=params.seed)
        with on_two_threads():
            analysis.fit(x)
        return np.vstack([origin, analysis.components_ / spread])

    origin, *axes = kept_array(file, made) if file else made()
    turned = np.array(axes).T.astype(np.float32)
    parts = np.array_split(features.reshape(-1, width), _PARTS)
    with on_two_threads():
        scores = np.concatenate([(part - origin.astype(np.float32)) @ turned for part in parts])
    return Reduced(np.array(axes), origin, scores.reshape(*features.shape[:-1], -1))


def fit(photos: PhotoSet, params: TrainParams, *, seen: Reduced | None = None) -> Head:
    """Fit a head to all views of the photos that may be learned from, as they were found and rewritten.

    `seen` is what `reduced` returns for the photos, where it is at hand.
    """
    return _fit(photos.rows, seen or reduced(photos, params), params, params.inverse_penalty)


def _fit(rows: Rows, seen: Reduced, params: TrainParams, inverse_penalty: float) -> Head:
    """Fit the mean of a logistic regression and a ridge regression, whose logits spread as far as the other's.

    The first looks at photos near the border, the second at all of them alike; together they find some more AI images
    of sources that they never saw than either does (bench/encoders.py). A photo of a large source weighs less.
    """
    chosen = _learned(rows)
    views, width = seen.scores.shape[1:]
    x, y = seen.scores[chosen].reshape(-1, width), np.repeat(rows.label[chosen], views)
    weight = np.repeat(source_weights(rows, params.source_exponent)[chosen], views)
    balanced = weight / np.bincount(y, weight)[y]
    logistic = LogisticRegression(C=inverse_penalty, max_iter=300, tol=1e-3)
    ridge = Ridge(params.ridge_penalty, solver="cholesky")
    with on_two_threads():
        logistic.fit(x, y, sample_weight=weight / weight.mean())
        ridge.fit(x, 2 * y - 1, sample_weight=balanced / balanced.mean())
        one, other = logistic.coef_[0].astype(np.float32), ridge.coef_.astype(np.float32)
        scale = float(np.std(x @ one) / max(np.std(x @ other), 1e-12))
        share = params.ridge_share
        slope = ((1 - share) * one.astype(np.float64) + share * scale * other.astype(np.float64)) @ seen.axes
        intercept = (1 - share) * logistic.intercept_[0] + share * scale * ridge.intercept_
        return Head(slope, float(intercept - slope @ seen.origin))


def _learned(rows: Rows) -> Ints:
    """Return which photos may be learned from: int64 [M]."""
    return np.flatnonzero(rows.train & (rows.label != RENDER))


def source_weights(rows: Rows, exponent: float = 1.0) -> Float:
    """Return the weight of each photo, float64 [N]: with exponent 1 every source weighs the same."""
    return rows.of_source**-exponent


def folds(rows: Rows, params: TrainParams, draw: int) -> Ints:
    """Return the fold of each photo, int64 [N]: a source lies in one fold, and each label is spread over all."""
    rng = np.random.default_rng([params.seed, draw])
    found = np.zeros(len(rows), np.int64)
    for label in np.unique(rows.label):
        sources = np.unique(rows.source[rows.label == label])
        rng.shuffle(sources)
        place = {source: number % params.folds for number, source in enumerate(sources.tolist())}
        mask = rows.label == label
        found[mask] = [place[source] for source in rows.source[mask].tolist()]
    return found


@dataclass(frozen=True)
class Fold:
    """One head, and the photos of the sources that it never saw.

    Attributes:
        draw: which cut of the sources it belongs to.
        head: fitted on the other folds.
        held_out: int64 [M], rows of the photos.
    """

    draw: int
    head: Head
    held_out: Ints


def fitted_folds(
    photos: PhotoSet,
    params: TrainParams,
    inverse_penalty: float | None = None,
    *,
    kept: Path | None = None,
    seen: Reduced | None = None,
) -> list[Fold]:
    """Fit a head for each fold of each draw.

    Args:
        photos: of all folds.
        params: how the sources are cut and the heads are fitted.
        inverse_penalty: another than that of `params`.
        kept: a folder in which heads are kept: those that were fitted to the same photos in the same way come from it.
        seen: what `reduced` returns for the photos, where it is at hand.
    """
    penalty = inverse_penalty or params.inverse_penalty
    digest = _digest(photos, params) if kept else ""
    components = cache(lambda: seen or reduced(photos, params, kept))
    fitted = []
    for draw, number in tqdm(list(np.ndindex(params.draws, params.folds)), "heads", delay=2):
        inside = folds(photos.rows, params, draw) == number

        def made(others: npt.NDArray[np.bool_] = ~inside) -> Float:
            rows, whole = np.flatnonzero(others), components()
            head = _fit(photos.rows.take(rows), replace(whole, scores=whole.scores[rows]), params, penalty)
            return np.append(head.weight, head.bias)

        *weight, bias = kept_array(kept / f"{digest}-{penalty:g}-{draw}-{number}.npy", made) if kept else made()
        fitted.append(Fold(draw, Head(np.array(weight), float(bias)), np.flatnonzero(inside)))
    return fitted


def _digest(photos: PhotoSet, params: TrainParams) -> str:
    """Return the digest of all that heads depend on beside the penalty: photos, params, and the code of this file."""
    said = params.model_dump(
        mode="json", include={"components", "ridge_penalty", "ridge_share", "source_exponent", "folds", "seed"}
    )
    digest = hashlib.sha256(json.dumps(said).encode() + Path(__file__).read_bytes())
    rows = photos.rows
    for column in (rows.sha256, rows.label, rows.source, rows.train, photos.seen.features):
        digest.update(column.tobytes())
    return digest.hexdigest()[:16]


def held_out(fitted: list[Fold], features: npt.NDArray[Any]) -> Float:
    """Return each photo's logit in each draw, of the head that never saw its source.

    Args:
        fitted: as `fitted_folds` gives them.
        features: float [N, D], or of several views float [N, V, D].

    Returns:
        float64 [draws, N], or [draws, N, V].
    """
    draws = 1 + max(fold.draw for fold in fitted)
    logits = np.zeros((draws, *features.shape[:-1]))
    for fold in fitted:
        logits[fold.draw, fold.held_out] = fold.head.logit(features[fold.held_out])
    return logits


def save_head(path: Path, head: Head, config: dict[str, Any]) -> None:
    """Write a head and what it was made from, whole or not at all; the same head gives the same bytes."""
    # Rounded to float32, as the graph has it; what follows is noise of the processor's arithmetic.
    state = {"weight": head.weight.astype(np.float32), "bias": np.array([head.bias], np.float32)}
    with whole_file(path) as temporary:
        save_file(state, temporary, {"config": json.dumps(config, sort_keys=True)})


def load_head(path: Path) -> tuple[Head, dict[str, Any]]:
    """Read what `save_head` wrote.

    Raises:
        StageError: the file is missing, truncated or no head.
    """
    try:
        with safe_open(path, framework="np") as file:
            config: dict[str, Any] = json.loads(file.metadata()["config"])
            head = Head(file.get_tensor("weight").astype(np.float64), float(file.get_tensor("bias")[0]))
    except (FileNotFoundError, SafetensorError, KeyError, TypeError) as error:
        raise StageError(
            f"{path} is missing, truncated or no head: restore it from git or run 'dvc repro train'"
        ) from error
    return head, config
