"""Ends the process at SIGTERM and SIGINT before it has anything to give back; install it before the other imports.

Process 1 of a container ignores a signal that it has no handler for. A program's imports take up to a second, so
without this a ``docker stop`` in that second is lost and ends in SIGKILL. The program replaces these handlers by its
own when it has something to give back. Imports nothing that takes time.
"""

from __future__ import annotations

import os
import signal

#: What a shell reports for a program that a signal ended is 128 plus the signal's number.
_SIGNALLED = 128
ENDING = (signal.SIGTERM, signal.SIGINT)


def _end(number: int, _frame: object) -> None:
    os._exit(_SIGNALLED + number)


def install() -> None:
    """Listen from now on, in the main thread; a program that has something to give back installs its own."""
    for number in ENDING:
        signal.signal(number, _end)
