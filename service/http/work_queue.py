"""A fixed number of threads behind a bounded queue: work beyond it is refused at once."""

from collections.abc import Callable
from contextlib import suppress
from typing import TypeVar

import anyio
import anyio.to_thread

from service import metrics
from service.http.errors import too_busy

T = TypeVar("T")


class WorkQueue:
    """Runs blocking work off the event loop, in `threads` threads.

    All running and waiting work together weighs at most `most`. Work waits at most `seconds`.
    """

    def __init__(self, threads: int, most: int, seconds: float) -> None:
        self._most = most
        self._seconds = seconds
        self._weight = 0
        self._turn = anyio.Semaphore(threads)
        self._threads = anyio.CapacityLimiter(threads)

    async def run(self, work: Callable[[], T], weight: int = 1) -> T:
        """Return what `work` returns.

        Args:
            work: is called in a thread.
            weight: of this work, such as the number of photos.

        Raises:
            ApiError: 503, there is too much to do, or its turn did not come in time.
        """
        if self._weight + weight > self._most:
            metrics.SHED.labels("queue_full").inc()
            raise too_busy("too many photos are in hand")
        self._weight += weight
        try:
            await self._take_turn()
            try:
                return await anyio.to_thread.run_sync(work, limiter=self._threads)
            finally:
                self._turn.release()
        finally:
            self._weight -= weight

    async def _take_turn(self) -> None:
        with suppress(anyio.WouldBlock):
            self._turn.acquire_nowait()  # a timer is the most expensive part here, and only waiting needs one
            return
        try:
            with anyio.fail_after(self._seconds):
                await self._turn.acquire()
        except TimeoutError:
            metrics.SHED.labels("queue_time").inc()
            raise too_busy(f"its turn did not come within {self._seconds:g} s", 5) from None
