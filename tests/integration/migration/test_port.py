"""The port that clients come in through: in the end a user has it, whatever fails, also without ksqlDB."""

from __future__ import annotations

import signal
import threading
from collections.abc import Callable

import pytest

from openfactory_common.errors import KsqlUnreachable, PlatformConflict, PlatformError
from openfactory_common.signals import Signals
from reconciler.cli.migrate import run_step
from reconciler.control.converge import Exit
from reconciler.migration.legacy import PORT, OldService
from reconciler.migration.migrate import StepRefused, observe, observe_port, start
from tests.harness.fakes import Stage
from tests.integration.migration.old import FakeOldServices, old_statement


def side_by_side() -> tuple[Stage, FakeOldServices]:
    """Return a plant before its switch: both systems serve, and the settings give the port to the new one."""
    stage = Stage(options={"routing_layer_port": 5556})
    stage.ksqldb.assets = {"a": "Weld"}
    stage.ksqldb.made["ASSET_STREAM_WELD"] = ("asset_stream_Weld_topic", old_statement("Weld"))
    old = FakeOldServices.of("Weld")
    controller = stage.controller()
    list(start(observe(controller, old), controller.deps, lambda _: None))
    stage.settle(controller)
    stage.options = {"routing_layer_port": PORT}
    return stage, old


def ksqldb_goes(stage: Stage) -> None:
    """Let every later call of ksqlDB fail."""

    def gone(call: str) -> None:
        raise KsqlUnreachable(f"{call}: gone")

    stage.ksqldb.fault = gone


def ports(old: FakeOldServices) -> tuple[int, ...]:
    """Return the ports that the old router publishes."""
    return old.services["serving_layer_router"].ports


def has_port(stage: Stage, old: FakeOldServices) -> bool:
    """Whether the new router publishes the port."""
    return observe_port(stage.controller().deps, old).new_has_port


@pytest.mark.parametrize("error", [KeyboardInterrupt, KsqlUnreachable("gone"), SystemExit(1)])
def test_the_port_comes_back_whatever_ends_the_switch(error: BaseException | type[BaseException]) -> None:
    """While the new side converges ksqlDB goes away, and a person or the machine ends the command."""
    stage, old = side_by_side()

    def converge() -> int:
        assert ports(old) == ()
        ksqldb_goes(stage)
        raise error

    expected = error if isinstance(error, type) else type(error)
    with pytest.raises(expected):
        run_step("switch", stage.controller(), old, converge)
    assert ports(old) == (PORT,)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGHUP])
def test_the_port_comes_back_when_the_command_is_told_to_end(number: signal.Signals) -> None:
    """By a supervisor, a person, or because the terminal went; asked twice, it still gives back what it took."""
    stage, old = side_by_side()
    signals, given_back = Signals(), []

    def converge() -> int:
        told = [threading.Thread(target=signals.tell, args=(number,)) for _ in range(2)]
        for one in told:
            one.start()
        signals.sleep(20)
        return Exit.OK

    with pytest.raises(SystemExit) as ended, signals.orderly(lambda: given_back.append(ports(old))):
        run_step("switch", stage.controller(), old, converge)
    assert ended.value.code == 128 + number
    assert given_back == [(PORT,)]


def test_a_switch_whose_ksqldb_goes_away_gives_the_port_back() -> None:
    """The new router did not take the port, and that is known without ksqlDB."""
    stage, old = side_by_side()

    def converge() -> int:
        ksqldb_goes(stage)
        return Exit.ERROR

    assert run_step("switch", stage.controller(), old, converge) == Exit.ERROR
    assert ports(old) == (PORT,)


def test_a_port_that_the_new_router_has_is_not_taken_from_it() -> None:
    """It took the port before ksqlDB went away: clients are served, and the command says how it ended."""
    stage, old = side_by_side()

    def converge() -> int:
        stage.settle(stage.controller())
        ksqldb_goes(stage)
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        run_step("switch", stage.controller(), old, converge)
    assert ports(old) == ()
    assert has_port(stage, old)


class Busy(FakeOldServices):
    """Old services of which some writes that publish a port fail."""

    fails: int = 0
    error: PlatformError = PlatformConflict("it changed")
    sent: Callable[[], None] = staticmethod(lambda: None)

    def publish(self, service: OldService, port: int | None) -> None:
        """Fail a few times where a port is given."""
        if port is not None and self.fails:
            self.fails -= 1
            raise self.error
        super().publish(service, port)
        if port is None:
            self.sent()


def test_a_service_that_is_just_being_updated_gets_its_port_at_another_try() -> None:
    """Its version moves while the update that took the port goes on."""
    stage, plain = side_by_side()
    old = Busy(plain.services)
    old.fails = 1
    assert run_step("switch", stage.controller(), old, lambda: Exit.NOT_CONVERGED) == Exit.NOT_CONVERGED
    assert ports(old) == (PORT,)


def test_a_port_that_cannot_be_given_back_is_named(capsys: pytest.CaptureFixture[str]) -> None:
    """A person is told what is wrong and what to run."""
    stage, plain = side_by_side()
    old = Busy(plain.services)
    old.fails = 99
    assert run_step("switch", stage.controller(), old, lambda: Exit.NOT_CONVERGED) == Exit.NOT_CONVERGED
    said = capsys.readouterr().err
    assert "no router may have port 5555 now (it changed): run `reconciler migrate --back`" in said
    old.fails = 0
    stage.options = {"routing_layer_port": 5556}
    assert run_step("back", stage.controller(), old, lambda: Exit.OK) == Exit.OK
    assert ports(old) == (PORT,)


def test_a_move_whose_answer_was_lost_is_taken_back() -> None:
    """The engine did what it was asked, and the answer did not come."""
    stage, plain = side_by_side()
    old = Busy(plain.services)

    def lost() -> None:
        raise PlatformError("no answer")

    old.sent = lost
    with pytest.raises(PlatformError, match="no answer"):
        run_step("switch", stage.controller(), old, lambda: Exit.OK)
    assert ports(old) == (PORT,)


def test_the_way_back_of_the_port_needs_no_ksqldb() -> None:
    """The new router gives it up and the old one gets it; only then does it matter that ksqlDB is away."""
    stage, old = side_by_side()

    def converge() -> int:
        stage.settle(stage.controller())
        return Exit.OK

    assert run_step("switch", stage.controller(), old, converge) == Exit.OK
    assert has_port(stage, old)
    stage.options = {"routing_layer_port": 5556}
    ksqldb_goes(stage)
    with pytest.raises(KsqlUnreachable):
        run_step("back", stage.controller(), old, lambda: Exit.ERROR)
    assert ports(old) == (PORT,)
    assert not has_port(stage, old)


def test_a_new_router_that_is_to_keep_the_port_keeps_it() -> None:
    """As long as the settings want it there, the port is not given back, also without ksqlDB."""
    stage, old = side_by_side()

    def converge() -> int:
        stage.settle(stage.controller())
        return Exit.OK

    assert run_step("switch", stage.controller(), old, converge) == Exit.OK
    ksqldb_goes(stage)
    with pytest.raises(StepRefused, match="still publishes 5555"):
        run_step("back", stage.controller(), old, lambda: Exit.ERROR)
    assert has_port(stage, old)
