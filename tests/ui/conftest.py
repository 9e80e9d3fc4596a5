"""The real page before the real service, in a real Chromium."""

import shutil
from collections.abc import Iterator

import pytest
from playwright.sync_api import Browser, Page, sync_playwright

from tests.support.page import opened, paging
from tests.support.server import Server, is_ready, serving
from tests.support.signing import anchors_file


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


@pytest.fixture
def page(chromium: Browser, url: str) -> Iterator[Page]:
    """The page in a window of 1280 x 900."""
    with opened(chromium, url) as page:
        yield page
