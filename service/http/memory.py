"""Return freed memory to the system: photos of many sizes leave holes in glibc's heaps, which it would keep."""

import ctypes
import logging

logger = logging.getLogger(__name__)

# malloc.h; mallopt(3). Threads share one arena: an own one would keep the memory of its largest photo.
_SETTINGS = {"M_ARENA_MAX": (-8, 1), "M_MMAP_THRESHOLD": (-3, 64 * 1024), "M_TRIM_THRESHOLD": (-1, 64 * 1024)}


def keep_little() -> None:
    """Make glibc return freed memory early; with another C library, do nothing.

    Without this, a worker grows by a tenth in a few thousand mixed requests (`python bench/soak.py`).
    """
    try:
        libc = ctypes.CDLL("libc.so.6")
    except OSError:
        return
    for name, (parameter, value) in _SETTINGS.items():
        if libc.mallopt(parameter, value) != 1:
            logger.warning("the C library does not take %s", name)
