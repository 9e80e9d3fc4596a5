"""Draw docs/flamegraph.svg: who holds Python's lock in one worker of the service under load.

pip install py-spy && python bench/flame.py [--seconds 10]
"""

import argparse
import os
import re
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

import uvloop

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from bench.load import KEY, request
from bench.serving import Side, load
from tests.support.photos import encode, photo
from tests.support.server import ROOT, is_ready, serving

PICTURE = ROOT / "docs" / "flamegraph.svg"


def main() -> None:
    """Load the service with eight single requests at a time and sample one worker."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--seconds", type=int, default=10)
    options = parser.parse_args()
    if (program := shutil.which("py-spy")) is None:
        sys.exit("error: py-spy is missing: pip install py-spy")
    with (
        tempfile.TemporaryDirectory(prefix="flame-") as name,
        serving(Path(name), is_ready, API_KEYS=f"bench:{KEY}", RATE_LIMITS="false") as server,
    ):
        side = Side(server.url, server.workers())
        sent = request("/predict", "file", [encode(photo(), "JPEG")])
        uvloop.run(load(side, sent, 1, 8, 2))  # warm
        command = [program, "record", "--gil", "--rate", "1000", "--duration", str(options.seconds)]
        command += ["--output", str(PICTURE), "--pid", str(side.workers[0])]
        spy = subprocess.Popen(command)  # noqa: S603 - py-spy
        uvloop.run(load(side, sent, 1, 8, options.seconds + 2))
        if spy.wait():
            sys.exit("error: py-spy failed: it needs the right to trace processes (root, or ptrace_scope 0)")
    svg = PICTURE.read_text(encoding="utf-8")
    places = sorted({os.path.realpath(each) for each in sys.path if each} | set(sys.path) - {""}, key=len, reverse=True)
    for place in places:  # whose machine it was is nobody's business
        svg = svg.replace(f"{place}/", "")
    svg = re.sub(r"(<text id=\"title\"[^>]*>)[^<]*", r"\1One worker under load: who holds Python's lock", svg)
    PICTURE.write_text(re.sub(r"[ \t]+\n", "\n", svg), encoding="utf-8")
    print(f"{PICTURE}: {PICTURE.stat().st_size / 1000:.0f} kB")


if __name__ == "__main__":
    main()
