"""The real page in a process of its own, and in a browser."""

import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from playwright.sync_api import Browser, Page

from tests.support.server import ROOT, await_answer, free_port


@contextmanager
def paging(folder: Path, api_url: str, *arguments: str) -> Iterator[str]:
    """Run `python -m ui` until the end; yield its address."""
    port = free_port()
    environment = os.environ | {"API_URL": api_url, "TMPDIR": str(folder / "tmp")}
    (folder / "tmp").mkdir()
    output = folder / "page.txt"
    with output.open("w") as file:
        process = subprocess.Popen(
            [sys.executable, "-m", "ui", "--port", str(port), *arguments],
            cwd=ROOT, env=environment, stdout=file, stderr=subprocess.STDOUT,
        )  # fmt: skip
    url = f"http://127.0.0.1:{port}"
    try:
        await_answer(url, process, output)
        yield url
        assert "Traceback" not in output.read_text(), output.read_text()
    finally:
        process.terminate()
        process.wait(30)
    assert not list((folder / "tmp").iterdir()), "the page left uploads behind"


@contextmanager
def opened(chromium: Browser, url: str, **options: object) -> Iterator[Page]:
    """Open the page; in the end, no request has left the machine, and no script has failed."""
    context = chromium.new_context(**{"viewport": {"width": 1280, "height": 900}, **options})  # type: ignore[arg-type]
    asked: list[str] = []
    failed: list[str] = []
    page = context.new_page()
    page.on("request", lambda request: asked.append(request.url))
    page.on("pageerror", lambda error: failed.append(str(error)))
    page.on("dialog", lambda dialog: failed.append(f"dialog: {dialog.message}"))
    page.goto(url)
    page.get_by_role("tab", name="Check a photo").wait_for(timeout=60_000)
    yield page
    context.close()
    assert [address for address in asked if not address.startswith((url, "data:", "blob:"))] == []
    assert failed == []
