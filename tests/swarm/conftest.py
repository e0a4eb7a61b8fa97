"""A real engine, a small image and a network for the tests that need a Swarm."""

from __future__ import annotations

import hashlib
import io
import os
import re
import shutil
import subprocess
import tarfile
import uuid
from collections.abc import Iterator
from pathlib import Path

import pytest
from requests.adapters import HTTPAdapter

from .sandbox import Sandbox, docker, remove_network

_PROGRAMS = ("sh", "sleep", "false")
_RUN = 'CMD ["/bin/sh", "-c", "trap \'exit 0\' TERM; while :; do sleep 60 & wait $!; done"]'
_WRITE = _RUN.replace("trap", "echo one; echo 'two, three = 4' >&2; trap")
_NEVER_HEALTHY = "HEALTHCHECK --interval=1s --retries=1000 CMD /bin/false"


@pytest.fixture(scope="session")
def swarm() -> None:
    """An engine that is a manager of a Swarm; in CI there has to be one."""
    asked = ["docker", "info", "--format", "{{.Swarm.ControlAvailable}}"]
    answer = subprocess.run(asked, capture_output=True, text=True, check=False) if shutil.which("docker") else None
    if answer is not None and answer.returncode == 0 and answer.stdout.strip() == "true":
        return
    reason = "no Docker engine answers that is a Swarm manager (`scripts/engine.sh` starts one)"
    if os.environ.get("CI") == "true":
        pytest.fail(reason)
    pytest.skip(reason)


@pytest.fixture(scope="session")
def image(swarm: None) -> str:  # noqa: ARG001 - only that there is one
    """An image of a few megabytes that runs until it is told to stop."""
    return _built(_RUN)


@pytest.fixture(scope="session")
def unhealthy_image(swarm: None) -> str:  # noqa: ARG001 - only that there is one
    """The same with a healthcheck that never succeeds and never gives up."""
    return _built(_RUN, _NEVER_HEALTHY)


@pytest.fixture(scope="session")
def writing_image(swarm: None) -> str:  # noqa: ARG001 - only that there is one
    """The same, which writes two lines at first, one of them to standard error."""
    return _built(_WRITE)


@pytest.fixture(scope="session")
def network(swarm: None) -> Iterator[str]:  # noqa: ARG001 - only that there is one
    """An overlay network of this test run's own."""
    name = f"t{uuid.uuid4().hex[:8]}-net"
    docker("network", "create", "--driver", "overlay", name)
    yield name
    remove_network(name)


@pytest.fixture
def sandbox(image: str, network: str) -> Iterator[Sandbox]:
    """An owner no one else has; whatever it made is gone afterwards."""
    made = Sandbox(image, network)
    yield made
    made.clean_up()


@pytest.fixture
def sent(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[str]]:
    """Every request to the engine as it leaves through the HTTP library, regardless of the sender."""
    requests: list[str] = []
    send = HTTPAdapter.send

    def counted(self: HTTPAdapter, request: object, *args: object, **kwargs: object) -> object:
        requests.append(f"{request.method} {request.path_url.partition('?')[0]}")  # type: ignore[attr-defined]
        return send(self, request, *args, **kwargs)  # type: ignore[arg-type]

    monkeypatch.setattr(HTTPAdapter, "send", counted)
    yield requests  # noqa: PT022 - the list is read after the requests were sent


def _built(*changes: str) -> str:
    """Import this machine's shell with its libraries as an image, named after its content, once.

    Nothing is pulled: tests run where no registry can be reached.
    """
    files = _files()
    digest = hashlib.sha256("\n".join([*changes, *map(str, files)]).encode())
    for file in files:
        digest.update(file.read_bytes())
    name = f"openfactory/test:{digest.hexdigest()[:12]}"
    if not docker("image", "ls", "--quiet", name):
        options = [option for change in changes for option in ("--change", change)]
        docker("import", *options, "-", name, stdin=_archive(files))
    return name


def _files() -> list[Path]:
    """Return the programs and every library that they load."""
    programs = [Path("/bin", program) for program in _PROGRAMS]
    loaded = subprocess.run(["ldd", *map(str, programs)], capture_output=True, text=True, check=True).stdout
    libraries = {Path(found) for found in re.findall(r"(/\S+\.so\S*) \(0x", loaded)}
    return [*programs, *sorted(libraries)]


def _archive(files: list[Path]) -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w", dereference=True) as archive:
        for file in files:
            archive.add(file)
    return buffer.getvalue()
