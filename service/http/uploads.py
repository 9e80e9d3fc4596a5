"""Limits for request bodies: their size, their time to arrive, and their memory in all."""

import asyncio

from starlette.datastructures import Headers
from starlette.types import Message, Receive, Scope

from service import metrics
from service.http.errors import ApiError, too_busy
from service.http.routing import Rules
from service.settings import Settings

_UNREAD_BYTES = 64 * 1024  # of a body that no route reads
_DRAIN_SECONDS = 10.0  # for bodies that are still arriving when the service is told to end
_LINGER_SECONDS = 5.0  # for a refused client to stop sending: closing on unread bytes would lose the answer


class Uploads:
    """All bodies that one worker receives."""

    def __init__(self, settings: Settings) -> None:
        self.seconds = settings.upload_seconds
        self.waiting: set[asyncio.Timeout] = set()
        self._most = settings.max_buffered_bytes
        self._buffered = 0
        self._end: float | None = None
        self._settings = settings

    def limit(self, rules: Rules) -> int:
        """Return how many bytes a body may have."""
        return rules.max_body(self._settings) if rules.max_body else _UNREAD_BYTES

    def take(self, count: int) -> None:
        """Count bytes that arrived; a negative count frees them.

        Raises:
            ApiError: 503, the worker holds too many.
        """
        self._buffered += count
        if count > 0 and self._buffered > self._most:
            metrics.SHED.labels("buffered_bytes").inc()
            raise too_busy("too many bodies are arriving")

    def deadline(self) -> float:
        """Return by when a body that starts now must have arrived, on the event loop's clock."""
        when = asyncio.get_running_loop().time() + self.seconds
        return when if self._end is None else min(when, self._end)

    @property
    def draining(self) -> bool:
        """Tell whether the service was told to end."""
        return self._end is not None

    def drain(self) -> None:
        """Give the bodies that are still arriving `_DRAIN_SECONDS`."""
        self._end = asyncio.get_running_loop().time() + _DRAIN_SECONDS
        for timeout in self.waiting:
            if not timeout.expired():
                timeout.reschedule(min(timeout.when() or self._end, self._end))


class Upload:
    """One request's body.

    Attributes:
        received: bytes so far.
        complete: all of it has arrived.
        gone: the client left before that.
    """

    def __init__(self, uploads: Uploads, scope: Scope, receive: Receive) -> None:
        self._uploads = uploads
        self._receive = receive
        self._limit = uploads.limit(scope["state"]["route"].rules)
        self._deadline = uploads.deadline()
        self._late = False
        self._kept = 0
        headers = Headers(scope=scope)
        self._encoding = headers.get("content-encoding", "identity").strip().lower()
        self._length = int(headers.get("content-length", "0"))  # the HTTP server lets digits alone through
        self.received = 0
        self.complete = self._length == 0 and "transfer-encoding" not in headers
        self.gone = False

    def check(self) -> None:
        """Refuse a body by its headers, before it is read.

        Raises:
            ApiError: 413 too large, 415 encoded.
        """
        if self._encoding != "identity":
            raise ApiError(415, "unsupported_media_type", "send the body without Content-Encoding")
        if self._length > self._limit:
            raise self._too_large()

    async def receive(self) -> Message:
        """Return the next part.

        Raises:
            ApiError: 408 too slow, 413 too large, 503 the worker holds too many bytes.
        """
        message = await self._next()
        size = len(message.get("body", b""))
        self.received += size
        if self.received > self._limit:
            raise self._too_large()
        self._kept += size
        self._uploads.take(size)
        return message

    async def discard(self) -> None:
        """Read and drop the rest of the body for a moment, so that the client can read its answer."""
        if self._late or self._uploads.draining:
            return
        self._deadline = min(self._deadline, asyncio.get_running_loop().time() + _LINGER_SECONDS)
        try:
            while not self.complete and not self.gone:
                await self._next()
        except ApiError:
            pass  # its time is up

    def close(self) -> None:
        """Free the bytes after the answer."""
        self._uploads.take(-self._kept)
        self._kept = 0

    async def _next(self) -> Message:
        if self.complete:  # this call waits until the client leaves
            return await self._receive()
        try:
            async with asyncio.timeout_at(min(self._deadline, self._uploads.deadline())) as timeout:
                self._uploads.waiting.add(timeout)
                try:
                    message = await self._receive()
                finally:
                    self._uploads.waiting.discard(timeout)
        except TimeoutError:
            self._late = True
            raise ApiError(
                408, "request_timeout", f"the body did not arrive within {self._uploads.seconds:g} s"
            ) from None
        self.gone = message["type"] == "http.disconnect"
        self.complete = not self.gone and not message.get("more_body", False)
        return message

    def _too_large(self) -> ApiError:
        return ApiError(413, "content_too_large", f"the body is larger than {self._limit} bytes")
