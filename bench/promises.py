"""Does a shop's own calibration keep its promise? On whole repositories of real photos that the head never saw.

python bench/promises.py MIRRORS [--splits 1000] [--most 1500] [--report reports/promises.json]

MIRRORS is a folder of git repositories, bare or not, each called `<owner>+<name>`; those of `SOURCES` are read at their
pinned commits. It also reads what `dvc repro evaluate@photos` leaves in build/photos. For each repository the head and
the domain are fitted again without it, 300 of its photos are the shop's calibration, and the others are its traffic.
Features are kept in build/promises: started again, it goes on.
"""

import argparse
import hashlib
import re
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
from scipy.stats import betabinom
from tqdm import tqdm

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from service.models.card import Card, read_card
from stages.common import StageError, load_params, run_command, write_json
from stages.evaluation.plots import save_figure
from stages.evaluation.runner import rounded
from stages.frozen.dataset import DRAWINGS, PhotoSet, load
from stages.frozen.encoder import encoder_file
from stages.frozen.evaluate import calibrated
from stages.frozen.export import known_domain
from stages.frozen.features import cache_folder, describe
from stages.frozen.head import FOUND, fit
from stages.frozen.params import ExportParams, PreprocessParams, TrainParams
from stages.paths import ModelPaths
from tools.calibrate.__main__ import ALIKE_BITS
from tools.calibrate.conformal import Floats, Ints, Limit, limit, products_of

NAME = "photos"
PHOTOS = 300  # of a shop's calibration
ALPHAS = (0.05, 0.01)
DIRT = (0.0, 0.005, 0.01, 0.02, 0.05)  # shares of AI images among the shop's "real" photos
LISTED = 24  # suspicious photos that a person looks at
Bools = npt.NDArray[np.bool_]


@dataclass(frozen=True)
class Source:
    """A repository of real photos.

    Attributes:
        name: owner and name.
        commit: at which it is read.
        path: regular expression of its photos' paths.
        shows: what the photos show.
    """

    name: str
    commit: str
    path: str
    shows: str


SOURCES = (
    Source("alexeygrigorev/clothing-dataset", "7ed86a9cc56763b6acb35e41cb35184e43a5d218", r"images/.*\.jpg",
           "clothes, taken at home"),
    Source("bearpaw/clothing-co-parsing", "fe34fb77721a9973fbae92c05f7f12b664d10110", r"photos/.*\.jpg",
           "people in clothes, in the street"),
    Source("jushih/Springboard", "7fab187db623bb66a09d61d28987246079411115", r"data/img/.*\.jpg",
           "people in dresses, studio"),
    Source("magento/magento2-sample-data", "53807565ba9f23c9409268c02bb995cf39ef553d",
           r"pub/media/catalog/product/.*\.jpg", "sports clothes, worn or cut out"),
    Source("Divix55/Dekatlon", "ca8eea7e00fda4290d5160f79580d3efd7c04562",
           r"img/p/.*-home_default\.jpg", "sports goods, 250 px"),
    Source("marcusklasson/GroceryStoreDataset", "fc80ba90f803d79d0383df52c5a4ac5de99ff6fc",
           r"dataset/(train|test|val)/.*\.jpg", "groceries in the shop"),
    Source("aleksandar-aleksandrov/groceries-object-detection-dataset", "456a9cbbdfdb1695d0050a0d9431a6298604bc15",
           r"dataset/images/.*\.png", "groceries on shelves"),
    Source("congduytran12/Trash-Classification-", "00212f2c18dcdb9045c74481eaae5baaf72537df",
           r"dataset-resized/.*\.jpg", "packaging on a white board"),
)  # fmt: skip


class Judged(NamedTuple):
    """What a head that never saw them says of N photos of a source, whatever their size.

    Attributes:
        score: float64 [N], what thresholds are compared with: the probability, 0 out of domain.
        hash: uint64 [N], perceptual hashes.
        in_domain: float, share of them that the network knows.
        large: float, share of them that is large enough for the model.
    """

    score: Floats
    hash: npt.NDArray[np.uint64]
    in_domain: float
    large: float


class Generated(NamedTuple):
    """AI images, as heads that never saw their sources judged them at release.

    Attributes:
        score: float64 [N], as of real photos.
        weight: float64 [N], of sum 1: every source has the same.
    """

    score: Floats
    weight: Floats

    def found(self, flag: float) -> float:
        """Return the share that is flagged from a probability on; below 0.5 nothing is."""
        return float(self.weight[self.score >= max(flag, 0.5)].sum())


class Shop(NamedTuple):
    """The photos that a shop calibrates on.

    Attributes:
        chosen: int64 [n], rows of a source's photos.
        products: int64 [n], the product of each.
    """

    chosen: Ints
    products: Ints

    def take(self, kept: Any) -> "Shop":
        """Return some of them."""
        return Shop(self.chosen[kept], self.products[kept])


class Split(NamedTuple):
    """One calibration, and what it did to the photos that were left.

    Attributes:
        limit: what was promised.
        flag: the threshold.
        rate: share of the photos left that lie at or above it.
        flagged: share of them that the service flags: those from 0.5 on.
    """

    limit: Limit
    flag: float
    rate: float
    flagged: float


def photos_of(source: Source, mirrors: Path, most: int) -> dict[str, Callable[[], bytes]]:
    """Return what reads each of at most `most` different photos of a repository, by their digests.

    Raises:
        StageError: there is no mirror of it, or it holds no such photo.
    """
    mirror = mirrors / source.name.replace("/", "+")
    git = partial(subprocess.run, capture_output=True, check=False)
    listed = git(["git", "-C", str(mirror), "ls-tree", "-r", "-z", source.commit])
    if listed.returncode:
        raise StageError(f"{mirror} is no mirror of {source.name} at {source.commit}: name a folder with one")
    blobs = {}
    for line in listed.stdout.decode().split("\0")[:-1]:
        facts, path = line.split("\t", 1)
        if re.fullmatch(source.path, path):
            blobs[facts.split()[2]] = path  # the same photo twice has one blob
    if not blobs:
        raise StageError(f"{mirror} holds no photo {source.path} at {source.commit}")
    chosen = sorted(blobs, key=lambda blob: hashlib.sha256(blob.encode()).digest())[:most]  # the same for everyone

    def read(blob: str) -> bytes:
        content: bytes = git(["git", "-C", str(mirror), "cat-file", "blob", blob]).stdout
        return content

    contents = tqdm(chosen, f"read {source.name}", unit=" photos", delay=2)
    return {hashlib.sha256(read(blob)).hexdigest(): partial(read, blob) for blob in contents}


def judge(source: Source, seen: Any, photos: PhotoSet, card: Card, drawings: npt.NDArray[Any]) -> Judged:
    """Return the scores of a source's photos by a head and a domain that were fitted without that source."""
    others = photos.take(np.flatnonzero(photos.rows.source != source.name))
    head = fit(others, TrainParams.model_validate(card.params["train"]))
    domain, known = known_domain(others, drawings, ExportParams.model_validate(card.params["export"]))
    features = seen.features[:, FOUND]
    inside = domain.score(domain.embedding(features)) <= known["threshold"]
    probability = calibrated(card, head.logit(features)).round(6)
    large = np.minimum(seen.width, seen.height) >= card.domain.geometry.min_width
    return Judged(np.where(inside, probability, 0), seen.hash, float(inside.mean()), float(large.mean()))


def shops(judged: Judged, count: int) -> list[Shop]:
    """Return `count` random choices of a source's photos."""
    rng, found = np.random.default_rng(0), []
    for _ in range(count):
        chosen = rng.permutation(len(judged.score))[:PHOTOS]
        names = [str(row) for row in chosen.tolist()]
        found.append(Shop(chosen, products_of(names, judged.hash[chosen], ALIKE_BITS)))
    return found


def split(judged: Judged, shop: Shop, alpha: float, dirt: Floats | None = None) -> Split | None:
    """Calibrate on a shop's photos, and count what it does to the others.

    Args:
        judged: all photos of a source.
        shop: those that it calibrates on.
        alpha: the share that may be flagged.
        dirt: float64 [m], scores of AI images among them; each is a product of its own.
    """
    scores, products = judged.score[shop.chosen], shop.products
    if dirt is not None:
        scores = np.append(scores, dirt)
        products = np.append(products, products.max(initial=0) + 1 + np.arange(len(dirt)))
    found = limit(scores, products, alpha)
    if found is None:
        return None
    flag = round(found.threshold + 1e-6, 6)  # as tools.calibrate writes it
    rest = np.delete(judged.score, shop.chosen)
    return Split(found, flag, float((rest >= flag).mean()), float((rest >= max(flag, 0.5)).mean()))


def promised(judged: Judged, alpha: float, splits: list[Shop], generated: Generated, released: float) -> dict[str, Any]:
    """Return how well a promise was kept over all splits, and beside it what the released threshold does."""
    found = [each for shop in splits if (each := split(judged, shop, alpha)) is not None]
    if not found:
        return {"splits": 0}
    rates = np.array([each.rate for each in found])
    uppers = np.array([each.limit.upper for each in found])
    # The photos left are a sample themselves: of a limit that holds for the shop with 95 % they exceed a little more
    # than 5 %. For so many photos the limit is the 95th percentile of a beta-binomial distribution.
    left = len(judged.score) - PHOTOS
    allowed = int(np.floor(alpha * (PHOTOS + 1) + 1e-9)) - 1
    expected = betabinom(left, allowed + 1, PHOTOS - allowed)
    above = expected.sf(np.floor(np.median(uppers) * left))
    return {
        "splits": len(found),
        "products": float(np.mean([len(np.unique(shop.products)) for shop in splits])),
        "false_positive_rate": float(rates.mean()),
        "false_positive_rate_95": float(np.quantile(rates, 0.95)),
        "flagged": float(np.mean([each.flagged for each in found])),
        "upper": float(np.median(uppers)),
        "above_upper": float((rates > uppers).mean()),
        "above_upper_by_chance": float(above),
        "above_upper_of_sample": float((rates * left > expected.ppf(0.95)).mean()),
        "recall": float(np.mean([generated.found(each.flag) for each in found])),
        "released": {
            "false_positive_rate": float((judged.score >= max(released, 0.5)).mean()),
            "recall": generated.found(released),
        },
        "rates": rates.round(6).tolist(),
    }


def contaminated(
    sources: list[Judged], splits: list[list[Shop]], alpha: float, generated: Generated, drop_above: float
) -> list[dict[str, Any]]:
    """Return what AI images among the shop's photos do: means over all sources and splits, a row a share of them."""
    table = []
    for share in DIRT:
        count = round(share * PHOTOS)
        rng = np.random.default_rng(1)
        rows: dict[str, list[float]] = {}
        for judged, cuts in zip(sources, splits, strict=True):
            for shop in cuts:
                clean = shop.take(slice(PHOTOS - count))
                dirt = rng.choice(generated.score, count, p=generated.weight)
                kept = judged.score[clean.chosen] <= drop_above, dirt[dirt <= drop_above]
                for name, made in (
                    ("as_they_are", split(judged, clean, alpha, dirt)),
                    ("dropped", split(judged, clean.take(kept[0]), alpha, kept[1])),
                ):
                    if made is None:
                        continue
                    rows.setdefault(f"{name} rate", []).append(made.rate)
                    rows.setdefault(f"{name} recall", []).append(generated.found(made.flag))
                    rows.setdefault(f"{name} kept", []).append(made.rate <= made.limit.upper)
                if count:
                    order = np.argsort(-np.append(judged.score[clean.chosen], dirt), kind="stable")[:LISTED]
                    rows.setdefault("listed", []).append(float((order >= len(clean.chosen)).sum() / count))
        mean = {name: float(np.mean(values)) for name, values in rows.items()}
        table.append({
            "ai_share": share,
            **{
                name: {"false_positive_rate": mean[f"{name} rate"], "recall": mean[f"{name} recall"],
                       "below_upper": mean[f"{name} kept"]}
                for name in ("as_they_are", "dropped")
            },
            "listed": mean.get("listed"),
        })  # fmt: skip
    return table


def draw(ax: Any, rows: list[dict[str, Any]], alpha: float) -> None:
    """Draw the rates of all splits of each source, and the released threshold's."""
    key = f"{alpha:g}"
    names = [row["shows"] for row in rows][::-1]
    rates = [np.array(row[key].get("rates", [0])) * 100 for row in rows][::-1]
    ax.boxplot(rates, orientation="horizontal", whis=(5, 95), showfliers=False, tick_labels=names)
    released = [row[key]["released"]["false_positive_rate"] * 100 for row in rows][::-1]
    ax.plot(released, range(1, len(rows) + 1), "rx", label="released threshold")
    ax.axvline(alpha * 100, color="grey", linestyle="--", label="promised mean")
    ax.axvline(rows[0][key]["upper"] * 100, color="grey", linestyle=":", label="95 % limit")
    ax.tick_params(axis="y", labelsize=6)
    ax.set(xlabel="% of the other real photos flagged", xscale="symlog", xlim=(0, 100))
    ax.legend(fontsize=6)


def main() -> None:
    """Measure, and write the report and its picture."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("mirrors", metavar="MIRRORS", type=Path, help="folder of git repositories")
    parser.add_argument("--splits", type=int, default=1000, help="random calibrations of each source")
    parser.add_argument("--most", type=int, default=1500, help="photos of a repository")
    parser.add_argument("--drop-above", type=float, default=0.95, help="as of tools.calibrate, for the second table")
    parser.add_argument("--report", type=Path, default=Path("reports/promises.json"))
    options = parser.parse_args()
    paths = ModelPaths(NAME)
    params = load_params("preprocess", PreprocessParams, NAME)
    card, photos = read_card(Path("models") / NAME), load(paths.dataset)
    drawings, encoder = np.load(paths.dataset / DRAWINGS), encoder_file(paths, params.encoder)
    with np.load(Path("models") / NAME / "reference.npz") as file:
        ai = file["label"] == 1
        inside = file["distance"][ai] <= card.domain.threshold
        weight = 1 / file["source_photos"][ai].astype(np.float64)
        score = np.where(inside, file["probability"][ai].astype(np.float64).round(6), 0)
        generated = Generated(score, weight / weight.sum())
    rows, kept, cuts = [], [], []
    # The photos as they were found alone: a shop's own are not rewritten.
    as_found = params.model_copy(update={"views": 0})
    for source in SOURCES:
        found = photos_of(source, options.mirrors, options.most)
        seen = describe(
            found.items(), as_found, encoder, Path("build/promises") / cache_folder(Path(), params).name / source.name
        )
        judged = judge(source, seen, photos, card, drawings)
        splits = shops(judged, options.splits)
        row: dict[str, Any] = {"source": source.name, "commit": source.commit, "shows": source.shows}
        row |= {"photos": len(judged.score), "in_domain": judged.in_domain, "large_enough": judged.large}
        row |= {
            f"{alpha:g}": promised(judged, alpha, splits, generated, card.thresholds.flag[alpha]) for alpha in ALPHAS
        }
        rows.append(row)
        kept.append(judged)
        cuts.append(splits)
        for alpha in ALPHAS:
            made = row[f"{alpha:g}"]
            print(
                f"{source.name}, {len(judged.score)} photos, ALPHA={alpha:g}: {made['false_positive_rate']:.2%}, above "
                f"the limit {made['above_upper']:.1%}; released {made['released']['false_positive_rate']:.1%}",
                flush=True,
            )
    dirty = {
        f"{alpha:g}": contaminated(kept, [each[:50] for each in cuts], alpha, generated, options.drop_above)
        for alpha in ALPHAS
    }
    save_figure(options.report.with_suffix(".png"), lambda ax: draw(ax, rows, 0.01))
    for row in rows:
        for alpha in ALPHAS:
            row[f"{alpha:g}"].pop("rates", None)
    write_json(options.report, {
        "what": "a shop's calibration on 300 of its real photos, tried on its others; the head never saw the shop",
        "model": card.version, "photos": PHOTOS, "splits": options.splits, "drop_above": options.drop_above,
        "sources": [rounded(row) for row in rows],
        "contaminated": {alpha: [rounded(row) for row in table] for alpha, table in dirty.items()},
    })  # fmt: skip


if __name__ == "__main__":
    run_command(main)
