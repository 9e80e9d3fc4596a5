"""A catalogue's scores are the service's."""

from pathlib import Path

import pyarrow.parquet as pq
from starlette.testclient import TestClient

from tests.support.photos import BAD, GOOD
from tests.support.server import released_models
from tests.support.signing import STRANGER, TRUSTED
from tools.score.__main__ import plan
from tools.score.scorer import Scorer, part_name

GENERATED = ["trainedAlgorithmicMedia"]
SIGNERS = {"trusted": TRUSTED, "stranger": STRANGER}
FIELDS = (
    "prediction", "probability", "confidence", "decision", "decided_by", "in_domain", "model", "model_version", "notes",
)  # fmt: skip


def test_a_catalogue_gets_what_the_service_answers(client: TestClient, tmp_path: Path) -> None:
    files = {f"{name}.jpg": data for name, data in sorted(GOOD.items())}
    files |= {f"{name}.png": bad[0] for name, bad in sorted(BAD.items())}
    files |= {f"{authority}.jpg": make.sign(GOOD["jpeg"], "JPEG", GENERATED) for authority, make in SIGNERS.items()}
    (tmp_path / "photos").mkdir()
    for name, data in files.items():
        (tmp_path / "photos" / name).write_bytes(data)
    out = str(tmp_path / "out")
    plan(
        str(tmp_path / "photos"), out, released_models(), column="image", part_photos=100, alpha=0.01, ai_prior=0.5,
        trust_anchors=TRUSTED.anchors,
    )  # fmt: skip
    Scorer(out)({"part": [0]})
    rows = {Path(row["name"]).name: row for row in pq.read_table(tmp_path / "out" / part_name(0)).to_pylist()}
    assert rows.keys() == files.keys()
    names = [name for name in files if files[name]]
    for start in range(0, len(names), 20):
        form = [("files", (name, files[name])) for name in names[start : start + 20]]
        for answer in client.post("/predict/batch", files=form).json()["results"]:
            row = rows[answer["filename"]]
            assert (answer["error_type"], answer["error"]) == (row["error_type"], row["error"])
            assert [answer[field] for field in FIELDS] == [row[field] for field in FIELDS]
            if row["error"] is None:
                assert answer["domain"] == {"embedding": row["domain_embedding"], "geometry": row["domain_geometry"]}
                assert answer["provenance"]["ai_markers"] == row["ai_markers"]
                c2pa = answer["provenance"]["c2pa"] or {"status": None, "declares": None}
                assert [c2pa["status"], c2pa["declares"]] == [row["c2pa_status"], row["c2pa_declares"]]
    assert [rows[f"{name}.jpg"]["decided_by"] for name in SIGNERS] == ["credential", "pixels"]
