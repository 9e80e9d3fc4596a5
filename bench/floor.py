"""The floor: decode and ONNX Runtime in a bare loop, one process a core, without HTTP, log and checks.

Nothing that answers with this model on these cores can be faster; the benches of speed give ratios to it.
"""

import io
import multiprocessing
import os
import time
from collections.abc import Sequence
from multiprocessing.connection import Connection
from pathlib import Path

import numpy as np
import onnxruntime as ort
from PIL import Image

MODEL = Path(__file__).resolve().parents[1] / "models" / "cifake" / "model.onnx"


def floor(photos: Sequence[bytes], batch: int, seconds: float, processes: int = os.cpu_count() or 1) -> float:
    """Return the photos a second of all processes together, each with `batch` photos in a forward pass."""
    context = multiprocessing.get_context("spawn")
    pipes, workers = [], []
    for _ in range(processes):
        ours, theirs = context.Pipe()
        worker = context.Process(target=_loop, args=(theirs, list(photos), batch, seconds), daemon=True)
        worker.start()
        pipes.append(ours)
        workers.append(worker)
    for pipe in pipes:
        pipe.recv()  # its model is loaded and warm
    for pipe in pipes:
        pipe.send("go")
    rate: float = sum(pipe.recv() for pipe in pipes)
    for worker in workers:
        worker.join()
    return rate


def _loop(pipe: Connection, photos: list[bytes], batch: int, seconds: float) -> None:
    options = ort.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    session = ort.InferenceSession(MODEL, options, providers=["CPUExecutionProvider"])
    height, width = session.get_inputs()[0].shape[1:3]

    def turn(start: int) -> None:
        files = [photos[(start + place) % len(photos)] for place in range(batch)]
        images = [Image.open(io.BytesIO(data)).convert("RGB") for data in files]
        pixels = [np.asarray(image.resize((width, height), Image.Resampling.BICUBIC)) for image in images]
        session.run(None, {"images": np.stack(pixels)})

    for place in range(5):
        turn(place)
    pipe.send("ready")
    pipe.recv()
    count, started = 0, time.perf_counter()
    while (elapsed := time.perf_counter() - started) < seconds:
        turn(count)
        count += batch
    pipe.send(count / elapsed)
