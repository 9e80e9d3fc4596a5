"""From a manifest to one verified file of photos, whichever way they come."""

import hashlib
import io
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
from PIL import Image
from tqdm import tqdm

from service.photo import ImageError, decode
from stages.common import LABELS, StageError, sha256_file, whole_file
from stages.data.photo_set.manifest import ListedPhoto, read_manifest
from stages.data.photo_set.ways import Brought, from_archives, from_host, from_mirrors
from stages.data.raw import DownloadParams

SCHEMA = pa.schema([
    (name, pa.string()) for name in ("sha256", "label", "generator", "source", "path", "date", "licence", "use")
] + [("photo", pa.binary())])  # fmt: skip
_ROWS = 64  # photos read or written at a time: some 3 MB
_QUALITY = 75  # of the JPEG that a photo becomes which the set's archives hold in a smaller size


def download(params: DownloadParams, ways: Mapping[str, str], files: Path, out: Path) -> None:
    """Bring the photos of a manifest, and write them into one file, sorted by sha256.

    What came lies in a folder as it came, verified, so that the next run goes on from there.

    Args:
        params: manifest, host and the share that may be missing.
        ways: the environment: PHOTOS_ARCHIVE or PHOTOS_MIRRORS; without either the host is asked.
        files: the folder, a file a photo, named by its sha256.
        out: the Parquet file, with the columns of `SCHEMA`; `photo` is the file's bytes.

    Raises:
        StageError: the manifest is faulty or another than params.yaml names, a way is closed, or more is missing than `max_missing_share`.
    """
    photos = read_manifest(Path(params.manifest))
    if params.sha256 and (found := sha256_file(params.manifest)) != params.sha256:
        raise StageError(
            f"{params.manifest} has sha256 {found}, and download.sha256 in params.yaml is {params.sha256[:12]}...: where"
            " the manifest was changed on purpose, set download.sha256 to its digest"
        )
    files.mkdir(parents=True, exist_ok=True)
    wanted = [photo for photo in tqdm(photos, "verifying", unit=" photos", delay=2) if not _is_here(photo, files)]
    missing: dict[str, str] = {}
    here, coming = len(photos) - len(wanted), _bring(params, ways, wanted)
    for photo, came in tqdm(coming, "photos", len(photos), initial=here, unit=" photos", mininterval=1):
        if isinstance(came, bytes) and hashlib.sha256(came).hexdigest() not in (photo.sha256, photo.prepared_sha256):
            came = "another file than the manifest's (sha256)"
        if isinstance(came, str):
            missing[photo.sha256] = came
            continue
        with whole_file(files / photo.sha256) as temporary:
            temporary.write_bytes(came)
    _refuse_holes(photos, missing, params.max_missing_share)
    _write([photo for photo in photos if photo.sha256 not in missing], files, out)


def _bring(params: DownloadParams, ways: Mapping[str, str], photos: Sequence[ListedPhoto]) -> Iterator[Brought]:
    """Take the way that is named, and no other: who has an archive means that one."""
    if not photos:
        return iter(())
    if archive := ways.get("PHOTOS_ARCHIVE"):
        return from_archives(Path(archive).expanduser(), photos)
    if mirrors := ways.get("PHOTOS_MIRRORS"):
        return from_mirrors(Path(mirrors).expanduser(), photos)
    return from_host(params.url, photos, params.at_once)


def _is_here(photo: ListedPhoto, files: Path) -> bool:
    try:
        return sha256_file(files / photo.sha256) in (photo.sha256, photo.prepared_sha256)
    except FileNotFoundError:
        return False


def _refuse_holes(photos: Sequence[ListedPhoto], missing: Mapping[str, str], most: float) -> None:
    there = [photo for photo in photos if photo.sha256 not in missing]
    reasons = "; ".join(f"{count} {reason}" for reason, count in Counter(missing.values()).most_common(4))
    sources = {photo.source for photo in photos}
    gone = sources - {photo.source for photo in there}
    share = max(len(missing) / len(photos), len(gone) / len(sources))
    if share > most:
        raise StageError(
            f"{len(missing)} of {len(photos)} photos and {len(gone)} of {len(sources)} whole sources are missing, and"
            f" download.max_missing_share in params.yaml is {most:g}. {reasons}. What came is kept: run it again, or"
            " raise max_missing_share to go on without the rest"
        )
    for label in LABELS:
        if not any(photo.label == label for photo in there):
            raise StageError(f"no photo with the label {label}: both are needed to learn what tells them apart")
    if missing:
        print(f"download: {len(missing)} of {len(photos)} photos are missing: {reasons}")


def _write(photos: Sequence[ListedPhoto], files: Path, out: Path) -> None:
    with whole_file(out) as temporary, pq.ParquetWriter(temporary, SCHEMA, compression="none") as table:
        for start in tqdm(range(0, len(photos), _ROWS), "writing", unit=f" x {_ROWS} photos", mininterval=1):
            rows = photos[start : start + _ROWS]
            columns = {name: [getattr(photo, name) for photo in rows] for name in SCHEMA.names[:-1]}
            columns["photo"] = [_prepared(photo, (files / photo.sha256).read_bytes()) for photo in rows]
            table.write_table(pa.table(columns, SCHEMA))


def _prepared(photo: ListedPhoto, data: bytes) -> bytes:
    """Make the smaller file out of a photo as it lies in its repository, where the set has a smaller one.

    For most photos its bytes are those in the archives. The others went through one more size there, and differ by a
    few levels a pixel.
    """
    if photo.short_side is None or hashlib.sha256(data).hexdigest() == photo.prepared_sha256:
        return data
    try:
        image = decode(data, max_pixels=200_000_000, min_side=1).image
    except ImageError as error:
        where = f"{photo.source}, {photo.path}"
        raise StageError(f"{where} cannot be read ({error}): take its row out of the manifest") from error
    scale = photo.short_side / min(image.size)
    if scale < 1:
        size = round(image.width * scale), round(image.height * scale)
        image = image.resize(size, Image.Resampling.LANCZOS)
    buffer = io.BytesIO()
    image.save(buffer, "JPEG", quality=_QUALITY)
    return buffer.getvalue()

