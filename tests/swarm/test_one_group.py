"""Commands about one group on a real engine: a pause, and the adoption of a service that a user made by hand."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime

import pytest
from prometheus_client import CollectorRegistry

from reconciler.control.controller import Controller
from reconciler.control.converge import Exit, converge
from reconciler.domain.services import LiveService
from reconciler.domain.status import Condition
from reconciler.leadership.pause import (
    GROUP_PAUSES_RECORD,
    LONGEST_GROUP_PAUSE,
    read_marks,
    start_pause,
    write_mark,
)
from reconciler.metrics import Metrics
from reconciler.planning.adoption import offer_adoption
from reconciler.planning.guards import Overrides

from .sandbox import Sandbox, docker
from .test_swarm_loop import Scene

pytestmark = pytest.mark.engine
#: A name that is odd in a label, as the record of pauses has it.
ODD = "O'Brien & Söhne"


@pytest.fixture
def scene(sandbox: Sandbox) -> Iterator[Scene]:
    """Three groups are to be served; beside them a user has a service with a name that no group has."""
    made = Scene(sandbox)
    docker("service", "create", "--detach", "--name", f"{sandbox.owner}_group_users", sandbox.image)
    yield made
    for platform in made.platforms:
        platform.close()


def labels(name: str) -> str:
    """Ask the engine itself."""
    return docker("service", "inspect", "--format", "{{json .Spec.Labels}}", name)


def test_a_paused_group_stays_as_it_was_changed_by_hand(scene: Scene) -> None:
    """Others are repaired, also while the record of the pause is read back from the engine; then it is too."""
    own, now = scene.sandbox.owner, datetime.now(UTC)
    converge(scene.controller(), 60)
    names = {group: live.name for group, live in services(scene).items()}
    platform = scene.platforms[0]
    for group in (ODD, "Paint"):
        mark = start_pause(now, 86400, "ana@shell", "audit: “é”", LONGEST_GROUP_PAUSE)
        write_mark(platform, GROUP_PAUSES_RECORD, group, mark, now)
    assert read_marks(GROUP_PAUSES_RECORD, platform.records(), now).keys() == {ODD, "Paint"}
    for name in names.values():
        docker("service", "update", "--detach", "--env-add", "X=1", name)
    code, outcome = converge(scene.controller(), 60)
    assert code is Exit.OK
    assert "paused: O'Brien & Söhne, Paint" in outcome.sentence
    changed = {group for group, live in services(scene).items() if live.spec and "X" in live.spec.env}
    assert changed == {ODD, "Paint"}
    for group in (ODD, "Paint"):
        write_mark(platform, GROUP_PAUSES_RECORD, group, None, now)
    assert converge(scene.controller(), 60)[0] is Exit.OK
    assert not [group for group, live in services(scene).items() if live.spec and "X" in live.spec.env]
    assert "openfactory" not in labels(f"{own}_group_users")


def services(scene: Scene) -> dict[str, LiveService]:
    """The services of groups, as the platform reads them."""
    found = scene.sandbox.platform.observe().services.values()
    return {live.spec.group: live for live in found if live.spec is not None and live.spec.group is not None}


def test_a_service_made_by_hand_is_adopted_in_place(scene: Scene) -> None:
    """With a virtual IP, a mount, another image's command: it gets our labels and spec, keeps its id and own labels."""
    own, name = scene.sandbox.owner, f"{scene.sandbox.owner}_group_Paint"
    options = ("--label", "team=paint", "--env", "X=1", "--mount", "type=tmpfs,destination=/x", "--replicas", "2")
    docker("service", "create", "--detach", "--name", name, *options, scene.sandbox.image)
    identity = docker("service", "inspect", "--format", "{{.ID}}", name)
    reader = scene.controller()
    assert converge(scene.controller(), 60)[0] is Exit.NOT_CONVERGED
    survey, _ = reader.observe()
    offer = offer_adoption("Paint", survey, reader.deps.topology, reader.deps.settings, {})
    assert offer.adoption is not None
    docker("service", "update", "--detach", "--label-add", "team=paint2", name)
    late = Controller(scene.world(), Metrics(CollectorRegistry()), Overrides(adoption=offer.adoption))
    assert converge(late, 60)[0] is Exit.NOT_CONVERGED
    assert "openfactory" not in labels(name)
    survey, _ = reader.observe()
    offer = offer_adoption("Paint", survey, reader.deps.topology, reader.deps.settings, {})
    ready = Controller(scene.world(), Metrics(CollectorRegistry()), Overrides(adoption=offer.adoption))
    code, outcome = converge(ready, 60)
    assert code is Exit.OK, outcome.sentence
    assert outcome.plan is not None
    assert {item.condition for item in outcome.plan.items} == {Condition.READY}
    assert docker("service", "inspect", "--format", "{{.ID}}", name) == identity
    assert '"team":"paint2"' in labels(name)
    assert f'"org.openfactory.owner":"{own}"' in labels(name)
    assert "openfactory" not in labels(f"{own}_group_users")
    assert converge(scene.controller(), 60)[1].results == ()
