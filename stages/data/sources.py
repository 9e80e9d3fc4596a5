"""The three ways to CIFAKE: an archive that you have, the Hugging Face hub, Kaggle."""

import re
import tarfile
import zipfile
import zlib
from collections.abc import Iterator
from lzma import LZMAError
from pathlib import Path

from stages.common import StageError

LAYOUT = re.compile(r"(?:^|/)(train|test)/(REAL|FAKE)/[^/]+\.(?:jpe?g|png)$", re.IGNORECASE)

# What `members` raises where an archive is truncated or damaged, or none at all.
BROKEN_ARCHIVE = (tarfile.TarError, zipfile.BadZipFile, EOFError, LZMAError, zlib.error)

Row = tuple[bytes, int, int, str]  # encoded image, label (1 = AI-generated), test (0 or 1), name


def from_archive(path: Path) -> Iterator[Row]:
    """Yield the rows of a folder, zip or tar.* in Kaggle's layout `train/REAL/*.jpg`, `test/FAKE/*.jpg`, ...

    Raises:
        StageError: the archive is missing, truncated or of another format.
    """
    try:
        for name, data in members(path):
            if (match := LAYOUT.search(name)) is not None:
                split, label = match[1].lower(), match[2].upper()
                yield data, int(label == "FAKE"), int(split == "test"), name
    except FileNotFoundError as error:
        raise StageError(f"{path} does not exist: CIFAKE_ARCHIVE must name a zip, tar or folder") from error
    except BROKEN_ARCHIVE as error:
        raise StageError(f"{path} is truncated or no zip or tar archive ({error}): fetch it again") from error


def members(path: Path) -> Iterator[tuple[str, bytes]]:
    """Yield (name, content) of every file of a folder, zip or tar.*."""
    if path.is_dir():
        for file in sorted(path.rglob("*")):
            if file.is_file():
                yield file.relative_to(path).as_posix(), file.read_bytes()
    elif zipfile.is_zipfile(path):
        with zipfile.ZipFile(path) as archive:
            for name in archive.namelist():
                yield name, archive.read(name)
    else:
        with tarfile.open(path) as tar:
            for member in tar:
                if (content := tar.extractfile(member)) is not None:
                    yield member.name, content.read()


def from_huggingface(dataset: str) -> Iterator[Row]:
    """Yield the rows of the hub's parquet files (columns image, label {0: FAKE, 1: REAL}); the hub's client resumes."""
    import pyarrow.parquet as pq
    from huggingface_hub import snapshot_download

    folder = Path(snapshot_download(dataset, repo_type="dataset", allow_patterns="*.parquet", local_dir="build/hub"))
    for file in sorted(folder.rglob("*.parquet")):
        test = int("test" in file.name)
        for batch in pq.ParquetFile(file).iter_batches(1024, columns=["image", "label"]):
            for row in batch.to_pylist():
                yield row["image"]["bytes"], 1 - row["label"], test, row["image"].get("path") or ""


def from_kaggle(dataset: str) -> Iterator[Row]:
    """Yield the rows of Kaggle's copy; Kaggle's own client finds credentials, shows progress and resumes."""
    import kagglehub

    return from_archive(Path(kagglehub.dataset_download(dataset)))
