"""The detector from Python, with typed answers; a busy service is asked again."""

import base64
from collections.abc import Callable, Iterable, Sequence
from functools import partial
from types import TracebackType
from typing import Any, Self, TypeVar

from pydantic import BaseModel, ConfigDict, ValidationError

from client.answers import Answer, Drift, Explanation, Failure, Feedback, Label, Listing, Prediction
from client.patience import patiently
from client.service import Photo, Service, ServiceError, batches

T = TypeVar("T", bound=BaseModel)


class _Batch(BaseModel):
    model_config = ConfigDict(protected_namespaces=())

    results: list[dict[str, Any]]
    model_version: str | None = None


class _Listing(_Batch):
    listing: dict[str, Any]


class _Explained(Prediction):
    heatmap_base64: str


class Client:
    """Asks the service. Threads may share it.

    If the service is busy, limits the rate, or cannot be reached, each call waits and asks again: as long as
    `Retry-After` says, and `patience` seconds in all.
    """

    def __init__(
        self,
        url: str = "http://localhost:3000",
        api_key: str | None = None,
        *,
        patience: float = 60,
        say: Callable[[float], None] = lambda _: None,
    ) -> None:
        """Connect to nothing yet.

        Args:
            url: where the service answers.
            api_key: sent as X-API-Key, where the service asks for one.
            patience: seconds that a call may wait; 0: never.
            say: told of each wait before it begins, in seconds.

        Raises:
            ServiceError: the URL is none.
        """
        self._service = Service(url, api_key)
        self._patiently = partial(patiently, patience, say)

    def predict(self, photo: Photo, request_id: str | None = None, group: str | None = None) -> Prediction:
        """Is this photo real or AI-generated?

        Args:
            photo: path of a JPEG, PNG, WebP, AVIF or HEIC file, or its bytes.
            request_id: your own name for it, at most 128 letters, digits, `.`, `_` or `-`; feedback is exported by it.
            group: of the shop's photos, where its own calibration has groups: theirs are the thresholds.

        Raises:
            ServiceError: the service refuses the photo, or cannot answer.
            OSError: the file cannot be read.
        """
        return self._ask(Prediction, self._service.predict, photo, request_id, group)

    def predict_many(self, photos: Iterable[Photo], group: str | None = None) -> list[Answer]:
        """Answer for any number of photos, in their order; a bad one is a `Failure` and fails no other.

        Raises:
            ServiceError: the service cannot answer.
            OSError: a file cannot be read.
        """
        return [answer for batch in batches(list(photos)) for answer in self.predict_batch(batch, group)]

    def predict_batch(self, photos: Sequence[Photo], group: str | None = None) -> list[Answer]:
        """As `predict_many`, in one request: at most 20 photos and 50 MB, unless the service allows more."""
        return self._answers(self._ask(_Batch, self._service.batch, photos, group))

    def predict_listing(
        self, photos: Sequence[Photo], listing_id: str | None = None, group: str | None = None
    ) -> Listing:
        """Are all photos of this listing real? At most 20 and 50 MB, unless the service allows more.

        Args:
            photos: paths of files, or their bytes; a bad one is a `Failure` in `answers`, and does not count.
            listing_id: your own name for it, at most 200 characters without spaces; the prediction log keeps it.
            group: as of `predict`.

        Raises:
            ServiceError: the service refuses the listing, such as one without photos, or cannot answer.
            OSError: a file cannot be read.
        """
        answer = self._ask(_Listing, self._service.listing, photos, listing_id, group)
        return self._typed(Listing, answer.listing | {"answers": self._answers(answer)})

    def _answers(self, answer: _Batch) -> list[Answer]:
        # An older service has one model, and names its version once for the whole batch.
        items = ({"model_version": answer.model_version} | item for item in answer.results)
        return [self._typed(Failure, item) if item.get("error") else self._typed(Prediction, item) for item in items]

    def explain(self, photo: Photo, group: str | None = None) -> Explanation:
        """As `predict`, and which places of the photo speak for it."""
        answer = self._ask(_Explained, self._service.explain, photo, group)
        return Explanation(prediction=answer, heatmap=base64.b64decode(answer.heatmap_base64))

    def feedback(self, request_id: str, label: Label) -> Feedback:
        """Say what the photo of an earlier prediction is."""
        return self._ask(Feedback, self._service.feedback, request_id, label)

    def prediction(self, request_id: str) -> dict[str, Any]:
        """Return what was answered earlier, and the thresholds of that time, as JSON has it.

        Raises:
            ServiceError: no such prediction is known, or the service cannot answer.
        """
        return self._patiently()(self._service.prediction, request_id)

    def drift(self, model: str | None = None) -> Drift:
        """Is what the service sees now unlike what its model was calibrated on?

        Args:
            model: a model's name; None: the first in alphabetical order.
        """
        return self._ask(Drift, self._service.drift, model)

    def model(self) -> dict[str, Any]:
        """Return what the service says of its first model, and of all of them under `models`, as JSON has it."""
        return self._patiently()(self._service.model)

    def models(self) -> list[dict[str, Any]]:
        """Return what the service says of each of its models, as JSON has it."""
        return self._patiently()(self._service.models)

    def close(self) -> None:
        """Close the connections."""
        self._service.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.close()

    def _ask(self, kind: type[T], what: Callable[..., dict[str, Any]], *arguments: Any) -> T:
        return self._typed(kind, self._patiently()(what, *arguments))

    def _typed(self, kind: type[T], answer: dict[str, Any]) -> T:
        try:
            return kind.model_validate(answer)
        except ValidationError as error:
            fault = error.errors()[0]
            place = ".".join(map(str, fault["loc"]))
            url = self._service.url
            raise ServiceError(
                f"What answers at {url} is not a detector that this client knows ({place}: {fault['msg']})."
            ) from None
