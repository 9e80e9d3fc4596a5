"""Tab "Check a photo": upload one, read the verdict, see why, say what the photo is."""

from functools import partial
from pathlib import Path
from typing import Any

import gradio as gr

from client.service import Service, ServiceError
from ui import words
from ui.examples import examples

_HINT = "The verdict appears here."
_NOT_SHOWN = frozenset({".heic", ".heif", ".hif"})  # by browsers
_PREVIEW = "preview-of-"
_SLIDE = "(percent) => { document.documentElement.style.setProperty('--heat', percent / 100); }"


def build(client: Service) -> None:
    """Fill the tab."""
    # The photo as it came: Gradio would decode and encode it again, and answer a file that is not a photo with an
    # error without words. Set on the class: Gradio makes a new component for each visitor.
    gr.Image.preprocess = _path_of  # type: ignore[method-assign, assignment]
    answered = gr.State(None)
    with gr.Row():
        with gr.Column():
            photo = gr.Image(
                label="Photo: drop, paste, upload or camera",
                sources=["upload", "clipboard", "webcam"],
                height=320,
                elem_classes="photo",
            )
            gr.Markdown("Or try one of these:")
            with gr.Row():
                for name, path in examples().items():
                    gr.Button(name, icon=path, size="sm", min_width=90).click(lambda path=path: path, None, photo)
        with gr.Column():
            verdict = gr.HTML(words.hint(_HINT))
            with gr.Row(visible=False) as moderator:
                labels = {label: gr.Button(f"This photo is {words.LABELS[label]}") for label in words.LABELS}
            thanks = gr.HTML(padding=False)
            with gr.Column(visible=False) as why:
                heat = gr.HTML()
                opacity = gr.Slider(
                    0, 100, 80, step=5, label="Opacity of the heat map (%): red speaks for AI-generated, blue for real"
                )

    def nothing() -> tuple[Any, ...]:
        return "", None, gr.Row(visible=False), gr.Column(visible=False), ""

    def ask(path: str | None) -> tuple[Any, ...]:
        if path is None:
            return (gr.skip(), words.hint(_HINT), *nothing())
        if Path(path).name.startswith(_PREVIEW):  # of a photo that was asked for already
            return (gr.skip(),) * 7
        try:
            answer = client.explain(path)
        except ServiceError as error:
            return (gr.skip(), words.problem(str(error)), *nothing())
        shown = words.heat(path, answer.pop("heatmap_base64"))
        photo_shown = _preview(path) if Path(path).suffix.lower() in _NOT_SHOWN else gr.skip()
        return photo_shown, words.verdict(answer), shown, answer, gr.Row(visible=True), gr.Column(visible=True), ""

    def tell(answer: dict[str, Any], label: str) -> str:
        try:
            client.feedback(answer["request_id"], label)
        except ServiceError as error:
            return words.problem(str(error))
        return words.hint(f"Thank you. Noted: this photo is {words.LABELS[label]}.")

    photo.change(ask, photo, [photo, verdict, heat, answered, moderator, why, thanks], show_progress="minimal")
    for label, button in labels.items():
        button.click(partial(tell, label=label), answered, thanks)
    opacity.change(None, opacity, None, js=_SLIDE)


def _preview(path: str) -> str:
    """Write what a browser can show of a photo beside it, for the page alone; return its path."""
    preview = Path(path).with_name(f"{_PREVIEW}{Path(path).stem}.jpg")
    words.upright(path).save(preview, "JPEG", quality=88)
    return str(preview)


def _path_of(_: gr.Image, payload: Any) -> Any:
    return payload and payload.path
