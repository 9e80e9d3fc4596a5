"""Pictures of figures, whole or not at all."""

from pathlib import Path
from typing import Any

import matplotlib as mpl

from stages.common import whole_file

mpl.use("Agg")  # no screen is needed
from matplotlib import pyplot as plt


def save_figure(path: Path, panel: Any, rows: int = 1, columns: int = 1) -> None:
    """Draw with `panel(axes)` and write the picture as PNG."""
    size = (5, 4) if rows == columns == 1 else (3.5 * columns, 3 * rows)
    figure, axes = plt.subplots(rows, columns, figsize=size, layout="constrained")
    panel(axes)
    with whole_file(path) as temporary:
        figure.savefig(temporary, format="png", dpi=100, metadata={"Software": None})
    plt.close(figure)


def draw_training(path: Path, rows: list[dict[str, float]]) -> None:

    def panel(ax: Any) -> None:
        epochs = [row["epoch"] for row in rows]
        for key in ("train_loss", "validation_loss"):
            ax.plot(epochs, [row[key] for row in rows], label=key.replace("_", " "))
        ax.set(xlabel="epoch", ylabel="loss")
        right = ax.twinx()
        right.plot(epochs, [row["validation_accuracy"] for row in rows], "k:", label="validation accuracy (right)")
        right.legend(handles=[*ax.lines, *right.lines], loc="center right")

    save_figure(path, panel)
