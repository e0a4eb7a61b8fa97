"""How the process ends at SIGTERM, SIGINT (Ctrl-C) and SIGHUP.

Why it cannot deadlock: a Python signal handler runs in the main thread, between any two instructions of whatever that
thread is doing; one that sets a `threading.Event` on which the same thread is about to wait takes a lock that the
interrupted code may hold, for ever. So our handlers do nothing at all. The interpreter's C handler writes the signal's
number into a pipe (`signal.set_wakeup_fd`; one `write`, which is async-signal-safe), and an ordinary thread reads it.
Whatever follows happens in that thread, where no interrupted code holds anything.

A process that holds nothing ends at once, with the code that a shell gives a program that a signal ended (128 + its
number). One that holds something (the lease, a pause) is inside of `Signals.orderly`: it is asked to end, finds that
out at its next `check`, and gives back what it holds on its way out. If it does not get there in time, because a
request is not answered, the thread gives it back and ends the process.

This module imports nothing of ours and nothing that is large: it is installed before everything else is imported, since
process 1 of a container ignores a signal that it has no handler for.
"""

from __future__ import annotations

import contextlib
import os
import signal
import threading
from collections.abc import Callable, Iterator

#: The signals that end a program. One that is ignored when the process starts (nohup, a job in the background) stays
#: ignored.
ENDING = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP)
#: Seconds within which a command that holds something gets to its next `check`; a container's default time to stop is
#: 10 seconds, and giving back takes a request or two.
GRACE = 6.0
#: Seconds for giving back once that is over: the platform may not answer either.
_LAST = 5.0


class Signals:
    """The one place that knows whether this process was told to end."""

    def __init__(self) -> None:
        """Nothing is installed yet."""
        self.number = 0
        self._asked = threading.Event()
        self._changing = threading.Lock()
        self._orderly: _Orderly | None = None

    @property
    def asked(self) -> bool:
        """Whether the process was told to end."""
        return self._asked.is_set()

    @property
    def code(self) -> int:
        """Exit code of a process that a signal ended."""
        return 128 + self.number

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
        """End here if the process was told to.

        Raises:
            SystemExit: it was.
        """
        if self.asked:
            raise SystemExit(self.code)

    def sleep(self, seconds: float) -> None:
        """Sleep, or end.

        Raises:
            SystemExit: the process was told to end.
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
        """Hold something inside of the block, and give it back at its end, whatever ends it.

        Args:
            give_back: called exactly once; by the thread of this module if the block does not end in time.
            on_ask: called when the process is told to end, in the thread of this module: cut short what can be.
            grace: seconds in which the block has to end once the process was told to.

        Raises:
            SystemExit: the process was told to end before the block began.
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
        with contextlib.suppress(Exception):  # it only cuts short: what follows must not depend on it
            held.on_ask()
        if not held.ended.wait(held.grace):
            _beside(held.give_back)
            held.given.wait(_LAST)
            os._exit(self.code)

    def _listen(self, reading: int) -> None:
        while True:
            number = os.read(reading, 1)[0]
            if number in ENDING:
                _beside(self.tell, number)


def _beside(do: Callable[..., None], *arguments: int) -> None:
    """Do it in a thread of its own or, where the system has none left, here."""
    try:
        threading.Thread(target=do, args=arguments, name="ending", daemon=True).start()
    except RuntimeError:
        do(*arguments)


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
"""This process's: signals are the process's, too."""
