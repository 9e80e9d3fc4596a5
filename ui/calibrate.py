"""Tab "Calibrate": thresholds of a shop's own, from its real photos, by `python -m tools.calibrate` on this machine."""

import re
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import gradio as gr

from client.service import Service, ServiceError
from ui import choice, words

_ROOT = Path(__file__).resolve().parents[1]  # of the repository: the command runs there, where models/ is
_ABOUT = """Drop real photos of your own shop: some 300 for a promise of 1 %, of different products, drawn at random.
What comes out holds for photos like them, and needs no AI image. docs/PROMISES.md says what is promised."""
_MISSING = """This page runs without the tools that calibrate. On a machine with the repository:
`make calibrate PHOTOS=folder`"""
_DONE = re.compile(r"(\d+)/(\d+) ")  # in what the progress bar prints


def build(client: Service, tab: gr.Tab) -> None:
    """Fill the tab."""
    if find_spec("tools") is None or find_spec("ray") is None:
        gr.Markdown(_MISSING)
        return
    gr.Markdown(_ABOUT)
    model = choice.choice()
    files = gr.File(file_count="multiple", label="Real photos: drop or choose them", height=160)
    start = gr.Button("Calibrate", variant="primary", interactive=False)
    said = gr.HTML()
    sheet = gr.Image(label="Looks most like AI: take such out, and calibrate again", interactive=False, visible=False)
    result = gr.File(label="CALIBRATION=calibration.json puts it in service", visible=False)

    def look(name: str | None) -> tuple[Any, ...]:
        try:
            return choice.chosen(name, names())[1], ""
        except ServiceError as error:
            return gr.skip(), words.problem(str(error))

    def names() -> list[str]:
        """Return the names of the models, first the one for the largest photos: a shop's are large."""
        size = {card["name"]: card["model"]["domain"]["geometry"]["max_width"] for card in client.models()}
        return sorted(size, key=lambda name: -size[name])

    def run(paths: list[str], name: str | None) -> Iterator[tuple[Any, ...]]:
        hidden = gr.Image(visible=False), gr.File(visible=False)
        try:
            name, _ = choice.chosen(name, names())
        except ServiceError as error:
            yield words.problem(str(error)), *hidden
            return
        for line in calibrated(paths, name, out := Path(tempfile.mkdtemp(prefix="calibration-"))):
            yield words.hint(line), *hidden
        calibration, suspicious = out / "calibration.json", out / "suspicious.jpg"
        if not calibration.exists():
            yield words.problem(line), *hidden
            return
        said = [each for each in line.splitlines() if str(out) not in each]  # the files are on the page
        yield (
            words.lines("\n".join(said)),
            gr.Image(str(suspicious), visible=True),
            gr.File(str(calibration), visible=True),
        )

    tab.select(look, model, [model, said])
    files.change(lambda paths: gr.Button(interactive=bool(paths)), files, start)
    start.click(run, [files, model], [said, sheet, result])


def calibrated(paths: list[str], model: str, out: Path) -> Iterator[str]:
    """Run the command; yield how far it is, and last what it says, or what went wrong.

    Args:
        paths: of the photos.
        model: the name of one in models/.
        out: folder for what it writes: `calibration.json` is there only if all went well.
    """
    with tempfile.TemporaryDirectory(prefix="shop-") as folder:
        for number, path in enumerate(paths):
            (Path(folder) / f"{number:05}-{Path(path).name}").symlink_to(path)
        command = [sys.executable, "-m", "tools.calibrate", folder, "--model", model, "--out", str(out)]
        process = subprocess.Popen(  # noqa: S603 - a command of our own
            command, cwd=_ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
        )
        last = ""
        try:
            for line in process.stderr or ():  # a bar begins each of its lines anew: in text mode that is a line's end
                last = line.strip() or last
                if found := _DONE.search(line):
                    yield f"{found[1]} of {found[2]} photos"
            printed = process.stdout.read().strip() if process.stdout else ""
            yield printed if process.wait() == 0 else last.removeprefix("error: ")
        finally:
            process.kill()
            process.wait()
