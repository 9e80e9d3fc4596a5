"""CIFAKE (Bird & Lotfi 2023, arXiv 2303.14126) from wherever it can be had: the same file whichever way."""

import io
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
from PIL import Image, UnidentifiedImageError
from tqdm import tqdm

from stages.common import StageError, sha256_file, whole_file
from stages.data.image_sets import ImageSet, Spool, content_order, save_images
from stages.data.raw import DownloadParams
from stages.data.sources import Row, from_archive, from_huggingface, from_kaggle


def collect(rows: Iterator[Row], folder: Path | None = None) -> tuple[ImageSet, list[str]]:
    """Decode rows and sort them by their pixels' sha256: equal content gives equal sets, whatever the source.

    Args:
        rows: of one of the sources.
        folder: where an unnamed file may grow as large as the set; default: where the system has such files.

    Returns:
        uint8 [N, H, W, 3] images with labels and the `test` flag, and the rows' names.

    Raises:
        StageError: no image in the layout, an unreadable one, or images of different sizes.
    """
    spool, labels, test, names = Spool(folder), [], [], []
    for data, label, is_test, name in tqdm(rows, desc="decoding", unit=" images", mininterval=2):
        try:
            spool.add(np.asarray(Image.open(io.BytesIO(data)).convert("RGB")))
        except (UnidentifiedImageError, OSError) as error:
            raise StageError(f"{name} is not a readable image ({error}): fetch the data set again") from error
        except ValueError as error:
            raise StageError("holds images of different sizes, so it is not CIFAKE (all 32x32)") from error
        labels.append(label)
        test.append(is_test)
        names.append(name)
    if not names:
        raise StageError("holds no train/REAL, train/FAKE, test/REAL, test/FAKE images (Kaggle's layout)")
    columns = np.array(labels, np.uint8), np.array(test, np.uint8)
    order = content_order(spool.digests, *columns)
    return ImageSet(spool.images(), columns[0], {"test": columns[1]}).take(order), [names[row] for row in order]


def download(params: DownloadParams, archive: str | None, raw: Path, names_file: Path) -> None:
    """Write the data set whose digest is in params, from the first way that brings it.

    Args:
        params: which data set, and where it can be had.
        archive: a zip, tar or folder to take it from, and from nowhere else; None: from the network.
        raw: the image set to write.
        names_file: the rows' names, to write too; only a release's slices ask for them.

    Raises:
        StageError: no way worked; the message says what each one answered.
    """
    ways: dict[str, Callable[[], Iterator[Row]]] = {
        f"the Hugging Face dataset {params.huggingface}": lambda: from_huggingface(params.huggingface),
        f"the Kaggle dataset {params.kaggle}": lambda: from_kaggle(params.kaggle),
    }
    if archive:  # who names an archive means that one: no silent fall-back to the network
        ways = {f"CIFAKE_ARCHIVE={archive}": lambda: from_archive(Path(archive).expanduser())}
    raw.parent.mkdir(parents=True, exist_ok=True)
    failures = []
    for way, rows in ways.items():
        print(f"download: {way}")
        try:
            data, names = collect(rows(), raw.parent)
        except Exception as error:  # the clients raise anything from HTTP to SSL errors: report, try the next way
            failures.append(f"{way}: {' '.join(str(error).split())[:300]}")
            continue
        try:
            _save_verified(data, params.sha256, raw)
        except StageError as error:
            failures.append(f"{way}: {error}")
            continue
        with whole_file(names_file) as temporary:
            temporary.write_text("\n".join(["name", *names]) + "\n", encoding="utf-8")
        return
    hint = "" if archive else (
        "; or set CIFAKE_ARCHIVE to a zip, tar or folder that you have (layout train/REAL/*.jpg, ...);"
        " without any data, 'dvc exp run -S models.cifake.download.dataset=synthetic' shows the pipeline at work"
    )  # fmt: skip
    raise StageError("CIFAKE did not arrive. " + "; ".join(failures) + hint)


def _save_verified(data: ImageSet, expected: str, raw: Path) -> None:
    with whole_file(raw) as temporary:  # the digest is checked before the file gets its name
        save_images(temporary, data)
        if (found := sha256_file(temporary)) != expected:
            raise StageError(
                f"brought {len(data)} images with digest {found}, but download.sha256 in params.yaml"
                f" is {expected}: the copy is incomplete or another data set"
            )
