"""How pictures from outside the domain are answered."""

from pathlib import Path

import pytest
from PIL import Image

from service.models.detector import Detector
from stages.common import StageError
from stages.data.image_sets import ImageSet
from stages.evaluation.ood import large_photos, ood_figures
from stages.evaluation.scoring import score
from stages.exporting.ood_pictures import KINDS


def test_pictures_of_another_size_are_out_of_domain_by_their_geometry(
    detector: Detector, photos: ImageSet, tmp_path: Path
) -> None:
    Image.new("RGB", (800, 600), "white").save(tmp_path / "white.jpg")
    (tmp_path / "README.txt").write_text("no photo")
    embedding = score(detector, photos, "photos").embedding
    found = ood_figures(detector, embedding, 3, seed=0, alpha=0.01, large_photos=tmp_path)
    assert found.pop("large_photos")["images"] == 1
    assert set(found) == set(KINDS)
    for ways in found.values():
        assert {row["images"] for row in ways.values()} == {3}
        # This model's domain takes everything in by the embedding: the size alone decides.
        assert (ways["known_size"]["in_domain"], ways["large"]["embedding_in_domain"]) == (1.0, 1.0)
        assert (ways["large"]["geometry_in_domain"], ways["large"]["in_domain"]) == (0.0, 0.0)
        assert (ways["large"]["flagged"], ways["large"]["cleared"]) == (0, 0)


def test_large_photos_that_cannot_be_read_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "empty").mkdir()
    (tmp_path / "text.tar").write_text("no archive")
    for name, words in (("missing", "not a folder"), ("empty", "no photo"), ("text.tar", "not a folder, zip or tar")):
        monkeypatch.setenv("LARGE_PHOTOS", str(tmp_path / name))
        with pytest.raises(StageError, match=words):
            large_photos()
    monkeypatch.delenv("LARGE_PHOTOS")
    assert large_photos() is None
