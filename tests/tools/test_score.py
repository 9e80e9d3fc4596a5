"""Scoring a catalogue: every photo once, whatever happens."""

import json
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import fsspec
import psutil
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from service.models.card import read_card
from service.models.detector import Detector
from stages.common import StageError
from tests.support import tiny_frozen, tiny_model
from tests.support.photos import BAD, GOOD, encode, photo
from tests.support.server import free_port
from tests.support.shops import calibration_of
from tools.score.__main__ import main, plan, put_together, score
from tools.score.catalogue import survey
from tools.score.scorer import Scorer, part_name

REPO = Path(__file__).resolve().parents[2]


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The tiny model's file."""
    return tiny_model.release(tmp_path_factory.mktemp("model"), "1.0.0") / "model.onnx"


def write_model(folder: Path, name: str, size: int) -> Path:
    """Write a tiny model that knows photos of `size` x `size` pixels; return its folder."""
    card = tiny_model.CARD | {"name": name, "version": "3.0.0"}
    geometry = {f"{end}_{side}": size for end in ("min", "max") for side in ("width", "height")}
    card["domain"] = tiny_model.CARD["domain"] | {"geometry": geometry}
    (folder / name).mkdir(parents=True)
    file = tiny_model.build(folder / name / "model.onnx", card)
    (folder / name / "card.json").write_text(read_card(file).to_json())
    return folder / name


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    """A folder of good and bad files, one of them in a folder below and with a glob's signs in its name."""
    folder = tmp_path / "photos"
    (folder / "more [2]").mkdir(parents=True)
    for seed in range(40):
        (folder / f"{seed:02}.jpg").write_bytes(encode(photo(seed=seed), "JPEG"))
    (folder / "more [2]" / "a*[1]?.PNG").write_bytes(GOOD["png"])
    (folder / "broken.jpg").write_bytes(BAD["truncated_jpeg"][0])
    (folder / "text.webp").write_bytes(b"no photo at all")
    (folder / "gone.jpg").symlink_to(tmp_path / "nowhere")
    (folder / "README.txt").write_text("not called like a photo")
    (folder / "._00.jpg").write_text("what macOS writes beside a photo")
    return folder


def start(source: object, out: Path, model: Path, *options: str) -> subprocess.Popen[str]:
    """Start the command as a user does."""
    command = [sys.executable, "-m", "tools.score", str(source), str(out), "--model", str(model), *options]
    return subprocess.Popen(
        command, cwd=REPO, text=True, stdout=subprocess.PIPE, stderr=subprocess.PIPE, start_new_session=True
    )


def settled(source: str, out: str, model: Path, **changes: object) -> list[dict[str, object]]:
    """Score in this process, without Ray; return the rows."""
    options = {"column": "image", "part_photos": 7, "alpha": 0.01, "ai_prior": 0.5} | changes
    job = plan(source, out, model, **options)
    scorer = Scorer(out)
    parts = job.catalogue.parts()
    done = scorer({"part": list(parts)})
    assert done["photos"].tolist() == list(parts.values())
    fs, folder = fsspec.core.url_to_fs(out)
    return [row for part in parts for row in pq.read_table(f"{folder}/{part_name(part)}", filesystem=fs).to_pylist()]


@pytest.mark.slow
def test_killed_and_started_again_no_row_is_lost_or_doubled(photos: Path, model: Path, tmp_path: Path) -> None:
    whole, cut = tmp_path / "whole", tmp_path / "cut"
    run = start(photos, whole, model, "--workers", "2", "--part-photos", "3")
    printed, errors = run.communicate(timeout=300)
    assert run.returncode == 0, errors
    assert "scoring" in errors  # the progress bar
    run = start(photos, cut, model, "--workers", "2", "--part-photos", "1")
    while not list(cut.glob("part-*")):
        assert run.poll() is None, run.communicate()
        time.sleep(0.01)
    family = psutil.Process(run.pid).children(recursive=True)
    os.killpg(run.pid, signal.SIGKILL)
    run.wait()
    _, alive = psutil.wait_procs(family, timeout=30)
    assert not alive  # Ray's processes go with it, and until then they write
    before = {part.name: part.stat().st_mtime_ns for part in cut.glob("part-*")}
    again = start(photos, cut, model, "--workers", "2")
    printed, errors = again.communicate(timeout=300)
    assert again.returncode == 0, errors
    done = json.loads(printed)
    assert done["this_run"]["photos"] == 44 - len(before)
    assert {name: (cut / name).stat().st_mtime_ns for name in before} == before
    first, second = (pq.read_table(out).sort_by("name") for out in (whole, cut))
    assert len(first) == done["photos"] == 44
    assert first.equals(second)
    assert done["errors"] == {"corrupt_image": 1, "unsupported_format": 1, "unreadable": 1}
    assert not list(cut.glob(".*.tmp"))


def test_every_file_is_a_row(photos: Path, model: Path, tmp_path: Path) -> None:
    rows = {Path(str(row["name"])).name: row for row in settled(str(photos), str(tmp_path / "out"), model)}
    assert len(rows) == 44
    assert rows["text.webp"]["error_type"] == "unsupported_format"
    assert rows["gone.jpg"]["error_type"] == "unreadable"
    good = [row for row in rows.values() if row["error"] is None]
    assert len(good) == 41
    for row in good:
        assert row["prediction"] == ("ai_generated" if row["probability"] >= 0.5 else "real")
        assert (row["width"], row["height"]) == (32, 32)
        assert (row["model"], row["model_version"]) == ("cifake", "1.0.0")
    for row in rows.values():
        assert (row["probability"] is None) == (row["error"] is not None)


def test_each_photo_is_scored_by_the_model_that_knows_its_size(photos: Path, tmp_path: Path) -> None:
    models = tmp_path / "models"
    alone = {size: write_model(models, name, size) for size, name in ((32, "cifake"), (64, "photos"))}
    for seed in range(5):
        (photos / f"large-{seed}.png").write_bytes(encode(photo(64, 64, seed=seed)))
    (photos / "huge.png").write_bytes(encode(photo(300, 200)))
    rows = settled(str(photos), str(tmp_path / "out"), models, part_photos=20)
    found = {Path(str(row["name"])).name: row for row in rows}
    assert len(found) == 50
    assert {row["model"] for row in found.values() if row["error"]} == {None}
    names = {row["width"]: row["model"] for row in found.values()}
    assert names == {32: "cifake", 64: "photos", 300: "photos", None: None}  # one that none knows: the nearest
    assert not found["huge.png"]["domain_geometry"]
    assert sorted(
        str(path.relative_to(tmp_path / "out/_models")) for path in (tmp_path / "out/_models").rglob("*.*")
    ) == [f"{name}/{file}" for name in ("cifake", "photos") for file in ("card.json", "model.onnx")]
    for size, folder in alone.items():
        for row in settled(str(photos), str(tmp_path / str(size)), folder):
            if row["width"] == size:
                other = found[Path(str(row["name"])).name]
                assert {key: value for key, value in row.items() if key != "probability"} == {
                    key: value for key, value in other.items() if key != "probability"
                }
                assert row["probability"] == pytest.approx(other["probability"], abs=1e-5)
    assert len(pq.read_table(tmp_path / "out")) == 50  # what OUT holds beside the parts is no row


@pytest.mark.parametrize("out", ["memory://frozen", ""])
def test_a_model_takes_its_encoder_along(photos: Path, tmp_path: Path, out: str) -> None:
    write_model(tmp_path / "models", "cifake", 32)
    folder = tiny_frozen.release(tmp_path / "models" / "photos")
    for seed in range(5):
        (photos / f"large-{seed}.png").write_bytes(encode(photo(100, 100, seed=seed)))
    rows = settled(str(photos), out or str(tmp_path / "out"), tmp_path / "models", part_photos=20)
    found = {Path(str(row["name"])).name: row for row in rows}
    assert [found["00.jpg"]["model"], found["large-0.png"]["model"]] == ["cifake", "photos"]
    detector = Detector(folder)
    for seed in range(5):
        probability = detector.score(detector.prepare(photo(100, 100, seed=seed))[None]).probability[0]
        assert found[f"large-{seed}.png"]["probability"] == pytest.approx(float(probability), abs=2e-6)


def test_folder_glob_parquet_and_bucket_score_alike(photos: Path, model: Path, tmp_path: Path) -> None:
    files = sorted(photos.glob("[0-9]*.jpg"))
    data = [file.read_bytes() for file in files]
    pq.write_table(
        pa.table({"id": [file.name for file in files], "raw": data}), tmp_path / "raw.parquet", row_group_size=9
    )
    structs = [{"bytes": each, "path": file.name} for each, file in zip(data, files, strict=True)]
    pq.write_table(pa.table({"image": [*structs, None]}), tmp_path / "struct.parquet")
    bucket = fsspec.filesystem("memory")
    for file, each in zip(files, data, strict=True):
        bucket.pipe_file(f"/shop/{file.name}", each)
    sources = {
        "glob": (f"{photos}/[0-9]*.jpg", {}),
        "raw": (str(tmp_path / "raw.parquet"), {"column": "raw"}),
        "struct": (str(tmp_path / "*.parquet").replace("*", "struct"), {}),
        "bucket": ("memory://shop", {}),
    }
    found = {}
    for name, (source, options) in sources.items():
        rows = settled(source, "memory://scores" if name == "bucket" else str(tmp_path / name), model, **options)
        found[name] = {Path(str(row["name"])).name: row["probability"] for row in rows if row["error"] is None}
        assert len(found[name]) == 40
    assert found["glob"] == found["raw"] == found["struct"] == found["bucket"]
    assert "struct.parquet#0:40" in str(pq.read_table(tmp_path / "struct" / part_name(0))["name"][40])


def test_a_run_goes_on_only_with_the_same(photos: Path, model: Path, tmp_path: Path) -> None:
    out = str(tmp_path / "out")
    settled(str(photos), out, model)
    (photos / "new.jpg").write_bytes(GOOD["jpeg"])
    assert len(settled(str(photos), out, model)) == 44  # what was listed first stays the catalogue
    other = tiny_model.release(tmp_path / "other", "2.0.0") / "model.onnx"
    changes = {"alpha": {"alpha": 0.05}, "ai_prior": {"ai_prior": 0.1}, "models": {"model": other}}
    for what, changed in changes.items():
        options = {"model": model} | changed
        with pytest.raises(StageError, match=f"another {what}: .*another OUT"):
            settled(str(photos), out, **options)
    before = json.loads((tmp_path / "out/_plan.json").read_text())
    del before["columns"], before["models"]
    (tmp_path / "out/_plan.json").write_text(json.dumps(before | {"model_sha256": "0" * 64}))
    with pytest.raises(StageError, match="a run of another version of this program: go on with that version, or name"):
        settled(str(photos), out, model)
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "thesis.txt").write_text("precious")
    with pytest.raises(StageError, match="empty folder"):
        settled(str(photos), str(tmp_path / "full"), model)


def test_refusals_say_what_to_do(photos: Path, model: Path, tmp_path: Path) -> None:
    pq.write_table(pa.table({"picture": [b""]}), tmp_path / "a.parquet")
    pq.write_table(pa.table({"image": pa.array([], pa.binary())}), tmp_path / "none.parquet")
    (tmp_path / "b.parquet").write_bytes(b"PAR1, not really")
    for source, message in {
        str(tmp_path / "nothing"): "does not exist",
        str(tmp_path / "none.parquet"): "holds no",
        str(tmp_path): "Parquet files and photos",
        str(tmp_path / "*.tiff"): "holds no",
        str(tmp_path / "a.parquet"): "no column 'image', but picture: name it with --column",
        str(tmp_path / "b.parquet"): "not a readable Parquet file",
        "nonsense://bucket": "cannot be listed",
    }.items():
        with pytest.raises(StageError, match=message):
            survey(source, "image", 10)
    with pytest.raises(StageError, match=rf"{model}: ALPHA=0\.3 is not calibrated"):
        settled(str(photos), str(tmp_path / "out"), model, alpha=0.3)
    with pytest.raises(StageError, match="nowhere"):
        settled(str(photos), str(tmp_path / "out"), tmp_path / "nowhere.onnx")
    with pytest.raises(StageError, match="holds no model: name an ONNX file, or a folder with card"):
        settled(str(photos), str(tmp_path / "out"), photos)
    for name in ("one", "two"):
        write_model(tmp_path / "models", name, 32)
    with pytest.raises(StageError, match=r"models/two has the name of one, or claims photos of the same sizes"):
        settled(str(photos), str(tmp_path / "out"), tmp_path / "models")
    assert not (tmp_path / "out").exists()


def test_a_cluster_that_is_not_there_is_told_at_once(photos: Path, model: Path, tmp_path: Path) -> None:
    job = plan(str(photos), str(tmp_path / "out"), model, column="image", part_photos=7, alpha=0.01, ai_prior=0.5)
    for address in (f"127.0.0.1:{free_port()}", f"ray://localhost:{free_port()}"):
        with pytest.raises(StageError, match=f"no Ray cluster answers at {address}: Connection refused"):
            score(job, 1, address)


@pytest.mark.parametrize(
    ("option", "message"),
    [
        ("--trust-anchors", "it holds no PEM certificates"),
        ("--time-stamp-anchors", "it holds no PEM certificates"),
        ("--key-usages", "'no list' is not an object identifier"),
    ],
)
def test_whom_to_trust_is_checked_first(
    option: str, message: str, photos: Path, model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    text, out = photos / "README.txt", photos.parent / "out"
    text.write_text("no list")
    monkeypatch.setattr(
        sys, "argv", ["tools.score.__main__", str(photos), str(out), "--model", str(model), option, str(text)]
    )
    with pytest.raises(StageError, match=f"{option} {text}: {message}"):
        main()
    assert not (out / "_plan.json").exists()


def test_a_run_with_other_trust_is_another_run(photos: Path, tmp_path: Path, model: Path) -> None:
    settled(str(photos), str(tmp_path / "out"), model)
    with pytest.raises(StageError, match="holds a run with another key_usages"):
        settled(str(photos), str(tmp_path / "out"), model, key_usages=("1.2.3",))


def test_a_shops_own_thresholds_decide(photos: Path, model: Path, tmp_path: Path) -> None:
    card = read_card(model)
    shop = calibration_of(card, 1.000001, {"shoes": 0.0})
    plain = settled(str(photos), str(tmp_path / "plain"), model, part_photos=100)
    own = settled(str(photos), str(tmp_path / "own"), model, part_photos=100, calibration=shop)
    shoes = settled(str(photos), str(tmp_path / "shoes"), model, part_photos=100, calibration=shop, group="shoes")
    assert {row["calibration"] for row in plain if not row["error"]} == {"released"}
    assert {row["calibration"] for row in (*own, *shoes) if not row["error"]} == {"shop"}
    assert [row["probability"] for row in own] == [row["probability"] for row in plain]
    assert not [row for row in own if row["decision"] == "flag"]
    for row in shoes:
        if not row["error"]:
            assert (row["decision"] == "flag") == (row["in_domain"] and row["probability"] >= 0.5)
    with pytest.raises(StageError, match="holds a run with another calibration"):
        settled(str(photos), str(tmp_path / "plain"), model, part_photos=100, calibration=shop)


def test_a_calibration_that_does_not_fit_is_refused(photos: Path, model: Path, tmp_path: Path) -> None:
    shop = calibration_of(read_card(model), 0.9)
    for changes, said in (
        ({"calibration": shop.model_copy(update={"model_sha256": "0" * 64})}, "run 'python -m tools.calibrate' again"),
        ({"calibration": shop.model_copy(update={"model": "photos"})}, "--calibration is for photos"),
        ({"calibration": shop, "alpha": 0.001}, "promises nothing at ALPHA=0.001"),
        ({"calibration": shop, "group": "socks"}, "nobody calibrated it; name one of bags, hats, or none"),
        ({"group": "shoes"}, "of no use without --calibration"),
    ):
        with pytest.raises(StageError, match=re.escape(said)):
            settled(str(photos), str(tmp_path / "out"), model, **changes)
        assert not (tmp_path / "out/_plan.json").exists()


class TestListings:
    """One more table, of listings."""

    def write(self, folder: Path) -> None:
        for name, seeds in {"lamp": (0, 1, 0), "vase": (2,), "lamp/more": (3,)}.items():
            (folder / name).mkdir(parents=True, exist_ok=True)
            for place, seed in enumerate(seeds):
                (folder / name / f"{place}.png").write_bytes(encode(photo(seed=seed)))
        (folder / "vase" / "broken.jpg").write_bytes(BAD["truncated_jpeg"][0])

    def told(self, source: str, out: Path, model: Path, by: str) -> list[dict[str, object]]:
        options = {"column": "image", "part_photos": 2, "alpha": 0.01, "ai_prior": 0.5, "listing_by": by}
        settled(source, str(out), model, **options)
        job = plan(source, str(out), model, **options)
        done = put_together(job, model, {})
        rows = pq.read_table(out / "_listings.parquet").to_pylist()
        assert sum(done["listings"].values()) == len(rows)
        assert len(pq.read_table(out)) == 6, "the table of photos is that of photos alone"
        return rows

    def test_a_folder_is_a_listing(self, model: Path, tmp_path: Path) -> None:
        self.write(tmp_path / "photos")
        rows = self.told(str(tmp_path / "photos"), tmp_path / "out", model, "folder")
        found = {Path(str(row["listing"])).name: row for row in rows}
        numbers = {name: [row[key] for key in ("photos", "repeated", "failed")] for name, row in found.items()}
        assert numbers == {"lamp": [2, 1, 0], "more": [1, 0, 0], "vase": [1, 0, 1]}
        photos = {row["name"]: row for row in pq.read_table(tmp_path / "out").to_pylist()}
        for name in ("vase", "more"):  # of one photo each
            (only,) = (row for row in photos.values() if row["listing"] == found[name]["listing"] and not row["error"])
            assert found[name]["decision"] == only["decision"]
            assert found[name]["carried_by"] == ([] if only["decision"] == "clear" else [only["name"]])

    def test_a_column_tells_the_listing(self, model: Path, tmp_path: Path) -> None:
        names = ["lamp", "vase", "lamp", None, "vase", "lamp"]  # not side by side
        images = [encode(photo(seed=seed)) for seed in range(6)]
        table = pa.table({"image": images, "id": [f"{place}" for place in range(6)], "shop item": names})
        pq.write_table(table, tmp_path / "photos.parquet", row_group_size=2)
        rows = self.told(str(tmp_path / "photos.parquet"), tmp_path / "out", model, "column:shop item")
        assert [(row["listing"], row["photos"]) for row in rows] == [("lamp", 3), ("vase", 2)]
        for row in rows:
            assert set(row["carried_by"]) <= {str(place) for place in range(6)}

    def test_no_such_column(self, model: Path, tmp_path: Path) -> None:
        pq.write_table(pa.table({"image": [GOOD["png"]]}), tmp_path / "photos.parquet")
        with pytest.raises(StageError, match="has no column 'shop'"):
            self.told(str(tmp_path / "photos.parquet"), tmp_path / "out", model, "column:shop")
        self.write(tmp_path / "photos")
        with pytest.raises(StageError, match="take --listing-by folder"):
            self.told(str(tmp_path / "photos"), tmp_path / "other", model, "column:shop")

    @pytest.mark.parametrize("by", ["shop", "column:"])
    def test_an_unknown_way_is_refused(self, by: str, monkeypatch: pytest.MonkeyPatch, capsys: Any) -> None:
        monkeypatch.setattr(sys, "argv", ["score", "here", "there", "--listing-by", by])
        with pytest.raises(SystemExit):
            main()
        assert "give folder, or column:NAME" in capsys.readouterr().err
