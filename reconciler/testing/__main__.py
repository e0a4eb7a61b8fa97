"""``python -m reconciler.testing``: pytest with the conformance tests; further options are passed to pytest."""

from __future__ import annotations

import sys

import pytest

_USAGE_ERROR = 2  # as of the operator itself
_USAGE = """\
usage: python -m reconciler.testing --platform MODULE:FUNCTION | --strategy MODULE:FUNCTION [options of pytest]

FUNCTION returns a context manager with a reconciler.testing.platform.PlatformBench, or with a
reconciler.testing.grouping.GroupingBench. MODULE is imported as usual, from the current directory first.
"""


def main(arguments: list[str]) -> int:
    """Run the tests and return pytest's exit code; 2 without a plug-in."""
    if not any(argument.startswith(("--platform", "--strategy")) for argument in arguments):
        sys.stderr.write(_USAGE)
        return _USAGE_ERROR
    return pytest.main(["-p", "reconciler.testing.plugin", "--pyargs", "reconciler.testing", *arguments])


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
