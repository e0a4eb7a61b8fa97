"""Log lines: equal ones once in a while, no values of variables, and nothing that commands a terminal."""

from __future__ import annotations

import io
import json
import logging
import re
import sys
from collections.abc import Iterator

import pytest
import structlog

from openfactory_common import logs
from openfactory_common.log_lines import PER_PLACE
from openfactory_common.settings_types import LogLevel


class Terminal(io.StringIO):
    """Standard error, on a terminal or not."""

    def __init__(self, *, human: bool) -> None:
        """Nothing is written yet."""
        super().__init__()
        self._human = human

    def isatty(self) -> bool:
        """Whether it is a terminal."""
        return self._human


@pytest.fixture
def written(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Iterator[Terminal]:
    """Return what is written after logging was set up as the program does."""
    stderr = Terminal(human=getattr(request, "param", False))
    root = logging.getLogger()
    handlers, level = list(root.handlers), root.level
    monkeypatch.setattr(sys, "stderr", stderr)
    logs.configure(LogLevel.INFO)
    yield stderr
    root.handlers[:] = handlers
    root.setLevel(level)


def test_a_thousand_equal_warnings_are_a_few_lines(written: Terminal) -> None:
    """Of structlog and of libraries; others pass."""
    for number in range(1000):
        structlog.get_logger().warning("out of descriptors", error="EMFILE")
        logging.getLogger("asyncio").error("socket.accept() out of system resource")
        if number % 100 == 0:
            structlog.get_logger().warning("another", number=number)
    lines = [json.loads(line)["event"] for line in written.getvalue().splitlines()]
    assert lines.count("out of descriptors") == 1
    assert lines.count("socket.accept() out of system resource") == 1
    assert lines.count("another") == 10


def test_what_clients_send_does_not_fill_the_log(written: Terminal) -> None:
    """The library's lines about bad requests differ by what is in them: few of them are written, all of ours are."""
    for number in range(1000):
        logging.getLogger("aiohttp.server").error("Error handling request %s", number)
        structlog.get_logger().info("write done", object=number)
    lines = [json.loads(line)["event"] for line in written.getvalue().splitlines()]
    assert sum(line.startswith("Error handling request") for line in lines) == PER_PLACE
    assert lines.count("write done") == 1000


def test_a_command_that_looks_every_second_says_a_thing_once(written: Terminal) -> None:
    """Until it says something else."""
    logs.only_once()
    for sentence in ("1 of 2 groups ready", "1 of 2 groups ready", "2 of 2 groups ready"):
        structlog.get_logger().info(sentence)
    assert [json.loads(line)["event"] for line in written.getvalue().splitlines()] == [
        "1 of 2 groups ready",
        "2 of 2 groups ready",
    ]


@pytest.mark.parametrize("written", [False, True], indirect=True, ids=["json", "terminal"])
def test_an_exception_shows_no_value_of_a_variable(written: Terminal) -> None:
    """Among them are passwords."""
    password, local = "x", "LOCAL"
    try:
        int(password)
    except ValueError:
        structlog.get_logger().exception("bug")
    assert local
    assert "ValueError" in written.getvalue()
    assert "LOCAL" not in written.getvalue()


@pytest.mark.parametrize("written", [False, True], indirect=True, ids=["json", "terminal"])
@pytest.mark.parametrize("name", ["\x1b]0;title\x07", "\u202edleW", "\x9b2J", "a\rb"])
def test_a_name_does_not_command_the_terminal(written: Terminal, name: str) -> None:
    """In the event, in a value, in a library's line and in an exception."""
    structlog.get_logger().warning(f"group {name}", group=name, names=[name])
    logging.getLogger("library").warning("group %s", name)
    try:
        int(name)
    except ValueError:
        structlog.get_logger().exception("bug")
    rest = re.sub(r"\x1b\[[0-9;]*m", "", written.getvalue())  # the colours are our own
    assert all(char.isprintable() or char == "\n" for char in rest), ascii(rest)
