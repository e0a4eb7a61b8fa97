"""``python -m reconciler.testing``: pytest with the conformance tests; further options go to pytest."""

from __future__ import annotations

import sys

import pytest

sys.exit(pytest.main(["-p", "reconciler.testing.plugin", "--pyargs", "reconciler.testing", *sys.argv[1:]]))
