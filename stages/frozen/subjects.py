"""What a photo shows, as far as its source or the words of its path tell: the groups by which figures are told apart.

subjects.csv beside this file has a subject for each source that sells one kind of thing, and for words. Nothing is
learned from it.
"""

import csv
import re
from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import NamedTuple

OTHER = "other or mixed"


class _Rules(NamedTuple):
    sources: Mapping[str, str]
    words: Mapping[str, str]


@cache
def _rules() -> _Rules:
    with Path(__file__).with_suffix(".csv").open(encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    sources, words = (
        {row["name"]: row["subject"] for row in rows if row["kind"] == kind} for kind in ("source", "word")
    )
    return _Rules(sources, words)


def subject_of(source: str, path: str) -> str:
    """Return the subject of a photo.

    The source decides where it is listed; else the word nearest to the end of the path, else a word of the source.

    Args:
        source: owner/name of a repository.
        path: of the photo in it.

    >>> subject_of("maker/shop", "img/products/red-sneaker-2.jpg")
    'shoes and bags'
    """
    rules = _rules()
    if source in rules.sources:
        return rules.sources[source]
    for word in reversed(re.findall("[a-z]+", f"{source.rpartition('/')[2]}/{path}".lower())):
        if word in rules.words:
            return rules.words[word]
    return OTHER
