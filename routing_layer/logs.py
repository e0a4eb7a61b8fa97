"""Logs: JSON lines in a container, coloured lines on a terminal, those of libraries included."""

from __future__ import annotations

import logging

from openfactory_common import log_lines


def configure(level: str) -> None:
    """Log at ``level`` (``debug`` ... ``critical``) and above, to standard error."""
    log_lines.install(logging.getLevelNamesMapping()[level.upper()])
