"""One Swarm of three managers for all tests here; each puts right what it broke."""

from __future__ import annotations

import os
from collections.abc import Iterator

import pytest

from tests.managers.rack import lacking
from tests.managers.site import Site
from tests.swarm.conftest import swarm as swarm  # noqa: PLC0414 - a fixture that is used here too


@pytest.fixture(scope="session")
def three_managers(swarm: None, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:  # noqa: ARG001 - it has the images
    """Three managers and a factory; in CI it has to be possible."""
    reason = lacking()
    if reason and os.environ.get("CI") == "true":
        pytest.fail(reason)
    if reason:
        pytest.skip(reason)
    site = Site(tmp_path_factory.mktemp("operators"))
    try:
        site.open()
        yield site
    finally:
        site.close()


@pytest.fixture
def site(three_managers: Site) -> Iterator[Site]:
    """The same, whole and with a few groups in the factory at the start of each test."""
    three_managers.repair()
    if not three_managers.groups:
        three_managers.add(4)
    yield three_managers
    three_managers.dismiss()
