"""The photos of a manifest: the same file whichever way they come; a fault is one line, and nothing is lost."""

import csv
import hashlib
import http.server
import io
import shutil
import subprocess
import tarfile
import threading
import zipfile
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import unquote

import pyarrow.parquet as pq
import pytest
from PIL import Image

from service.photo import decode
from stages.common import StageError, sha256_file
from stages.data.photo_set.manifest import read_manifest
from stages.data.raw import PHOTOS
from stages.data.synthetic import synthetic_images
from tests.stages.conftest import REPO, Workspace
from tests.support.photos import encode

OUT = Workspace.files.raw / PHOTOS
SOURCES = {"shop/one": "real", "maker/two": "real", "site/three": "ai_generated", "site/four": "ai_generated"}


class Photos:
    """A manifest of 12 photos, and the photos in every way: archives, git repositories, a host."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.manifest = folder, folder / "photos.csv"
        self.rows: list[dict[str, Any]] = []
        self.original: dict[str, bytes] = {}
        self.prepared: dict[str, bytes] = {}
        pictures = synthetic_images(100, 300, seed=2).images
        for number in range(12):
            source = list(SOURCES)[number % 4]
            # Large ones lie in the archives in a smaller size; names are as people give them.
            image = Image.fromarray(pictures[number]).resize((400, 300) if number < 8 else (80, 60))
            kind = "PNG" if number == 3 else "JPEG"
            data = encode(image, kind, quality=75)
            digest = hashlib.sha256(data).hexdigest()
            small = encode(decode(data).image.resize((299, 224), Image.Resampling.LANCZOS), "JPEG", quality=75)
            self.original[digest], self.prepared[digest] = data, small if number < 8 else data
            self.rows.append({
                "sha256": digest,
                "prepared_sha256": hashlib.sha256(small).hexdigest() if number < 8 else "",
                "short_side": 224 if number < 8 else "",
                "label": SOURCES[source],
                "generator": "" if SOURCES[source] == "real" else "a generator",
                "source": source,
                "commit": "",
                "path": f"public/größe {number} #1%.{kind.lower()}",
                "date": "2024",
                "licence": "MIT",
                "use": "train",
                "bytes": len(data),
            })  # fmt: skip
        for source in SOURCES:
            self._repository(source)
        self.write()

    def _repository(self, source: str) -> None:
        folder = self.folder / "mirrors" / source
        for row in self.of(source):
            (folder / row["path"]).parent.mkdir(parents=True, exist_ok=True)
            (folder / row["path"]).write_bytes(self.original[row["sha256"]])
        named = ("-c", "user.name=Test", "-c", "user.email=test@example.org")
        for command in (("init", "-q"), ("add", "-A"), (*named, "commit", "-qm", "photos")):
            subprocess.run(["git", "-C", folder, *command], check=True)
        head = subprocess.run(["git", "-C", folder, "rev-parse", "HEAD"], check=True, capture_output=True, text=True)
        for row in self.of(source):
            row["commit"] = head.stdout.strip()

    def of(self, source: str) -> list[dict[str, Any]]:
        return [row for row in self.rows if row["source"] == source]

    def write(self) -> None:
        with self.manifest.open("w", newline="", encoding="utf-8") as file:
            table = csv.DictWriter(file, self.rows[0])
            table.writeheader()
            table.writerows(self.rows)

    def archives(self) -> Path:
        """A folder with a tar, a zip and a file of its own, each photo in one of them, and something else."""
        folder = self.folder / "archives"
        folder.mkdir(exist_ok=True)
        digests = list(self.prepared)
        with tarfile.open(folder / "a.tar", "w") as tar:
            for digest in digests[:6]:
                entry = tarfile.TarInfo(f"{digest}.jpg")
                entry.size = len(self.prepared[digest])
                tar.addfile(entry, io.BytesIO(self.prepared[digest]))
        with zipfile.ZipFile(folder / "b.zip", "w") as archive:
            for digest in digests[6:11]:
                archive.writestr(f"some/where/{digest}.jpg", self.prepared[digest])
        (folder / f"{digests[11]}.jpg").write_bytes(self.prepared[digests[11]])
        (folder / "README.md").write_text("what is here", encoding="utf-8")
        return folder


class Host(http.server.BaseHTTPRequestHandler):
    """A code host: /owner/name/commit/path. Every third address fails once before it answers."""

    photos: Photos
    asked: Counter[str]
    gone: set[str]

    def do_GET(self) -> None:
        _, owner, name, commit, path = unquote(self.path).split("/", 4)
        self.asked[self.path] += 1
        row = next((r for r in self.photos.of(f"{owner}/{name}") if (r["commit"], r["path"]) == (commit, path)), None)
        if row is None or row["sha256"] in self.gone:
            self.send_error(404)
        elif int(row["sha256"], 16) % 3 == 0 and self.asked[self.path] == 1:
            self.send_error(503)
        else:
            self.send_response(200)
            self.end_headers()
            self.wfile.write(self.photos.original[row["sha256"]])

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture
def photos(tmp_path: Path) -> Photos:
    return Photos(tmp_path)


@pytest.fixture
def host(photos: Photos) -> Iterator[str]:
    Host.photos, Host.asked, Host.gone = photos, Counter(), set()
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Host) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()


@pytest.fixture
def space(workspace: Workspace) -> Workspace:
    return asking(workspace)


def asking(workspace: Workspace, host: str = "http://127.0.0.1:9", **more: object) -> Workspace:
    found = {"dataset": "photos", "manifest": "photos.csv", "url": host + "/{source}/{commit}/{path}", "sha256": ""}
    workspace.params(download=found | more)
    return workspace


def brought(space: Workspace, **env: str) -> str:
    """Run the stage, and return the digest of what it wrote."""
    result = space.run("download", **{"PHOTOS_ARCHIVE": "", "PHOTOS_MIRRORS": ""} | env)
    assert result.returncode == 0, result.stderr
    return sha256_file(OUT)


def test_every_way_brings_the_same_file(space: Workspace, photos: Photos, host: str) -> None:
    expected = brought(space, PHOTOS_ARCHIVE=str(photos.archives()))
    table = pq.read_table(OUT).to_pylist()
    assert [row["sha256"] for row in table] == sorted(photos.prepared)
    assert {row["sha256"]: row["photo"] for row in table} == photos.prepared
    assert {row["source"]: row["label"] for row in table} == SOURCES
    shutil.rmtree("build")
    assert brought(space, PHOTOS_MIRRORS=str(photos.folder / "mirrors")) == expected
    shutil.rmtree("build")
    assert brought(asking(space, host)) == expected
    assert max(Host.asked.values()) == 2  # what failed once was asked again


def test_another_manifest_than_the_one_that_params_name_is_refused(space: Workspace, photos: Photos) -> None:
    asking(space, sha256=sha256_file("photos.csv"))
    brought(space, PHOTOS_ARCHIVE=str(photos.archives()))
    asking(space, sha256="0" * 64)
    space.refuses("download", "photos.csv has sha256", "set download.sha256 to its digest")


@pytest.mark.slow
def test_it_goes_on_from_what_is_there(space: Workspace, photos: Photos, host: str) -> None:
    expected = brought(asking(space, host))
    kept = Workspace.files.files
    damaged, lost = sorted(photos.prepared)[:2]
    (kept / damaged).write_bytes(b"half a")
    (kept / lost).unlink()
    Host.asked.clear()
    assert brought(space) == expected
    assert {unquote(path).split("/", 4)[4] for path in Host.asked} == {
        row["path"] for row in photos.rows if row["sha256"] in (damaged, lost)
    }
    Host.asked.clear()
    assert brought(space) == expected
    assert not Host.asked


@pytest.mark.slow
def test_what_has_vanished_is_counted_and_allowed_up_to_a_share(space: Workspace, photos: Photos, host: str) -> None:
    asking(space, host, max_missing_share=0.1)
    Host.gone = {photos.rows[0]["sha256"]}
    result = space.run("download", PHOTOS_ARCHIVE="", PHOTOS_MIRRORS="")
    assert result.returncode == 0, result.stderr
    assert "1 of 12 photos are missing: 1 gone (HTTP 404)" in result.stdout
    assert len(pq.read_table(OUT)) == 11
    whole = sha256_file(OUT)
    shutil.rmtree(Workspace.files.files)
    Host.gone = {row["sha256"] for source in ("shop/one", "site/three") for row in photos.of(source)}
    words = ("6 of 12 photos and 2 of 4 whole sources are missing", "max_missing_share", "6 gone (HTTP 404)")
    space.refuses("download", *words, PHOTOS_ARCHIVE="", PHOTOS_MIRRORS="")
    assert sha256_file(OUT) == whole
    assert len(list(Workspace.files.files.iterdir())) == 6  # what came is kept
    asking(space, host, max_missing_share=1)
    Host.gone |= {row["sha256"] for row in photos.of("maker/two")}
    shutil.rmtree(Workspace.files.files)
    space.refuses("download", "no photo with the label real", PHOTOS_ARCHIVE="", PHOTOS_MIRRORS="")


@pytest.mark.slow
def test_a_way_that_is_closed_is_one_line(space: Workspace, photos: Photos) -> None:
    space.refuses("download", "127.0.0.1 does not answer", "PHOTOS_ARCHIVE", PHOTOS_ARCHIVE="", PHOTOS_MIRRORS="")
    space.refuses("download", "does not exist", PHOTOS_ARCHIVE="nowhere.tar")
    space.refuses("download", "is not a folder", PHOTOS_ARCHIVE="", PHOTOS_MIRRORS="nowhere")
    space.refuses("download", "12 no mirror of its repository", PHOTOS_ARCHIVE="", PHOTOS_MIRRORS=".")
    archive = photos.archives() / "a.tar"
    whole = archive.read_bytes()
    archive.write_bytes(whole[: len(whole) * 2 // 3])
    space.refuses("download", "a.tar is truncated", PHOTOS_ARCHIVE=str(archive.parent))
    archive.write_bytes(whole)
    other = photos.folder / "other"
    shutil.copytree(archive.parent, other)
    loose = next(other.glob("*.jpg"))
    loose.write_bytes(b"another file")
    space.refuses("download", "1 another file than the manifest's (sha256)", PHOTOS_ARCHIVE=str(other))
    brought(space, PHOTOS_ARCHIVE=str(archive.parent))


@pytest.mark.slow
def test_a_full_disk_is_one_line_and_the_next_run_goes_on(space: Workspace, photos: Photos) -> None:
    archive = str(photos.archives())
    space.refuses("download", "File too large", room_kb=6, PHOTOS_ARCHIVE=archive)
    assert not OUT.exists()
    brought(space, PHOTOS_ARCHIVE=archive)


def cut_column(rows: list[dict[str, Any]]) -> None:
    for row in rows:
        del row["licence"]


def both_labels(rows: list[dict[str, Any]]) -> None:
    rows.append(rows[0] | {"label": "ai_generated"})


def twice(rows: list[dict[str, Any]]) -> None:
    rows.append(dict(rows[0]))


def wrong_cells(rows: list[dict[str, Any]]) -> None:
    rows[0] |= {"label": "fake", "commit": "main"}
    rows[1]["short_side"] = ""
    rows[2]["source"] = "../.."


@pytest.mark.parametrize(
    ("damage", "words"),
    [
        (cut_column, ["has no column licence"]),
        (both_labels, ["row 14", "is both real and ai_generated"]),
        (twice, ["row 14", "stands there twice"]),
        (
            wrong_cells,
            [
                "row 2, label = 'fake'",
                "row 2, commit = 'main'",
                "row 3: prepared_sha256 and short_side",
                "row 4, source",
            ],
        ),
        (list.clear, ["it has no rows"]),
    ],
)
def test_a_faulty_manifest_is_one_line(space: Workspace, photos: Photos, damage: Any, words: list[str]) -> None:
    damage(photos.rows)
    if photos.rows:
        photos.write()
    else:
        photos.manifest.write_text(photos.manifest.read_text(encoding="utf-8").splitlines()[0] + "\n")
    space.refuses("download", "photos.csv", *words, PHOTOS_ARCHIVE=".")


def test_a_manifest_that_is_not_there(space: Workspace) -> None:
    asking(space, manifest="none.csv")
    space.refuses("download", "none.csv not found: download.manifest in params.yaml must name a manifest")
    asking(space, manifest="")
    space.refuses("download", "the data set 'photos' also needs manifest")


def test_the_manifest_in_git_is_whole() -> None:
    rows = read_manifest(REPO / "datasets" / "photos.csv")
    assert Counter(row.label for row in rows) == {"real": 3644, "ai_generated": 2009, "render": 97}
    sources = {label: {row.source for row in rows if row.label == label} for label in ("real", "ai_generated")}
    assert {label: len(found) for label, found in sources.items()} == {"real": 111, "ai_generated": 122}
    assert not sources["real"] & sources["ai_generated"]  # else a split by source could not hold out a label's
    assert all(row.generator for row in rows if row.label == "ai_generated")
    assert all(row.licence != "none" for row in rows if row.use == "train" and row.label == "real")


@pytest.mark.slow
def test_the_archives_hold_the_whole_manifest(space: Workspace, shared_dir: Path) -> None:
    asking(space, manifest=str(REPO / "datasets" / "photos.csv"))
    for name in ("photos.tar", "photos-2.tar"):
        Path(name).symlink_to(shared_dir / "data" / name)
    brought(space, PHOTOS_ARCHIVE=".")
    assert len(pq.read_table(OUT, columns=["sha256"])) == 5750


def test_a_manifest_in_another_encoding(tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_bytes("größe".encode("latin-1"))
    with pytest.raises(StageError, match="is no CSV in UTF-8"):
        read_manifest(tmp_path / "a.csv")
