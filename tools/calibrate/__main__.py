"""Set thresholds that hold for a shop's own catalogue, from its own real photos alone.

python -m tools.calibrate PHOTOS [--model MODEL] [--out FOLDER] …

PHOTOS is a folder of real photos. Folders in it are groups, such as categories: one of 200 and more photos gets
thresholds of its own. A folder in a group's folder holds photos of one product. Killed and started again, it goes on.
"""

import argparse
import csv
import hashlib
import json
import os
import shutil
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, NamedTuple

import imagehash
import numpy as np
import numpy.typing as npt
import pyarrow.parquet as pq
from PIL import Image, ImageOps
from tqdm import tqdm

from service.models.card import REFERENCE, Card, ModelError, read_card
from service.models.shop import Promise, Promises, Recall, ShopCalibration, calibration_file
from service.photo import ImageError, decode
from service.photo.formats import SUFFIXES
from stages.common import StageError, only_one, run_command, whole_file, write_text
from tools.calibrate.conformal import Floats, Ints, groups_of, limits, products_of, upper_limit, weights_of
from tools.score.__main__ import plan, released, score

CALIBRATION, SUSPICIOUS = "calibration.json", "suspicious"  # in OUT
GROUP = 200  # photos from which on a group has thresholds of its own
ALIKE_BITS = 4  # as preprocess takes photos to be near-copies
_ALPHA = 0.01  # of the service, where ALPHA is not set
_GENERATED = {"ai", "ai_generated", "aigenerated", "fake", "generated", "synthetic"}  # names of folders
_SHOWN = 24  # suspicious photos
_FEW = 10  # images of a generator, for a figure of its own
_PART = 16  # photos scored and written together


class Scored(NamedTuple):
    """What was found out about N photos.

    Attributes:
        names: paths from the folder that holds all of them.
        score: float64 [N], what a threshold is compared with: the probability, 0 out of domain.
        probability: float64 [N].
        in_domain: bool [N].
        marked: bool [N], whether the file says of AI.
        products: int64 [N].
        groups: str [N].
        unreadable: name -> why, of the photos that are left out.
    """

    names: list[str]
    score: Floats
    probability: Floats
    in_domain: npt.NDArray[np.bool_]
    marked: npt.NDArray[np.bool_]
    products: Ints
    groups: npt.NDArray[np.str_]
    unreadable: dict[str, str]


def scored(folder: Path, model: Path, out: Path, workers: int) -> Scored:
    """Score all photos of a folder and its folders; those that were scored before are not scored again.

    Raises:
        StageError: it is no folder, holds no photo that can be read, or a folder of AI images.
    """
    paths = _photos(folder)
    card = _card(model)
    seen = [(path.relative_to(folder).as_posix(), path.stat().st_size, path.stat().st_mtime_ns) for path in paths]
    said = json.dumps([str(folder), card.sha256, seen])
    place = out / f"scores-{hashlib.sha256(said.encode()).hexdigest()[:12]}"
    job = plan(
        str(folder), str(place), model, column="image", part_photos=_PART,
        alpha=min(card.thresholds.flag), ai_prior=card.calibration.prior_ai,
    )  # fmt: skip
    score(job, workers, None)
    rows: dict[str, dict[str, Any]] = {}
    for part in sorted(place.glob("part-*.parquet")):
        rows |= {row["name"]: row for row in pq.read_table(part).to_pylist()}
    known = {path.relative_to(folder).as_posix(): rows[str(path)] for path in paths}
    unreadable = {name: str(row["error"]) for name, row in known.items() if row["error_type"]}
    names = [name for name in known if name not in unreadable]
    if not names:
        first = next(iter(unreadable.items()))
        raise StageError(f"none of {len(known)} photos in {folder} can be read; the first, {first[0]}: {first[1]}")
    kept = [known[name] for name in names]
    probability = np.array([row["probability"] for row in kept])
    in_domain = np.array([row["in_domain"] for row in kept])
    hashes = np.array([_hash(folder / name) for name in tqdm(names, "copies", unit=" photos", delay=2)], np.uint64)
    return Scored(
        names=names,
        score=np.where(in_domain, probability, 0),
        probability=probability,
        in_domain=in_domain,
        marked=np.array([bool(row["ai_markers"]) for row in kept]),
        products=products_of(names, hashes, ALIKE_BITS),
        groups=np.array(groups_of(names), np.str_),
        unreadable=unreadable,
    )


def calibration(photos: Scored, card: Card, reference: Path, dropped: int = 0) -> ShopCalibration:
    """Return what photos say about the thresholds of a model.

    Args:
        photos: real ones.
        card: the model's.
        reference: the model's own, with the scores of AI images.
        dropped: photos that were left out.

    Raises:
        StageError: there are too few photos, or the model knows none of them.
    """
    alphas = sorted(card.thresholds.flag, reverse=True)
    if not photos.in_domain.any():
        raise StageError(
            f"{card.name} knows none of the {len(photos.names)} photos (in_domain is false): no threshold can be set; "
            "'python -m tools.score' says more of each"
        )
    whole = _promises(photos, np.ones(len(photos.names), bool), alphas)
    if not whole.promises:
        raise StageError(
            f"{whole.products} products are too few: {min(whole.needed.values())} are needed to promise "
            f"{max(whole.needed):g}, and some 300 photos of different products are well spent"
        )
    names, count = np.unique(photos.groups, return_counts=True)
    large = [name for name, size in zip(names.tolist(), count.tolist(), strict=True) if name and size >= GROUP]
    small = [name for name in names.tolist() if name and name not in large]
    rest = ~np.isin(photos.groups, large)
    return ShopCalibration(
        model=card.name,
        model_version=card.version,
        model_sha256=card.sha256 or "",
        made_at=datetime.now(UTC).replace(microsecond=0).isoformat(),
        shop=whole,
        groups={name: _promises(photos, photos.groups == name, alphas) for name in large},
        rest=_promises(photos, rest, alphas) if large and small else None,
        small_groups=small,
        recall={alpha: recall(reference, card, promise.flag) for alpha, promise in whole.promises.items()},
        out_of_domain=round(float((~photos.in_domain).mean()), 6),
        marked=round(float(photos.marked.mean()), 6),
        dropped=dropped,
    )


def _promises(photos: Scored, mask: npt.NDArray[np.bool_], alphas: Sequence[float]) -> Promises:
    products = photos.products[mask]
    found, needed = limits(photos.score[mask], products, alphas)
    # Scores have six decimals, so this is the least that lies above the threshold.
    flags = {
        alpha: Promise(flag=round(each.threshold + 1e-6, 6), upper=round(each.upper, 6))
        for alpha, each in found.items()
    }
    return Promises(photos=int(mask.sum()), products=len(np.unique(products)), promises=flags, needed=needed)


def recall(reference: Path, card: Card, flag: float) -> Recall:
    """Return how many AI images are found from a probability on, of the release's own evaluation.

    Args:
        reference: the model's own, of photos of sources that its heads never saw.
        card: the model's.
        flag: the threshold.
    """
    with np.load(reference, allow_pickle=False) as file:
        arrays = dict(file)
    generated = arrays["label"] == 1
    distance = arrays["ood_score"] if "ood_score" in arrays else arrays["distance"]
    found = (arrays["probability"] >= max(flag, 0.5)) & (distance <= card.domain.threshold)
    weight = 1 / arrays["source_photos"] if "source_photos" in arrays else np.ones(len(generated))
    generator = arrays.get("generator", np.full(len(generated), ""))
    if "generator_names" in arrays:  # those of photos 0.4.0 and before have the names themselves
        generator = arrays["generator_names"][generator]

    def share(mask: npt.NDArray[np.bool_]) -> float:
        return round(float((found[mask] * weight[mask]).sum() / weight[mask].sum()), 6)

    masks = {name: generated & (generator == name) for name in np.unique(generator[generated]).tolist() if name}
    return Recall(
        of_all=share(generated),
        by_generator={name: share(mask) for name, mask in masks.items() if mask.sum() >= _FEW},
    )


def without(photos: Scored, limit: float) -> Scored:
    """Return the photos whose probability is at most `limit`."""
    kept = np.flatnonzero(photos.probability <= limit)
    arrays = {
        name: getattr(photos, name)[kept]
        for name in ("score", "probability", "in_domain", "marked", "products", "groups")
    }
    return photos._replace(names=[photos.names[row] for row in kept], **arrays)


def told(found: ShopCalibration, photos: Scored) -> str:
    """Return in words what was found."""
    whole = found.shop
    share = f"{found.out_of_domain:.1%} out of domain, {found.marked:.1%} with a mark of AI"
    lines = [f"for {found.model} {found.model_version}; {share}"]
    for name, group in {"the whole shop": whole, **found.groups}.items():
        lines.append(f"{name}: {group.photos} photos of {group.products} products")
        for alpha, promise in group.promises.items():
            flag = max(0.5, promise.flag)
            line = f"  ALPHA={alpha:g}: flagged from {flag:.6f}, at most {promise.upper:.2%} of real photos"
            if promise.flag < 0.5:
                line += f" (their scores allow {promise.flag:.6f}, but nothing is flagged below 0.5)"
            if group is whole:
                line += f"; {found.recall[alpha].of_all:.1%} of AI images are found"
            lines.append(line)
        lines += [f"  ALPHA={alpha:g}: refused, it takes {count} products" for alpha, count in group.needed.items()]
    if found.small_groups:
        lines.append(f"groups of less than {GROUP} photos share one threshold: {', '.join(found.small_groups)}")
    if photos.unreadable:
        name, why = next(iter(photos.unreadable.items()))
        lines.append(f"{len(photos.unreadable)} files could not be read and are left out; the first, {name}: {why}")
    return "\n".join(lines)


def show_suspicious(folder: Path, photos: Scored, out: Path) -> None:
    """Write the photos that look most like AI images: a table, and a sheet of them to look at."""
    rows = np.argsort(-photos.probability, kind="stable")[:_SHOWN]
    with whole_file(out / f"{SUSPICIOUS}.csv") as temporary, temporary.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(("photo", "probability", "in_domain", "mark_of_ai"))
        for row in rows:
            cells = (photos.probability[row], photos.in_domain[row], photos.marked[row])
            writer.writerow((photos.names[row], *cells))
    side, across = 240, 6
    sheet = Image.new("RGB", (side * across, side * -(-len(rows) // across)), "white")
    for place, row in enumerate(rows):
        image = ImageOps.contain(_opened(folder / photos.names[row]), (side - 8, side - 8))
        sheet.paste(image, (place % across * side + 4, place // across * side + 4))
    with whole_file(out / f"{SUSPICIOUS}.jpg") as temporary:
        sheet.save(temporary, "JPEG", quality=85)


def _photos(folder: Path) -> list[Path]:
    if not folder.is_dir():
        raise StageError(f"{folder} is no folder: name the folder of your real photos")
    found = sorted(
        path
        for path in folder.rglob("*")
        if path.suffix.lower() in SUFFIXES and not path.name.startswith(".") and path.is_file()
    )
    for path in found:
        for part in (folder.name, *path.relative_to(folder).parts[:-1]):
            if part.lower().replace("-", "_").replace(" ", "_") in _GENERATED:
                verb = "is" if part == folder.name else "has"
                raise StageError(
                    f"{folder} {verb} a folder '{part}', and a calibration takes real photos alone: name the folder of "
                    "the real ones, or give that folder another name"
                )
    if not found:
        raise StageError(f"{folder} holds no photo ({', '.join(sorted(SUFFIXES))})")
    return found


def _card(model: Path) -> Card:
    try:
        return read_card(model)
    except ModelError as error:
        raise StageError(str(error)) from error


def _opened(path: Path) -> Image.Image:
    return decode(path.read_bytes(), min_side=1).image


def _hash(path: Path) -> int:
    try:
        return int(str(imagehash.phash(_opened(path))), 16)
    except ImageError as error:
        raise StageError(f"{path} changed while it was read: start again") from error


def main() -> None:
    """Calibrate on what the command line names."""
    parser = argparse.ArgumentParser(prog="python -m tools.calibrate", description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("photos", metavar="PHOTOS", type=Path, help="folder of real photos of the shop")
    parser.add_argument("--model", type=Path, default=Path("photos"), help="name of one in models/, or a folder")
    parser.add_argument("--out", type=Path, default=Path("build/calibration"), help="folder for what is written")
    parser.add_argument("--workers", type=int, default=os.cpu_count(), help="processes; by default one a core")
    parser.add_argument(
        "--drop-above", type=float, metavar="P", help="leave out photos with a higher probability: AI images among them"
    )
    options = parser.parse_args()
    if options.workers < 1:
        parser.error("--workers must be 1 or more")
    model = released(options.model)
    folder, out = options.photos.resolve(), options.out.resolve()
    with only_one(out / "_lock", f"a calibration into {out}"):
        card = _card(model)
        everything = scored(folder, model, out, options.workers)
        photos = everything if options.drop_above is None else without(everything, options.drop_above)
        dropped = len(everything.names) - len(photos.names)
        if not photos.names:
            raise StageError(f"--drop-above {options.drop_above:g} leaves no photo: choose a higher one")
        found = calibration(photos, card, model / REFERENCE, dropped)
        show_suspicious(folder, everything, out)
        kept = _keep(out / CALIBRATION)
        write_text(out / CALIBRATION, calibration_file(found))
    print(told(found, everything))
    if kept:
        print(f"the calibration before it is kept as {kept}")
    if dropped:
        print(_honest(found, everything, dropped))
    print(f"look at {out / SUSPICIOUS}.jpg: AI images among real photos raise the thresholds")
    promised = list(found.shop.promises)
    alpha = "" if _ALPHA in promised else f"ALPHA={promised[0]:g} "
    print(f"in service with: {alpha}CALIBRATION={out / CALIBRATION} make serve")


def _keep(file: Path) -> Path | None:
    """Copy an earlier calibration beside the place where the next is written, and return where it is then."""
    if not file.exists():
        return None
    kept = file.with_suffix(".before.json")
    with whole_file(kept) as temporary:
        shutil.copyfile(file, temporary)
    return kept


def _honest(found: ShopCalibration, everything: Scored, dropped: int) -> str:
    """Return what dropping photos costs if they were real ones."""
    alpha, promise = next(iter(found.shop.promises.items()))
    count = len(np.unique(everything.products))
    above = float(weights_of(everything.products)[everything.score >= promise.flag].sum())
    return (
        f"{dropped} photos were left out. If they are AI images, the bounds above hold; if they are real ones, at "
        f"ALPHA={alpha:g} up to {upper_limit(above, count):.2%} of real photos may be flagged"
    )


if __name__ == "__main__":
    run_command(main)
