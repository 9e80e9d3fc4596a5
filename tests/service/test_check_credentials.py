"""`python -m service.check_credentials` and `bench/credentials.py`: what a folder's credentials come to."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from service.settings import ROOT
from tests.support.photos import encode, photo
from tests.support.signing import STRANGER, TRUSTED, anchors_file, tampered

GENERATED = ["trainedAlgorithmicMedia"]
JPEG = encode(photo(64, 48), "JPEG")


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Photos of every state, and what is not a photo."""
    files = {
        "plain.jpg": JPEG,
        "changed.jpg": tampered(TRUSTED.sign(JPEG, "JPEG", GENERATED)),
        "deep/stranger.jpg": STRANGER.sign(JPEG, "JPEG", GENERATED),
        "deep/trusted.jpg": TRUSTED.sign(JPEG, "JPEG", GENERATED, JPEG, action="c2pa.edited"),
        "elsewhere.jpg": TRUSTED.sign(JPEG, "JPEG", GENERATED, link="http://127.0.0.1:1/manifest"),
        "cut.jpg": TRUSTED.sign(JPEG, "JPEG", GENERATED).replace(b"jumdc2cl", b"jumdc2c", 1),
        "notes\n.txt": b"no photo",
    }
    for name, data in files.items():
        path = tmp_path / "photos" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data)
    (tmp_path / "photos" / "gone.jpg").symlink_to(tmp_path / "nowhere")
    return tmp_path / "photos"


def run(*command: str | Path, **settings: str) -> subprocess.CompletedProcess[str]:
    """Run Python."""
    environment = os.environ | settings
    return subprocess.run(
        [sys.executable, *command], cwd=ROOT, env=environment, capture_output=True, text=True, check=False
    )


def test_a_line_a_file(folder: Path) -> None:
    anchors = str(anchors_file(folder.parent))
    done = run("-m", "service.check_credentials", folder, C2PA_TRUST_ANCHORS=anchors)
    assert (done.returncode, done.stderr) == (0, "")
    _, *lines, totals = [line.split("\t") for line in done.stdout.splitlines()]
    found = {line[0]: line[1:] for line in lines}
    trusted, declared = "Trusted Makers signer, Trusted Makers", "trainedAlgorithmicMedia"
    assert found["plain.jpg"] == ["none"]
    assert found["notes?.txt"] == ["no photo"]
    assert found["gone.jpg"] == ["cannot be read: No such file or directory"]
    assert found["deep/trusted.jpg"] == ["valid", "yes", "yes", "yes", "yes", declared, trusted, "-"]
    assert found["deep/stranger.jpg"][:5] == ["untrusted", "yes", "yes", "no", "yes"]
    assert found["changed.jpg"] == [
        "invalid", "yes", "no", "yes", "yes", declared, trusted, "assertion.dataHash.mismatch",
    ]  # fmt: skip
    assert found["elsewhere.jpg"] == ["elsewhere", *"----", "-", "-", "-"]
    assert found["cut.jpg"][0] == "unreadable"
    assert totals[0].startswith("8 files: 1 ")
    assert "1 untrusted" in totals[0]


def test_no_folder(tmp_path: Path) -> None:
    done = run("-m", "service.check_credentials", tmp_path / "none")
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr == f"error: {tmp_path / 'none'} is not a folder\n"


def test_the_bench_finds_no_difference(folder: Path) -> None:
    done = run("bench/credentials.py", folder, C2PA_TRUST_ANCHORS=str(anchors_file(folder.parent)))
    assert done.returncode == 0, done.stdout
    assert "| deep/trusted.jpg | Trusted | Trusted | valid |  |\n" in done.stdout
    assert "0 differences" in done.stdout


def test_the_bench_finds_a_difference(folder: Path) -> None:
    """A signer whom the time-stamp authorities' list alone knows: the library has but one list."""
    done = run("bench/credentials.py", folder, C2PA_TIME_STAMP_ANCHORS=str(anchors_file(folder.parent)))
    assert done.returncode == 1, done.stdout
    assert "| deep/trusted.jpg | Trusted | Valid | untrusted | signingCredential.untrusted | DIFFERS\n" in done.stdout
