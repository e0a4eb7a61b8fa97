"""T2 to T5: writes that are done and not answered, crashes between two writes, a signal at any step, slow statements.

The matrix does the first three for every call; here they stand by themselves, with what makes each of them safe.
"""

from __future__ import annotations

import time
from collections.abc import Callable

import pytest

from reconciler.control.controller import Controller
from reconciler.control.loop import Loop
from tests.harness.fakes import Stage
from tests.harness.serving import plant
from tests.integration.faults.matrix import operator
from tests.integration.faults.matrix_oracle import Watch, current
from tests.integration.faults.matrix_scenarios import FIVE, empty, settled
from tests.integration.faults.matrix_seam import Call, Crash, Fault, Seam, seam_of


def behind(stage: Stage) -> tuple[Seam, Watch]:
    """Stand before both sides of a stage."""
    watch = Watch(stage)
    return seam_of(stage.platform, stage.ksqldb, watch), watch


def once(is_it: Callable[[Call], bool], fault: Fault) -> Callable[[Call], Fault | None]:
    """Spoil the first such call and no other."""
    struck: list[Call] = []

    def choose(call: Call) -> Fault | None:
        if struck or not is_it(call):
            return None
        struck.append(call)
        return fault

    return choose


def crash(stage: Stage, seam: Seam) -> None:
    """Run an operator until it crashes."""
    controller = operator(stage, seam)
    try:
        stage.run(controller, 20)
    except Crash:
        return
    raise AssertionError("it did not crash")


@pytest.mark.parametrize("name", ["create_service", "execute"])
def test_what_was_created_without_an_answer_is_adopted(name: str) -> None:
    """T2: found by its name, and known for ours by label or lineage; it is neither made again nor removed."""
    stage = settled()
    stage.ksqldb.assets["b"] = "g5"
    seam, watch = behind(stage)
    seam.choose = once(lambda call: call.name == name, Fault.TIMED_OUT)
    controller = operator(stage, seam)
    assert controller.cycle().result == "write_error"
    stage.settle(operator(stage, seam))
    assert watch.created["service ofa_group_g5"] == 1
    assert watch.created["create ASSET_STREAM_G5 from earliest"] == 1
    assert not watch.deleted
    assert watch.wrong == []
    assert stage.platform.services["ofa_group_g5"].owner == "ofa"


def test_a_crash_between_the_config_and_the_service_that_mounts_it() -> None:
    """T3: the document is there and nothing mounts it; the next operator goes on from there."""
    stage = empty()
    stage.ksqldb.assets = dict(FIVE)
    seam, watch = behind(stage)
    seam.choose = once(lambda call: call.name == "publish_registry", Fault.CRASH_AFTER)
    crash(stage, seam)
    assert len(stage.platform.registries) == 1
    assert "ofa_routing_layer" not in stage.platform.services
    stage.settle(operator(stage, seam))
    proxy = stage.platform.services["ofa_routing_layer"].spec
    assert proxy is not None
    assert proxy.configs[0].name in stage.platform.registries
    assert watch.wrong == []


def test_a_crash_between_the_stream_and_its_service() -> None:
    """T3: the stream is there without its service; the group is not registered before both are."""
    stage = settled()
    stage.ksqldb.assets["b"] = "g5"
    seam, watch = behind(stage)
    seam.choose = once(lambda call: call.name == "execute", Fault.CRASH_AFTER)
    crash(stage, seam)
    assert "ASSET_STREAM_G5" in stage.ksqldb.made
    assert "ofa_group_g5" not in stage.platform.services
    document = current(stage)
    assert document is not None
    assert "g5" not in document.groups
    stage.settle(operator(stage, seam))
    assert watch.created["create ASSET_STREAM_G5 from earliest"] == 1
    assert watch.wrong == []


def _steps(change: Callable[[Stage], None], make: Callable[[], Stage]) -> int:
    """Count the calls until the change is in place."""
    stage = make()
    seam, _ = behind(stage)
    change(stage)
    stage.settle(operator(stage, seam))
    return seam.calls


def _come(stage: Stage) -> None:
    stage.ksqldb.assets |= FIVE


def _go(stage: Stage) -> None:
    del stage.ksqldb.assets["a4"]


@pytest.mark.parametrize(("change", "make"), [(_come, empty), (_go, settled)], ids=["first convergence", "removal"])
def test_a_signal_at_any_step_ends_the_loop_there(change: Callable[[Stage], None], make: Callable[[], Stage]) -> None:
    """T4: told to stop at any call, it does at most the write that it is at; the next one finishes the work."""
    for step in range(_steps(change, make)):
        stage = make()
        seam, watch = behind(stage)
        change(stage)
        at_stop = _run_until(stage, seam, step)
        assert stage.writes - at_stop <= 1, f"step {step}: writes after the signal"
        assert watch.wrong == [], f"step {step}"
        seam.on_call = lambda _call: None
        stage.settle(operator(stage, seam))
        assert watch.wrong == [], f"step {step}"


def _run_until(stage: Stage, seam: Seam, step: int) -> int:
    """Run a loop that is told to stop at a certain call; return the writes that had been asked for by then."""
    controller = operator(stage, seam)
    loop = Loop(controller, interval=0.0)
    written = 0

    def stop_at(call: Call) -> None:
        nonlocal written
        if call.number == step:
            written = stage.writes
            loop.stop()

    seam.on_call = stop_at
    _without_sleep(loop, controller, stage)
    return written


def _without_sleep(loop: Loop, controller: Controller, stage: Stage) -> None:
    """Run the loop's cycles one after the other until it was told to stop."""
    while not controller.stopping():
        controller.cycle()
        stage.now += 10
    loop.run()  # returns at once


def test_a_statement_that_is_executing_for_long_is_not_sent_again() -> None:
    """T5: accepted and EXECUTING for longer than we wait, for a minute of cycles: one CREATE, and it is taken then."""
    with plant(2) as made:
        made.ksqldb.assign({"b": "New"})
        made.ksqldb.switch(executing=3.0)
        operator_ = made.operator()
        sent = made.ksqldb.statements("CREATE STREAM")
        (first,) = made.run(operator_, 1, step=5)
        assert first.result == "write_error"
        assert "not final" in first.sentence
        made.run(operator_, 10, step=5)
        assert made.ksqldb.statements("CREATE STREAM") == sent + 1
        deadline = time.monotonic() + 20
        while "ASSET_STREAM_NEW" not in made.ksqldb.streams:
            assert time.monotonic() < deadline
            time.sleep(0.1)
        made.ksqldb.good_day()
        made.settle(operator_)
        assert made.ksqldb.statements("CREATE STREAM") == sent + 1
        assert "ofa_group_new" in made.platform.services
