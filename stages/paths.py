"""Where each file of one model lies, under the working directory.

A stage is run as `python -m stages.train cifake`, and `ModelPaths("cifake")` names all its files.
"""

from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class ModelFolder:
    """A folder that holds one model: a candidate, or a release.

    Attributes:
        path: the folder.
    """

    path: Path

    @property
    def card(self) -> Path:
        """What is known of the model: `service.models.card.Card` as JSON."""
        return self.path / "card.json"

    @property
    def model(self) -> Path:
        """The ONNX file that serves."""
        return self.path / "model.onnx"

    @property
    def checkpoint(self) -> Path:
        """The trained weights."""
        return self.path / "checkpoint.safetensors"

    @property
    def reference(self) -> Path:
        """What traffic is compared with, for drift."""
        return self.path / "reference.npz"

    @property
    def plots(self) -> Path:
        """Pictures of the figures, PNG."""
        return self.path / "plots"

    @property
    def ledger(self) -> Path:
        """One line of JSON for each reading of the test set."""
        return self.path / "ledger.jsonl"


@dataclass(frozen=True)
class ModelPaths:
    """All files of one model.

    Attributes:
        name: the model's, a key of `models` in params.yaml.
    """

    name: str

    @property
    def build(self) -> Path:
        """Everything derived that git does not keep."""
        return Path("build") / self.name

    @property
    def raw(self) -> Path:
        """The data set as the stage download leaves it."""
        return self.build / "raw"

    @property
    def names(self) -> Path:
        """The photos' file names, where the source has any: not in `raw`, which is the same whatever the source."""
        return self.build / "names.csv"

    @property
    def files(self) -> Path:
        """The files of a manifest as they came, so that a stopped download goes on from there."""
        return self.build / "files"

    @property
    def dataset(self) -> Path:
        """The data set as the stage preprocess leaves it: all splits but test."""
        return self.build / "dataset"

    @property
    def test(self) -> Path:
        """The split test, which the stage release alone reads."""
        return self.build / "test"

    @property
    def training_state(self) -> Path:
        """What a killed training needs to go on; removed at its end."""
        return self.build / "train_state.pt"

    @property
    def candidate(self) -> ModelFolder:
        """The model that the stages train, export and evaluate make."""
        return ModelFolder(self.build / "candidate")

    @property
    def next_release(self) -> ModelFolder:
        """The release while it is put together; renamed to `released` when it is whole."""
        return ModelFolder(self.build / "release")

    @property
    def last_release(self) -> ModelFolder:
        """The release before, for the moment in which the next one takes its place."""
        return ModelFolder(self.build / "last_release")

    @property
    def released(self) -> ModelFolder:
        """The released model, in git."""
        return ModelFolder(Path("models") / self.name)

    @property
    def reports(self) -> Path:
        """What the stages measured, in git."""
        return Path("reports") / self.name

    @property
    def dataset_report(self) -> Path:
        """Counts of photos by split and label."""
        return self.reports / "dataset.json"

    @property
    def curves(self) -> Path:
        """Losses and accuracies by epoch."""
        return self.reports / "training.csv"

    @property
    def metrics(self) -> Path:
        """What `dvc exp show` and `dvc metrics diff` compare."""
        return self.reports / "metrics.json"

    @property
    def predictions(self) -> Path:
        """The label and the answer for each photo of validation, for `dvc plots show`."""
        return self.reports / "predictions.csv"

    @property
    def assessment(self) -> Path:
        """The rest of what evaluate measures: too much for a table."""
        return self.reports / "assessment.json"

    @property
    def release_report(self) -> Path:
        """What the stage release decided, and why."""
        return self.reports / "release.json"
