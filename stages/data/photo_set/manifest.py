"""A manifest: a table with one row a photo, which says where the photo lies, what it is, and what may be done with it.

Git holds the manifest and never a photo. A source is the unit of every split, because photos of one shop resemble each
other more than they resemble any other shop's.
"""

import csv
from pathlib import Path
from typing import Annotated, Literal

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, ValidationError

from stages.common import StageError

_SHOWN = 5  # faults, in an error

Sha256 = Annotated[str, Field(pattern="^[0-9a-f]{64}$")]
_or_none = BeforeValidator(lambda cell: None if cell == "" else cell)


class ListedPhoto(BaseModel):
    """One row of a manifest.

    Attributes:
        sha256: hex digest of the file as it lies in its repository.
        prepared_sha256: of the smaller file in the set's archives; None: they hold the file as it is.
        short_side: of that smaller file, in pixels; None likewise.
        label: the third is neither of the others: mock-ups and computer graphics.
        generator: what made an AI-generated photo, as its repository or its credentials say; empty for the others.
        source: the repository, `owner/name`.
        commit: of that repository, 40 hex digits.
        path: of the file in it.
        date: of the commit or the file, as far as it is known, such as 2019 or 2025-09-28.
        licence: of the repository, as far as it states one.
        use: `train`; or `judge`: no licence, or one that forbids to train on it; it may only be measured.
        bytes: size of the file.
    """

    model_config = ConfigDict(extra="ignore", frozen=True)

    sha256: Sha256
    prepared_sha256: Annotated[Sha256 | None, _or_none]
    short_side: Annotated[Annotated[int, Field(ge=224)] | None, _or_none]
    label: Literal["real", "ai_generated", "render"]
    generator: str
    source: Annotated[str, Field(pattern=r"^\w[\w-]*/[\w.-]*[\w-][\w.-]*$")]
    commit: Annotated[str, Field(pattern="^[0-9a-f]{40}$")]
    path: Annotated[str, Field(min_length=1)]
    date: str
    licence: str
    use: Literal["train", "judge"]
    bytes: Annotated[int, Field(gt=0)]


def read_manifest(path: Path) -> list[ListedPhoto]:
    """Read a manifest; columns that it has beside `ListedPhoto`'s are passed over.

    Returns:
        Its photos, sorted by sha256.

    Raises:
        StageError: the file or a column is missing, a cell is out of range, or a photo stands there twice.
    """
    try:
        with path.open(newline="", encoding="utf-8") as file:
            table = csv.DictReader(file)
            missing = [name for name in ListedPhoto.model_fields if name not in (table.fieldnames or ())]
            if missing:
                raise StageError(f"{path} has no column {', '.join(missing)}")
            rows = list(table)
    except FileNotFoundError as error:
        raise StageError(f"{path} not found: download.manifest in params.yaml must name a manifest") from error
    except (UnicodeDecodeError, csv.Error) as error:
        raise StageError(f"{path} is no CSV in UTF-8 ({error})") from error
    photos: dict[str, ListedPhoto] = {}
    faults: list[str] = []
    for line, row in enumerate(rows, 2):
        try:
            photo = ListedPhoto.model_validate(row)
        except ValidationError as error:
            faults += [f"row {line}, {e['loc'][0]} = {e['input']!r}: {e['msg']}" for e in error.errors()]
            continue
        if (photo.prepared_sha256 is None) != (photo.short_side is None):
            faults.append(f"row {line}: prepared_sha256 and short_side belong together")
        if (other := photos.setdefault(photo.sha256, photo)) is not photo:
            same = "stands there twice" if other.label == photo.label else f"is both {other.label} and {photo.label}"
            faults.append(f"row {line}: the photo {photo.sha256[:12]}... ({photo.source}, {photo.path}) {same}")
    if not rows:
        faults.append("it has no rows")
    if faults:
        more = f"; and {len(faults) - _SHOWN} more" if len(faults) > _SHOWN else ""
        raise StageError(f"{path}: {'; '.join(faults[:_SHOWN])}{more}")
    return [photos[digest] for digest in sorted(photos)]
