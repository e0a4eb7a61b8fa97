"""``python -m routing_layer.app.main``: the proxy, by the name that it had in the system that this continues."""

from __future__ import annotations

import runpy

if __name__ == "__main__":
    runpy.run_module("routing_layer", run_name="__main__", alter_sys=True)
