"""Pages that people read: short lines, links that lead somewhere."""

import re
from pathlib import Path

import pytest

REPO = Path(__file__).resolve().parents[1]
PAGES = sorted(path.relative_to(REPO).as_posix() for path in [*REPO.glob("*.md"), *REPO.glob("docs/*.md")])


@pytest.mark.parametrize("page", PAGES)
def test_no_line_of_prose_is_over_120_characters(page: str) -> None:
    text = re.sub(r"^```.*?^```", "", (REPO / page).read_text(encoding="utf-8"), flags=re.DOTALL | re.MULTILINE)
    assert [line for line in text.splitlines() if len(line) > 120 and not line.startswith("|")] == []


@pytest.mark.parametrize("page", PAGES)
def test_links_to_files_lead_somewhere(page: str) -> None:
    text = (REPO / page).read_text(encoding="utf-8")
    targets = [link.partition("#")[0] for link in re.findall(r"\]\(([^)\s]+)\)", text) if "://" not in link]
    assert [link for link in targets if link and not (REPO / page).parent.joinpath(link).exists()] == []
