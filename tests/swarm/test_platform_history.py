"""What tasks write and why they ended, on a real engine."""

from __future__ import annotations

import pytest

from .sandbox import Sandbox, docker, eventually

pytestmark = pytest.mark.engine


def test_a_killed_task_is_known_with_its_reason_and_what_it_wrote(sandbox: Sandbox, writing_image: str) -> None:
    """Also once another one runs in its place; nothing is read of the service of another group."""
    spec = sandbox.create_running(sandbox.spec(image=writing_image))
    sandbox.create_running(sandbox.spec("Paint", image=writing_image))
    live = sandbox.live(spec)
    assert sandbox.platform.observe().ended == ()

    def read(tail: int = 10) -> list[tuple[str, str]]:
        return [(line.task, line.text) for line in sandbox.platform.task_logs(live, tail, follow=False)]

    whole = [(f"{spec.name}.1", text) for text in ("one", "two, three = 4")]
    assert sorted(eventually(read, lambda lines: len(lines) == 2)) == whole
    assert read(0) == []
    (container,) = docker("ps", "--quiet", "--filter", f"label=com.docker.swarm.service.name={spec.name}").split()
    docker("kill", container)
    sandbox.wait(spec, lambda live: live.running == 0 or bool(live.error))
    (end,) = eventually(sandbox.platform.observe, lambda state: len(state.ended) == 1).ended
    assert (end.service, end.task) == (spec.name, f"{spec.name}.1")
    assert end.reason == "task: non-zero exit (137): killed, often because its memory was used up"
    sandbox.wait(spec, lambda live: live.running == 1)
    assert sorted(eventually(read, lambda lines: len(lines) == 4)) == sorted(whole * 2)
    followed = sandbox.platform.task_logs(live, 10, follow=True)
    assert len([next(followed) for _ in range(4)]) == 4
