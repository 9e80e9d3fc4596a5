"""Pages made of cards and reports by Jinja2: the blocks of tables.md.j2, and the model card of model_card.md.j2."""

import json
import re
from importlib import import_module
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined, TemplateError

from service.models.card import Card, Geometry, ModelError, read_card
from stages.common import StageError

# What a template raises that gets other figures than it shows.
_FAULTS = (ModelError, TemplateError, TypeError, ValueError, LookupError)
BLOCK = re.compile(r"(<!-- (\w+) of (\S+) -->\n).*?(<!-- end -->)", re.DOTALL)
# Benches that trained the released model's recipe again: the report, and the training param that it changes.
EXPERIMENTS = {"seeds": (Path("reports/seeds.json"), "seed"), "own_photos": (Path("reports/own_photos.json"), "epochs")}


def with_blocks(page: str) -> str:
    """Return a page with every block between `<!-- NAME of PATH -->` and `<!-- end -->` as it should be.

    NAME is a macro of tables.md.j2, and PATH the file that it gets, from the repository's root: a card, another JSON
    file, a Python module or a page.

    Raises:
        StageError: the macro or the file is not there, or the file lacks what the macro shows.
    """
    return BLOCK.sub(lambda match: match[1] + block(match[2], _source(match[3]), match[3]) + match[4], page)


def block(name: str, source: Any, path: str = "it") -> str:
    """Return what the macro `name` of tables.md.j2 makes of `source`.

    Raises:
        StageError: there is no such macro, or `source`, read from `path`, lacks what it shows.
    """
    macro = getattr(_TEMPLATES.get_template("tables.md.j2").module, name, None)
    if macro is None:
        raise StageError(f"tools/report/tables.md.j2 has no macro '{name}' for the block '{name} of {path}'")
    try:
        return str(macro(source))
    except _FAULTS as error:
        raise StageError(f"the block '{name} of {path}' cannot be written: {error}") from error


def model_card(card: Card) -> str:
    """Return the model card, the page for people, of a released model.

    Raises:
        StageError: the card has not what the page shows.
    """
    try:
        name = "model_card.md.j2" if card.encoder is None else "model_card_frozen.md.j2"
        return _TEMPLATES.get_template(name).render(card=card)
    except _FAULTS as error:
        raise StageError(f"the model card of '{card.name}' cannot be written: {error}") from error


def _source(path: str) -> Any:
    file = Path(path)
    if not file.is_file():
        raise StageError(f"{path} is missing, and a page shows its figures: write it, or go to the repository's root")
    if file.suffix == ".py":
        return import_module(".".join(file.with_suffix("").parts))
    if file.name == "card.json":
        return read_card(file.parent)
    text = file.read_text(encoding="utf-8")
    return json.loads(text) if file.suffix == ".json" else text


def _image_sets(card: Card) -> dict[str, dict[str, Any]]:
    """Return the figures of each image set that the card tells of, by its name for people."""
    named = {
        "test": card.released.metrics["test"],
        "test without duplicates and leaks": card.released.metrics["test_without_duplicates_and_leaks"],
        "own photos of test": card.released.metrics.get("test_own_photos"),  # where there are some, of both classes
        "validation": card.released.validation,
    }
    return {name: figures for name, figures in named.items() if figures is not None}


def _sizes(known: Geometry) -> str:
    """Return known sizes in words, such as "32 x 32 pixels"."""
    least, most = f"{known.min_width} x {known.min_height}", f"{known.max_width} x {known.max_height}"
    return f"{most} pixels" if least == most else f"{least} to {most} pixels"


def _experiment(name: str, card: Card) -> dict[str, Any] | None:
    """Return the report of one of `EXPERIMENTS` where it is of this model's own training params."""
    path, changed = EXPERIMENTS[name]
    if not path.is_file():
        return None
    report: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    trained = card.params["train"]
    same = all(trained.get(key) == value for key, value in report["train"].items() if key != changed)
    return report if same else None


def _parameters(card: Card) -> int:
    """Return how many parameters the network has."""
    from stages.training.model import build

    network = build(card.params["train"] | {"pretrained": False})
    return sum(each.numel() for each in network.parameters())


_TEMPLATES = Environment(  # noqa: S701 - it writes Markdown, and only of our own files
    loader=FileSystemLoader(Path(__file__).parent),
    undefined=StrictUndefined,
    trim_blocks=True,
    lstrip_blocks=True,
    keep_trailing_newline=True,
)
_TEMPLATES.filters["fmt"] = format
_TEMPLATES.globals |= {
    "image_sets": _image_sets,
    "sizes": _sizes,
    "experiment": _experiment,
    "parameters": _parameters,
}
