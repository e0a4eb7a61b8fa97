"""Asking a pure function the same question twice in a row."""

from __future__ import annotations

import pytest

from reconciler.control.latest import Latest


def test_only_another_question_is_asked() -> None:
    """Equal arguments, also equal copies of them, get the last answer; others are asked, also an earlier question."""
    asked: list[dict[str, int]] = []

    def count(groups: dict[str, int]) -> int:
        asked.append(groups)
        return sum(groups.values())

    latest = Latest(count)
    assert [latest({"a": 1}), latest({"a": 1}), latest({"a": 2}), latest({"a": 1})] == [1, 1, 2, 1]
    assert asked == [{"a": 1}, {"a": 2}, {"a": 1}]


def test_a_failure_is_no_answer() -> None:
    """What the function raised is not remembered, and the answer before it is still that of its own question."""
    latest = Latest(int)
    assert latest("7") == 7
    for _ in range(2):
        with pytest.raises(ValueError, match="x"):
            latest("x")
    assert latest("7") == 7
