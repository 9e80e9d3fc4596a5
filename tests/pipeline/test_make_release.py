"""`make release` does every step of a release, whole, on the synthetic set, in a repository of its own."""

import re
import subprocess
import sys
from pathlib import Path

import pytest

from stages.common import StageError
from tests.support.clone import Clone, make_clone
from tools.make_release import check_released, check_version

FIRST, SECOND = "101.0.0", "101.1.0"


def make_release(clone: Clone) -> "subprocess.CompletedProcess[str]":
    """Run `make release` in this environment, which is made already."""
    environment = Path(sys.executable).parents[1]
    return clone.tried("make", f"--old-file={environment}/.dev", f"VENV={environment}", "release")


def released(clone: Clone) -> str:
    """Return what it prints, where it succeeds."""
    result = make_release(clone)
    assert result.returncode == 0, result.stdout[-3000:] + result.stderr[-3000:]
    return result.stdout


def refused(clone: Clone) -> tuple[str, str]:
    """Return the error's own lines, and all that it prints, where it stops."""
    result = make_release(clone)
    assert result.returncode != 0
    assert "Traceback" not in result.stderr
    return result.stderr.rpartition("error: ")[2].partition("\nmake: ")[0], result.stdout + result.stderr


@pytest.fixture(scope="module")
def clone(tmp_path_factory: pytest.TempPathFactory) -> Clone:
    """A repository in which nothing was released yet."""
    made = make_clone(tmp_path_factory.mktemp("release") / "clone")
    made.params(export={"version": FIRST})
    made.commit()
    return made


@pytest.mark.pipeline
@pytest.mark.slow
def test_make_release_does_every_step_and_stops_where_it_must(clone: Clone, tmp_path: Path) -> None:
    clone.params(release={"max_ece": 0.0})
    error, _ = refused(clone)
    assert error.startswith("not committed: params.yaml. Commit or remove them")
    assert not (clone.path / "build").exists()

    # A candidate that the gates refuse before anything was released: dvc itself stops there.
    # (Of all gates a calibration without any error is the one that no model passes, however easy its photos are.)
    clone.commit()
    error, said = refused(clone)
    assert error.startswith("dvc repro failed, and nothing is released")
    assert "cifake has no release yet, and the candidate is not released: ece" in said
    assert clone.ledger() == []

    # The first release; what the run before wrote is no hindrance, committed or not.
    clone.params(release={"max_ece": 1.0})
    clone.commit("params.yaml")
    said = released(clone)
    assert f"cifake {FIRST} is released." in said
    assert "git add -A && git commit" in said
    card = clone.json("models/cifake/card.json")
    assert card["release"]["git_commit"] == clone.run("git", "rev-parse", "HEAD").strip()
    assert len(clone.ledger()) == 1
    for page in ("docs/ACCURACY.md", "docs/MODEL_CARD.md"):
        text = (clone.path / page).read_text(encoding="utf-8")
        assert FIRST in text
        assert f"{card['release']['metrics']['test']['accuracy']:.4f}" in text

    pages = [(clone.path / page).read_text(encoding="utf-8") for page in ("docs/API.md", "README.md")]
    tried, shown = (re.findall(r"```json\n.*?```", page, re.DOTALL)[0] for page in pages)
    assert tried == shown
    assert f'"model_version": "{FIRST}"' in pages[0]

    # Run again before that is committed, it has nothing left to do, and says the same.
    said = released(clone)
    assert f"cifake {FIRST} is released." in said
    assert "Running stage" not in said
    assert clone.json("models/cifake/card.json") == card

    # Once it is committed the version is taken.
    clone.commit()
    error, said = refused(clone)
    said_of = f"models.cifake.export.version in params.yaml is {FIRST}, and models/cifake/card.json"
    assert error.strip() == f"{said_of} has released {FIRST}: raise it, and commit that"
    assert "Running stage" not in said
    assert clone.run("git", "status", "--porcelain") == ""

    # Another candidate that a gate refuses: the reasons, no reading of test, and models/ as it was.
    clone.params(export={"version": SECOND, "flip_average": False}, release={"max_ece": 0.0})
    clone.commit()
    for _ in range(2):  # also the second time, when no stage runs any more
        error, _ = refused(clone)
        assert error.startswith(f"cifake {SECOND} is not released (refused), and models/cifake is as it was:")
        assert re.search(r"\n  ece \S+ > 0 \(release.max_ece\)$", error)
        assert len(clone.ledger()) == 1
        assert clone.json("models/cifake/card.json") == card

    # The second release, in a fresh clone without `build/`.
    clone.params(release={"max_ece": 1.0})
    clone.commit()
    clone.run("git", "clone", "--quiet", str(clone.path), str(tmp_path / "fresh"))
    fresh = Clone(tmp_path / "fresh")
    said = released(fresh)
    assert f"cifake {SECOND} is released." in said
    assert "models/cifake/checkpoint.safetensors is taken" in said
    assert len(fresh.ledger()) == 2
    assert SECOND in (fresh.path / "docs/ACCURACY.md").read_text(encoding="utf-8")


@pytest.mark.parametrize("version", ["1.3.0", "1.2.9", "0.10.0", "1.2.9-mine"])
def test_a_version_is_released_once(version: str) -> None:
    with pytest.raises(StageError, match=f"export.version in params.yaml is {version}, .* released 1.3.0: raise it"):
        check_version("cifake", version, "1.3.0")


@pytest.mark.parametrize("version", ["1.3.1", "1.10.0", "2.0.0", "1.4.0-mine", "1.3.0-mine"])
def test_a_raised_version_may_be_released(version: str) -> None:
    check_version("cifake", version, "1.3.0")
    check_version("cifake", version, None)


def test_only_a_release_of_this_version_goes_on() -> None:
    check_released("cifake", {"decision": "released", "reasons": [], "version": "1.4.0"}, "1.4.0")
    with pytest.raises(StageError, match=r"of version 1\.3\.0, not 1\.4\.0: 'dvc repro --force release@cifake'"):
        check_released("cifake", {"decision": "released", "reasons": [], "version": "1.3.0"}, "1.4.0")
    for decision in ("refused", "disabled", "skipped"):
        with pytest.raises(StageError, match=rf"not released \({decision}\), .*\n  one\n  two"):
            check_released("cifake", {"decision": decision, "reasons": ["one", "two"]}, "1.4.0")
