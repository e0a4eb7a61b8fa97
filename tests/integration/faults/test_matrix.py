"""T1, T2, T3, T6, T7: whatever happens to whichever call, the end is that of the undisturbed run.

For every call of every scenario and every fault that can happen to it: run until the fault, go on or restart,
converge. The end state, what was created and what was deleted must be the same; at each write the order of effects
must be kept and nothing of others be touched.
"""

from __future__ import annotations

from collections.abc import Callable

import pytest

from tests.integration.faults import matrix_beside
from tests.integration.faults.matrix import PARTS, Cell, Figures, play, run
from tests.integration.faults.matrix_scenarios import SCENARIOS, Scenario
from tests.integration.faults.matrix_seam import Fault, unsorted


@pytest.mark.parametrize("part", range(PARTS))
@pytest.mark.parametrize("scenario", SCENARIOS, ids=lambda scenario: scenario.name)
def test_whatever_call_is_spoiled_the_end_is_the_same(
    scenario: Scenario, part: int, record_property: Callable[[str, object], None]
) -> None:
    """Every call, every fault, with and without a restart: no divergence."""
    figures: Figures = play(scenario, part)
    record_property("matrix", [figures.calls, figures.runs, len(figures.divergences)])
    assert not figures.divergences, "\n\n".join((figures.sentence, *figures.divergences[:3]))
    assert figures.runs * PARTS > 5 * figures.calls


@pytest.mark.parametrize("command", matrix_beside.COMMANDS, ids=lambda command: command.name)
def test_a_second_installation_beside_ours_and_ours_leave_each_other_alone(
    command: matrix_beside.Command, record_property: Callable[[str, object], None]
) -> None:
    """Every command of the second, every call of both, spoiled: neither touches the other's, both converge."""
    figures = matrix_beside.play(command)
    record_property("matrix", [figures.calls, figures.runs, len(figures.divergences)])
    assert not figures.divergences, "\n\n".join((figures.sentence, *figures.divergences[:3]))
    assert figures.runs > figures.calls


def test_every_method_of_the_ports_passes_the_seam() -> None:
    """A method that is neither a read nor a write here would escape the matrix."""
    assert unsorted() == set()


def test_the_matrix_sees_a_difference() -> None:
    """Two scenarios with different ends are told apart, so equal ends mean something."""
    ends = [run(scenario).end for scenario in SCENARIOS]
    assert None not in ends
    assert len({repr(end) for end in ends}) > len(SCENARIOS) / 2


def test_a_fault_strikes() -> None:
    """A spoiled call leaves its mark in the log of the run."""
    (scenario,) = (one for one in SCENARIOS if one.name == "group added")
    create = next(call for call in run(scenario).calls if call.name == "create_service")
    struck = run(scenario, Cell(create, Fault.TIMED_OUT, restart=False))
    assert any("timed out (a write: though applied)" in line for line in struck.log)
