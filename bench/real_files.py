"""Is every image file below a folder answered, and alike whichever way it is asked?

python bench/real_files.py FOLDER [--url http://localhost:3000]

Each file goes through /predict, /predict/batch and `aidetect folder`, against a service that runs. Ends with exit code
1 where the service answered 5xx, or two ways differ. Public repositories with odd files: contentauth/c2pa-rs,
lovell/sharp, python-pillow/Pillow, wiltodelta/remove-ai-watermarks, exiftool/exiftool,
drewnoakes/metadata-extractor-images.
"""

import argparse
import json
import sys
import tempfile
from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import httpx
from tqdm import tqdm

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from client import Client
from client.folder import SUFFIXES, score_folder
from client.service import batches

IMAGES = SUFFIXES | {".bmp", ".gif", ".jp2", ".jpf", ".jxl", ".svg", ".tif", ".tiff"}  # what is to be refused, too
FIELDS = ("prediction", "probability", "confidence", "decision", "decided_by", "in_domain")

Answer = dict[str, Any]


def answer(found: Mapping[str, Any]) -> Answer:
    """Return what all three ways tell of a photo."""
    provenance = found["provenance"]
    return {name: found[name] for name in FIELDS} | {
        "trust": provenance["trust"],
        "c2pa": (provenance["c2pa"] or {}).get("status"),
        "marks": [f"{mark['where']}: {mark['says']}" for mark in provenance["marks"]],
        "notes": found["notes"],
    }


def alike(one: Answer, other: Answer) -> bool:
    """Tell whether two answers are the same; a batch's last sum may differ in the last of the six digits."""
    near = abs(one.get("probability", 0) - other.get("probability", 0)) < 1.5e-6
    return near and one | {"probability": 0} == other | {"probability": 0}


def one_by_one(http: httpx.Client, paths: list[Path]) -> tuple[dict[Path, Answer], Counter[int]]:
    """Ask for each file alone; return the answers, and how many there were of each status."""
    answers: dict[Path, Answer] = {}
    statuses: Counter[int] = Counter()
    for path in tqdm(paths, desc="/predict", unit=" files"):
        response = http.post("/predict", files={"file": path.read_bytes()})
        statuses[response.status_code] += 1
        body = response.json()
        answers[path] = answer(body) if response.status_code == 200 else {"error": body["error"]}
    return answers, statuses


def in_batches(http: httpx.Client, paths: list[Path]) -> dict[Path, Answer]:
    """Ask for all files in batches."""
    answers: dict[Path, Answer] = {}
    for some in tqdm(list(batches(paths)), desc="/predict/batch", unit=" batches"):
        response = http.post("/predict/batch", files=[("files", path.read_bytes()) for path in some])
        if response.status_code != 200:
            answers |= {path: {"error": f"the batch: {response.status_code}"} for path in some}
            continue
        for path, item in zip(some, response.json()["results"], strict=True):
            answers[path] = {"error": item["error_type"]} if item["error"] else answer(item)
    return answers


def by_folder(url: str, folder: Path) -> dict[Path, Answer]:
    """Ask by `aidetect folder`."""
    with tempfile.TemporaryDirectory() as temporary, Client(url, patience=120) as client:
        rows = score_folder(client, folder, Path(temporary) / "out.csv", concurrency=2)
    answers: dict[Path, Answer] = {}
    for row in rows:
        told = {name: row[name] for name in FIELDS if row["error"] is None}
        told |= {"trust": row["trust"], "c2pa": row["c2pa_status"], "marks": row["marks"], "notes": row["notes"]}
        answers[folder / row["path"]] = {"error": row["error_type"]} if row["error"] else told
    return answers


def main() -> None:
    """Ask, compare, print."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("folder", type=Path)
    parser.add_argument("--url", default="http://localhost:3000")
    options = parser.parse_args()
    paths = sorted(path for path in options.folder.rglob("*") if path.suffix.lower() in IMAGES and path.is_file())
    with httpx.Client(base_url=options.url, timeout=120) as http:
        alone, statuses = one_by_one(http, paths)
        together = in_batches(http, paths)
    table = by_folder(options.url, options.folder)
    differ = [
        (path, found, other[path])
        for other in (together, table)
        for path, found in alone.items()
        if path in other and not alike(found, other[path])
    ]
    failed = [path for path, found in alone.items() if found.get("error") == "internal_error"]
    said = Counter(found.get("error") or found["decision"] for found in alone.values())
    print(f"{len(paths)} files: {dict(sorted(statuses.items()))}; {dict(said.most_common())}")
    print(f"{len(table)} of them by aidetect folder; {len(differ)} answers differ; {len(failed)} internal errors")
    for path, one, other in differ:
        print(json.dumps({"file": str(path), "alone": one, "otherwise": other}))
    if differ or any(status >= 500 for status in statuses):
        sys.exit(1)


if __name__ == "__main__":
    main()
