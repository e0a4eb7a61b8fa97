"""Ports for servers that are to listen where something listened before, or does not yet.

A port that the system gives out was free a moment ago and is given to the next who asks: with several test processes
at a time that is another party's server. These are below the range that the system gives out; each process of a run
has its own, and what one of several runs has taken lately, no other one gets.
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
#: What says to other runs that a port is taken; the newest, so that the 200 ports are enough for six runs.
_held: dict[int, socket.socket] = {}
_MOST_HELD = 32


def free_port() -> int:
    """Return a port on 127.0.0.1 that no one uses and that this process has not returned for long."""
    for _ in range(_EACH):
        port = _FIRST + _worker * _EACH + next(_next) * _APART % _EACH
        try:
            _hold(port)
            socket.create_server(("127.0.0.1", port)).close()
        except OSError:
            continue
        return port
    raise AssertionError("no free port")


def _hold(port: int) -> None:
    """Take a name for the port that only one process can have; the system frees it with the process."""
    if port not in _held:
        name = socket.socket(socket.AF_UNIX)
        try:
            name.bind(f"\0openfactory-tests-{port}")
        except OSError:
            name.close()
            raise
        _held[port] = name
        if len(_held) > _MOST_HELD:
            _held.pop(next(iter(_held))).close()
