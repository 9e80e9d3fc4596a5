"""Write the figures of cards and reports into README.md and docs/.

python -m tools.report            write all pages
python -m tools.report --check    say which are out of date, and exit with 1 if any is
"""

import argparse
from pathlib import Path

from service.models.card import read_card
from stages.common import StageError, run_command
from tools.report.render import model_card, with_blocks


def pages() -> dict[Path, str]:
    """Return what each page with figures should be.

    The model card of the first model in alphabetical order is docs/MODEL_CARD.md, that of another
    docs/MODEL_CARD_<name>.md.

    Raises:
        StageError: a card or a report is missing, or lacks a figure.
    """
    readme, docs = Path("README.md"), sorted(Path("docs").glob("*.md"))
    if not readme.is_file() or not docs:
        raise StageError("README.md or docs/ is missing: run from the repository's root")
    names = [path.parent.name for path in sorted(Path("models").glob("*/card.json"))]
    cards = {Path("docs") / ("MODEL_CARD.md" if name == names[0] else f"MODEL_CARD_{name}.md"): name for name in names}
    found = {page: with_blocks(page.read_text(encoding="utf-8")) for page in (*docs, readme) if page not in cards}
    return found | {page: model_card(read_card(Path("models") / name)) for page, name in cards.items()}


def outdated() -> list[Path]:
    """Return the pages that are not what they should be."""
    return [page for page, text in pages().items() if not page.is_file() or page.read_text(encoding="utf-8") != text]


def write() -> None:
    """Bring every page up to date."""
    for page, text in pages().items():
        page.write_text(text, encoding="utf-8")


def main() -> None:
    """Write, or check."""
    parser = argparse.ArgumentParser(description="Write the figures of cards and reports into README.md and docs/.")
    parser.add_argument("--check", action="store_true", help="change nothing; exit with 1 if a page is out of date")
    if not parser.parse_args().check:
        write()
    elif wrong := outdated():
        raise StageError(f"out of date: {', '.join(map(str, wrong))}. Run 'python -m tools.report'")


if __name__ == "__main__":
    run_command(main)
