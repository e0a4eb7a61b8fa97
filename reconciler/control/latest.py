"""Not asking the same pure question twice in a row."""

from __future__ import annotations

from collections.abc import Callable
from typing import Generic, ParamSpec, TypeVar

P = ParamSpec("P")
T = TypeVar("T")


class Latest(Generic[P, T]):
    """A pure function that answers again what it answered last, when it is asked the same again.

    A cycle in which nothing has happened asks every question of the cycle before, with equal arguments; comparing
    them costs a fraction of an answer (1,000 groups: 1 ms instead of 24). The arguments must be values that nobody
    changes. Nothing is remembered that could change an answer.
    """

    def __init__(self, function: Callable[P, T]) -> None:
        """Ask ``function``, which must depend on its arguments alone."""
        self._function = function
        self._last: tuple[tuple[object, object], T] | None = None

    def __call__(self, *args: P.args, **kwargs: P.kwargs) -> T:
        """Return the function's answer; what it raises is raised, and asked again the next time."""
        question, last = (args, kwargs), self._last
        if last is not None and last[0] == question:
            return last[1]
        answer = self._function(*args, **kwargs)
        self._last = (question, answer)
        return answer
