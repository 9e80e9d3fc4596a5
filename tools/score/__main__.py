"""Score a catalogue: photos of a folder, glob, Parquet files or bucket to Parquet, on this machine or a Ray cluster.

python -m tools.score SOURCE OUT [--model MODEL] [--workers N] [--address ADDRESS] …

Each photo is scored by the model that knows its size, as the service does. What is written stays: killed and started
again, it goes on with the parts that are not there yet. Ray Data's own read, write and checkpoints are not used: they
list the source anew at each start, need an id that is unique in the whole catalogue, which names in Parquet files are
not, and hold the ids of all finished rows in memory.
"""

import argparse
import io
import json
import logging
import os
import re
import socket
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, nullcontext
from pathlib import Path, PurePosixPath
from typing import Any, TypeVar

import pyarrow.dataset as ds
import pyarrow.parquet as pq
from fsspec.core import url_to_fs
from fsspec.implementations.local import LocalFileSystem
from tqdm import tqdm

from service.models.card import CARD, MODEL, Card, ModelError, read_card
from service.models.detector import Detector
from service.models.listing import Judge, load_rule
from service.models.shop import ShopCalibration, read_calibration
from service.photo.credentials import KEY_USAGES, CredentialReader, read_certificates, read_key_usages
from stages.common import StageError, only_one, run_command
from tools.score.catalogue import FOLDER, OF_COLUMN, survey
from tools.score.listings import write_listings
from tools.score.scorer import (
    MODELS,
    PARTS,
    PLAN,
    SCHEMA,
    Job,
    Scorer,
    find_models,
    load_job,
    load_models,
    part_name,
    write,
)

Value = TypeVar("Value")
Read = TypeVar("Read")

LOCK, DONE = "_lock", "_done.json"
RELEASED = Path("models")


def plan(
    source: str,
    out: str,
    models: Path,
    *,
    column: str,
    part_photos: int,
    alpha: float,
    ai_prior: float,
    trust_anchors: str = "",
    time_stamp_anchors: str = "",
    key_usages: tuple[str, ...] = KEY_USAGES,
    ai_marks: str = "show",
    calibration: ShopCalibration | None = None,
    group: str | None = None,
    listing_by: str = "",
) -> Job:
    """Cut the catalogue into parts and write all that the job needs into `out`, or return the job that is there.

    Args:
        source: as `tools.score.catalogue.survey` takes it; a run that goes on does not list it again.
        out: a folder or a bucket's prefix, empty or with a run of the same.
        models: an ONNX file, a model's folder, or a folder of such folders; they are copied into `out`.
        column: of Parquet files, the one with the photos.
        part_photos: files in a part.
        alpha: as the service's ALPHA.
        ai_prior: as the service's AI_PRIOR.
        trust_anchors: what is in the file of the service's C2PA_TRUST_ANCHORS, PEM; none: no credential is believed.
        time_stamp_anchors: likewise of C2PA_TIME_STAMP_ANCHORS.
        key_usages: likewise of C2PA_KEY_USAGES.
        ai_marks: as the service's AI_MARKS.
        calibration: what is in the file of the service's CALIBRATION; None: the models' thresholds decide.
        group: of the shop's photos; None: the whole shop's thresholds decide.
        listing_by: what tells the listing of a photo: `folder`, `column:NAME` of Parquet files, or nothing.

    Raises:
        StageError: `out` holds something else, there is no photo, the models or the anchors cannot be loaded, or the
            calibration belongs to none of them or does not know the group.
    """
    fs, folder = url_to_fs(out)
    try:
        detectors = load_models(models, alpha=alpha, ai_prior=ai_prior)
        paths = dict(zip(detectors, find_models(models), strict=True))
        files = {name: _files(path, detectors[name].card) for name, path in paths.items()}
        CredentialReader(trust_anchors, time_stamp_anchors=time_stamp_anchors, key_usages=key_usages)
        _check(calibration, group, detectors)
    except (ModelError, OSError, ValueError) as error:
        raise StageError(str(error)) from error
    digests = {name: detector.card.sha256 for name, detector in detectors.items()}
    facts = {"source": source, "column": column, "models": digests, "alpha": alpha, "ai_prior": ai_prior}
    facts |= {"trust_anchors": trust_anchors, "time_stamp_anchors": time_stamp_anchors, "key_usages": [*key_usages]}
    facts |= {"ai_marks": ai_marks, "columns": SCHEMA.names, "group": group, "listing_by": listing_by}
    facts |= {"calibration": calibration.model_dump(mode="json") if calibration else None}
    there = _names(out) - {LOCK}
    if PLAN in there:
        found = json.loads(fs.cat_file(f"{folder}/{PLAN}"))
        if found.get("columns") != SCHEMA.names:
            raise StageError(
                f"{out} holds a run of another version of this program: go on with that version, or name another OUT"
            )
        if wrong := [name for name, value in facts.items() if found.get(name) != value]:
            raise StageError(f"{out} holds a run with another {', '.join(wrong)}: go on with that, or name another OUT")
        return load_job(out)
    if there - {PARTS, MODELS}:
        raise StageError(f"{out} holds other files: name an empty folder")
    buffer = io.BytesIO()
    pq.write_table(survey(source, column, part_photos, listing_by), buffer)
    write(out, PARTS, buffer.getvalue())
    for name, held in files.items():
        for file, data in held.items():
            write(out, f"{MODELS}/{name}/{file}", data)
    write(out, PLAN, (json.dumps(facts, indent=2) + "\n").encode())  # last: without it nothing has begun
    return load_job(out)


def _check(calibration: ShopCalibration | None, group: str | None, detectors: Mapping[str, Detector]) -> None:
    """Raise ModelError unless a calibration belongs to one of the models, and knows the group."""
    if calibration is None:
        if group:
            raise ModelError(f"--group {group} is of no use without --calibration: leave it out")
        return
    if (detector := detectors.get(calibration.model)) is None:
        raise ModelError(f"--calibration is for {calibration.model}: name that model, or leave it out")
    calibration.check(detector.card, detector.sha256, detector.alpha)
    if group and not calibration.knows(group):
        raise ModelError(f"--group {group}: nobody calibrated it; {calibration.groups_in_words()}")


def put_together(job: Job, models: Path, done: dict[str, Any]) -> dict[str, Any]:
    """Write `_listings.parquet`, and add to what `_done.json` says how many listings there are of each decision.

    Args:
        job: whose photos are all scored.
        models: as `plan` took them, each with its reference.npz.
        done: what `_done.json` says.
    """
    judges = {}
    for path in find_models(models):
        detector = job.models[read_card(path).name].detector
        rule = load_rule(path, detector.card, detector.alpha)
        judges[detector.name] = Judge(rule, detector.thresholds, detector.ai_prior)
    (alpha,) = {by.detector.alpha for by in job.models.values()}
    done |= {"listings": write_listings(job, judges, alpha)}
    write(job.out, DONE, (json.dumps(done, indent=2) + "\n").encode())
    return done


def _files(path: Path, card: Card) -> dict[str, bytes]:
    """Return by its name each file that a worker needs of a model."""
    model = path / MODEL if path.is_dir() else path
    files = {MODEL: model.read_bytes(), CARD: card.to_json().encode()}
    if card.encoder:
        files[card.encoder.file] = model.with_name(card.encoder.file).read_bytes()
    return files


def score(job: Job, workers: int, address: str | None) -> dict[str, Any]:
    """Score the parts that are not written yet; `_done.json` says what the whole is.

    Args:
        job: as `plan` made it.
        workers: processes, each with the models on one core.
        address: of a Ray cluster, as `ray.init` takes it; None: this machine alone.

    Returns:
        What `_done.json` says: photos, how many of each decision and of each error; of this run its photos and seconds.

    Raises:
        StageError: there is no such cluster.
    """
    parts, there = job.catalogue.parts(), _names(job.out)
    todo = {part: photos for part, photos in parts.items() if part_name(part) not in there}
    total, left = sum(parts.values()), sum(todo.values())
    started = time.perf_counter()
    with tqdm(total=total, initial=total - left, desc="scoring", unit=" photos", mininterval=1) as bar:
        for photos in _run(job.out, list(todo), workers, address):
            bar.update(photos)
    seconds = round(time.perf_counter() - started, 3)
    counts: dict[str, Counter[str]] = {"decision": Counter(), "error_type": Counter()}
    fs, folder = url_to_fs(job.out)
    written = ds.dataset([f"{folder}/{part_name(part)}" for part in parts], filesystem=fs, format="parquet")
    for batch in written.to_batches(columns=list(counts)):
        for name, counter in counts.items():
            counter.update(value for value in batch[name].to_pylist() if value is not None)
    done = {"photos": written.count_rows(), "decisions": counts["decision"], "errors": counts["error_type"]}
    done["this_run"] = {"photos": left, "seconds": seconds, "workers": workers}
    write(job.out, DONE, (json.dumps(done, indent=2) + "\n").encode())
    return done


def _run(out: str, parts: list[int], workers: int, address: str | None) -> Iterator[int]:
    """Yield the photos of each part once it is written."""
    if not parts:
        return
    with _ray(workers, address) as data:
        # Its progress bars count parts, ours counts photos; and of all it tells only warnings are of use here.
        data.DataContext.get_current().enable_progress_bars = False
        for name in ("ray.data", "ray.data._internal.execution.streaming_executor"):
            logging.getLogger(name).setLevel(logging.ERROR)
        items = data.from_items([{"part": part} for part in parts], override_num_blocks=len(parts))
        pool = data.ActorPoolStrategy(size=min(workers, len(parts)))
        scored = items.map_batches(Scorer, fn_constructor_args=(out,), batch_size=1, num_cpus=1, compute=pool)
        try:
            for row in scored.iter_rows():
                yield int(row["photos"])
        except Exception as error:  # Ray's own classes around whatever a worker met: a full disk, a store's refusal
            reason = str(error).strip().splitlines()[-1]
            raise StageError(
                f"a worker failed: {reason[:500]}; correct that and start the same command again: it goes on"
            ) from error


@contextmanager
def _ray(workers: int, address: str | None) -> Iterator[Any]:
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")  # it would tell the internet of itself
    try:
        import ray.data
    except ImportError as error:
        raise StageError("Ray is not installed: pip install -e '.[bulk]' -c constraints.txt") from error
    if not address:  # it complains of how Ray Data starts its own actors
        os.environ.setdefault("RAY_BACKEND_LOG_LEVEL", "fatal")
    if address and (found := re.fullmatch(r"(?:ray://)?([^/:]+|\[[^/]+\]):(\d+)", address)):
        try:  # Ray itself would try for minutes
            socket.create_connection((found[1].strip("[]"), int(found[2])), timeout=10).close()
        except OSError as error:
            raise StageError(f"no Ray cluster answers at {address}: {error.strerror or error}") from error
    here: dict[str, Any] = {"num_cpus": workers, "include_dashboard": False, "object_store_memory": 128 * 2**20}
    try:
        ray.init(address or "local", logging_level=logging.ERROR, log_to_driver=False, **({} if address else here))
    except (ConnectionError, RuntimeError, ValueError) as error:
        raise StageError(f"no Ray cluster at {address}: {' '.join(str(error).split())[:300]}") from error
    try:
        yield ray.data
    finally:
        ray.shutdown()


def _names(out: str) -> set[str]:
    fs, folder = url_to_fs(out)
    fs.makedirs(folder, exist_ok=True)
    return {PurePosixPath(each).name for each in fs.ls(folder, detail=False, refresh=True)}


def _absolute(url: str) -> str:
    """Return a local path as an absolute one: workers may have another working directory."""
    fs, path = url_to_fs(url)
    return path if isinstance(fs, LocalFileSystem) else url


def released(named: Path) -> Path:
    """Return a path to models as it is, and the name of a released model as its folder."""
    return RELEASED / named if (RELEASED / named / CARD).is_file() else named


def _option(name: str, value: Value, read: Callable[[Value], Read]) -> Read:
    try:
        return read(value)
    except (ValueError, ModelError) as error:
        raise StageError(f"{name} {value}: {error}") from error


def main() -> None:
    """Score what the command line names."""
    parser = argparse.ArgumentParser(prog="python -m tools.score", description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("source", metavar="SOURCE", help="folder, glob or file, or a URL of them such as s3://…")
    parser.add_argument("out", metavar="OUT", help="folder or bucket's prefix for the scores")
    parser.add_argument("--workers", type=int, default=os.cpu_count(), help="processes; by default one a core")
    parser.add_argument("--address", help="of a Ray cluster, such as auto or ray://head:10001")
    parser.add_argument(
        "--model",
        type=Path,
        default=RELEASED,
        help="scores all photos: the name of one in models/, or a folder or ONNX file, such as an experiment's "
        "build/cifake/candidate; by default each photo is scored by the one in models/ that knows its size",
    )
    parser.add_argument("--column", default="image", help="of Parquet files, the one with the photos")
    parser.add_argument("--part-photos", type=int, default=200, help="files that are scored and written together")
    parser.add_argument("--alpha", type=float, default=0.01, help="share of real photos that may be flagged")
    parser.add_argument("--ai-prior", type=float, default=0.5, help="share of AI images that probabilities assume")
    parser.add_argument("--trust-anchors", type=Path, help="PEM file of those whose Content Credentials are believed")
    parser.add_argument(
        "--time-stamp-anchors", type=Path, help="PEM file of those who are believed when one was signed"
    )
    parser.add_argument(
        "--key-usages",
        default=",".join(KEY_USAGES),
        help="what a signer's certificate may be for: object identifiers, or a file with one a line",
    )
    parser.add_argument(
        "--listing-by",
        default="",
        metavar="folder|column:NAME",
        help="write a table of listings, too: their photos lie in one folder, or have one value in a column of Parquet "
        "files",
    )
    parser.add_argument(
        "--ai-marks", choices=("show", "review"), default="show", help="review: a photo with a mark is never cleared"
    )
    parser.add_argument("--calibration", type=Path, help="file of a shop's own thresholds (tools.calibrate)")
    parser.add_argument("--group", help="of the shop's photos, where its calibration has groups")
    options = parser.parse_args()
    shop = _option("--calibration", options.calibration, read_calibration) if options.calibration else None
    anchors = _option("--trust-anchors", options.trust_anchors, read_certificates)
    times = _option("--time-stamp-anchors", options.time_stamp_anchors, read_certificates)
    usages = _option("--key-usages", options.key_usages, read_key_usages)
    if options.workers < 1 or options.part_photos < 1:
        parser.error("--workers and --part-photos must be 1 or more")
    by = options.listing_by
    if by not in {"", FOLDER} and not (by.startswith(OF_COLUMN) and by != OF_COLUMN):
        parser.error(f"--listing-by is '{by}': give {FOLDER}, or {OF_COLUMN}NAME")
    source, out = map(_absolute, (options.source, options.out))
    models = released(options.model)
    with nullcontext() if "://" in out else only_one(Path(out) / LOCK, f"a run into {out}"):
        job = plan(
            source, out, models, column=options.column, part_photos=options.part_photos,
            alpha=options.alpha, ai_prior=options.ai_prior, trust_anchors=anchors,
            time_stamp_anchors=times, key_usages=usages, ai_marks=options.ai_marks,
            calibration=shop, group=options.group,
            listing_by=by,
        )  # fmt: skip
        done = score(job, options.workers, options.address)
        print(json.dumps(put_together(job, models, done) if by else done, indent=2))


if __name__ == "__main__":
    run_command(main)
