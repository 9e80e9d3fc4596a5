"""Retries: after the time that the service says, or a little longer each time if nothing answers."""

from collections.abc import Callable

from tenacity import RetryCallState, Retrying, retry_if_exception, stop_before_delay, wait_exponential_jitter

from client.service import ServiceError

_GONE = frozenset({502, 503, 504})  # what a proxy says of a service that starts anew
_GROWING = wait_exponential_jitter(multiplier=0.5, max=10)


def patiently(seconds: float, say: Callable[[float], None] = lambda _: None, *, when_down: bool = True) -> Retrying:
    """Return what calls a function again while the service cannot answer.

    Args:
        seconds: how long in all, waits included, before the last error is raised.
        say: told of each wait before it begins, in seconds.
        when_down: also where nobody answers; False: only where the service said how long to wait.
    """

    def worth_it(error: BaseException) -> bool:
        if not isinstance(error, ServiceError):
            return False
        return error.wait is not None or (when_down and (error.down or error.status in _GONE))

    return Retrying(
        retry=retry_if_exception(worth_it),
        wait=_pause,
        stop=stop_before_delay(seconds),
        before_sleep=lambda state: say(state.upcoming_sleep),
        reraise=True,
    )


def _pause(state: RetryCallState) -> float:
    error = state.outcome and state.outcome.exception()
    said = error.wait if isinstance(error, ServiceError) else None
    return _GROWING(state) if said is None else float(said)
