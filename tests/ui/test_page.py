"""The page as a moderator uses it: real Chromium, real page, real service."""

import csv
import os
import re
import sqlite3
import time
from collections.abc import Iterator
from importlib import resources
from pathlib import Path
from typing import Any

import httpx
import pytest
from PIL import Image
from playwright.sync_api import Browser, Locator, Page, expect

from stages.data.synthetic import synthetic_images
from tests.support.marked import MARKED
from tests.support.page import opened, paging
from tests.support.photos import encode, photo
from tests.support.proxy import proxying
from tests.support.server import ROOT, START_SECONDS, Server, free_port, is_ready, serving
from tests.support.signing import STRANGER, TRUSTED, tampered
from ui import words
from ui.examples import examples

pytestmark = [pytest.mark.browser, pytest.mark.serve, pytest.mark.slow]
WAIT = 120_000  # milliseconds that an answer may take on a busy machine


def name(file: str, data: bytes, kind: str = "image/png") -> Any:
    """Return a file as playwright takes it."""
    return {"name": file, "mimeType": kind, "buffer": data}


def picture(page: Page, name: str) -> None:
    """Write a picture of the window to build/screenshots, or with UPDATE_DOCS=1 to the docs."""
    folder = ROOT / ("docs/screenshots" if os.environ.get("UPDATE_DOCS") else "build/screenshots")
    folder.mkdir(parents=True, exist_ok=True)
    page.evaluate("scrollTo(0, 0)")
    page.screenshot(path=folder / f"{name}.png")


def verdict(page: Page) -> Locator:
    return page.locator(".verdict:visible").first


def tab(page: Page, name: str) -> None:
    page.get_by_role("tab", name=name).click()


def drop(page: Page, data: bytes) -> None:
    """Drop a file on the photo's place, as a mouse does."""
    transfer = page.evaluate_handle(
        """bytes => { const t = new DataTransfer();
           t.items.add(new File([new Uint8Array(bytes)], "dropped.png", {type: "image/png"})); return t; }""",
        list(data),
    )
    page.get_by_role("button", name="Drop an image file here to upload").first.dispatch_event(
        "drop", {"dataTransfer": transfer}
    )


def test_a_dropped_photo_gets_its_verdict_and_heat_map(page: Page, service: Server) -> None:
    data = Path(examples()["the same, small"]).read_bytes()  # in domain: only then a probability is shown
    drop(page, data)
    expect(verdict(page)).to_be_visible(timeout=WAIT)
    answer = httpx.post(f"{service.url}/predict", files={"file": data}).json()
    text = verdict(page).inner_text()
    assert answer["model_version"] in text
    meter = page.get_by_role("meter", name="probability that it is AI-generated")
    assert meter.get_attribute("aria-valuenow") == f"{100 * answer['probability']:.0f}"
    below, above = page.locator(".heat img").all()
    assert below.bounding_box() == above.bounding_box()
    slider = page.get_by_role("slider")
    slider.focus()
    before = float(above.evaluate("image => getComputedStyle(image).opacity"))
    slider.press("ArrowLeft")
    expect(above).to_have_css("opacity", f"{before - 0.05:.2f}")
    assert re.search(r"Request\s+[0-9A-Z]{26}", text)


@pytest.mark.parametrize("label", words.LABELS)
def test_what_a_moderator_says_is_in_the_log(page: Page, service: Server, label: str) -> None:
    page.locator("input[type=file]").first.set_input_files(name("photo.png", encode(photo(32, 32, seed=2))))
    expect(verdict(page)).to_be_visible(timeout=WAIT)
    match = re.search(r"Request\s+([0-9A-Z]{26})", verdict(page).inner_text())
    assert match is not None
    page.get_by_role("button", name=f"This photo is {words.LABELS[label]}").click()
    expect(page.get_by_text(f"Thank you. Noted: this photo is {words.LABELS[label]}.")).to_be_visible(timeout=WAIT)
    with sqlite3.connect(service.output.parent / "predictions.db") as log:
        noted = log.execute("select label from feedback where request_id = ?", match.groups()).fetchall()
    assert noted == [(label,)]


def test_a_bad_file_is_a_sentence_and_the_next_photo_works(page: Page) -> None:
    files = page.locator("input[type=file]").first
    files.set_input_files(name("report.jpg", b"no photo", "image/jpeg"))
    expect(page.get_by_role("alert")).to_have_text(
        "This is not a photo that can be read: the content is none of JPEG, PNG, WebP, AVIF, HEIC.", timeout=WAIT
    )
    expect(page.get_by_role("button", name="This photo is real")).to_be_hidden()
    page.get_by_label("Remove Image").or_(page.get_by_label("Clear")).first.click()
    expect(page.get_by_role("alert")).to_be_hidden(timeout=WAIT)
    page.locator("input[type=file]").first.set_input_files(name("photo.png", encode(photo(32, 32))))
    expect(verdict(page)).to_be_visible(timeout=WAIT)


WHERE = {
    "web_ui": "png:parameters", "comfyui": "png:workflow", "exif": "exif:Software",
    "xmp": "xmp:Iptc4xmpExt:DigitalSourceType", "xmp_parts": "xmp:Iptc4xmpExt:DigitalSourceType",
}  # fmt: skip


def test_evidence_stands_beside_the_pixels_answer(page: Page) -> None:
    generated = ["trainedAlgorithmicMedia"]
    jpeg = encode(photo(), "JPEG")
    shown = {
        "signed": (TRUSTED.sign(jpeg, "JPEG", generated), "Declared AI-generated by a valid signature: flag"),
        "stranger": (STRANGER.sign(jpeg, "JPEG", generated), "whole; cannot be vouched for"),
        "tampered": (
            tampered(TRUSTED.sign(jpeg, "JPEG", generated)),
            "changed after it was signed (assertion.dataHash.mismatch)",
        ),
        "nothing": (jpeg, "the file says nothing of its making, which proves nothing"),
        **{file: (data, f"({WHERE[file]})") for file, (data, _) in MARKED.items()},
    }
    for file, (data, said) in shown.items():
        page.locator("input[type=file]").first.set_input_files(name(f"{file}.jpg", data))
        expect(verdict(page)).to_contain_text(said, timeout=WAIT)
        if file not in {"signed", "nothing"}:
            expect(verdict(page)).to_contain_text("anyone could have written or removed them")
        if file == "signed":
            picture(page, "evidence")
        page.get_by_label("Remove Image").or_(page.get_by_label("Clear")).first.click()
        expect(verdict(page)).to_be_hidden(timeout=WAIT)


@pytest.mark.parametrize("kind", ["HEIF", "AVIF"])
def test_what_a_phone_writes_is_shown_and_no_probability_out_of_domain(page: Page, kind: str) -> None:
    page.locator("input[type=file]").first.set_input_files(name(f"photo.{kind.lower()}", encode(photo(64, 48), kind)))
    expect(verdict(page)).to_contain_text("Unlike the photos this model knows: look at it yourself", timeout=WAIT)
    expect(page.get_by_role("meter")).to_have_count(0)
    expect(page.locator(".photo img")).to_have_attribute("src", re.compile("preview" if kind == "HEIF" else "photo"))
    for image in (page.locator(".photo img"), *page.locator(".heat img").all()):
        expect(image).to_have_js_property("complete", True)
        assert image.evaluate("image => image.naturalWidth") > 0
    picture(page, kind.lower())


def test_an_example_is_a_click(page: Page) -> None:
    page.get_by_role("button", name="a photo, large").click()
    expect(verdict(page)).to_contain_text(re.compile(r"photos \d"), timeout=WAIT)  # each size has its model
    page.get_by_role("button", name="the same, small").click()
    expect(verdict(page)).to_contain_text(re.compile(r"cifake \d"), timeout=WAIT)
    expect(verdict(page)).to_contain_text("Likely real", timeout=WAIT)
    expect(page.locator(".heat img").last).to_be_visible()


def test_a_photo_as_shops_have_it(page: Page) -> None:
    """A flower, as a florist sells it: the model of product photos decides, and shows by windows why."""
    with Image.open(resources.files("sklearn.datasets.images") / "flower.jpg") as flower:
        data = encode(flower.convert("RGB"), "JPEG")
    page.locator("input[type=file]").first.set_input_files(name("flower.jpg", data, "image/jpeg"))
    expect(verdict(page)).to_contain_text(re.compile(r"photos \d"), timeout=WAIT)
    expect(page.locator(".heat img").last).to_be_visible(timeout=WAIT)
    expect(page.locator(".heat img").last).to_have_js_property("complete", True)
    picture(page, "check")


def test_the_camera(page: Page) -> None:
    page.get_by_role("button", name="Capture from camera").click()
    page.get_by_text("Click to Access Webcam").click()
    page.wait_for_function("document.querySelector('video')?.readyState >= 2", timeout=WAIT)  # it shows something
    page.get_by_label("capture photo").click(timeout=WAIT)
    expect(verdict(page)).to_be_visible(timeout=WAIT)


def many(good: int) -> list[Any]:
    """Return files with two bad ones among them."""
    pictures = synthetic_images(good, 32, seed=3).images
    files = [name(f"photo-{number:03}.png", encode(Image.fromarray(pixels))) for number, pixels in enumerate(pictures)]
    files.insert(3, name("=1+1.jpg", b"no photo"))
    files.insert(30, name("cut.png", encode(photo(64, 64))[:500]))
    return files


def check_many(page: Page, files: list[Any]) -> None:
    tab(page, "Check many")
    page.locator("input[type=file][multiple]").set_input_files(files)
    expect(page.get_by_text(f"{len(files)} chosen.")).to_be_visible(timeout=WAIT)
    page.get_by_role("button", name="Check them").click()


def test_45_files_at_once(page: Page, tmp_path: Path) -> None:
    check_many(page, many(43))
    expect(page.get_by_text(re.compile(r"45 of 45 photos: .*, 2 without a verdict"))).to_be_visible(timeout=2 * WAIT)
    table = page.get_by_role("grid").or_(page.locator(".table-wrap")).first
    expect(table).to_contain_text("the content is none of JPEG, PNG, WebP")
    picture(page, "many")
    page.get_by_placeholder("Filter").fill("cut.png")
    expect(table).not_to_contain_text("photo-001.png", timeout=WAIT)
    expect(table).to_contain_text("truncated or corrupt", timeout=WAIT)
    with page.expect_download() as download:
        page.get_by_role("button", name="Download as CSV").or_(page.get_by_role("link", name="Download as CSV")).click()
    download.value.save_as(tmp_path / "verdicts.csv")
    with (tmp_path / "verdicts.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == 45
    assert [row["file"] for row in rows if row["error"]] == ["'=1+1.jpg", "cut.png"]
    assert {row["decision"] for row in rows if not row["error"]} <= {"flag", "review", "clear"}


def test_the_drift_report(page: Page, service: Server) -> None:
    batch = [("files", encode(photo(32, 32, seed=number))) for number in range(20)]
    for _ in range(6):
        assert httpx.post(f"{service.url}/predict/batch", files=batch, timeout=60).json()["failed"] == 0
    deadline = time.monotonic() + START_SECONDS
    while httpx.get(f"{service.url}/drift").json()["window_size"] < 120:  # it looks again after a second
        assert time.monotonic() < deadline
        time.sleep(0.2)
    tab(page, "Drift")
    expect(verdict(page)).to_contain_text("Drift: the last", timeout=2 * WAIT)
    expect(page.get_by_text("Kolmogorov-Smirnov").locator("visible=true").first).to_be_visible()
    report = page.frame_locator(".report iframe")
    expect(report.get_by_text("These photos are unlike the reference")).to_be_visible(timeout=2 * WAIT)
    picture(page, "drift")
    page.get_by_role("button", name="Look again").click()
    expect(verdict(page)).to_contain_text("Drift: the last", timeout=2 * WAIT)


def test_the_model_and_its_plots(page: Page, service: Server) -> None:
    tab(page, "Model")
    card = httpx.get(f"{service.url}/model").json()
    expect(page.get_by_text(card["sha256"])).to_be_visible(timeout=WAIT)
    expect(page.get_by_text(f"{card['metrics']['test']['accuracy']:.4f}")).to_be_visible()
    plots = page.locator(".plots img")
    picture(page, "model")
    assert plots.count() == len(card["plots"]) == 7
    assert all(plot.evaluate("image => image.naturalWidth") > 100 for plot in plots.all())


def test_a_phone_in_the_dark(chromium: Browser, url: str) -> None:
    with opened(chromium, url, viewport={"width": 390, "height": 844}, color_scheme="dark") as page:
        page.locator("input[type=file]").first.set_input_files(name("photo.png", encode(photo(320, 200))))
        expect(verdict(page)).to_be_visible(timeout=WAIT)
        assert page.evaluate("document.documentElement.scrollWidth") <= 390
        picture(page, "phone")
        red, green, blue = page.evaluate("getComputedStyle(document.body).backgroundColor.match(/\\d+/g).map(Number)")[
            :3
        ]
        assert max(red, green, blue) < 60


def test_everything_has_a_name_for_a_screen_reader(page: Page) -> None:
    page.locator("input[type=file]").first.set_input_files(name("photo.png", encode(photo(32, 32))))
    expect(verdict(page)).to_be_visible(timeout=WAIT)
    nameless = page.evaluate(
        """() => [...document.querySelectorAll("button, img, input:not([type=file])")]
            .filter(e => e.checkVisibility() && !(e.innerText || e.ariaLabel || e.title || e.hasAttribute("alt") ||
                e.closest("label") || document.querySelector(`label[for="${e.id}"]`)))
            .map(e => e.outerHTML.slice(0, 200))"""
    )
    assert nameless == []


def test_the_keyboard_reaches_tabs_and_verdict(page: Page) -> None:
    for _ in range(40):
        page.keyboard.press("Tab")
        if page.evaluate("document.activeElement.getAttribute('role')") == "tab":
            break
    else:
        pytest.fail("no tab within 40 steps")
    page.get_by_role("tab", name="Model").focus()
    page.keyboard.press("Enter")
    expect(page.locator(".plots")).to_be_visible(timeout=WAIT)


@pytest.fixture
def limited(tmp_path: Path) -> Iterator[str]:
    """A page before a service that takes one photo in 20 seconds and one batch in three."""
    limits = {"RATE_LIMITS": "true", "RATE_LIMIT_EXPLAIN": "1/20 seconds", "RATE_LIMIT_BATCH": "1/3 seconds"}
    with serving(tmp_path, is_ready, **limits) as service, paging(tmp_path, service.url) as url:
        yield url


def test_the_rate_limit_says_how_long_to_wait_and_batches_wait(chromium: Browser, limited: str) -> None:
    with opened(chromium, limited) as page:
        page.get_by_role("button", name="a drawing").click()
        expect(verdict(page)).to_be_visible(timeout=WAIT)
        page.get_by_role("button", name="a text").click()
        expect(page.get_by_role("alert")).to_have_text(
            re.compile(r"Too many photos for now\. Wait \d+ seconds?, then try again\."), timeout=WAIT
        )
        check_many(page, many(43))
        expect(page.get_by_text("45 of 45 photos")).to_be_visible(timeout=2 * WAIT)
        expect(page.get_by_text("2 without a verdict")).to_be_visible()


def test_a_killed_service_is_a_sentence_and_nothing_is_lost(chromium: Browser, tmp_path: Path) -> None:
    port = str(free_port())
    with paging(tmp_path, f"http://127.0.0.1:{port}") as url, opened(chromium, url) as page:
        for folder in ("first", "second"):
            (tmp_path / folder).mkdir()
        with serving(tmp_path / "first", is_ready, BENTOML_PORT=port) as service:
            page.locator("input[type=file]").first.set_input_files(name("photo.png", encode(photo(32, 32))))
            expect(verdict(page)).to_be_visible(timeout=WAIT)
            service.kill()
            page.get_by_role("button", name="This photo is real").click()
            alert = f"The detector cannot be reached at http://127.0.0.1:{port}. Is it running?"
            expect(page.get_by_text(alert)).to_be_visible(timeout=WAIT)
            for name_of_tab in ("Drift", "Model"):
                tab(page, name_of_tab)
                expect(page.get_by_role("alert").locator("visible=true").first).to_have_text(alert, timeout=WAIT)
            check_many(page, many(43))
            expect(page.get_by_text("45 without a verdict")).to_be_visible(timeout=WAIT)
        with serving(tmp_path / "second", is_ready, BENTOML_PORT=port):
            page.get_by_role("button", name="Check them").click()
            expect(page.get_by_text("2 without a verdict")).to_be_visible(timeout=WAIT)


def test_behind_a_proxys_path(chromium: Browser, service: Server, tmp_path: Path) -> None:
    with (
        paging(tmp_path, service.url, "--root-path", "/detector") as direct,
        proxying("/detector", direct) as proxied,
        opened(chromium, proxied + "/") as page,
    ):
        page.locator("input[type=file]").first.set_input_files(name("photo.png", encode(photo(32, 32))))
        expect(verdict(page)).to_be_visible(timeout=WAIT)
