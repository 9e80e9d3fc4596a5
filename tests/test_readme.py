"""What the README claims comes out of files that the pipeline wrote."""

import json
import re
from pathlib import Path

import pytest

REPO = Path(__file__).resolve().parents[1]


def test_every_link_leads_somewhere() -> None:
    for page in (REPO / "README.md", *(REPO / "docs").glob("*.md")):
        for link in re.findall(r"\]\(([^)\s]+)\)", page.read_text(encoding="utf-8")):
            path, _, anchor = link.partition("#")
            if "://" in link:
                continue
            target = (page.parent / path).resolve() if path else page
            assert target.exists(), f"{page.name}: {link}"
            heads = re.findall(r"^#+ (.+)$", target.read_text(encoding="utf-8"), re.MULTILINE) if anchor else []
            assert not anchor or anchor in {_anchor(head) for head in heads}, f"{page.name}: {link}"


def _anchor(head: str) -> str:
    """Return what GitHub makes of a heading."""
    return re.sub(r"[^\w\- ]", "", head.lower()).replace(" ", "-")


def test_what_becomes_of_photos_made_small_was_measured() -> None:
    readme = " ".join((REPO / "README.md").read_text(encoding="utf-8").split())
    measured = json.loads((REPO / "reports/own_photos.json").read_text(encoding="utf-8"))["before"]["own_photos"]
    share = measured["decisions"]["false_positive_rate"]
    assert f"of shop photos made small {share:.0%} of the real ones were flagged" in readme


def test_the_readme_is_short() -> None:
    assert len((REPO / "README.md").read_text(encoding="utf-8").splitlines()) < 200


def test_the_page_is_as_fast_as_its_docs_say() -> None:
    page = " ".join((REPO / "docs/PAGE.md").read_text(encoding="utf-8").split())
    measured = json.loads((REPO / "reports/page_latency.json").read_text(encoding="utf-8"))
    assert f"it takes {measured['page_over_api']:.0f} times the API's own answer" in page


def test_the_service_is_as_fast_as_the_readme_says() -> None:
    readme = " ".join((REPO / "README.md").read_text(encoding="utf-8").split())
    measured = json.loads((REPO / "reports/bench_serving.json").read_text(encoding="utf-8"))["ratios"]
    single, batch = measured["single_over_floor"], measured["batch_over_floor"]
    assert (
        f"it answers at {single:.0%} of the speed of a bare loop around the model, in batches at {batch:.0%}" in readme
    )


PAGES = ("README.md", "docs/MODEL_CARD.md", "docs/PERFORMANCE.md", "docs/ACCURACY.md", "docs/SCALING.md")


@pytest.mark.parametrize("page", PAGES)
def test_no_line_of_prose_is_longer_than_120_characters(page: str) -> None:
    text = re.sub(r"```.*?```", "", (REPO / page).read_text(encoding="utf-8"), flags=re.DOTALL)
    for line in text.splitlines():
        assert len(line) <= 120 or line.startswith(("|", "![")), line
