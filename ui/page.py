"""The page: five tabs, its colours, and what it lets a browser load."""

from importlib.resources import files

import gradio as gr

from client.service import Service
from ui import calibrate, check, drift, many, model

# The page needs its own server only: a browser that obeys this asks no other, whatever Gradio's templates name.
POLICY = (
    "default-src 'self'; script-src 'self' 'unsafe-inline' 'unsafe-eval' blob:; style-src 'self' 'unsafe-inline'; "
    "img-src 'self' data: blob:; media-src 'self' data: blob:; font-src 'self' data:; connect-src 'self' blob: data:; "
    "worker-src 'self' blob:; frame-src 'self' blob: data:; frame-ancestors 'self'; base-uri 'self'; object-src 'none'"
)
# System fonts: Gradio's own theme asks Google for others.
THEME = gr.themes.Default(
    font=["system-ui", "sans-serif"], font_mono=["ui-monospace", "monospace"], primary_hue="blue", radius_size="sm"
)
CSS = (files("ui") / "page.css").read_text(encoding="utf-8")


def build(client: Service) -> gr.Blocks:
    """Return the page; nothing is asked of the service before somebody looks."""
    # Uploads are kept an hour, in Gradio's temporary folder.
    page: gr.Blocks
    with gr.Blocks(title="AI Product Photo Detector", analytics_enabled=False, delete_cache=(600, 3600)) as page:
        gr.Markdown("# AI Product Photo Detector\nReal or AI-generated? The detector advises, people decide.")
        with gr.Tab("Check a photo"):
            check.build(client)
        with gr.Tab("Check many"):
            many.build(client)
        with gr.Tab("Drift") as third:
            drift.build(client, third)
        with gr.Tab("Model") as fourth:
            model.build(client, fourth)
        with gr.Tab("Calibrate") as fifth:
            calibrate.build(client, fifth)
    return page
