"""``python -m reconciler.testing``: pytest with the conformance tests; further options go to pytest."""

from __future__ import annotations

import sys

import pytest

#: As the operator itself ends.
_MISUSED = 2
USAGE = """\
usage: python -m reconciler.testing --platform MODULE:FUNCTION | --strategy MODULE:FUNCTION [options of pytest]

FUNCTION returns a context manager with a reconciler.testing.platform.PlatformBench, or with a
reconciler.testing.grouping.GroupingBench. MODULE is looked for where Python looks, the current directory first.
"""


def main(arguments: list[str]) -> int:
    """Run the tests and return pytest's exit code; 2 where nothing was named."""
    if not any(argument.startswith(("--platform", "--strategy")) for argument in arguments):
        sys.stderr.write(USAGE)
        return _MISUSED
    return pytest.main(["-p", "reconciler.testing.plugin", "--pyargs", "reconciler.testing", *arguments])


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
