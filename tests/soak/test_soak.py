"""T36 and the soak in short: random faults from a fixed seed, then cycles in which nothing may happen."""

from __future__ import annotations

import pytest

from tests.soak.__main__ import FLAT
from tests.soak.run import Soak, Wrong, figures


@pytest.mark.parametrize("seed", [1, 2, 3])
def test_a_short_soak(seed: int) -> None:
    """Cycles of faults, changes and crashes: nothing wrong on the way, and the same end as without them."""
    soak = Soak(seed, groups=20)
    soak.run(300)
    came_to = figures(soak)
    assert came_to["writes"] > 100
    assert came_to["faults"] > 10
    assert came_to["starts"] > 10


def test_idle_cycles_write_nothing_and_keep_memory_flat() -> None:
    """T36: a thousand cycles in which nothing happens are a thousand without a write, and memory does not grow."""
    soak = Soak(5, groups=5)
    soak.settle()
    assert soak.idle(1000) < FLAT


def test_a_soak_says_what_was_wrong() -> None:
    """A service of a wanted group that goes is told with the seed and the last events."""
    soak = Soak(6, groups=4)
    soak.settle()
    live = soak.stage.platform.services["ofa_group_g0"]
    soak.seam.platform.remove_service(live)
    with pytest.raises(Wrong, match=r"seed 6:\nservice ofa_group_g0 of a wanted group is removed\nthe last events:"):
        soak.cycle()
