"""A fresh clone does not train: the released checkpoint is in git, and dvc.lock says what it was trained from."""

import hashlib
import shutil
from pathlib import Path

from stages.common import whole_file
from stages.paths import ModelPaths


def take_released(paths: ModelPaths) -> bool:
    """If training would give the released checkpoint again, make it the candidate's; return whether it did.

    It is so where DVC finds the command, code, data, params and curves as dvc.lock has them, and the checkpoint that
    dvc.lock names is the released one. A candidate that is that checkpoint already is trained anew: only
    `dvc repro --force` comes here then.
    """
    if not paths.released.checkpoint.exists() or not Path("dvc.lock").exists():
        return False
    try:
        from dvc.exceptions import DvcException
        from dvc.repo import Repo
    except ImportError:  # such as on a rented machine: there training is what is wanted
        return False
    try:
        with Repo() as repo:
            (stage,) = repo.stage.collect(f"train@{paths.name}")
            outs = {Path(out.def_path): out for out in stage.outs}
            checkpoint = outs.pop(paths.candidate.checkpoint)
            others = [*stage.deps, *outs.values()]
            changed = stage.cmd_changed or any(other.workspace_status() for other in others)
            known = None if changed or not checkpoint.workspace_status() else checkpoint.hash_info.value
    except DvcException:  # no repository, no such stage
        return False
    with paths.released.checkpoint.open("rb") as file:
        if hashlib.file_digest(file, "md5").hexdigest() != known:
            return False
    with whole_file(paths.candidate.checkpoint) as temporary:
        shutil.copyfile(paths.released.checkpoint, temporary)
    print(f"train: nothing it depends on has changed since the release: {paths.released.checkpoint} is taken")
    return True
