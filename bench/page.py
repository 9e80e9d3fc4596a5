"""How long a moderator waits: from the drop of a photo to its verdict, beside the API's own answer.

python bench/page.py [--photos 30]      needs Debian's chromium; writes reports/page_latency.json

Page, service and browser run on this machine. Each photo is dropped on the page and, right before it, sent to
/predict/explain, which is what the page asks: only the ratio of the two says anything.
"""

import argparse
import shutil
import statistics
import sys
import tempfile
import time
from pathlib import Path

import httpx
from playwright.sync_api import Page, sync_playwright
from tqdm import tqdm

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from stages.common import write_json
from tests.support.page import paging
from tests.support.photos import encode, photo
from tests.support.server import ROOT, is_ready, serving

OUT = ROOT / "reports/page_latency.json"
_DROP = """bytes => new Promise(done => {
    const transfer = new DataTransfer();
    transfer.items.add(new File([new Uint8Array(bytes)], "photo.png", {type: "image/png"}));
    const place = document.querySelector(".photo [aria-label^='Drop']");
    const began = performance.now();
    const wait = () => {
        if (!document.querySelector(".verdict .bar")) return requestAnimationFrame(wait);
        requestAnimationFrame(() => done(performance.now() - began));  // the frame in which it is seen
    };
    place.dispatchEvent(new DragEvent("drop", {dataTransfer: transfer, bubbles: true}));
    wait();
})"""


def dropped(page: Page, data: bytes) -> float:
    """Return the milliseconds from the drop to the verdict on the screen; leave the page as it was."""
    passed: float = page.evaluate(_DROP, list(data))
    page.get_by_role("button", name="Remove Image").click()
    page.locator(".verdict .bar").wait_for(state="detached")
    return passed


def asked(client: httpx.Client, data: bytes) -> float:
    """Return the milliseconds of the API's own answer."""
    began = time.perf_counter()
    client.post("/predict/explain", files={"file": data}).raise_for_status()
    return 1000 * (time.perf_counter() - began)


def main() -> None:
    """Measure and write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--photos", type=int, default=30)
    arguments = parser.parse_args()
    if (path := shutil.which("chromium")) is None:
        sys.exit("error: chromium is missing; on Debian: apt-get install chromium")
    times: dict[str, list[float]] = {"page": [], "api": []}
    with (
        tempfile.TemporaryDirectory() as folder,
        serving(Path(folder), is_ready) as service,
        paging(Path(folder), service.url) as url,
        httpx.Client(base_url=service.url, timeout=60) as client,
        sync_playwright() as playwright,
    ):
        page = playwright.chromium.launch(executable_path=path, args=["--no-sandbox"]).new_page()
        page.goto(url)
        page.get_by_role("button", name="Drop an image file here to upload").wait_for(timeout=60_000)
        for number in tqdm(range(arguments.photos + 3), desc="photos"):
            data = encode(photo(320, 240, seed=number))
            found = {"api": asked(client, data), "page": dropped(page, data)}
            if number >= 3:  # the first ones warm up
                for side, passed in found.items():
                    times[side].append(passed)
    middle = {side: round(statistics.median(passed), 1) for side, passed in times.items()}
    result = {"photos": arguments.photos, "page_ms": middle["page"], "api_ms": middle["api"]}
    write_json(OUT, result | {"page_over_api": round(middle["page"] / middle["api"], 1)})
    print(OUT.read_text(encoding="utf-8"))


if __name__ == "__main__":
    main()
