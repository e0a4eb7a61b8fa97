"""Ports for servers that are to listen where something listened before, or does not yet.

A port that the system gives out was free a moment ago and is given to the next who asks: with several test processes
at a time that is somebody else's server. These are below the range that the system gives out, and each process has
its own.
"""

from __future__ import annotations

import os
import socket
from itertools import count

_FIRST, _EACH, _PROCESSES = 12_000, 1_000, 20
#: Some tests use the ports after theirs, too.
_APART = 5
_worker = int(os.environ.get("PYTEST_XDIST_WORKER", "gw0").removeprefix("gw")) % _PROCESSES
# Several runs on one machine begin at different places.
_next = count(os.getpid() * 7)


def free_port() -> int:
    """Return a port on 127.0.0.1 that nobody uses and that this process has not returned for long."""
    for _ in range(_EACH):
        port = _FIRST + _worker * _EACH + next(_next) * _APART % _EACH
        try:
            socket.create_server(("127.0.0.1", port)).close()
        except OSError:
            continue
        return port
    raise AssertionError("no free port")
