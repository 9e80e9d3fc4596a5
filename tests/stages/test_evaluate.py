"""Stage evaluate."""

import json
import shutil
from typing import Any

import pytest

from tests.stages.conftest import Workspace


@pytest.mark.slow
def test_the_same_params_and_seed_give_the_same_metrics(prepared, trained, workspace) -> None:
    """A second run of everything that can vary, compared to three digits."""
    shutil.copytree(prepared.path, workspace.path, dirs_exist_ok=True)
    again = Workspace(workspace.path / "again")
    shutil.copytree(trained.path, again.path)
    for space, stages in ((workspace, ("train", "export", "evaluate")), (again, ("evaluate",))):
        for stage in stages:
            assert (result := space.run(stage)).returncode == 0, result.stderr
    for report in ("metrics", "assessment"):
        one, other = (
            json.loads((space.path / "reports/cifake" / f"{report}.json").read_text()) for space in (workspace, again)
        )
        assert leaves(one) == pytest.approx(leaves(other), abs=5e-4)


def leaves(value: Any) -> list[float]:
    """Return the numbers of a nested mapping, in order."""
    if isinstance(value, dict):
        return [number for _, part in sorted(value.items()) for number in leaves(part)]
    return [] if isinstance(value, str) else [float(value)]
