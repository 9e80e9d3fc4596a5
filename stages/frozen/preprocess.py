"""Stage preprocess of the recipe `frozen`: drop copies, split by source, and let the encoder see every photo."""

import hashlib
from collections import Counter
from collections.abc import Callable
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow.parquet as pq

from stages.common import LABELS, StageError, keep_only, load_params, run_stage, sha256_file, whole_file, write_json
from stages.data.inbox import IMPORT, OWN, check_import
from stages.data.own_photos import own_files
from stages.data.photo_set.collect import SCHEMA
from stages.data.raw import PHOTOS as RAW
from stages.data.raw import DownloadParams
from stages.frozen.dataset import DESCRIBED, DRAWINGS, PHOTOS, RENDER, Described, Rows, joined, read_rows, write_photos
from stages.frozen.dataset import OWN as OWN_SOURCE
from stages.frozen.encoder import encoder_file
from stages.frozen.features import cache_folder, describe, drawings
from stages.frozen.params import PreprocessParams
from stages.paths import ModelPaths

_FEW = 40  # photos; a source with fewer is small
Row = dict[str, Any]


def main(paths: ModelPaths) -> None:
    """Prepare the data as params.yaml says."""
    params = load_params("preprocess", PreprocessParams, paths.name)
    dataset = load_params("download", DownloadParams, paths.name).dataset
    check_import()
    rows = _read(paths.raw / RAW, OWN)
    own = sum(row["source"].startswith(OWN_SOURCE) for row in rows)
    if own < params.own_photos_min:
        raise StageError(
            f"{own} own photos found, but preprocess.own_photos_min is {params.own_photos_min}: put them into photos/"
            f" ({IMPORT}), or lower own_photos_min to go on without them knowingly"
        )
    encoder = encoder_file(paths, params.encoder)
    cache = cache_folder(paths.build, params)
    seen = _seen(rows, params, encoder, cache)
    sources = np.array([row["source"] for row in rows])
    labels = np.array([row["label"] for row in rows])
    copies = near_copies(seen.hash, sources, params.near_copy_bits)
    crossing = [row for row, other in copies.items() if labels[row] != labels[other]]
    dropped = np.zeros(len(rows), bool)
    dropped[[*copies, *(copies[row] for row in crossing)]] = True  # of one photo with two labels nothing is known
    kept = np.flatnonzero(~dropped)
    rows, seen = [rows[place] for place in kept], seen.take(kept)

    test = test_sources(rows, params)
    in_test = np.array([row["source"] in test for row in rows])
    parts = {"development": (paths.dataset, ~in_test), "test": (paths.test, in_test)}
    report: dict[str, Any] = {
        "dataset": dataset,
        "near_copies_across_sources": {
            "removed": int(dropped.sum()), "bits": params.near_copy_bits, "under_two_labels": len(crossing),
        },
        "own_photos": own,
    }  # fmt: skip
    for name, (folder, mask) in parts.items():
        places = np.flatnonzero(mask)
        folder.mkdir(parents=True, exist_ok=True)
        write_photos(folder / PHOTOS, [rows[place] for place in places], SCHEMA)
        seen.take(places).save(folder / DESCRIBED)
        report[name] = counts(read_rows(folder / PHOTOS), seen.take(places))
        report[name]["sha256"] = sha256_file(folder / PHOTOS)
        print(f"{name}: {len(places):,} photos of {len(report[name]['sources'])} sources")
    with whole_file(paths.dataset / DRAWINGS) as temporary, temporary.open("wb") as file:
        np.save(file, drawings(params, encoder, cache))
    keep_only(*(paths.dataset / name for name in (PHOTOS, DESCRIBED, DRAWINGS)))
    keep_only(*(paths.test / name for name in (PHOTOS, DESCRIBED)))
    _refuse_one_class(report["development"])
    write_json(paths.dataset_report, report)


def _seen(rows: list[Row], params: PreprocessParams, encoder: Path, cache: Path) -> Described:
    """Return what the head sees of the rows' photos, in their order.

    Fewer rewrites are made of an own photo, so that a shop need not wait for them; it has those in turns.
    """
    kinds = []
    for own, views in ((False, params.views), (True, params.own_views)):
        photos = [(row["sha256"], row["photo"]) for row in rows if row["source"].startswith(OWN_SOURCE) == own]
        if photos:
            found = describe(photos, params.model_copy(update={"views": views}), encoder, cache)
            in_turns = [0, *(1 + np.arange(params.views) % views)]
            kinds.append(replace(found, features=found.features[:, in_turns]))
    every = joined(kinds)
    return every.take(np.argsort(every.sha256))


def _read(raw: Path, own_folder: Path) -> list[Row]:
    """Return a row for each photo, in the order of their digests; its `photo` is a function that reads the file."""
    table = pq.read_table(raw)
    columns = {name: table[name].to_pylist() for name in table.column_names if name != "photo"}
    photos = table["photo"]

    def reader(place: int) -> Callable[[], bytes]:
        return photos[place].as_py  # type: ignore[no-any-return]

    found = [
        dict(zip(columns, values, strict=True)) | {"photo": reader(place)}
        for place, values in enumerate(zip(*columns.values(), strict=True))
    ]
    known = {row["sha256"] for row in found}
    for file in own_files(own_folder):
        row = {
            "sha256": sha256_file(file.path),
            "label": LABELS[file.label],
            "generator": "own" if file.label else "",
            "source": OWN_SOURCE + file.path.parent.relative_to(own_folder).as_posix(),
            "path": file.path.name,
            "date": "",
            "licence": "own",
            "use": "train",
            "photo": file.path.read_bytes,
        }
        if row["sha256"] not in known:
            found.append(row)
            known.add(row["sha256"])
    return sorted(found, key=lambda row: str(row["sha256"]))


def near_copies(hashes: npt.NDArray[np.uint64], sources: npt.NDArray[np.str_], bits: int) -> dict[int, int]:
    """Return each photo that another source has, too, and the earlier row that it is a copy of.

    Args:
        hashes: uint64 [N], perceptual hashes.
        sources: str [N].
        bits: by so many of 64 the hashes of copies may differ.
    """
    copies: dict[int, int] = {}
    for row in range(1, len(hashes)):
        near = np.bitwise_count(hashes[:row] ^ hashes[row]) <= bits
        near &= sources[:row] != sources[row]
        if near.any():
            copies[row] = int(np.flatnonzero(near)[0])
    return copies


def test_sources(rows: list[Row], params: PreprocessParams) -> set[str]:
    """Return the sources that are read at release alone; your own are never among them.

    Real ones are taken from those that may not be learned from anyway: their loss costs the model nothing. AI ones are
    taken from the small ones. Which of them: by the digest of their names.
    """
    count = Counter((row["source"], row["label"]) for row in rows if not row["source"].startswith(OWN_SOURCE))
    judged = {row["source"] for row in rows if row["use"] == "judge"}
    reals = [source for source, label in count if label == LABELS[0] and source in judged]
    generated = [source for (source, label), size in count.items() if label == LABELS[1] and size < _FEW]
    chosen: set[str] = set()
    for sources, share in ((reals, params.test_real_share), (generated, params.test_ai_share)):
        ordered = sorted(sources, key=lambda source: hashlib.sha256(f"{params.seed} {source}".encode()).digest())
        chosen |= set(ordered[: round(share * len(ordered))])
    return chosen


def counts(rows: Rows, seen: Described) -> dict[str, Any]:
    """Return how many photos there are by label, source, generator, licence, year, format, size and JPEG quality."""
    short = np.minimum(seen.width, seen.height)
    names = np.array([*LABELS, "render"])[rows.label]

    def by(values: npt.NDArray[Any]) -> dict[str, dict[str, int]]:
        table: dict[str, Counter[str]] = {}
        for value, label in zip(values.tolist(), names.tolist(), strict=True):
            table.setdefault(str(value) or "unknown", Counter())[label] += 1
        return {value: dict(sorted(found.items())) for value, found in sorted(table.items())}

    years = np.array([date[:4] for date in rows.date.tolist()], np.str_)
    return {
        "photos": dict(sorted(Counter(names.tolist()).items())),
        "to_learn_from": int((rows.train & (rows.label != RENDER)).sum()),
        "sources": by(rows.source),
        "generators": by(np.where(rows.label == 1, rows.generator, "-")),
        "licences": by(rows.licence),
        "years": by(years),
        "formats": by(seen.format),
        "short_side": by(_binned(short, (224, 320, 512, 768, 1024))),
        "jpeg_quality": by(_binned(seen.jpeg_quality, (1, 60, 75, 85, 95))),
    }


def _binned(values: npt.NDArray[np.int64], borders: tuple[int, ...]) -> npt.NDArray[np.str_]:
    names = [f"below {borders[0]}", *(f"{low} to {high - 1}" for low, high in pairwise(borders))]
    return np.array([*names, f"{borders[-1]} and more"])[np.searchsorted(borders, values, side="right")]


def _refuse_one_class(counted: dict[str, Any]) -> None:
    for label in LABELS:
        sources = [name for name, found in counted["sources"].items() if label in found]
        if len(sources) < 2:
            raise StageError(
                f"there {'is' if len(sources) == 1 else 'are'} {len(sources)} source of photos with the label {label}:"
                " at least two are needed, because what is learned from one is judged by another"
            )


if __name__ == "__main__":
    run_stage(main)
