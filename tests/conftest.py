"""What all tests share."""

from __future__ import annotations

import logging
import os
import signal
import sys
from collections.abc import Iterator
from typing import TYPE_CHECKING

import hypothesis
import pytest
import structlog

from reconciler.settings import Settings

if TYPE_CHECKING:
    from tests.harness.kafka import KafkaBroker

# No test depends on how long an example takes: a busy machine is no finding.
hypothesis.settings.register_profile("untimed", deadline=None)
hypothesis.settings.load_profile("untimed")

# jsonschema builds a grammar of each rule of an IRI as it is imported, three seconds of each worker, and
# does without where there is none. No validator of ours is asked for formats.
sys.modules.setdefault("rfc3987_syntax", None)  # type: ignore[arg-type]

# A run in the background (`nohup`, `&`) ignores these, and so would every program that a test starts.
for _number in (signal.SIGINT, signal.SIGHUP):
    if signal.getsignal(_number) is signal.SIG_IGN:
        signal.signal(_number, signal.default_int_handler if _number is signal.SIGINT else signal.SIG_DFL)


@pytest.fixture(autouse=True)
def _quiet_logs() -> None:
    """Keep the operator's log lines out of test output; tests that look at them capture them."""
    quiet = structlog.make_filtering_bound_logger(logging.CRITICAL)
    structlog.configure(wrapper_class=quiet, cache_logger_on_first_use=False)


@pytest.fixture(autouse=True)
def _clean_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let no variable of the caller's environment reach the settings under test."""
    for name in Settings.model_fields:
        monkeypatch.delenv(name.upper(), raising=False)


@pytest.fixture(scope="session")
def kafka_broker(tmp_path_factory: pytest.TempPathFactory) -> Iterator[KafkaBroker]:
    """A real broker of this process's own; in CI it has to be possible. Use `kafka`."""
    from tests.harness.kafka import KafkaBroker, lacking  # noqa: PLC0415 - librdkafka, for the tests that need it alone

    reason = lacking()
    if reason and os.environ.get("CI") == "true":
        pytest.fail(reason)
    if reason:
        pytest.skip(reason)
    broker = KafkaBroker(tmp_path_factory.mktemp("kafka"))
    try:
        broker.start()
        yield broker
    finally:
        broker.kill()


@pytest.fixture
def kafka(kafka_broker: KafkaBroker) -> KafkaBroker:
    """The same broker, running, also where the test before stopped it. Topics of other tests are in it."""
    if not kafka_broker.running:
        kafka_broker.start()
    return kafka_broker


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Say how large the fault matrix was, where it was run."""
    reports = [report for outcome in ("passed", "failed") for report in terminalreporter.getreports(outcome)]
    parts = [value for report in reports for name, value in report.user_properties if name == "matrix"]
    if parts:
        calls, runs, divergences = (sum(part[column] for part in parts) for column in range(3))
        terminalreporter.write_line(
            f"fault matrix: {len(parts)} scenarios, {calls} calls, {runs} runs with a fault, {divergences} divergences"
        )
