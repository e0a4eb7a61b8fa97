"""groups.toml on disk: read at the start, and again when its content has changed."""

from __future__ import annotations

from pathlib import Path

import structlog

from openfactory_common.errors import ConfigurationError
from openfactory_common.settings_types import read_text
from reconciler.planning.options import parse_groups_file

log = structlog.get_logger()


class GroupsFile:
    """What the file said when it was last right.

    Attributes:
        current: its rules; none without a file.
        problem: why the file as it is now is not in force, in one line; ``""`` where it is.
    """

    def __init__(self, path: Path | None = None) -> None:
        """Read the file.

        Raises:
            ConfigurationError: it cannot be read, or something in it is wrong; one line a problem.
        """
        self._path = path
        self._text = "" if path is None else _read(path)
        self.current = parse_groups_file(self._text)
        self.problem = ""

    def refresh(self) -> None:
        """Read it again; one that is wrong changes nothing but ``problem``, and is logged once.

        The content is compared and not its time: a mounted file may be replaced by another one of the same time.
        """
        if self._path is None:
            return
        try:
            text = _read(self._path)
            if text == self._text:
                problem = ""
            else:
                self.current, self._text, problem = parse_groups_file(text), text, ""
                log.info("groups file read again", rules=len(self.current.rules))
        except Exception as error:  # noqa: BLE001 - whatever the file holds, the groups are kept as they are
            first, *more = str(error).split("\n")
            problem = f"{first}{f' (and {len(more)} more)' if more else ''}; what it said before stays in force"
        if problem and problem != self.problem:
            log.warning("groups file is wrong", reason=problem)
        self.problem = problem


def _read(path: Path) -> str:
    try:
        return read_text(path)
    except ValueError as error:
        raise ConfigurationError(f"GROUPS_FILE={path}: {error}") from error
