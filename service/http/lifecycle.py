"""How a worker ends: it finishes its work, and it never outlives its parent process."""

import asyncio
import os
import signal
import threading
from collections.abc import Callable
from types import FrameType

_PARENT = os.getppid()  # as early as this is imported: the parent may be gone by the time a model is loaded
_DRAIN_SECONDS = 25.0  # BentoML kills after 30


def on_terminate(call: Callable[[], None]) -> None:
    """Call `call` on the running event loop when the process gets SIGTERM or SIGINT; other handlers still run.

    uvicorn then waits for all connections, even for a client that reads nothing. After `_DRAIN_SECONDS` it stops
    waiting.
    """
    if threading.current_thread() is not threading.main_thread():
        return  # Python takes signals in the main thread only; a test's server may run in another
    loop = asyncio.get_running_loop()

    def end() -> None:
        call()
        loop.call_later(_DRAIN_SECONDS, os.kill, os.getpid(), signal.SIGINT)  # for uvicorn: wait no longer

    for number in (signal.SIGTERM, signal.SIGINT):
        before = signal.getsignal(number)

        def handle(number: int, frame: FrameType | None, before: object = before) -> None:
            loop.call_soon_threadsafe(end)
            if callable(before):
                before(number, frame)

        signal.signal(number, handle)


async def end_with_parent() -> None:
    """End the process with SIGTERM when its parent is gone.

    Otherwise the workers of a killed parent would keep the port, and nothing would restart them.
    """
    while os.getppid() == _PARENT:
        await asyncio.sleep(1)
    os.kill(os.getpid(), signal.SIGTERM)
