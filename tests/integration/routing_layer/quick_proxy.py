"""The proxy as a process with shorter intervals, where a test would only wait for the real ones.

``TEST_CONSTANTS`` is a JSON object of constants: ``{"routing_layer.membership.watch:_PAUSE_SECONDS": 0.1}``.
"""

from __future__ import annotations

import functools
import importlib
import json
import os
import runpy
from typing import Any

#: What every test has unless it asks for other values.
QUICK: dict[str, Any] = {
    "routing_layer.metrics:CachedExposition.INTERVAL_SECONDS": 0.05,
    "routing_layer.workers:_CACHE_SECONDS": 0.05,
    "routing_layer.membership.watch:_PAUSE_SECONDS": 0.1,
    "routing_layer.membership.watch:_REST_SECONDS": 0.2,
    "routing_layer.membership.watch:_BACKOFF_SECONDS": (0.05, 0.5),
}


def set_constants(values: dict[str, Any]) -> None:
    """Set constants of modules and classes; a name that does not exist is an error."""
    for path, value in values.items():
        module, _, attributes = path.partition(":")
        *owner, name = attributes.split(".")
        place = functools.reduce(getattr, owner, importlib.import_module(module))
        if not hasattr(place, name):
            raise AttributeError(path)
        setattr(place, name, value)


if __name__ == "__main__":
    set_constants(json.loads(os.environ.pop("TEST_CONSTANTS", "{}")))
    runpy.run_module("routing_layer", run_name="__main__", alter_sys=True)
