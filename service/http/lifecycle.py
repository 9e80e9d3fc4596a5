"""How a worker process ends: in good order, and never later than the process that keeps it."""

import asyncio
import os
import signal
import threading
from collections.abc import Callable
from types import FrameType

_PARENT = os.getppid()  # as early as this is imported: the parent may be gone by the time a model is loaded
_DRAIN_SECONDS = 25.0  # BentoML kills after 30


def on_terminate(call: Callable[[], None]) -> None:
    """Have `call` called on the running event loop when the process is told to end, beside what happens then anyway.

    uvicorn then waits for every connection, also for one whose client reads nothing; `_DRAIN_SECONDS` later it waits
    no more.
    """
    if threading.current_thread() is not threading.main_thread():
        return  # Python takes signals in the main thread only; a test's server may run in another
    loop = asyncio.get_running_loop()

    def end() -> None:
        call()
        loop.call_later(_DRAIN_SECONDS, os.kill, os.getpid(), signal.SIGINT)  # uvicorn's sign to hurry

    for number in (signal.SIGTERM, signal.SIGINT):
        before = signal.getsignal(number)

        def handle(number: int, frame: FrameType | None, before: object = before) -> None:
            loop.call_soon_threadsafe(end)
            if callable(before):
                before(number, frame)

        signal.signal(number, handle)


async def end_with_parent() -> None:
    """End the process in good order when its parent is gone.

    A killed parent would leave workers that hold the port and that nobody restarts.
    """
    while os.getppid() == _PARENT:
        await asyncio.sleep(1)
    os.kill(os.getpid(), signal.SIGTERM)
