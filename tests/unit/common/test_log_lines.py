"""What a program writes to its standard error: one form, text of others escaped, repetitions left out."""

from __future__ import annotations

import io
import json
import logging
import subprocess
import sys
from pathlib import Path

import pytest

from openfactory_common.log_lines import RepeatedLines
from openfactory_common.text import printable

_ROOT = Path(__file__).resolve().parents[3]
_TYPED = "\x1b[31m\u202e\u2066\x07\x9b\x00\u2028\x7f\n\r"
#: One of each way in which a line gets to standard error.
_PROVOKED = """
import asyncio, gc, logging, threading, warnings
import structlog, uvloop
from openfactory_common import log_lines

log_lines.install(logging.INFO)
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
    """Our own, aiohttp's, asyncio's, warnings, and what nothing caught, with what clients typed in each of them."""
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
        for key, value in line.items():
            text = str(value).replace("\n", "") if key == "exception" else str(value)
            assert text.isprintable(), line
    assert any("\\x1b[31m\\u202e" in line["event"] for line in lines)


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("Weld", "Weld"),
        ("Schweißen 7 \U0001f527", "Schweißen 7 \U0001f527"),
        ("a\x1b[0m", "a\\x1b[0m"),
        ("\u202eabc", "\\u202eabc"),
        ("a\r\nb\tc", "a\\r\\nb\\tc"),
        ("\u00a0\u200b\ufeff", "\\xa0\\u200b\\ufeff"),
        ("\ud800", "\\ud800"),
        ("\U000e0001", "\\U000e0001"),
        ("\x85\x9b", "\\x85\\x9b"),
    ],
)
def test_what_is_not_plain_text_is_escaped(text: str, shown: str) -> None:
    """Letters of every language stay; what drives a terminal or hides is visible."""
    assert printable(text) == shown


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
