"""A platform whose state is a file, so that programs under test and the test share it: a plug-in like any other.

Variables of the environment that only it reads:
    FILE_PLATFORM: the file.
    SIGNAL_AT: number of the call at which the process gets the signal of SIGNAL.
    HANG_AT: number of the call from which on calls of a service or a state are not answered.
"""

from __future__ import annotations

import fcntl
import itertools
import os
import pickle
import time
from pathlib import Path
from typing import Any

from reconciler.settings import Settings
from tests.harness.fake_platform import FakePlatform

_calls = itertools.count(1)


class FilePlatform:
    """Passes every call to a platform in memory that is read from the file before and written to it afterwards."""

    def __init__(self, file: Path) -> None:
        """Keep the state in ``file``."""
        self._file = file

    def state(self) -> FakePlatform:
        """Return what is there."""
        made = FakePlatform()
        if self._file.exists() and self._file.stat().st_size:
            made.services, made.registries, made.kept_records, number = pickle.loads(self._file.read_bytes())  # noqa: S301 - our own file
            made._ids = itertools.count(number)
        return made

    def __getattr__(self, name: str) -> Any:
        """Return the method of this name."""

        def call(*arguments: Any) -> Any:
            if name != "close":
                _moment(name)
            with self._file.with_suffix(".lock").open("w") as lock:
                fcntl.flock(lock, fcntl.LOCK_EX)
                made = self.state()
                try:
                    return getattr(made, name)(*arguments)
                finally:
                    kept = (made.services, made.registries, made.kept_records, next(made._ids))
                    new = self._file.with_suffix(".new")
                    new.write_bytes(pickle.dumps(kept))
                    new.rename(self._file)

        return call


def _moment(name: str) -> None:
    """Let happen what is to happen at this call."""
    number = next(_calls)
    if number == int(os.environ.get("SIGNAL_AT", "0")):
        os.kill(os.getpid(), int(os.environ["SIGNAL"]))
        time.sleep(0.02)
    hangs = int(os.environ.get("HANG_AT", "0"))
    if hangs and number >= hangs and "record" not in name:
        time.sleep(3600)


def make(settings: Settings, _on_request: object) -> FilePlatform:
    """Make the platform; its owner and prefix are the fakes'."""
    assert settings.reconciler_owner == "ofa"
    return FilePlatform(Path(os.environ["FILE_PLATFORM"]))
