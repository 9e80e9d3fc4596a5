"""Give memory back: photos of very different sizes leave glibc's heaps full of holes that it keeps for ever."""

import ctypes
import logging

logger = logging.getLogger(__name__)

# malloc.h; mallopt(3). Threads share one arena: with their own, each keeps what its largest photo took.
_SETTINGS = {"M_ARENA_MAX": (-8, 1), "M_MMAP_THRESHOLD": (-3, 64 * 1024), "M_TRIM_THRESHOLD": (-1, 64 * 1024)}


def keep_little() -> None:
    """Have this process keep little of what it freed; where the C library is not glibc, do nothing.

    `python bench/soak.py` measures it: without this a worker grows by a tenth in a few thousand mixed requests.
    """
    try:
        libc = ctypes.CDLL("libc.so.6")
    except OSError:
        return
    for name, (parameter, value) in _SETTINGS.items():
        if libc.mallopt(parameter, value) != 1:
            logger.warning("the C library does not take %s", name)
