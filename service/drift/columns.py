"""What is compared: a table of predictions, one array a column."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from service.log.tables import EMBEDDING_COMPONENTS

Floats = npt.NDArray[np.float64]
Table = dict[str, Floats]
"""Column name -> float64 [n]; `probability` is P(AI-generated) at the prior of the model's calibration."""

EMBEDDING = tuple(f"embedding_{place}" for place in range(EMBEDDING_COMPONENTS))
_ALWAYS = ("ood_score", "brightness", "contrast", "sharpness")  # in every log and reference that there ever was
_LATER = ("jpeg_quality",)  # what came since: left out where a reference, or a row of the window, lacks it


def from_rows(rows: Sequence[Mapping[str, Any]]) -> Table:
    """Return the columns of rows of the prediction log, in their order.

    `size` is the root of width x height, in pixels of the photo as it came. `jpeg_quality` is 0 for other formats.
    A column is left out where a row comes from before it was logged.
    """
    arrays = {name: np.array([row[name] for row in rows]) for name in _ALWAYS}
    arrays["embedding"] = np.array([row["embedding"] for row in rows] or np.zeros((0, EMBEDDING_COMPONENTS)))
    arrays["probability"] = np.array([row["score"] for row in rows])
    arrays["size"] = np.sqrt([float(row["width"] * row["height"]) for row in rows])
    for name in _LATER:
        if all(row[name] is not None for row in rows):
            arrays[name] = np.array([row[name] for row in rows])
    return from_arrays(arrays)


def from_arrays(arrays: Mapping[str, npt.NDArray[Any]]) -> Table:
    """Return the columns of a reference as it is stored: `embedding` is float [m, components], the others [m].

    One of an earlier version has `distance` for `ood_score`.

    Raises:
        KeyError: a column that every reference has is missing.
    """
    if "distance" in arrays:
        arrays = {"ood_score": arrays["distance"], **arrays}
    table = {name: arrays[name].astype(np.float64) for name in _ALWAYS}
    embedding = arrays["embedding"].astype(np.float64)
    table |= {name: embedding[:, place] for place, name in enumerate(EMBEDDING[: embedding.shape[1]])}
    table |= {name: arrays[name].astype(np.float64) for name in ("size", *_LATER) if name in arrays}
    return with_score(table, arrays["probability"].astype(np.float64))


def to_arrays(table: Table) -> dict[str, Floats]:
    """Return a table as `from_arrays` takes it. Not rounded: rounded sizes would differ from those logged later."""
    embedding = np.stack([table[name] for name in EMBEDDING if name in table], axis=1)
    columns = {name: values for name, values in table.items() if name not in EMBEDDING and name != "score"}
    return columns | {"embedding": embedding}


def with_score(table: Table, probability: Floats) -> Table:
    """Return the table with `probability` and its logit `score`, which spreads out what lies near 0 and 1."""
    inside = probability.clip(1e-7, 1 - 1e-7)
    return table | {"probability": probability, "score": np.log(inside / (1 - inside))}


def take(table: Table, rows: npt.NDArray[np.int64]) -> Table:
    """Return the given rows of a table."""
    return {name: values[rows] for name, values in table.items()}
