"""docs/API.md is true: its commands give its answers.

UPDATE_DOCS=1 pytest tests/service/test_api_docs.py writes the true answers into it; python -m tools.report its tables.
"""

import json
import os
import re
import shlex
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import ExitStack
from importlib.resources import files
from pathlib import Path
from typing import Any

import httpx
import pytest

from service.settings import ROOT
from tests.support.server import is_ready, serving
from tests.support.waiting import wait_for

DOCS = ROOT / "docs" / "API.md"
UPDATE = bool(os.environ.get("UPDATE_DOCS"))
BLOCK = re.compile(r"```(\w+)\n(.*?)```\n", re.DOTALL)
CHANGING = {  # differ from run to run
    *("request_id", "timestamp", "inference_time_ms", "total_inference_time_ms", "uptime_seconds"),
    *("predictions_total", "window_size", "mean_probability", "std_probability"),
    *("age_seconds", "window_start", "window_end", "time"),
}
WIDTH = 118


def blocks(text: str) -> Iterator[tuple[str, re.Match[str] | None]]:
    """Yield each shell command with the block of the answer below it, if there is one."""
    found = list(BLOCK.finditer(text))
    for block, following in zip(found, [*found[1:], None], strict=True):
        if block[1] == "sh":
            answer = following if following and following[1] == "json" and following.start() == block.end() else None
            yield block[2].strip(), answer


def agree(said: Any, true: Any, name: str = "") -> bool:
    """Tell whether an answer in the docs is true: `…` stands for anything, and numbers may differ by a thousandth."""
    if said == "…" or (isinstance(said, str) and said.endswith("…") and str(true).startswith(said[:-1])):
        return True
    if isinstance(said, dict) and isinstance(true, dict):
        same = set(said) == set(true)
        return same and all(agree(said[key], true[key], key) for key in said)
    if isinstance(said, list) and isinstance(true, list):
        return len(said) == len(true) and all(map(agree, said, true))
    if name in CHANGING and not (name == "request_id" and str(said).startswith("order")):
        return type(said) is type(true)
    if isinstance(said, float):
        return said == pytest.approx(true, abs=1e-3)
    return bool(said == true)


def shorten(true: Any, said: Any = None) -> Any:
    """Leave out of an answer what the docs left out before, and the ends of long strings."""
    if said == "…":
        return said
    if isinstance(true, dict):
        return {key: shorten(value, said.get(key) if isinstance(said, dict) else None) for key, value in true.items()}
    return f"{true[:24]}…" if isinstance(true, str) and len(true) > 200 else true


def pretty(value: Any, indent: int = 0) -> str:
    """Write JSON with as much on a line as fits."""
    whole = json.dumps(value, ensure_ascii=False)
    if len(whole) + indent <= WIDTH or not isinstance(value, dict | list):
        return whole
    if isinstance(value, dict):
        parts = [f"{json.dumps(key)}: {pretty(part, indent + 1)}" for key, part in value.items()]
    else:
        parts = [pretty(part, indent + 1) for part in value]
    lines = [""]
    for part in parts:
        if lines[-1] and (len(lines[-1]) + len(part) + indent > WIDTH or "\n" in part):
            lines.append("")
        lines[-1] += f"{' ' if lines[-1] else ''}{part},"
    text = ("\n" + " " * (indent + 1)).join(lines).removesuffix(",")
    return f"{{{text}}}" if isinstance(value, dict) else f"[{text}]"


@pytest.mark.serve
def test_every_command_gives_the_answer_below_it(tmp_path: Path) -> None:
    shutil.copy(files("sklearn") / "datasets" / "images" / "china.jpg", tmp_path / "photo.jpg")
    (tmp_path / "broken.jpg").write_bytes((tmp_path / "photo.jpg").read_bytes()[:1000])
    (tmp_path / "notes.txt").write_text("no photo")
    text = DOCS.read_text(encoding="utf-8")
    commands, wrong, mended = 0, [], []
    with ExitStack() as stack:
        url = ""
        for command, block in blocks(text):
            if command.endswith("make serve"):
                stack.close()
                settings = dict(word.split("=", 1) for word in shlex.split(command) if "=" in word)
                folder = tmp_path / str(commands)
                folder.mkdir()
                url = stack.enter_context(serving(folder, is_ready, **{"MONITOR": "true"} | settings)).url
                continue
            assert block is not None, f"{command}: no answer below it"
            assert command.startswith("curl -s ")
            if "/drift?model=" in command:  # once the monitor has seen the predictions before
                asked = url + command.strip("'").partition("localhost:3000")[2]
                wait_for(lambda asked=asked: httpx.get(asked, timeout=60).json().get("window_size", 0) > 0)
            run = subprocess.run(
                shlex.split(command.replace("localhost:3000", url)), cwd=tmp_path, capture_output=True, check=True
            )
            true = json.loads(run.stdout)
            said = json.loads(block[2]) if block[2].strip() else None
            commands += 1
            if not agree(said, true):
                wrong.append(f"{command}\n  {run.stdout.decode()[:1000]}")
                mended.append((block.start(2), block.end(2), pretty(shorten(true, said)) + "\n"))
    if UPDATE:
        for start, end, shown in reversed(mended):
            text = text[:start] + shown + text[end:]
        DOCS.write_text(text, encoding="utf-8")
    else:
        assert not wrong, "\n".join(wrong)
    assert commands >= 15


def test_the_alarms_keep_their_promise() -> None:
    measured = json.loads((ROOT / "reports" / "drift_power.json").read_text(encoding="utf-8"))
    card = json.loads((ROOT / "models" / "cifake" / "card.json").read_text(encoding="utf-8"))
    assert measured["model"] == card["version"], "a new release: python bench/drift.py measures it"
    rate = {(row["scenario"], row["n"]): row["alarm_rate"] for row in measured["rows"]}
    assert max(rate["unchanged", size] for size in (100, 200, 500, 2000)) <= 0.01
    found = (("share_60", 500), ("share_55", 3000), ("blur_0.6", 200), ("jpeg_40", 500), ("brightness_1.2", 200))
    assert min(rate[shift] for shift in found) >= 0.9
    for row in measured["rows"]:
        if row["scenario"] == "unchanged":
            assert abs(row["accuracy_error_mean"]) <= 0.02
            assert row.get("false_pages_per_30_days", 0) <= 1
