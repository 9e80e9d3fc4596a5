"""A model whose weights lie in a file beside its ONNX file, and which explains itself by windows."""

import base64
import io
import logging
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from starlette.testclient import TestClient

from service.drift.model_monitor import ModelMonitor
from service.drift.reports import Reports
from service.log.prediction_log import PredictionLog
from service.models.card import Card, ModelError, read_card
from service.models.detector import Detector
from service.models.heatmap import place
from service.models.images import Input, windows
from service.models.store import ModelStore
from service.settings import ROOT, Settings
from tests.support import tiny_frozen
from tests.support.http import in_process
from tests.support.photos import encode, photo
from tests.support.tiny_frozen import ENCODER, SIZE, red_patch


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with both models."""
    folder = tmp_path_factory.mktemp("models")
    shutil.copytree(ROOT / "models" / "cifake", folder / "cifake")
    tiny_frozen.release(folder / "photos")
    return folder


@pytest.fixture(scope="module")
def http(models: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[TestClient]:
    """The service with both models."""
    with in_process(tmp_path_factory.mktemp("log"), models=models) as client:
        yield client


@pytest.fixture
def detector(models: Path) -> Detector:
    """The model with the encoder."""
    return Detector(models / "photos")


def heat_of(answer: dict[str, str]) -> np.ndarray:
    """Return red minus blue of an explanation's picture: int [height, width]."""
    picture = Image.open(io.BytesIO(base64.b64decode(answer["heatmap_base64"]))).convert("RGB")
    pixels = np.asarray(picture).astype(int)
    return pixels[..., 0] - pixels[..., 2]


def test_each_size_gets_its_model_alone_and_in_a_batch(http: TestClient, detector: Detector) -> None:
    photos = {size: photo(*size, seed=size[0]) for size in ((32, 32), (200, 200), (300, 200))}
    files = [("files", encode(image)) for image in photos.values()]
    batch = http.post("/predict/batch", files=files).json()["results"]
    assert [item["model"] for item in batch] == ["cifake", "photos", "photos"]
    for (size, image), item in zip(photos.items(), batch, strict=True):
        alone = http.post("/predict", files={"file": encode(image)}).json()
        assert alone["domain"]["geometry"] is True
        assert alone["probability"] == pytest.approx(item["probability"], abs=2e-6)
        if size != (32, 32):
            scores = detector.score(detector.prepare(image)[None])
            assert scores.heatmap is None
            assert alone["probability"] == pytest.approx(float(scores.probability[0]), abs=2e-6)


def test_the_full_batch_and_the_log(http: TestClient) -> None:
    files = [("files", encode(photo(100 + seed, 100, seed=seed))) for seed in range(20)]
    answer = http.post("/predict/batch", files=files).json()
    assert (answer["successful"], answer["failed"]) == (20, 0)
    logged = http.get(f"/predictions/{answer['request_id']}:19").json()
    assert (logged["model"], logged["width"]) == ("photos", 119)


def test_model_says_how_each_explains_itself(http: TestClient) -> None:
    facts = {model["name"]: model for model in http.get("/model").json()["models"]}
    assert facts["cifake"]["heatmap"] == "class activation map"
    assert facts["photos"]["heatmap"] == "windows"
    assert facts["photos"]["model"]["encoder"]["file"] == ENCODER
    assert "encoder" not in facts["cifake"]["model"]
    assert "heatmap" not in facts["cifake"]["model"]


@pytest.mark.parametrize("size", [(200, 200), (300, 200), (150, 390)])
def test_what_drives_the_answer_is_red(http: TestClient, size: tuple[int, int]) -> None:
    data = encode(red_patch(*size))
    answer = http.post("/predict/explain", files={"file": data}).json()
    heat = heat_of(answer)
    height, width = heat.shape
    assert width / height == pytest.approx(size[0] / size[1], rel=0.01)
    patch, above = heat[3 * height // 4 :, : width // 4], heat[: height // 4, 3 * width // 4 :]
    assert patch.mean() > 30
    assert above.mean() < -30
    plain = http.post("/predict", files={"file": data}).json()
    assert {key for key in answer if key not in plain} == {"heatmap_base64"}
    assert answer["probability"] == plain["probability"]


def test_windows_are_scored_only_for_an_explanation(http: TestClient, monkeypatch: pytest.MonkeyPatch) -> None:
    scored, score = [], Detector.score

    def counting(self: Detector, pixels: np.ndarray) -> object:
        scored.append(len(pixels))
        return score(self, pixels)

    monkeypatch.setattr(Detector, "score", counting)
    for route, photos in {"/predict": [1], "/predict/explain": [1, 9]}.items():
        scored.clear()
        assert http.post(route, files={"file": encode(photo(200, 200))}).status_code == 200
        assert scored == photos


def test_a_windows_map_is_its_answer_in_logits(detector: Detector) -> None:
    image = red_patch(200, 200)
    maps, boxes = detector.explain(image, detector.score(detector.prepare(image)[None]))
    assert maps.shape == (9, 1, 1)
    assert maps.dtype == np.float32
    for heat, box in zip(maps, boxes, strict=True):
        window = image.crop(tuple(map(round, box)))
        probability = detector.score(detector.prepare(window)[None]).probability[0]
        assert 1 / (1 + np.exp(-heat[0, 0])) == pytest.approx(probability, abs=0.02)  # resized at its edges alone


def test_windows_lie_evenly_from_edge_to_edge_and_blend() -> None:
    boxes = windows(300, 200, Input(width=32, height=32, resize="crop"), across=3, down=3, share=0.5)
    assert len(boxes) == 9
    assert boxes[0] == (0, 0, 100, 100)
    assert boxes[4] == (100, 50, 200, 150)
    assert boxes[8] == (200, 100, 300, 200)
    alone = windows(200, 200, Input(width=32, height=32, resize="crop"), across=1, down=1, share=0.9)
    assert len(alone) == 4  # one would not show all of it
    assert windows(200, 200, Input(width=32, height=32, resize="crop"), across=1, down=1, share=1) == [(0, 0, 200, 200)]
    long = windows(1000, 200, Input(width=32, height=32, resize="crop"), across=3, down=3, share=0.5)
    assert [box[0] for box in long[:10]] == [100 * place for place in range(10)]
    values = np.array([0, 1, 2] * 3, np.float32)[:, None, None]
    square = windows(200, 200, Input(width=8, height=8, resize="crop"), across=3, down=3, share=0.5)
    placed = place(values, square, (200, 200))
    assert placed[:, :50] == pytest.approx(0)  # the first window alone
    assert placed[:, 150:] == pytest.approx(2)
    assert np.diff(placed, axis=1).max() < 0.021  # from one to the next without an edge
    assert placed[100, 100] == pytest.approx(1, abs=0.02)


def test_the_logits_of_views_are_averaged(tmp_path: Path) -> None:
    given = tiny_frozen.CARD["input"] | {"resize": "views", "views": 3}
    detector = Detector(tiny_frozen.release(tmp_path / "photos", input=given))
    pixels = detector.prepare(red_patch(300, 100))
    assert pixels.shape == (3, SIZE, SIZE, 3)
    alone, together = detector.score(pixels), detector.score(pixels[None])
    logits = np.log(alone.probability / (1 - alone.probability))
    assert together.probability == pytest.approx(1 / (1 + np.exp(-logits.mean())), abs=1e-6)
    assert together.ood_score == pytest.approx(alone.ood_score.mean(), abs=1e-5)
    assert together.heatmap is None


def missing(folder: Path) -> None:
    (folder / ENCODER).unlink()


def unreadable(folder: Path) -> None:
    missing(folder)
    (folder / ENCODER).mkdir()


def truncated(folder: Path) -> None:
    data = (folder / ENCODER).read_bytes()
    (folder / ENCODER).write_bytes(data[: len(data) // 2])


def another(folder: Path) -> None:
    data = bytearray((folder / ENCODER).read_bytes())
    data[-1] ^= 1
    (folder / ENCODER).write_bytes(data)


def another_in_the_card(folder: Path) -> None:
    another(folder)
    card = read_card(folder)
    right = tiny_frozen.card_of((folder / ENCODER).read_bytes()).encoder
    (folder / "card.json").write_text(card.model_copy(update={"encoder": right}).to_json())


FAULTS = {
    missing: "not found: restore it",
    unreadable: "cannot be read",
    truncated: "put all files of one release there",
    another: "put all files of one release there",
    another_in_the_card: "name different encoders: put all files of one release there",
}


@pytest.mark.parametrize("fault", FAULTS)
@pytest.mark.parametrize("when", ["at the start", "while serving"])
def test_a_fault_is_one_line_and_what_is_served_stays(
    tmp_path: Path, fault: Callable[[Path], None], when: str, caplog: pytest.LogCaptureFixture
) -> None:
    folder = tiny_frozen.release(tmp_path / "models" / "photos")
    settings = Settings(models=tmp_path / "models", monitor=False)
    if when == "at the start":
        fault(folder)
        store = ModelStore(settings)
        assert not store.models
    else:
        store = ModelStore(settings)
        before = dict(store.models)
        fault(folder)
        store.update(settled=1e-9)
        assert store.models == before
        assert before["photos"].score(np.zeros((1, SIZE, SIZE, 3), np.uint8)).probability.shape == (1,)
    (line,) = (record.getMessage() for record in caplog.records if record.levelno >= logging.ERROR)
    assert FAULTS[fault] in line
    assert str(folder) in line
    assert "\n" not in line
    assert store.refused.keys() == {"photos"}
    shutil.rmtree(folder)
    tiny_frozen.release(folder)
    store.update(settled=1e-9)
    assert list(store.models) == ["photos"]
    assert not store.refused


def test_another_release_takes_its_place_with_its_encoder(tmp_path: Path) -> None:
    folder = tiny_frozen.release(tmp_path / "models" / "photos")
    store = ModelStore(Settings(models=tmp_path / "models", monitor=False))
    pixels = store.models["photos"].prepare(photo(100, 100))[None]
    before = store.models["photos"].score(pixels)
    tiny_frozen.release(folder, "2.0.0", seed=1)
    store.update(settled=1e-9)
    assert store.models["photos"].version == "2.0.0"
    assert not np.array_equal(store.models["photos"].score(pixels).probability, before.probability)
    tiny_frozen.release(folder, "1.0.0")
    store.update(settled=1e-9)
    assert np.array_equal(store.models["photos"].score(pixels).probability, before.probability)


def test_a_bare_onnx_file_has_its_encoder_beside_it(tmp_path: Path) -> None:
    folder = tiny_frozen.release(tmp_path / "photos")
    (folder / "card.json").unlink()
    file = folder / "model.onnx"
    assert Detector(file).card.encoder == tiny_frozen.card_of((folder / ENCODER).read_bytes()).encoder
    another(folder)
    with pytest.raises(ModelError, match=rf"{ENCODER} has sha256 .* put all files of one release there"):
        Detector(file)
    for fault in (truncated, missing):
        fault(folder)
        with pytest.raises(ModelError, match="or the encoder beside it is missing or truncated: restore it"):
            read_card(file)


@pytest.mark.parametrize("name", ["../encoder.safetensors", "/encoder.safetensors", "checkpoint.safetensors", ""])
def test_an_encoder_is_a_plain_file_of_the_folder(name: str) -> None:
    with pytest.raises(ValueError, match=r"encoder\.file"):
        Card.model_validate(tiny_frozen.CARD | {"encoder": {"file": name, "sha256": "0" * 64}})


def test_the_drift_monitor_sees_what_the_workers_see(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    folder = tiny_frozen.release(tmp_path / "photos")
    settings = Settings(models=tmp_path, monitor=False, drift_url=str(tmp_path / "drift"))
    log = PredictionLog(f"sqlite:///{tmp_path / 'log.db'}")
    monitor = ModelMonitor("photos", folder, settings, log, Reports(settings.drift_url, 0))
    assert monitor.version() == "1.0.0"
    tiny_frozen.release(folder, "2.0.0")
    another(folder)
    assert monitor.version() == "1.0.0"
    assert "the workers keep the model before it" in caplog.text
    tiny_frozen.release(folder, "2.0.0")
    assert monitor.version() == "2.0.0"
    log.close()
