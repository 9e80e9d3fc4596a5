"""dvc.yaml names the code that each stage runs: all of it, or an edit would go unnoticed, and no more, or it reruns."""

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml

from stages.common import RECIPES

REPO = Path(__file__).resolve().parents[2]
STAGES = {
    name: stage["do"]
    for name, stage in yaml.safe_load((REPO / "dvc.yaml").read_text(encoding="utf-8"))["stages"].items()
}
FIRST_PARTY = ("service", "stages", "tools")
ROOTS = {f"{package}/__init__.py" for package in FIRST_PARTY}  # they are in every stage, and do nothing to a figure


def module_file(name: str) -> str | None:
    """Return the file of a module such as `stages.data.image_sets`, or None where there is no such module here."""
    path = name.replace(".", "/")
    return next((file for file in (f"{path}.py", f"{path}/__init__.py") if (REPO / file).is_file()), None)


def imported(file: str) -> Iterator[str]:
    """Yield the names that a file imports, inside functions too; of `from a import b` both a and a.b.

    A file that reads a package's `__path__` looks for all modules there, as pkgutil does.
    """
    package = file.removesuffix("/__init__.py").removesuffix(".py").split("/")
    package = package if file.endswith("__init__.py") else package[:-1]
    for node in ast.walk(ast.parse((REPO / file).read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            above = package[: len(package) - node.level + 1] if node.level else []
            base = ".".join([*above, *(node.module or "").split(".")]).rstrip(".")
            yield base
            yield from (f"{base}.{alias.name}" for alias in node.names)
        elif isinstance(node, ast.Attribute) and node.attr == "__path__":
            searched = ast.unparse(node.value)
            yield from (f"{searched}.{path.stem}" for path in (REPO / searched.replace(".", "/")).glob("*.py"))


def files_of(name: str) -> Iterator[str]:
    """Yield the first-party files that importing a module runs: its own, and those of the packages it lies in."""
    parts = name.split(".")
    if parts[0] in FIRST_PARTY:
        found = (module_file(".".join(parts[: end + 1])) for end in range(len(parts)))
        yield from (file for file in found if file is not None)


def closure(file: str) -> set[str]:
    """Return all first-party files that a file runs, itself among them, but for those that `is_code` leaves out."""
    seen: set[str] = set()
    waiting = [file]
    while waiting:
        if (this := waiting.pop()) not in seen:
            seen.add(this)
            waiting += [other for name in imported(this) for other in files_of(name)]
    return {file for file in seen if is_code(file)}


def is_code(file: str) -> bool:
    """Tell whether a stage must name a file: a package's own that holds a docstring alone needs no mention."""
    if not file.endswith("__init__.py"):
        return True
    return file not in ROOTS and len(ast.parse((REPO / file).read_text(encoding="utf-8")).body) > 1


def named(deps: list[str]) -> set[str]:
    """Return the code files that a stage's deps name, alone or by their folder."""
    files = {file for dep in deps for file in [REPO / dep, *(REPO / dep).rglob("*.py")] if file.suffix == ".py"}
    names = {file.relative_to(REPO).as_posix() for file in files}
    return {name for name in names if is_code(name)}


def closures(stage: str) -> dict[str, set[str]]:
    """Return what a stage runs, by the recipe: the script imports its own steps, and then runs another recipe's."""
    files = {recipe: f"stages/{recipe}/{stage}.py" for recipe in RECIPES}
    script = closure(f"stages/{stage}.py")
    return {recipe: script | (closure(file) if (REPO / file).is_file() else set()) for recipe, file in files.items()}


@pytest.mark.parametrize("stage", STAGES)
def test_a_stage_names_the_code_it_runs_and_no_other(stage: str) -> None:
    """Beside the folder of the recipe, which is named whole, the names are the same for all recipes.

    So an edit of what another recipe alone runs, outside its folder, runs a stage in vain. An hour's training is too
    long for that: what `network` does not run there, no recipe may.
    """
    assert STAGES[stage]["cmd"] == f"python -m stages.{stage} ${{key}}"
    deps, runs = STAGES[stage]["deps"], closures(stage)
    allowed = runs["network"] if stage == "train" else set().union(*runs.values())
    faults = {f"remove {file}" for file in named(deps) - allowed}
    for recipe, files in runs.items():
        faults |= {f"add {file}" for file in files - named([dep.replace("${item.recipe}", recipe) for dep in deps])}
    assert not faults, f"dvc.yaml, deps of {stage}: " + ", ".join(sorted(faults))


def test_a_stage_depends_on_its_models_recipe_and_on_no_other() -> None:
    for name, stage in STAGES.items():
        of_recipe = [dep for dep in stage["deps"] if dep.startswith(("stages/$", *(f"stages/{r}" for r in RECIPES)))]
        assert of_recipe == ([] if name == "download" else ["stages/${item.recipe}"])
        assert "models.${key}.recipe" in stage["params"]


def test_the_packages_own_files_import_nothing_of_ours() -> None:
    for file in ROOTS:
        assert not [name for name in imported(file) if name.split(".")[0] in FIRST_PARTY]


def test_what_serves_is_named_file_by_file() -> None:
    """A folder of the service also holds what no stage runs, or will."""
    for stage in STAGES.values():
        assert all((REPO / dep).is_file() for dep in stage["deps"] if dep.startswith("service/"))


def test_imports_of_every_form_are_followed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    files = {
        "stages/__init__.py": "",
        "stages/one.py": "def late():\n    from stages import two\n",
        "stages/two.py": "import numpy, service.photo.heic, stages.all\nlist(iter_modules(stages.all.__path__))\n",
        "stages/all/__init__.py": "'''One docstring.'''",
        "stages/all/found.py": "",
        "stages/other.py": "",
        "service/__init__.py": "",
        "service/photo/__init__.py": "from .jpeg import decode\nfrom . import png\n",
        "service/photo/heic.py": "from service.photo.tables import TABLE\nfrom stages.one import late\n",
        "service/photo/jpeg.py": "",
        "service/photo/png.py": "",
        "service/photo/tables.py": "",
    }
    for name, text in files.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(text)
    monkeypatch.setattr("tests.stages.test_deps.REPO", tmp_path)
    assert closure("stages/one.py") == set(files) - ROOTS - {"stages/other.py", "stages/all/__init__.py"}
    deps = ["service/photo", "stages/all", "stages/one.py", "stages/two.py", "build/data"]
    assert named(deps) == closure("stages/one.py")
