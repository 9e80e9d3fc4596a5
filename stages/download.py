"""Stage download: bring CIFAKE (Bird & Lotfi 2023, arXiv 2303.14126), the same file whichever way."""

import io
import os
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import numpy.typing as npt
from PIL import Image, UnidentifiedImageError
from tqdm import tqdm

from stages.common import StageError, load_params, run_stage, sha256_file, whole_file
from stages.data.image_sets import ImageSet, row_digests, save_images
from stages.data.raw import IMAGES, NAMES, DownloadParams
from stages.data.sources import Row, from_archive, from_huggingface, from_kaggle
from stages.data.synthetic import synthetic_images
from stages.paths import ModelPaths


def collect(rows: Iterator[Row]) -> tuple[ImageSet, list[str]]:
    """Decode rows and sort them by their pixels' sha256: equal content gives equal arrays, whatever the source.

    Returns:
        uint8 [N, H, W, 3] images with labels and the `test` flag, and the rows' names.

    Raises:
        StageError: no image in the layout, an unreadable one, or images of different sizes.
    """
    pixels, labels, test, names = [], [], [], []
    for data, label, is_test, name in tqdm(rows, desc="decoding", unit=" images", mininterval=2):
        try:
            pixels.append(np.asarray(Image.open(io.BytesIO(data)).convert("RGB")))
        except (UnidentifiedImageError, OSError) as error:
            raise StageError(f"{name} is no readable image ({error}): fetch the data set again") from error
        labels.append(label)
        test.append(is_test)
        names.append(name)
    if not pixels:
        raise StageError("holds no train/REAL, train/FAKE, test/REAL, test/FAKE images (Kaggle's layout)")
    if len({p.shape for p in pixels}) > 1:
        raise StageError("holds images of different sizes, so it is not CIFAKE (all 32x32)")
    data_set = ImageSet(np.stack(pixels), np.array(labels, np.uint8), {"test": np.array(test, np.uint8)})
    order = content_order(data_set)
    return data_set.take(order), [names[row] for row in order]


def content_order(data: ImageSet) -> npt.NDArray[np.int64]:
    """Return the row order int64 [N] by the pixels' sha256, which is also a random one."""
    return np.lexsort((data.labels, data.flags["test"], row_digests(data.images)))


def download(params: DownloadParams, folder: Path, archive: str | None) -> None:
    """Write the raw data set into `folder` from the first way that brings the data set whose digest is in params.

    Raises:
        StageError: no way worked; the message says what each one answered.
    """
    ways: dict[str, Callable[[], Iterator[Row]]] = {
        f"the Hugging Face dataset {params.huggingface}": lambda: from_huggingface(params.huggingface),
        f"the Kaggle dataset {params.kaggle}": lambda: from_kaggle(params.kaggle),
    }
    if archive:  # who names an archive means that one: no silent fall-back to the network
        ways = {f"CIFAKE_ARCHIVE={archive}": lambda: from_archive(Path(archive).expanduser())}
    failures = []
    for way, rows in ways.items():
        print(f"download: {way}")
        try:
            data, names = collect(rows())
        except Exception as error:  # the clients raise anything from HTTP to SSL errors: report, try the next way
            failures.append(f"{way}: {' '.join(str(error).split())[:300]}")
            continue
        try:
            _save_verified(folder / IMAGES, data, params.sha256)
        except StageError as error:
            failures.append(f"{way}: {error}")
            continue
        with whole_file(folder / NAMES) as temporary:
            temporary.write_text("\n".join(["name", *names]) + "\n", encoding="utf-8")
        return
    hint = "" if archive else (
        "; or set CIFAKE_ARCHIVE to a zip, tar or folder that you have (layout train/REAL/*.jpg, ...);"
        " without any data, 'dvc exp run -S models.cifake.download.dataset=synthetic' shows the pipeline at work"
    )  # fmt: skip
    raise StageError("CIFAKE did not arrive. " + "; ".join(failures) + hint)


def _save_verified(path: Path, data: ImageSet, expected: str) -> None:
    with whole_file(path) as temporary:  # the digest is checked before the file gets its name
        save_images(temporary, data)
        if (found := sha256_file(temporary)) != expected:
            raise StageError(
                f"brought {len(data)} images with digest {found}, but download.sha256 in params.yaml"
                f" is {expected}: the copy is incomplete or another data set"
            )


def main(paths: ModelPaths) -> None:
    """Bring the data set that params.yaml names."""
    params = load_params("download", DownloadParams, paths.name)
    if params.dataset == "synthetic":
        data = synthetic_images(params.synthetic_images, params.synthetic_size, params.synthetic_seed)
        (paths.raw / NAMES).unlink(missing_ok=True)  # another data set's
        save_images(paths.raw / IMAGES, data.take(content_order(data)))
    else:
        download(params, paths.raw, os.environ.get("CIFAKE_ARCHIVE"))


if __name__ == "__main__":
    run_stage(main)
