"""The real page before the real service, in a real Chromium."""

import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from playwright.sync_api import Browser, Page, sync_playwright

from tests.service.conftest import ROOT, Server, await_answer, free_port, is_ready, serving
from tests.service.signing import anchors_file


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


@pytest.fixture(scope="session")
def chromium() -> Iterator[Browser]:
    """Debian's Chromium, with a camera that shows a test picture."""
    path = shutil.which("chromium")
    if path is None:
        pytest.skip("chromium is missing; on Debian: apt-get install chromium")
    arguments = ["--no-sandbox", "--use-fake-device-for-media-stream", "--use-fake-ui-for-media-stream"]
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=path, args=arguments)
        yield browser
        browser.close()


@pytest.fixture(scope="module")
def service(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """The released model and the drift monitor."""
    folder = tmp_path_factory.mktemp("service")
    with serving(folder, is_ready, MONITOR="true", C2PA_TRUST_ANCHORS=str(anchors_file(folder))) as running:
        yield running


@pytest.fixture(scope="module")
def url(tmp_path_factory: pytest.TempPathFactory, service: Server) -> Iterator[str]:
    """The page before that service."""
    with paging(tmp_path_factory.mktemp("page"), service.url) as url:
        yield url


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


@pytest.fixture
def page(chromium: Browser, url: str) -> Iterator[Page]:
    """The page in a window of 1280 x 900."""
    with opened(chromium, url) as page:
        yield page
