"""What a program writes to its standard error: one form, text from elsewhere escaped, no repetition, no variables."""

from __future__ import annotations

import io
import json
import logging
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import structlog

from openfactory_common import logs
from openfactory_common.logs import PER_PLACE_OF_CLIENTS, RepeatedLines
from openfactory_common.settings_types import LogLevel

_ROOT = Path(__file__).resolve().parents[3]
_TYPED = "\x1b[31m\u202e\u2066\x07\x9b\x00\u2028\x7f\n\r"
#: One of each way in which a line gets to standard error.
_PROVOKED = """
import asyncio, gc, logging, threading, warnings
import structlog, uvloop
from openfactory_common import logs

logs.configure("info")

log = structlog.get_logger("own")
typed = {typed!r}
log.info("hello %s", typed, value=typed, values=[typed])
try:
    raise ValueError(typed)
except ValueError:
    log.exception("a bug %s", typed)
logging.getLogger("aiohttp.server").error("Error handling request %s", typed, exc_info=ValueError(typed))
logging.getLogger("aiohttp.client").error("a wrong format %d", "x")
warnings.warn("old " + typed)

async def fails():
    raise ValueError(typed)

async def main():
    asyncio.get_running_loop().call_soon(lambda: 1 / 0)
    asyncio.create_task(fails())
    await asyncio.sleep(0.01)
    gc.collect()

uvloop.run(main())
thread = threading.Thread(target=lambda: 1 / 0)
thread.start()
thread.join()

class Broken:
    def __del__(self):
        raise ValueError(typed)

Broken()
raise RuntimeError(typed)
"""


def test_every_line_is_json_and_plain_text() -> None:
    """Our own, aiohttp's, asyncio's, warnings, and uncaught exceptions, with what clients typed in each of them."""
    program = _PROVOKED.format(typed=_TYPED)
    done = subprocess.run([sys.executable, "-c", program], cwd=_ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 1
    lines = [json.loads(line) for line in done.stderr.split("\n")[:-1]]
    assert {line.get("logger", "own") for line in lines} >= {
        "own",
        "aiohttp.server",
        "asyncio",
        "py.warnings",
        "uncaught",
    }
    assert sum(line.get("logger") == "uncaught" for line in lines) == 3, "a thread, a destructor, the main thread"
    assert any("cannot be written" in line["event"] for line in lines)
    assert done.stderr.replace("\n", "").isprintable()
    for line in lines:
        for value in line.values():
            assert str(value).isprintable(), line
    assert any("\\x1b[31m\\u202e" in line["event"] for line in lines)


class _Log:
    """A logger with a clock."""

    def __init__(self) -> None:
        self.now = 0.0
        self.stream = io.StringIO()
        handler = logging.StreamHandler(self.stream)
        handler.addFilter(RepeatedLines(interval=60, per_place=5, clock=lambda: self.now))
        handler.setFormatter(logging.Formatter("%(message)s %(left_out)d", defaults={"left_out": 0}))
        self.logger = logging.Logger("test", logging.DEBUG)  # noqa: LOG001 - it is no part of the tree of loggers
        self.logger.addHandler(handler)

    def error(self, *arguments: object) -> None:
        """Log from one place."""
        self.logger.error(*arguments)

    @property
    def lines(self) -> list[str]:
        """What was written."""
        return self.stream.getvalue().splitlines()


def test_equal_lines_appear_once_an_interval() -> None:
    """The next one says how many were left out; lines of other places are not held up."""
    log = _Log()
    for _ in range(1000):
        log.error("refused %s", "A1")
    log.logger.error("refused %s", "A1")
    assert log.lines == ["refused A1 0", "refused A1 0"]
    log.now = 59.9
    log.error("refused %s", "A1")
    assert len(log.lines) == 2
    log.now = 60
    log.error("refused %s", "A1")
    assert log.lines[2:] == ["refused A1 1000"]


def test_lines_that_differ_in_an_objects_address_or_a_time_are_equal() -> None:
    """The event loop names its handles so; clients' addresses and names make a difference."""
    log = _Log()
    for number in range(100):
        said = f"Exception in callback <Handle at 0x7f{number:x}>, when={12470.566708 + number:f}"
        log.error(said)
    assert len(log.lines) == 1
    for client in ("10.0.0.123", "10.0.0.124"):
        log.error("Error handling request from %s", client)
    assert len(log.lines) == 3


def test_one_place_cannot_fill_a_disk_with_different_lines() -> None:
    """Text that clients choose makes lines differ: a place writes so many of them, and goes on after the interval."""
    log = _Log()
    for number in range(1000):
        log.error("refused %s", number)
    assert len(log.lines) == 5
    log.now = 61
    log.error("refused %s", "x")
    assert log.lines[5:] == ["refused x 995"]


def test_lines_of_debug_are_never_left_out() -> None:
    """Who asks for them wants each one."""
    log = _Log()
    for _ in range(100):
        log.logger.debug("stream starts")
    assert len(log.lines) == 100


def test_what_is_remembered_is_bounded() -> None:
    """However many different lines there are."""
    repeated = RepeatedLines(per_place=10_000)
    for number in range(5000):
        repeated.filter(logging.LogRecord("x", logging.ERROR, f"file{number}", number, "line", (number,), None))
    assert len(repeated._lines) == len(repeated._places) == 1000


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
    assert sum(line.startswith("Error handling request") for line in lines) == PER_PLACE_OF_CLIENTS
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


_WITH_A_PASSWORD = """
import structlog
from openfactory_common.logs import configure
configure("info")
def connect():
    password = "canary-of-a-password"
    raise KeyError("commandStatus")
try:
    connect()
except KeyError as error:
    structlog.get_logger().error("bug", exc_info=error)
"""


def test_a_traceback_shows_no_local_variables() -> None:
    """They hold credentials, and whole worlds: rendering one took minutes."""
    done = subprocess.run(
        [sys.executable, "-c", _WITH_A_PASSWORD], cwd=_ROOT, capture_output=True, text=True, check=True
    )
    assert "commandStatus" in done.stderr
    assert '"name": "connect"' in done.stderr
    assert "canary" not in done.stderr


@pytest.mark.parametrize("first", ["openfactory_common.logs", "routing_layer.__main__"])
def test_logging_does_not_load_rich(first: str) -> None:
    """It is more than half of the processor time of structlog's import, for tracebacks that are not used."""
    program = f"import sys, {first}; print('rich' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", program], cwd=_ROOT, capture_output=True, text=True, check=True)
    assert done.stdout == "False\n"
