"""The service over HTTP: JSON as it comes, and every way it may fail in a sentence for people."""

from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any, TypeVar
from urllib.parse import quote

import httpx

Photo = str | Path | bytes  # a file's path, or what is in it
P = TypeVar("P", bound=Photo)
BATCH, BATCH_BYTES = 20, 45_000_000  # what the service takes at once, as it comes: 20 photos, 50 MB
TIMEOUT = httpx.Timeout(180, connect=5)  # seconds; a batch of large photos takes one minute on one core, and may wait


class ServiceError(Exception):
    """The service cannot answer; the message is a sentence for the user.

    Attributes:
        status: the answer's HTTP status; None: there was no answer.
        error: the service's short name of the error, such as `too_busy`; None: it gave none.
        wait: seconds until it is worth asking again, where the service said so.
        down: nothing answers at all.
    """

    def __init__(
        self,
        sentence: str,
        *,
        status: int | None = None,
        error: str | None = None,
        wait: int | None = None,
        down: bool = False,
    ) -> None:
        super().__init__(sentence)
        self.status, self.error, self.wait, self.down = status, error, wait, down


class Service:
    """Asks once, and returns the answer. Threads may share it."""

    def __init__(self, url: str, api_key: str | None = None) -> None:
        """Connect to nothing yet.

        Args:
            url: where the service answers, such as http://localhost:3000.
            api_key: sent as X-API-Key, where the service asks for one.

        Raises:
            ServiceError: the URL is none.
        """
        self.url = url.rstrip("/")
        if not self.url.startswith(("http://", "https://")):
            raise ServiceError(f"API_URL is '{url}': give it as http://host:port")
        headers = {"X-API-Key": api_key} if api_key else {}
        self._http = httpx.Client(base_url=self.url, headers=headers, timeout=TIMEOUT)

    def close(self) -> None:
        """Close the connections."""
        self._http.close()

    def predict(self, photo: Photo, request_id: str | None = None, group: str | None = None) -> dict[str, Any]:
        """Return the answer for one photo."""
        headers = {"X-Request-ID": request_id} if request_id else None
        return self._ask("POST", "/predict", files={"file": _file(photo)}, data=_form(group), headers=headers)

    def explain(self, photo: Photo, group: str | None = None) -> dict[str, Any]:
        """Return the answer for one photo, with its heat map."""
        return self._ask("POST", "/predict/explain", files={"file": _file(photo)}, data=_form(group))

    def batch(self, photos: Sequence[Photo], group: str | None = None) -> dict[str, Any]:
        """Return the answers for at most `BATCH` photos."""
        files = [("files", _file(photo)) for photo in photos]
        return self._ask("POST", "/predict/batch", files=files, data=_form(group))

    def listing(
        self, photos: Sequence[Photo], listing_id: str | None = None, group: str | None = None
    ) -> dict[str, Any]:
        """Return the answers for the photos of one listing, and for all of them: at most `BATCH` photos."""
        files = [("files", _file(photo)) for photo in photos]
        form = (_form(group) or {}) | ({"listing_id": listing_id} if listing_id else {})
        return self._ask("POST", "/predict/listing", files=files, data=form)

    def feedback(self, request_id: str, label: str) -> dict[str, Any]:
        """Say what a photo is."""
        return self._ask("POST", "/feedback", json={"request_id": request_id, "label": label})

    def prediction(self, request_id: str) -> dict[str, Any]:
        """Return what was answered earlier."""
        return self._ask("GET", f"/predictions/{quote(request_id, safe=':')}")

    def drift(self, model: str | None = None) -> dict[str, Any]:
        """Return what the drift monitor saw of the photos that a model answered; None: of the first model."""
        return self._ask("GET", "/drift", params={"model": model} if model else None)

    def model(self) -> dict[str, Any]:
        """Return what is known of the first model, and of all of them under `models`."""
        return self._ask("GET", "/model")

    def models(self) -> list[dict[str, Any]]:
        """Return what is known of each model; an older service has one."""
        first = self.model()
        return first.get("models") or [first]

    def html(self, path: str) -> str:
        """Return an HTML page of the service, such as the drift report."""
        return self._send("GET", path).text

    def picture(self, path: str) -> bytes:
        """Return a picture of the service, such as one of the model's plots."""
        return self._send("GET", path).content

    def _ask(self, method: str, path: str, **content: Any) -> dict[str, Any]:
        answer = self._send(method, path, **content)
        try:
            body = answer.json()
        except ValueError:
            body = None
        if not isinstance(body, dict):
            raise ServiceError(f"What answers at {self.url} is not the detector. Is API_URL right?")
        return body

    def _send(self, method: str, path: str, **content: Any) -> httpx.Response:
        try:
            answer = self._http.request(method, path, **content)
        except httpx.TimeoutException:
            raise ServiceError("The detector takes too long to answer. Try again in a minute.", down=True) from None
        except (httpx.TransportError, httpx.InvalidURL):
            raise ServiceError(f"The detector cannot be reached at {self.url}. Is it running?", down=True) from None
        if answer.status_code != 200:
            raise _refusal(answer)
        return answer


def _form(group: str | None) -> dict[str, str] | None:
    return {"group": group} if group else None


def batches(photos: Iterable[P], most: int = BATCH, size_of: Callable[[P], int] | None = None) -> Iterator[list[P]]:
    """Cut photos into batches that the service takes: by number and by size.

    Args:
        photos: their paths, or what is in them.
        most: photos in a batch.
        size_of: a photo's bytes; by default they are looked up.

    Raises:
        OSError: a file is not there.
    """
    batch: list[P] = []
    size = 0
    for photo in photos:
        more = (size_of or _size)(photo)
        if batch and (len(batch) == most or size + more > BATCH_BYTES):
            yield batch
            batch, size = [], 0
        batch.append(photo)
        size += more
    if batch:
        yield batch


def _size(photo: Photo) -> int:
    return len(photo) if isinstance(photo, bytes) else Path(photo).stat().st_size


def _file(photo: Photo) -> tuple[str, bytes]:
    if isinstance(photo, bytes):
        return "photo", photo
    name = Path(photo).name.encode("utf-8", "replace").decode()  # a name on disk may be any bytes
    return name, Path(photo).read_bytes()


def _refusal(answer: httpx.Response) -> ServiceError:
    """Say what a refusal means, and what to do."""
    wait = answer.headers.get("Retry-After", "")
    seconds = int(wait) if wait.isdigit() else None
    try:
        body = answer.json()
        error, detail = str(body["error"]), str(body["detail"])
    except (ValueError, KeyError, TypeError):
        sentence = f"The detector answered {answer.status_code} and no reason. Is API_URL right?"
        return ServiceError(sentence, status=answer.status_code, wait=seconds)
    sentences = {
        "rate_limit_exceeded": f"Too many photos for now. Wait {_duration(seconds)}, then try again.",
        "too_busy": f"The detector is busy. Try again in {_duration(seconds)}.",
        "unauthorized": "The detector wants an API key: set API_KEY to a valid one.",
        "model_not_loaded": "The detector has no model at the moment. Its operator has to look.",
        "unsupported_format": f"This is not a photo that can be read: {detail}.",
    }
    sentence = sentences.get(error, f"{detail[:1].upper()}{detail[1:]}.")
    return ServiceError(sentence, status=answer.status_code, error=error, wait=seconds)


def _duration(seconds: int | None) -> str:
    if not seconds:
        return "a moment"
    count, unit = (seconds, "second") if seconds < 120 else (round(seconds / 60), "minute")
    return f"{count} {unit}{'' if count == 1 else 's'}"
