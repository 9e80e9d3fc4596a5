"""Whatever way the data set comes, the file is the same; whatever is wrong with it, one line says so."""

import hashlib
import http.server
import io
import json
import shutil
import tarfile
import threading
import zipfile
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image

from stages.common import sha256_file
from stages.data.cifake import collect
from stages.data.raw import IMAGES
from stages.data.sources import from_archive
from stages.data.synthetic import synthetic_images
from tests.stages.conftest import Workspace


def encoded(count: int = 40) -> Iterator[tuple[str, bytes]]:
    """JPEG files in Kaggle's layout, drawn by the project's own generator."""
    data = synthetic_images(100, 32, seed=1)
    for row in range(count):
        buffer = io.BytesIO()
        Image.fromarray(data.images[row]).save(buffer, "JPEG", quality=75)
        split, label = ("train", "test")[data.flags["test"][row]], ("REAL", "FAKE")[data.labels[row]]
        yield f"{split}/{label}/{row:04d} (2).jpg", buffer.getvalue()


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    root = tmp_path / "cifake"
    for name, data in encoded():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_bytes(data)
    return root


@pytest.fixture
def ways(folder: Path, tmp_path: Path) -> dict[str, Path]:
    with zipfile.ZipFile(tmp_path / "a.zip", "w") as archive:
        for file in sorted(folder.rglob("*.jpg"), reverse=True):
            archive.write(file, file.relative_to(folder))
    for kind in ("gz", "xz"):
        with tarfile.open(tmp_path / f"a.tar.{kind}", f"w:{kind}") as tar:
            tar.add(folder, "some/where")
    return {"folder": folder, "zip": tmp_path / "a.zip", "gz": tmp_path / "a.tar.gz", "xz": tmp_path / "a.tar.xz"}


def digest_of(path: Path) -> str:
    data, _ = collect(from_archive(path))
    return hashlib.sha256(data.images[:].tobytes() + data.labels.tobytes() + data.flags["test"].tobytes()).hexdigest()


def test_folder_zip_and_tar_give_the_same_rows(ways: dict[str, Path]) -> None:
    assert len({digest_of(path) for path in ways.values()}) == 1


def test_rows_keep_label_split_and_name(folder: Path) -> None:
    data, names = collect(from_archive(folder))
    for row, name in enumerate(names):
        pixels = np.asarray(Image.open(folder / name))
        assert (data.images[row : row + 1] == pixels).all()
        assert data.labels[row] == ("FAKE" in name)
        assert data.flags["test"][row] == name.startswith("test/")


def accept(workspace, archive: Path) -> str:
    """Let params.yaml expect the digest of this archive, as the stage itself names it."""
    line = workspace.run("download", CIFAKE_ARCHIVE=str(archive)).stderr.strip().splitlines()[-1]
    expected = line.split("digest ")[1].split(",")[0]
    workspace.params(download={"dataset": "cifake", "sha256": expected})
    return expected


def test_every_way_is_verified_against_params(workspace, ways: dict[str, Path]) -> None:
    workspace.params(download={"dataset": "cifake"})
    expected = accept(workspace, ways["zip"])
    for way in ("xz", "folder"):
        result = workspace.run("download", CIFAKE_ARCHIVE=str(ways[way]))
        assert result.returncode == 0, result.stderr
        assert sha256_file(Workspace.files.raw / IMAGES) == expected


def test_a_wrong_or_broken_archive_is_one_line_and_keeps_the_earlier_file(workspace, ways: dict[str, Path]) -> None:
    workspace.params(download={"dataset": "cifake"})
    expected = accept(workspace, ways["zip"])
    assert workspace.run("download", CIFAKE_ARCHIVE=str(ways["gz"])).returncode == 0
    truncated, text, other = Path("t.tar.gz"), Path("t.zip"), Path("other.zip")
    whole = ways["gz"].read_bytes()
    truncated.write_bytes(whole[: len(whole) // 2])
    text.write_text("no archive", encoding="utf-8")
    with zipfile.ZipFile(other, "w") as archive:
        archive.writestr("train/REAL/a.jpg", next(data for _, data in encoded()))
    broken_image = Path("broken.zip")
    with zipfile.ZipFile(broken_image, "w") as archive:
        archive.writestr("train/REAL/a.jpg", b"no image")
    for path, words in {
        Path("missing.tar"): "does not exist",
        truncated: "truncated",
        text: "no zip or tar",
        other: "brought 1 images with digest",
        broken_image: "not a readable image",
    }.items():
        workspace.refuses("download", words, CIFAKE_ARCHIVE=str(path))
        assert sha256_file(Workspace.files.raw / IMAGES) == expected


def test_without_any_way_the_error_names_all_three(workspace) -> None:
    workspace.params(download={"dataset": "cifake"})
    nowhere = {"HF_ENDPOINT": "http://127.0.0.1:9", "https_proxy": "http://127.0.0.1:9", "HF_HUB_DOWNLOAD_TIMEOUT": "1"}
    workspace.refuses("download", "Hugging Face", "Kaggle", "CIFAKE_ARCHIVE", "synthetic", **nowhere, CIFAKE_ARCHIVE="")


class Hub(http.server.BaseHTTPRequestHandler):
    """The few answers of the hub's HTTP API that a snapshot download asks for."""

    protocol_version = "HTTP/1.1"
    files: dict[str, bytes]
    commit = "0123456789abcdef0123456789abcdef01234567"

    def do_HEAD(self) -> None:
        self.do_GET()

    def do_GET(self) -> None:
        path = self.path.split("?")[0]
        if path.startswith("/api/datasets/") and "/tree/" in path:
            tree = [{"type": "file", "path": n, "size": len(d), "oid": n} for n, d in self.files.items()]
            self.answer(json.dumps(tree).encode(), "application/json")
        elif path.startswith("/api/datasets/"):
            siblings = [{"rfilename": name} for name in self.files]
            about = {"id": "some/set", "sha": self.commit, "siblings": siblings, "private": False, "tags": []}
            self.answer(json.dumps(about).encode(), "application/json")
        elif (name := path.split(f"/resolve/{self.commit}/")[-1]) in self.files:
            self.answer(self.files[name], "application/octet-stream")
        else:
            self.send_error(404)

    def answer(self, body: bytes, kind: str) -> None:
        self.send_response(200)
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(len(body)))
        self.send_header("ETag", f'"{hashlib.sha256(body).hexdigest()}"')
        self.send_header("X-Repo-Commit", self.commit)
        self.end_headers()
        if self.command == "GET":
            self.wfile.write(body)

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture
def hub() -> Iterator[str]:
    """A hub on loopback that serves the same images as parquet, as the real data set is stored."""
    parts: dict[str, list[dict[str, object]]] = {"train": [], "test": []}
    for name, data in encoded():
        split, label, _ = name.split("/")
        parts[split].append({"image": {"bytes": data, "path": None}, "label": int(label == "REAL")})
    Hub.files = {"README.md": b"# a set"}
    for split, rows in parts.items():
        buffer = io.BytesIO()
        pq.write_table(pa.Table.from_pylist(rows), buffer)
        Hub.files[f"data/{split}-00000-of-00001.parquet"] = buffer.getvalue()
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Hub) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()


def test_the_hub_brings_the_same_file(workspace, ways: dict[str, Path], hub: str) -> None:
    workspace.params(download={"dataset": "cifake"})
    expected = accept(workspace, ways["zip"])
    result = workspace.run("download", HF_ENDPOINT=hub, CIFAKE_ARCHIVE="", HF_HOME=str(workspace.path / "hf"))
    assert result.returncode == 0, result.stderr
    assert sha256_file(Workspace.files.raw / IMAGES) == expected
    shutil.rmtree("build/hub")


def test_the_synthetic_set_is_the_same_every_time_and_holds_duplicates_and_leaks() -> None:
    first, second = (synthetic_images(100, 32, seed=3) for _ in range(2))
    assert (first.images == second.images).all()
    assert not (first.images == synthetic_images(100, 32, seed=4).images).all()
    assert (first.images[1] == first.images[21]).all()
    assert first.flags["test"][29] == 1
    assert first.flags["test"][1] == 0


@pytest.mark.slow
def test_the_whole_of_cifake_has_the_expected_digest(workspace, shared_dir: Path) -> None:
    workspace.params(download={"dataset": "cifake"})
    result = workspace.run("download", CIFAKE_ARCHIVE=str(shared_dir / "data/cifake.tar.xz"))
    assert result.returncode == 0, result.stderr
