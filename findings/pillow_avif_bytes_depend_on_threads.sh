#!/usr/bin/env bash
# Guess:     one picture saved as AVIF with the same quality and speed gives the same file, and the same pixels when it is
#            opened again, on every machine that has the same Pillow.
# Versions:  Pillow 12.3.0 (its wheel), numpy 2.3.5, Python 3.11.
# Behaviour: with one thread the encoder makes another file than with two and more, and the pixels differ. Where max_threads
#            is not given, Pillow takes as many as the process has cores. So a container with one core and a laptop with
#            eight make different training sets out of one seed: give max_threads.
# Seen:      1 thread, 2 threads: same size False, same pixels False; 2 threads, 4 threads: same file True
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet --disable-pip-version-check pillow==12.3.0 numpy==2.3.5
found=$("$folder/venv/bin/python" - <<'PYTHON'
import io

import numpy as np
from PIL import Image

rng = np.random.default_rng(0)
coarse = Image.fromarray(rng.integers(0, 256, (66, 100, 3), dtype=np.uint8))
picture = coarse.resize((1600, 1056), Image.Resampling.BICUBIC)


def saved(threads: int) -> bytes:
    buffer = io.BytesIO()
    picture.save(buffer, "AVIF", quality=60, speed=8, max_threads=threads)
    return buffer.getvalue()


def pixels(data: bytes) -> bytes:
    return Image.open(io.BytesIO(data)).convert("RGB").tobytes()


one, two, four = saved(1), saved(2), saved(4)
print(
    f"1 thread, 2 threads: same size {len(one) == len(two)}, same pixels {pixels(one) == pixels(two)};"
    f" 2 threads, 4 threads: same file {two == four}"
)
PYTHON
)
echo "$found"
[ "$found" = "1 thread, 2 threads: same size False, same pixels False; 2 threads, 4 threads: same file True" ]
