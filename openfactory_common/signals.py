"""How a process ends at SIGTERM, SIGINT (Ctrl-C) and SIGHUP.

Process 1 of a container ignores a signal that it has no handler for, and a program's imports take up to a second: a
``docker stop`` in that second would be lost and end in SIGKILL. So each program installs its handlers before its other
imports, and this module imports nothing of ours and nothing that is slow. `exit_on_signal` is enough for a program
that installs its own handlers later; the operator's command line uses `Signals`.

Why `Signals` cannot deadlock: a Python signal handler runs in the main thread, between any two instructions of whatever
that thread is doing; one that sets a `threading.Event` on which the same thread is about to wait takes a lock that the
interrupted code may hold, for ever. So our handlers do nothing at all. The interpreter's C handler writes the signal's
number into a pipe (`signal.set_wakeup_fd`; one `write`, which is async-signal-safe), and an ordinary thread reads it.
Everything else happens in that thread, where no interrupted code holds a lock.

A process that holds nothing ends at once, with the exit code that a shell reports for a signal (128 + its number). One
that holds something (the lease, a pause) is inside `Signals.orderly`: it is asked to end, finds that out at its next
`check`, and gives back what it holds on its way out. If it does not get there in time, because a request is not
answered, the thread gives it back and ends the process.
"""

from __future__ import annotations

import contextlib
import os
import signal
import threading
from collections.abc import Callable, Iterator

#: The signals that stop a server.
STOP_SIGNALS = (signal.SIGTERM, signal.SIGINT)
#: The signals that end a command. One that is ignored when the process starts (nohup, a background job) stays ignored.
ENDING = (*STOP_SIGNALS, signal.SIGHUP)
#: Seconds within which a command that holds something gets to its next `check`; a container has 10 seconds to stop by
#: default, and giving back takes one or two requests.
GRACE = 6.0
#: Seconds for giving back after that: the platform may not answer either.
_LAST = 5.0
#: A shell reports a program that a signal ended as 128 plus the signal's number.
_SIGNALLED = 128


def exit_on_signal() -> None:
    """End the process at SIGTERM and SIGINT until the program, which now holds nothing, installs its own handlers."""
    for number in STOP_SIGNALS:
        signal.signal(number, lambda number, _: os._exit(_SIGNALLED + number))


class Signals:
    """Knows whether this process was asked to end.

    Attributes:
        number: of the first signal that asked; 0 before.
    """

    def __init__(self) -> None:
        """Start without handlers."""
        self.number = 0
        self._asked = threading.Event()
        self._changing = threading.Lock()
        self._orderly: _Orderly | None = None

    @property
    def asked(self) -> bool:
        """Whether the process was asked to end."""
        return self._asked.is_set()

    @property
    def code(self) -> int:
        """Exit code of a process that a signal ended."""
        return _SIGNALLED + self.number

    def install(self) -> None:
        """Listen from now on; call it once, in the main thread."""
        reading, writing = os.pipe()
        os.set_blocking(writing, False)
        signal.set_wakeup_fd(writing, warn_on_full_buffer=False)
        for number in ENDING:
            if signal.getsignal(number) is not signal.SIG_IGN:
                signal.signal(number, lambda *_: None)
        threading.Thread(target=self._listen, args=(reading,), name="signals", daemon=True).start()

    def check(self) -> None:
        """End here if the process was asked to end.

        Raises:
            SystemExit: it was asked.
        """
        if self.asked:
            raise SystemExit(self.code)

    def sleep(self, seconds: float) -> None:
        """Sleep, or end.

        Raises:
            SystemExit: the process was asked to end.
        """
        self._asked.wait(seconds)
        self.check()

    @contextlib.contextmanager
    def orderly(
        self,
        give_back: Callable[[], None],
        *,
        on_ask: Callable[[], None] = lambda: None,
        grace: float = GRACE,
    ) -> Iterator[None]:
        """Hold something inside the block, and give it back when the block ends, however it ends.

        Args:
            give_back: called exactly once; by this module's thread if the block does not end in time.
            on_ask: called in this module's thread when the process is asked to end, to cut short what can be.
            grace: seconds in which the block has to end once the process was asked to.

        Raises:
            SystemExit: the process was asked to end before the block began.
        """
        held = _Orderly(give_back, on_ask, grace)
        with self._changing:
            self.check()
            self._orderly = held
        try:
            yield
        finally:
            held.give_back()
            with self._changing:
                self._orderly = None
            held.ended.set()

    def tell(self, number: int) -> None:
        """Ask this process to end, as the signal of this number does."""
        with self._changing:
            self.number = self.number or number
            held = self._orderly
            self._asked.set()
        if held is None:
            os._exit(self.code)  # nothing is held, so nothing has to run
        with contextlib.suppress(Exception):  # it only cuts short; the rest must not depend on it
            held.on_ask()
        if not held.ended.wait(held.grace):
            _start_thread(held.give_back)
            held.given.wait(_LAST)
            os._exit(self.code)

    def _listen(self, reading: int) -> None:
        while True:
            number = os.read(reading, 1)[0]
            if number in ENDING:
                _start_thread(self.tell, number)


def _start_thread(function: Callable[..., None], *arguments: int) -> None:
    """Call it in a thread of its own or, where the system has none left, here."""
    try:
        threading.Thread(target=function, args=arguments, name="ending", daemon=True).start()
    except RuntimeError:
        function(*arguments)


class _Orderly:
    """A block that holds something."""

    def __init__(self, give_back: Callable[[], None], on_ask: Callable[[], None], grace: float) -> None:
        self.on_ask, self.grace = on_ask, grace
        self.ended = threading.Event()
        self._give_back = give_back
        self._once = threading.Lock()
        self.given = threading.Event()

    def give_back(self) -> None:
        """Give back, once; a second caller waits for the first."""
        with self._once:
            if not self.given.is_set():
                try:
                    self._give_back()
                finally:
                    self.given.set()


SIGNALS = Signals()
"""The one of this process."""
