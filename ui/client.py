"""The service over HTTP, and every way it may fail in a sentence for people."""

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import httpx

BATCH, BATCH_BYTES = 20, 45_000_000  # what the service takes at once, as it comes: 20 photos, 50 MB
TIMEOUT = httpx.Timeout(60, connect=5)  # seconds


class ServiceError(Exception):
    """The service cannot answer; the message is a sentence for the person at the page.

    Attributes:
        wait: seconds until it is worth asking again, where the service said so.
        down: nobody answers at all.
    """

    def __init__(self, sentence: str, *, wait: int | None = None, down: bool = False) -> None:
        super().__init__(sentence)
        self.wait, self.down = wait, down


class Client:
    """The service behind the page."""

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

    def explain(self, path: str) -> dict[str, Any]:
        """Return the answer for one photo, with its heat map."""
        return self._ask("POST", "/predict/explain", files={"file": _file(path)})

    @staticmethod
    def batches(paths: Sequence[str]) -> Iterator[list[str]]:
        """Cut photos into batches that the service takes: by number and by size."""
        batch: list[str] = []
        size = 0
        for path in paths:
            more = Path(path).stat().st_size
            if batch and (len(batch) == BATCH or size + more > BATCH_BYTES):
                yield batch
                batch, size = [], 0
            batch.append(path)
            size += more
        if batch:
            yield batch

    def batch(self, paths: Sequence[str]) -> dict[str, Any]:
        """Return the answers for at most `BATCH` photos."""
        return self._ask("POST", "/predict/batch", files=[("files", _file(path)) for path in paths])

    def feedback(self, request_id: str, label: str) -> dict[str, Any]:
        """Say what a photo is."""
        return self._ask("POST", "/feedback", json={"request_id": request_id, "label": label})

    def drift(self) -> dict[str, Any]:
        """Return what the drift monitor saw."""
        return self._ask("GET", "/drift")

    def model(self) -> dict[str, Any]:
        """Return the running model's card."""
        return self._ask("GET", "/model")

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
            wait = answer.headers.get("Retry-After", "")
            raise ServiceError(_sentence(answer, wait), wait=int(wait) if wait.isdigit() else None)
        return answer


def _file(path: str) -> tuple[str, bytes]:
    return Path(path).name, Path(path).read_bytes()


def _sentence(answer: httpx.Response, wait: str) -> str:
    """Say what a refusal means, and what to do."""
    try:
        body = answer.json()
        error, detail = str(body["error"]), str(body["detail"])
    except (ValueError, KeyError, TypeError):
        return f"The detector answered {answer.status_code} and no reason. Is API_URL right?"
    sentences = {
        "rate_limit_exceeded": f"Too many photos for now. Wait {_duration(wait)}, then try again.",
        "too_busy": f"The detector is busy. Try again in {_duration(wait)}.",
        "unauthorized": "The detector wants an API key: start this page with API_KEY set to a valid one.",
        "model_not_loaded": "The detector has no model at the moment. Its operator has to look.",
        "unsupported_format": "This is no photo that can be read: send a JPEG, PNG or WebP file.",
    }
    return sentences.get(error, f"{detail[:1].upper()}{detail[1:]}.")


def _duration(seconds: str) -> str:
    if not seconds.isdigit() or int(seconds) < 1:
        return "a moment"
    count, unit = (int(seconds), "second") if int(seconds) < 120 else (round(int(seconds) / 60), "minute")
    return f"{count} {unit}{'' if count == 1 else 's'}"
