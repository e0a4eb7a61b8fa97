"""What `scripts/sizes.py` counts as code."""

from __future__ import annotations

import pytest

from scripts import sizes

SOURCE = '''"""A module
of two lines."""

# a comment
import os  # another


class Short:
    """A class."""

    text = """not a
    docstring"""

    async def two(self) -> str:
        """Return it."""
        return (
            os.name
        )
'''


def test_blank_lines_comments_and_docstrings_do_not_count() -> None:
    """A string that is a value counts with each of its lines; a function's length includes its docstring."""
    assert sizes.measure(SOURCE) == (8, [5])


def test_a_package_above_its_limit_fails(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    """The message names the package and by how much; at the limit all is well."""
    package = sizes.Package("scripts", ("scripts",), without=("scripts/nothing",))
    lines = sum(sizes.measure(path.read_text())[0] for path in sizes.files(package))
    for limit, code in ((lines, 0), (lines - 7, 1)):
        monkeypatch.setattr(sizes, "PACKAGES", (sizes.Package("scripts", ("scripts",), limit=limit),))
        assert sizes.main() == code
    assert f"scripts: {lines} code lines, 7 above its limit" in capsys.readouterr().out
