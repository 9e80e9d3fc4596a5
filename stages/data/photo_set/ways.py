"""Three ways to the photos of a manifest: archives that you have, git mirrors that you have, the code host.

Each yields every photo that it is asked for: with its bytes, or with the reason why there are none.
"""

import subprocess
import tarfile
import zipfile
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from itertools import islice
from pathlib import Path
from urllib.parse import quote

import httpx
from tenacity import Retrying, retry_if_exception_type, stop_after_attempt, wait_exponential_jitter

from stages.common import StageError
from stages.data.photo_set.manifest import ListedPhoto
from stages.data.sources import BROKEN_ARCHIVE, members

Brought = tuple[ListedPhoto, bytes | str]  # a file's content, or why it did not come
_Fetched = bytes | str | httpx.TransportError

_HOPELESS = 20  # answers in a row that did not come: the host is out of reach
_LARGEST = 100_000_000  # bytes; larger than any photo


def from_archives(path: Path, photos: Sequence[ListedPhoto]) -> Iterator[Brought]:
    """Take photos out of an archive, or a folder of archives and photos; each file is named by the photo's sha256.

    Raises:
        StageError: there is no such file, or an archive is truncated.
    """
    left = {photo.sha256: photo for photo in photos}
    if not path.exists():
        raise StageError(f"{path} does not exist: PHOTOS_ARCHIVE must name an archive, or a folder of archives")
    for file in sorted(entry for entry in path.rglob("*") if entry.is_file()) if path.is_dir() else [path]:
        if file.stem in left:  # a photo by itself
            yield left.pop(file.stem), file.read_bytes()
            continue
        if path.is_dir() and not (tarfile.is_tarfile(file) or zipfile.is_zipfile(file)):  # such as a README
            continue
        try:
            for name, data in members(file):
                if (photo := left.pop(Path(name).stem, None)) is not None:
                    yield photo, data
        except BROKEN_ARCHIVE as error:
            raise StageError(f"{file} is truncated or no zip or tar archive ({error}): fetch it again") from error
    for photo in left.values():
        yield photo, "not in the archive"


def from_mirrors(folder: Path, photos: Sequence[ListedPhoto]) -> Iterator[Brought]:
    """Take photos out of git repositories in a folder, bare or not: `<owner>/<name>`, `<owner>/<name>.git` or
    `<owner>+<name>`.

    Raises:
        StageError: there is no such folder.
    """
    if not folder.is_dir():
        raise StageError(f"{folder} is not a folder: PHOTOS_MIRRORS must name a folder of git repositories")
    for photo in photos:
        names = (photo.source, photo.source.replace("/", "+"))
        there = (folder / f"{name}{suffix}" for name in names for suffix in ("", ".git"))
        repository = next((path for path in there if path.is_dir()), None)
        yield photo, "no mirror of its repository" if repository is None else _blob(repository, photo)


def _blob(repository: Path, photo: ListedPhoto) -> bytes | str:
    command = ["git", "-C", str(repository), "cat-file", "blob", f"{photo.commit}:{photo.path}"]
    found = subprocess.run(command, capture_output=True, check=False)
    if found.returncode == 0:
        return found.stdout
    said = found.stderr.decode(errors="replace").strip().splitlines()
    return "not in its mirror" if not said or photo.commit in said[0] or photo.path in said[0] else f"git: {said[0]}"


def from_host(url: str, photos: Sequence[ListedPhoto], at_once: int) -> Iterator[Brought]:
    """Fetch photos over HTTPS, each at its pinned commit; a passing fault is tried again.

    Args:
        url: with {source}, {commit} and {path} in it.
        photos: those wanted.
        at_once: how many at a time.

    Raises:
        StageError: the host does not answer at all.
    """
    failed = 0
    with httpx.Client(timeout=60, follow_redirects=True, limits=httpx.Limits(max_connections=at_once)) as client:
        for photo, came in _as_they_come(lambda photo: _fetched(client, url, photo), photos, at_once):
            if not isinstance(came, httpx.TransportError):
                failed = 0
                yield photo, came
                continue
            failed += 1
            if failed == min(_HOPELESS, len(photos)):
                raise StageError(
                    f"{httpx.URL(url.partition('{')[0]).host} does not answer ({came or type(came).__name__}): try again"
                    " later, or set PHOTOS_ARCHIVE to a folder of archives that you have, or PHOTOS_MIRRORS to one of"
                    " git mirrors"
                ) from came
            yield photo, "the host does not answer"


def _as_they_come(
    fetch: Callable[[ListedPhoto], _Fetched], photos: Sequence[ListedPhoto], at_once: int
) -> Iterator[tuple[ListedPhoto, _Fetched]]:
    """Fetch photos in threads. Only a few are asked for ahead: what has come waits in memory until it is taken."""
    left = iter(photos)
    asked: dict[Future[_Fetched], ListedPhoto] = {}
    pool = ThreadPoolExecutor(at_once)
    try:
        while True:
            asked |= {pool.submit(fetch, photo): photo for photo in islice(left, 2 * at_once - len(asked))}
            if not asked:
                return
            for future in wait(asked, return_when=FIRST_COMPLETED).done:
                yield asked.pop(future), future.result()
    finally:
        pool.shutdown(cancel_futures=True)


class _Passing(Exception):
    """An answer that may be another one soon."""


def _fetched(client: httpx.Client, url: str, photo: ListedPhoto) -> _Fetched:
    address = url.format(source=photo.source, commit=photo.commit, path=quote(photo.path))
    patient = Retrying(
        retry=retry_if_exception_type((_Passing, httpx.TransportError)),
        stop=stop_after_attempt(4),
        wait=wait_exponential_jitter(multiplier=0.5, max=10),
        reraise=True,
    )
    try:
        return patient(_asked, client, address)
    except _Passing as error:
        return str(error)
    except httpx.TransportError as error:
        return error


def _asked(client: httpx.Client, address: str) -> bytes | str:
    with client.stream("GET", address) as answer:
        if answer.status_code == 429 or answer.status_code >= 500:
            raise _Passing(f"HTTP {answer.status_code}")
        if answer.status_code != 200:
            return "gone (HTTP 404)" if answer.status_code == 404 else f"HTTP {answer.status_code}"
        content = bytearray()
        for piece in answer.iter_bytes():
            content += piece
            if len(content) > _LARGEST:
                return "larger than any photo"
        return bytes(content)
