"""Run one of the service's images and use it; called by image_test.sh, which tells podman how.

python ops/image_test.py IMAGE --monitor yes|no
"""

import argparse
import contextlib
import io
import json
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import numpy as np
from PIL import Image

LIMITS = {"no": 600, "yes": 1200}  # by --monitor: MB
MODELS = {card.parent.name for card in (Path(__file__).parents[1] / "models").glob("*/card.json")}
FILES = ("card.json", "encoder*.safetensors", "model.onnx", "plots", "reference.npz")  # of each, as far as it has them
DRIFT_SECONDS = 120  # Evidently's import takes a while on a busy machine


def podman(*arguments: str) -> str:
    """Run podman; return what it prints."""
    return subprocess.run(["podman", *arguments], check=True, capture_output=True, text=True).stdout.strip()  # noqa: S603, S607


def expect(what: str, holds: object) -> None:
    """Print a line; end where it does not hold."""
    print(f"  {'ok' if holds else 'FAILED'}  {what}", flush=True)
    if not holds:
        sys.exit(f"error: {what}")


@contextlib.contextmanager
def running(image: str) -> Iterator[tuple[str, str, float]]:
    """Run a container as strictly as can be; yield its name, its address and the seconds until it was ready."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    name = f"photo-detector-{port}"
    began = time.monotonic()
    podman(
        "run", "--detach", "--name", name, "--network=host", "--memory=3g", "--read-only", "--tmpfs=/tmp",
        "--tmpfs=/data", "--cap-drop=all", "--security-opt=no-new-privileges",
        "--env=BENTOML_HOST=127.0.0.1", f"--env=BENTOML_PORT={port}", "--env=DRIFT_MAX_AGE_SECONDS=1", image,
    )  # fmt: skip
    try:
        url = f"http://127.0.0.1:{port}"
        while True:
            with contextlib.suppress(httpx.TransportError):
                if httpx.get(f"{url}/readyz").status_code == 200:
                    break
            if time.monotonic() - began > 120:
                sys.exit(f"error: not ready after 120 s\n{podman('logs', name)}")
            time.sleep(0.05)
        yield name, url, time.monotonic() - began
    finally:
        podman("rm", "--force", "--time=10", name)


def photo(seed: int) -> bytes:
    """Return a PNG of 32 x 32."""
    buffer = io.BytesIO()
    pixels = np.random.default_rng(seed).integers(0, 256, (4, 4, 3), dtype=np.uint8)
    Image.fromarray(pixels).resize((32, 32), Image.Resampling.BICUBIC).save(buffer, "PNG")
    return buffer.getvalue()


def drive(url: str, monitor: bool) -> None:
    """Use every route that matters."""
    with httpx.Client(base_url=url, timeout=60) as client:
        for route in ("livez", "readyz", "healthz"):
            expect(f"/{route}", client.get(f"/{route}").status_code == 200)
        answer = client.post("/predict", files={"file": photo(0)})
        expect(f"/predict: {answer.text[:60]}…", answer.status_code == 200)
        expect("a text is refused", client.post("/predict", files={"file": b"no photo"}).status_code == 415)
        for _ in range(6):
            files = [("files", photo(number)) for number in range(20)]
            batch: dict[str, Any] = client.post("/predict/batch", files=files).json()
        expect(f"/predict/batch: {batch['successful']} of {batch['total']}", batch["successful"] == 20)
        found = {model["name"]: model for model in client.get("/model").json()["models"]}
        expect(f"/model lists the repository's models: {', '.join(sorted(found))}", found.keys() == MODELS)
        for name, model in found.items():
            plots = list((Path(__file__).parents[1] / "models" / name / "plots").glob("*.png"))
            expect(f"{name} has its plots", len(model["plots"]) == len(plots))
            picture = client.get(model["plots"][0])
            expect(f"{model['plots'][0]}", picture.headers["Content-Type"] == "image/png")
        written = "aidetect_prediction_log_rows_total 121.0"
        deadline = time.monotonic() + 30
        while written not in client.get("/metrics").text and time.monotonic() < deadline:
            time.sleep(0.5)
        expect(f"/metrics: {written}", written in client.get("/metrics").text)
        if not monitor:
            expect("/drift says that there is no monitor", client.get("/drift").json()["error"] == "monitor_off")
            return
        deadline = time.monotonic() + DRIFT_SECONDS
        while (found := client.get("/drift")).status_code != 200 or found.json()["window_size"] < 120:
            if time.monotonic() > deadline:
                sys.exit(f"error: /drift says nothing in time but {found.text}")
            time.sleep(1)
        expect(f"/drift: {found.json()['status']}", found.json()["status"] == "drift")
        expect("/drift/report", client.get("/drift/report").text.count("<script") > 0)


def main() -> None:
    """Run, drive, stop, measure."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("image")
    parser.add_argument("--monitor", choices=("yes", "no"), required=True)
    arguments = parser.parse_args()
    most_mb = LIMITS[arguments.monitor]
    size = int(podman("image", "inspect", "--format={{.Size}}", arguments.image)) / 1e6
    print(arguments.image, flush=True)
    with running(arguments.image) as (name, url, seconds):
        drive(url, arguments.monitor == "yes")
        expect("it runs as user 1034, not as root", podman("exec", name, "id", "-u") == "1034")
        tools = "gcc cc g++ make git"
        found = podman("exec", name, "sh", "-c", f"for t in {tools}; do command -v $t; done; true")
        expect(f"no compiler: none of {tools}", not found)
        listed = podman("exec", name, "sh", "-c", "cd /home/bentoml/bento/src/models && ls */* -d").split()
        folder = Path(__file__).parents[1] / "models"
        paths = (path for model in MODELS for file in FILES for path in (folder / model).glob(file))
        files = {str(path.relative_to(folder)) for path in paths}
        expect(f"of each model what serving needs, and nothing else: {' '.join(listed)}", set(listed) == files)
        heavy = "import importlib.util as u; print([m for m in ('torch', 'timm', 'mlflow', 'dvc') if u.find_spec(m)])"
        expect("nothing of the training stack", podman("exec", name, "python", "-c", heavy) == "[]")
        podman("stop", "--time=30", name)
        state = json.loads(podman("inspect", "--format={{json .State}}", name))
        expect(f"SIGTERM ends it, exit code {state['ExitCode']}", state["ExitCode"] == 0)
    expect(f"smaller than {most_mb} MB", size < most_mb)
    print(f"{arguments.image}: {size:.0f} MB, ready after {seconds:.1f} s", flush=True)


if __name__ == "__main__":
    main()
