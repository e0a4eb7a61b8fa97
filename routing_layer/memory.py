"""Gives memory back to the system: after a crowd of clients has left, and after a large table was listed.

glibc keeps freed memory below the top of its heap: after 10,000 streams had come and gone, all of their 130 MB stayed
resident. ``malloc_trim`` returns every free page, in 10-30 ms. It reaches Python's own objects only where they are
glibc's, too: with ``PYTHONMALLOC=malloc``, as the image sets it (for some 7 % of CPU time). Python's own arenas go
back only when all of a megabyte is free, and one long-lived object of the crowd's time is enough to prevent that:
half of the memory stayed. Listing a million assets again takes 200 MB more than they do, which all comes back.
"""

from __future__ import annotations

import asyncio
import ctypes
import gc
from collections.abc import Callable

from openfactory_common.connections import ConnectionGuard

#: Fewer clients than this are not worth a trim.
_CROWD = 500
#: A crowd has left when this part of it is left, or less.
_LEFT = 0.25
_EVERY_SECONDS = 1.0


def gives_back() -> bool:
    """Whether there is a way to do it: with glibc alone."""
    return _trim is not None


async def give_back(guard: ConnectionGuard) -> None:
    """Look once a second whether a crowd has left, until cancelled."""
    while True:
        await asyncio.sleep(_EVERY_SECONDS)
        if guard.most >= _CROWD and guard.connections <= guard.most * _LEFT:
            await asyncio.sleep(_EVERY_SECONDS)  # what they had is freed a moment after they
            guard.most = guard.connections
            gc.collect()  # empties the interpreter's lists of objects to be used again
            trim()


def trim() -> None:
    """Give back every page that is free now; does nothing without glibc."""
    if _trim is not None:
        _trim(0)


def _trimmer() -> Callable[[int], int] | None:
    try:
        found: Callable[[int], int] = ctypes.CDLL(None).malloc_trim
    except (OSError, AttributeError):
        return None
    return found


_trim = _trimmer()
