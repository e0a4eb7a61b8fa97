"""Whatever a person puts into a variable is refused in one line that names it, or harms nothing further on."""

from __future__ import annotations

import json
import os
import re
from urllib.parse import urlsplit

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from prometheus_client import CollectorRegistry

from demo.ksqldb.parser import parse
from openfactory_common.errors import ConfigurationError
from reconciler.app import build_dependencies
from reconciler.domain.names import names_of
from reconciler.metrics import Metrics
from reconciler.planning.specs import group_spec, routing_layer_spec, state_api_spec
from reconciler.platforms.swarm.spec import to_engine
from reconciler.settings import Settings, load

#: Fields that take free text; the others are numbers, choices and paths, which pydantic parses.
TEXTS = sorted(name for name, info in Settings.model_fields.items() if info.annotation is str)
HOSTILE = (
    "'; DROP STREAM `ENRICHED_ASSETS_STREAM`; --",
    "a' OR '1'='1",
    "x`; DROP TABLE y",
    "${KSQLDB_PASSWORD}",
    "$(reboot)",
    "../../etc/passwd",
    "a\nb: c",
    "a\rSet-Cookie: x",
    "\x1b]0;title\x07",
    "x" * 5000,
    "\u202eevil",
    "name with spaces",
    "http://host:99999",
    "http://[::1",
    "http://h/\u0000",
    "<script>alert(1)</script>",
    "🏭",
)
ANY = st.one_of(st.sampled_from(HOSTILE), st.text(max_size=200)).map(lambda text: text.replace("\x00", ""))
_SWARM_NAME = re.compile(r"[A-Za-z0-9]([A-Za-z0-9_-]{0,61}[A-Za-z0-9])?")


def read(name: str, value: str) -> Settings | str:
    """Return the settings with one variable set to ``value``, or what is said about it."""
    raw = os.fsdecode(value.encode("utf-8", "surrogatepass"))  # as a process gets it
    environment = {"KAFKA_BROKER": "b:9092", "KSQLDB_URL": "http://k:8088", name.upper(): raw}
    with pytest.MonkeyPatch.context() as patch:
        for variable, text in environment.items():
            patch.setenv(variable, text)
        try:
            return load(_env_file=None)
        except ConfigurationError as error:
            return str(error)


@pytest.mark.parametrize("name", TEXTS)
@settings(max_examples=25)
@given(value=ANY)
@example("'; DROP STREAM `X`; --")
@example("a\nb")
def test_a_hostile_value_is_refused_or_harmless(name: str, value: str) -> None:
    """One printable line with the variable's name; or SQL that is one statement, and specs with legal names."""
    found = read(name, value)
    if isinstance(found, str):
        assert found.isprintable(), found
        assert name.upper() in found
        assert len(found) < 600
    else:
        harmless(found)


def harmless(accepted: Settings) -> None:
    """Look at everything that is made of settings: statements, specs, addresses."""
    names = names_of("Weld", accepted.resource_prefix)
    if (accepted.grouping_strategy, accepted.deployment_platform) != ("workcenter", "swarm"):
        return  # a plug-in's name, which is only looked up
    topology = build_dependencies(accepted, Metrics(CollectorRegistry())).topology
    made = (topology.create_shared(), topology.create_group(names))
    for statement in made:
        assert len(parse(statement.sql).statements) == 1, statement.sql
    ids = {"registry": "id", **dict.fromkeys(accepted.secrets, "id")}
    for spec in (
        group_spec(names, accepted, None),
        state_api_spec(accepted, None),
        routing_layer_spec(accepted, "registry"),
    ):
        assert _SWARM_NAME.fullmatch(spec.name), spec.name
        assert all(value.isprintable() for value in spec.env.values()), spec.env
        json.dumps(to_engine(spec, accepted.reconciler_owner, ids)).encode("ascii")
    assert urlsplit(f"http://{accepted.swarm_node_host}:6000/asset_stream").port == 6000


@pytest.mark.parametrize("name", sorted(Settings.model_fields))
@pytest.mark.parametrize("value", ["\x1b[31m", "\ud800", "9" * 400, "nan", "-1", "'; DROP"])
def test_no_variable_ends_in_a_traceback(name: str, value: str) -> None:
    """Numbers, choices and paths too: a value is taken, or refused with a line for it."""
    found = read(name, value)
    if isinstance(found, str):
        assert found.isprintable(), found
        assert len(found) < 600
