"""An image of a group service that lies: how, its group's name says. Standard library only; it runs in a container."""

from __future__ import annotations

import json
import os
import sys
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

_NOT_READY: dict[str, dict[str, Any]] = {
    "NotAssigned": {"status": "not ready", "group": "NotAssigned", "issues": ["no partition is assigned"]},
    "NoKafka": {"status": "not ready", "group": "NoKafka", "issues": "Kafka does not answer"},
}
_READY: dict[str, dict[str, Any]] = {"OtherGroup": {"status": "ready", "group": "Paint"}}


class _Handler(BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        """Say that the process lives; to all else answer as this group does."""
        group = os.environ["GROUP_NAME"]
        if self.path == "/healthz":
            return self._answer(200, {})
        if group == "Deaf":
            time.sleep(3600)
        if group in _NOT_READY:
            return self._answer(503, _NOT_READY[group])
        return self._answer(200, _READY[group]) if group in _READY else self._answer(404, {})

    def _answer(self, status: int, document: dict[str, Any]) -> None:
        body = json.dumps(document).encode()
        self.send_response(status)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)


def main() -> None:
    """Serve, or end, as the group's name says; an honest group has the real service."""
    group = os.environ["GROUP_NAME"]
    if group == "CrashLoop":
        time.sleep(2)  # between two ends it looks as if it ran
        sys.exit(3)
    if group not in ("WrongPort", "Deaf", "NotFound", *_NOT_READY, *_READY):
        os.execvp(sys.executable, [sys.executable, "-m", "group_service"])  # noqa: S606 - no shell is wanted
    port = 5555 if group == "WrongPort" else 8000
    ThreadingHTTPServer(("0.0.0.0", port), _Handler).serve_forever()


if __name__ == "__main__":
    main()
