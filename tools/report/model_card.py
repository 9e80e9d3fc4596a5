"""The model card as people read it: docs/MODEL_CARD.md out of models/cifake/card.json (python -m tools.report)."""

from collections.abc import Iterable
from typing import Any

from service.models.card import Card, Geometry

PERCENT = "{:.2%}".format
RIVALS = (  # what others report on CIFAKE's official 20,000 test images: model, accuracy, AUC, parameters, pixels, notes
    ("Bird & Lotfi's CNN, the data set's own", "92.98%", "", "", "32", "as the paper states it"),
    ("EfficientNet-B0, stock stem", "94.96%", "", "4.0M", "32", "from scratch; its last map is 1 x 1"),
    ("ResNet-18, CIFAR stem", "97.32%", "0.9968", "11.2M", "32", "pretrained; trained with noise, JPEG and flips"),
    ("VGG-style CNN", "97.62%", "0.9974", "0.3M", "32", "the best small one found at the photos' own size"),
    ("ViT-S/16", "98.77%", "0.9994", "21.7M", "224", "photos enlarged to 224; the best found with a clean protocol"),
    ("ViT-B/16", "99.30%", "0.9996", "86M", "224", "photos enlarged to 224; the protocol is not stated"),
)
FIGURE = "{:.4f}".format


def table(head: Iterable[str], rows: Iterable[Iterable[str]]) -> str:
    """Return a Markdown table."""
    lines = [" | ".join(head), *(" | ".join(row) for row in rows)]
    lines.insert(1, "|".join(["---"] * (lines[0].count(" | ") + 1)))
    return "\n".join(f"| {line} |" if i != 1 else f"|{line}|" for i, line in enumerate(lines)) + "\n"


def experiments(card: Card) -> dict[str, Any]:
    """Return what the benches found with this model's own training params, by the bench's name."""
    found: dict[str, Any] = (card.released.model_extra or {}).get("experiments", {})
    return found


def image_sets(card: Card) -> dict[str, dict[str, Any]]:
    """Return the figures of each image set that the card tells of, by its name for people."""
    named = {
        "test": card.released.metrics["test"],
        "test without duplicates and leaks": card.released.metrics["test_without_duplicates_and_leaks"],
        "own photos of test": card.released.metrics.get("test_own_photos"),  # where there are some, of both classes
        "validation": card.released.validation,
    }
    return {name: figures for name, figures in named.items() if figures is not None}


def sizes(known: Geometry) -> str:
    """Return a card's `domain.geometry` in words, such as "32 x 32 pixels"."""
    least, most = (f"{getattr(known, f'{end}_width')} x {getattr(known, f'{end}_height')}" for end in ("min", "max"))
    return f"{most} pixels" if least == most else f"{least} to {most} pixels"


def rivals(card: Card) -> str:
    """Return the released model beside what others report on the same images, as a Markdown table, the best last."""
    from stages.training.model import build

    if card.data.dataset != "cifake":
        return "Others report on CIFAKE's test images; this model was not measured on them.\n"
    test, network = card.released.metrics["test"], card.params["train"]
    parameters = sum(each.numel() for each in build(network | {"pretrained": False}).parameters())
    kind = f"{network['backbone']}, cut" if network.get("backbone_args") else network["backbone"]
    ours = (
        f"**this one, {card.version}** ({kind})", f"**{test['accuracy']:.2%}**", FIGURE(test["auc"]),
        f"{parameters / 1e6:.1f}M", str(card.input.width),
        f"{'pretrained' if network['pretrained'] else 'from scratch'}; test read once, after every choice",
    )  # fmt: skip
    rows = sorted([*RIVALS, ours], key=lambda row: float(row[1].strip("*%")))
    return table(["model", "accuracy", "AUC", "parameters", "pixels", "protocol"], rows)


def model_card(card: Card) -> str:
    """Return the whole document."""
    sections = (_head, _use, _figures, _rivals, _calibration, _decision, _robustness, _domain, _slices, _explanation,
                _experiments, _origin)  # fmt: skip
    return "\n".join(section(card) for section in sections)


def _head(card: Card) -> str:
    return f"""# Model card: {card.name} {card.version}

Written from `models/cifake/card.json` by `python -m tools.report`; every figure is the release stage's. Test was read once,
for this release, at {card.released.released_at} ([the ledger](../models/cifake/ledger.jsonl)). File: `models/cifake/model.onnx`,
sha256 `{card.sha256}`.
"""


def _use(card: Card) -> str:
    return f"""## What it is for, and what not

It tells a trust-and-safety team which product photos deserve a look: an estimate of P(AI-generated) for one photo, a
decision (`flag`, `clear`, `review`), a heat map, and the honest answer "unlike the photos I know".

It learned from photos of {sizes(card.domain.geometry)}; its AI images come from one generator (Stable Diffusion 1.4). It must not be used

- as the only ground for removing a listing, closing an account or accusing a person;
- on photos of other sizes or from other generators as if the figures below held for them: such photos are `review`;
- to tell whether a photo was edited, staged, stolen or misleading: it knows nothing of that;
- on people's faces or documents: it never saw them as a subject of their own.
"""


def _figures(card: Card) -> str:
    columns = image_sets(card)
    rows = [["images", *(f"{c['images']:,}" for c in columns.values())]]
    rows += [
        [key.replace("_", " "), *(FIGURE(c[key]) for c in columns.values())]
        for key in ("accuracy", "auc", "f1", "precision", "recall", "brier", "log_loss")
    ]
    return f"""## Accuracy

{table(["", *columns], rows)}
![ROC](../models/cifake/plots/roc.png) ![Precision and recall](../models/cifake/plots/precision_recall.png)
![Confusion](../models/cifake/plots/confusion.png) ![Training](../reports/cifake/plots/training.png)
"""


def _rivals(card: Card) -> str:
    head = f"## Beside others\n\n{rivals(card)}"
    if card.data.dataset != "cifake":
        return head
    return f"""{head}
As reported; none of them could be run here. Read the differences before the digits. A network that sees photos enlarged to 224
pixels spends ten (ViT-S, 4.2 billion multiplications) to forty times (ViT-B, 16.8) the work a photo. Pretrained ones have seen millions of other photos. Of {card.released.metrics["test"]["images"]:,} test images 378
stand in CIFAKE's train part too and 38 are copies of others: here they were taken out of training, and what the rest comes to stands above; others do not
say. Few say whether test images chose the epoch or the threshold; here validation did, and test was read once. None states calibration, a bound
on false accusations, or robustness at the fixed threshold.
"""


def _calibration(card: Card) -> str:
    rows = [
        [
            f"{float(prior.removeprefix('prior_')):.0%}",
            *(
                PERCENT(found[key]) if key in found else "–"
                for key in ("flag_is_right", "flag_is_right_at_least", "with_ai_prior_0.5")
            ),
            PERCENT(found["generated_flagged"]),
            PERCENT(found["reviewed"]),
        ]
        for prior, found in card.released.assessment["flag_worth"].items()
    ]
    head = ["AI images in the catalogue", "a flag is right", "at least", "with AI_PRIOR left at 0.5", "AI images flagged",
            "sent to review"]  # fmt: skip
    return f"""## Calibration, and what a flag is worth

Expected calibration error (15 bins) on test: {FIGURE(card.released.metrics["test"]["ece"])}.

![Reliability](../models/cifake/plots/reliability.png)

A probability holds for the share of AI images it was calibrated on: one half. `AI_PRIOR` moves it to yours. Where AI
images are rare, even a good flag is often wrong; this is how often, with `AI_PRIOR` set to the true share. "At least"
takes the upper end of the 95 % interval for the reals flagged.

{table(head, rows)}"""


def _decision(card: Card) -> str:
    rows = []
    thresholds = card.thresholds
    for name, found in card.released.metrics["test"]["decisions"].items():
        alpha = float(name.removeprefix("alpha_"))
        rows.append(
            [
                f"{alpha:.1%}",
                f"{thresholds.flag[alpha]:.4f}",
                PERCENT(found["reals_flagged"]),
                PERCENT(found["reals_flagged_at_most"]),
                PERCENT(found["generated_flagged"]),
                PERCENT(found["generated_cleared"]),
                PERCENT(found["reviewed"]),
            ]
        )
    head = ["ALPHA", "threshold", "reals flagged", "at most, with chance", "AI images flagged (recall)", "AI images cleared",
            "sent to review"]  # fmt: skip
    calibration = card.calibration
    return f"""## Decisions

`ALPHA` is the share of real photos that may be flagged; the threshold is split-conformal, from {calibration.reals:,}
real photos of the calibration split: it lies where at most that share of them would reach it. In domain, a photo is flagged when
its probability reaches both the threshold and 0.5, cleared when it is below 0.5 (and below {thresholds.clear:.4f}, under which
{thresholds.clear_miss:.0%} of the AI images fall), and reviewed in between. It is a share of all real photos, not of flagged ones, and of all kinds
of them together: [some kinds](#slices) are flagged more often. "With chance" is alpha + 1.96 sqrt(alpha (1 - alpha)
(1/calibration + 1/test)): what a promise of alpha may come to on this many test photos. All at equal shares of real photos and AI images.

{table(head, rows)}"""


def _robustness(card: Card) -> str:
    found = card.released.assessment["robustness"]
    units = {"jpeg": "quality", "blur": "sigma, pixels", "noise": "sigma, of the range", "resize": "down to, and up again",
             "brightness": "factor", "contrast": "factor"}  # fmt: skip
    named = [("none", "", found["unchanged"])]
    named += [(f"{change} ({unit})", s, f) for change, unit in units.items() for s, f in found[change].items()]
    rows = [[*name, FIGURE(f["accuracy"]), FIGURE(f["auc"]), PERCENT(f["reals_flagged"])] for *name, f in named]
    return f"""## Robustness

What happens to photos on their way, done to {found["images"]:,} test photos. Nothing is fitted to the changed photos:
the threshold of 0.5 and the one of alpha = 1 % stay where they were.

![Robustness](../models/cifake/plots/robustness.png)

{table(["change", "strength", "accuracy", "AUC", "reals flagged"], rows)}"""


def _domain(card: Card) -> str:
    found = card.released.assessment["outside"]
    lines = []
    ways = {
        "known_size": "as large as the known photos",
        "known_size_jpeg_75": "the same, as JPEG 75",
        "large": "640 x 480",
    }
    found = dict(found)
    large = found.pop("large_photos", None)  # measured where LARGE_PHOTOS named some
    named = {f"{kind.replace('_', ' ')}, {ways[way]}": f for kind in found for way, f in found[kind].items()}
    if large is not None:
        named["photos as shops have them"] = large
    for name, f in named.items():
        shares = ("embedding_alone_in_domain", "embedding_in_domain", "geometry_in_domain", "in_domain")
        lines.append([name, str(f["images"]), *(f"{f[share]:.1%}" for share in shares), str(f["flagged"])])
    head = ["pictures", "number", "in domain by the embedding alone", "by the whole check", "by geometry", "in domain",
            "flagged"]  # fmt: skip
    domain = card.domain
    drawings = card.params["export"]["domain_drawings"]
    outside = 1 - card.released.metrics["test"]["in_domain_share"]
    return f"""## Domain: "unlike the photos I know"

A photo is in domain when its description (the embedding, the channels of the network's middle map, and the shares of
small and large steps between neighbouring pixels) lies near the training photos' and does not look drawn, and when its size is one of
theirs. What drawn looks like is learned at export, from {drawings:,} pictures of other kinds than the table's. The border is
set to call at most {domain.out_share:.0%} of photos like the training's out of domain; on test it was {PERCENT(outside)}. Outside the
domain nothing is ever flagged or cleared.

{table(head, lines)}
What the embedding alone cannot tell stands in its column. Photos of other sizes, made as small as the model takes them, look
to it much as those it knows: only their size gives them away.
"""


def _slices(card: Card) -> str:
    found = card.released.assessment["slices"]
    slices = [
        (f"{group} {name}" + (f": {f['from']:.2f} to {f['to']:.2f}" if "from" in f else ""), f)
        for group, parts in found.items() if group != "worst" for name, f in parts.items()
    ]  # fmt: skip
    rows = [
        [name, f"{f['images']:,}", FIGURE(f["accuracy"]), PERCENT(f["reals_called_generated"]),
         PERCENT(f["generated_called_real"]), PERCENT(f["reals_flagged"])]
        for name, f in slices
    ]  # fmt: skip
    head = ["slice of test", "images", "accuracy", "reals called AI", "AI called real", "reals flagged"]
    if not slices:
        return """## Slices

Not measured: no part of test holds both classes.
"""
    worst = found["worst"]
    accused, most = max(slices, key=lambda part: float(part[1]["reals_flagged"]))
    return f"""## Slices

The weakest: **{worst["slice"]}**, accuracy {FIGURE(worst["accuracy"])}. Real photos are flagged most often in **{accused}**: {PERCENT(most["reals_flagged"])}. The
promise of 1 % is one for all together.

{table(head, rows)}"""


def _explanation(card: Card) -> str:
    found = card.released.assessment["explanation"]
    rows = [
        [curve, *(f"{found[curve][key]:.3f}" for key in ("map_area", "random_area"))]
        for curve in ("deletion", "insertion")
    ]
    return f"""## Does the heat map show what the answer rests on?

The map's mean, plus a constant, is exactly the logit. Beyond that it is checked on {found["images"]:,} test photos (Petsiuk et al.
2018): blur away the places that it calls most important, and the probability of the answer should fall faster than with
random places (a smaller area); uncover them first, and it should rise faster (a larger area).

{table(["area under the curve", "heat map", "random masks"], rows)}
![Deletion and insertion](../models/cifake/plots/deletion_insertion.png)
"""


def _experiments(card: Card) -> str:
    parts = []
    if seeds := experiments(card).get("seeds"):
        names = list(seeds["summary"])
        rows = [[f"seed {seed}", *(FIGURE(found[name]) for name in names)] for seed, found in seeds["seeds"].items()]
        rows += [[row, *(FIGURE(seeds["summary"][name][row]) for name in names)] for row in ("mean", "spread")]
        parts.append(f"""## Other seeds

The same training from other seeds, on validation (`python bench/seeds.py 1 2`); spread is the standard deviation.

{table(["", *(name.replace("_", " ") for name in names)], rows)}""")
    if own := experiments(card).get("own_photos"):
        rows = [
            [what, photos, FIGURE(f["accuracy"]), FIGURE(f["auc"]), PERCENT(f["in_domain_share"]),
             "{} to {}".format(*own[when]["known_widths"])]
            for when, what in (("before", "without own photos"), ("after", "with own photos"))
            for photos, f in (("CIFAKE", own[when]["dataset"]), ("own photos", own[when]["own_photos"]))
        ]  # fmt: skip
        large = own["at_128_pixels"]
        parts.append(f"""## Your own photos at work

{own["own_photos"]["images"]:,} photos of products ({own["own_photos"]["real"]:,} real, {own["own_photos"]["ai_generated"]:,} AI-generated), split by group, joined CIFAKE in a short
training of {own["epochs"]} epochs; compared on validation with the same training without them (`python bench/own_photos.py`).

{table(["training", "photos", "accuracy", "AUC", "in domain by what is seen", "widths it knows"], rows)}
Where the two classes differ in style, too, a high figure on own photos proves little. Nothing assumes 32 pixels: at 128 pixels on {large["backbone"]}, from pretrained weights, the same photos reach an accuracy of {FIGURE(large["own_photos"]["accuracy"])}
on {large["own_photos"]["images"]} held-out photos, in a file of {large["file_mb"]} MB.
""")
    return "\n".join(parts)


def _origin(card: Card) -> str:
    train, data = card.params["train"], card.data
    source = "pictures made from a seed (`stages/data/synthetic.py`)."
    if data.dataset == "cifake":
        source = """CIFAKE (Bird & Lotfi 2023, arXiv 2303.14126),
  whose real photos are CIFAR-10's (Krizhevsky 2009); both state the MIT licence."""
    return f"""## Where it comes from

- Data: {data.dataset}, digest `{data.digest}`: {source}
- Training: {train["backbone"]} (timm, Apache-2.0), {train["epochs"]} epochs, seed {train["seed"]}, pretrained: {"yes" if train["pretrained"] else "no"}; all of it in `params.yaml`.
- {f"Commit `{card.released.git_commit}`" if card.released.git_commit else "No commit: it was made outside of git"}. Licence of the model file: {card.license}.
"""
