"""groups.toml: what is read from it, what is refused and in which words, and what a group has in the end."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import fields
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from openfactory_common.errors import ConfigurationError
from reconciler.domain.names import names_of
from reconciler.domain.services import Healthcheck, Kind, drift
from reconciler.planning.options import GroupFile, GroupOptions, parse_groups_file, read_variables
from reconciler.planning.specs import group_spec
from reconciler.platforms.swarm.spec import from_engine, to_engine
from tests.unit.planning import tables

FILE = """
# a comment
[patterns."Night*"]
memory_limit = "1g"
cpu_limit = 1
env = {SHIFT = "night", LEVEL = "1"}
idle_after = "10m"

[patterns."*"]
labels = {plant = "a"}

[groups."Night Weld"]
image = "registry:5000/gpu:2"
replicas = 2
cpu_limit = 1.5
cpu_reservation = 0
memory_reservation = 268435456
constraints = [
    "node.labels.gpu == true",   # of the engineers
    "node.role!=manager",
]
networks = ["plant-b"]
log_driver = "json-file"
log_options = {max-size = "10m"}
healthcheck = "curl -f localhost:8000"
paused = true
keep = true
env.LEVEL = "2"
[patterns."night*"]
memory_limit = "6m"
"""


def test_a_file_is_read_and_the_exact_name_is_last() -> None:
    """Patterns in the order of the file, in which upper case matters; variables and labels are taken one by one."""
    found = parse_groups_file(FILE).of("Night Weld")
    assert found == GroupOptions(
        image="registry:5000/gpu:2",
        replicas=2,
        cpu_limit=1.5,
        cpu_reservation=0,
        memory_limit=1 << 30,
        memory_reservation=1 << 28,
        constraints=("node.labels.gpu==true", "node.role!=manager"),
        labels={"plant": "a"},
        env={"SHIFT": "night", "LEVEL": "2"},
        networks=("plant-b",),
        log_driver="json-file",
        log_options={"max-size": "10m"},
        healthcheck=Healthcheck("curl -f localhost:8000"),
        paused=True,
        keep=True,
        idle_after=600.0,
        origins=found.origins,
    )
    assert parse_groups_file(FILE).of("Paint") == GroupOptions(
        labels={"plant": "a"}, origins={"label plant": "GROUPS_FILE line 10, pattern *"}
    )


def test_each_value_has_its_origin() -> None:
    """The line of the key, also below a list of several lines, and the table that it is in."""
    origins = parse_groups_file(FILE).of("Night Weld").origins
    assert origins["memory_limit"] == "GROUPS_FILE line 4, pattern Night*"
    assert origins["cpu_limit"] == "GROUPS_FILE line 15, group Night Weld"
    assert origins["constraints"] == "GROUPS_FILE line 18, group Night Weld"
    assert origins["networks"] == "GROUPS_FILE line 22, group Night Weld"
    assert origins["env SHIFT"] == "GROUPS_FILE line 6, pattern Night*"
    assert origins["env LEVEL"] == "GROUPS_FILE line 28, group Night Weld"


@given(st.text("[]={}\"'#\n a.b", max_size=40) | st.text(max_size=40))
def test_any_text_is_read_or_refused(text: str) -> None:
    """Nothing else than a configuration error, whatever stands in the file."""
    try:
        found = parse_groups_file(text)
    except ConfigurationError as error:
        said = str(error)
    else:
        said = f"GROUPS_FILE has {len(found.rules)} rules"
    assert said.startswith("GROUPS_FILE")


LEGAL = """
    image = "a/b@sha256:0123456789abcdef0123456789abcdef"
    replicas = 1
    cpu_limit = 0
    memory_limit = 0
    memory_limit = "0"
    memory_limit = "6m"
    memory_limit = "1.5GiB"
    memory_limit = 8388608
    constraints = []
    constraints = ["engine.labels.disk != ssd"]
    labels = {"com.example/a" = ""}
    env = {TZ = "Europe/Berlin"}
    networks = []
    networks = ["factory-network-productio1", "abcdefghijklmnopqrstuvwxy"]
    log_driver = ""
    log_driver = "registry/plugin:1"
    healthcheck = ""
    healthcheck = {command = "true", interval = "1m", retries = 1}
    paused = false
    idle_after = 0
    idle_after = "1.5h"
"""


@pytest.mark.parametrize("line", [line.strip() for line in LEGAL.strip().splitlines()])
def test_a_legal_value_is_taken(line: str) -> None:
    """Of a group, and of a pattern; a group of another name has nothing of it."""
    file = parse_groups_file(f'[groups."A"]\n{line}\n[patterns."B*"]\n{line}\n')
    key = line.partition(" ")[0]
    assert getattr(file.of("A"), key) == getattr(file.of("B1"), key)
    assert getattr(file.of("A"), key) is not None
    assert file.of("a") == GroupOptions()


ILLEGAL = """
    line                                                   at   words
    memroy_limit = "2g"                                    2    memroy_limit: unknown key; did you mean memory_limit?
    zzzz = 1                                               2    zzzz: unknown key; there are image, replicas
    image = "http://x"                                     2    image: it must be an image
    image = 1                                              2    image: Input should be a valid string
    replicas = 0                                           2    replicas: Input should be greater than or equal to 1
    replicas = true                                        2    replicas: Input should be a valid integer
    replicas = "2"                                         2    replicas: Input should be a valid integer
    cpu_limit = 0.001                                      2    cpu_limit: it must be 0 (none) or at least 0.01 cores
    cpu_limit = nan                                        2    cpu_limit: Input should be
    memory_limit = "2 gigs"                                2    memory_limit: it must be an amount of memory
    memory_limit = "5m"                                    2    memory_limit: it must be 0 (none) or at least 6m
    memory_limit = -1                                      2    memory_limit: it must be 0 (none) or at least 6m
    memory_limit = true                                    2    memory_limit: Input should be a valid integer
    constraints = "node.role==worker"                      2    constraints: Input should be a valid list
    constraints = ["gpu=true"]                             2    constraints: 'gpu=true' is no constraint
    constraints = ["node.labels.gpu==a,b"]                 2    constraints: 'node.labels.gpu==a,b' is no constraint
    constraints = [1]                                      2    constraints: Input should be a valid string
    labels = {"org.openfactory.owner" = "x"}               2    labels: label 'org.openfactory.owner' is reserved
    labels = {"com.docker.stack.namespace" = "x"}          2    labels: label 'com.docker.stack.namespace' is reserved
    labels = {"a b" = "x"}                                 2    labels: 'a b' is no label's name
    labels = {a = 1}                                       2    labels.a: Input should be a valid string
    env = {KAFKA_TOPIC = "x"}                              2    env: variable KAFKA_TOPIC is set by the operator itself
    env = {"1A" = "x"}                                     2    env: '1A' is no variable's name
    env = {A = "\\u0000"}                                  2    env: the value of 'A' has characters
    networks = ["a b"]                                     2    networks: 'a b' is no network's name
    log_options = {a = "b"}                                1    log_options need a log_driver in the same table
    log_driver = "a b"                                     2    log_driver: it must be the name of a log driver
    healthcheck = 1                                        2    healthcheck: Input should be
    healthcheck = {comand = "x"}                           2    healthcheck.comand: unknown key; did you mean command?
    networks = ["q3jmbosbtbgnk3nxb3zqkxz1q"]               2    networks: 'q3jmbosbtbgnk3nxb3zqkxz1q' is a network's id
    healthcheck = {command = "x", interval = "0.9ms"}      2    healthcheck.interval: 0.0009: it must be at least 1ms
    healthcheck = {command = "x", timeout = 0.0001}        2    healthcheck.timeout: 0.0001: it must be at least 1ms
    healthcheck = {command = "x", start_period = 1e-9}     2    healthcheck.start_period: 1e-09: it must be at least
    healthcheck = {command = "x", interval = 0}            2    healthcheck.interval: Input should be greater than 0
    healthcheck = {command = "x", start_period = "25h"}    2    healthcheck.start_period: Input should be less than or
    healthcheck = {command = "x", retries = 0}             2    healthcheck.retries: Input should be greater
    paused = "yes"                                         2    paused: Input should be a valid boolean
    idle_after = "soon"                                    2    idle_after: 'soon' is not a duration
    idle_after = -1                                        2    idle_after: Input should be greater
    idle_after = 59                                        2    idle_after: 59: it must be at least 60 seconds, or 0
"""


@pytest.mark.parametrize(("line", "at", "words"), tables.rows(ILLEGAL)[1:])
def test_an_illegal_value_is_refused_with_its_line_and_key(line: str, at: str, words: str) -> None:
    """In one line, which begins with where it stands."""
    for part in ("groups", "patterns"):
        with pytest.raises(ConfigurationError) as refused:
            parse_groups_file(f'[{part}."Weld"]\n{line}\n')
        lines = str(refused.value).splitlines()
        assert all(one.startswith(f'GROUPS_FILE line {at}: [{part}."Weld"]') for one in lines)
        assert any(words in one for one in lines)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("[groups.Weld", "GROUPS_FILE: this is no TOML"),
        ("[groups.A]\n[groups.A]\n", "GROUPS_FILE: this is no TOML"),
        ("groups = 1", 'GROUPS_FILE line 1: groups: it must be a table: write [groups."NAME"]'),
        ("\n[groups]\nWeld = 1", 'GROUPS_FILE line 3: [groups."Weld"]: it must be a table: write [groups."NAME"]'),
        ("\n[group.Weld]\npaused = true", 'GROUPS_FILE line 2: group: unknown; write [groups."NAME"]'),
        ("[[groups]]\nWeld = 1", "GROUPS_FILE line 1: groups: it must be a table"),
        ("a = " + "[" * 5000 + "]" * 5000, "GROUPS_FILE"),
        ("[groups.A]\nreplicas = " + "9" * 5000, "GROUPS_FILE: this is no TOML"),
        ("[groups.A]\n" + "a." * 1200 + "a = 1", "GROUPS_FILE: it is nested too deeply"),
        ("[groups.A]\nlabels." + "a." * 300 + "a = 1", "GROUPS_FILE"),
    ],
)
def test_another_shape_is_refused(text: str, words: str) -> None:
    """With the line, where the text is TOML at all."""
    with pytest.raises(ConfigurationError) as refused:
        parse_groups_file(text)
    assert str(refused.value).startswith(words)


def test_all_that_is_wrong_is_said_at_once() -> None:
    """One line a problem."""
    with pytest.raises(ConfigurationError) as refused:
        parse_groups_file("[groups.A]\nreplicas = 0\nx = 1\n[groups.B]\npaused = 1\n[z]\n")
    assert [line.partition(": ")[0] for line in str(refused.value).splitlines()] == [
        f"GROUPS_FILE line {number}" for number in (2, 3, 5, 6)
    ]


def test_a_group_without_a_table_has_what_the_variables_say() -> None:
    """Also with an empty file: its service is as it was before there was one."""
    options = tables.settings(fastapi_group_memory_limit="1g", fastapi_group_env="A=1,B=2")
    for text in ("", FILE.partition("[patterns")[0]):
        own = parse_groups_file(text).of_service("Weld", options)
        assert group_spec(names_of("Weld"), options, None, own) == group_spec(names_of("Weld"), options, None)
        assert own.origins["memory_limit"] == "FASTAPI_GROUP_MEMORY_LIMIT"
        assert own.origins["cpu_limit"] == "default"
        assert own.describe() == (
            "env A (FASTAPI_GROUP_ENV)",
            "env B (FASTAPI_GROUP_ENV)",
            "memory_limit = 1g (FASTAPI_GROUP_MEMORY_LIMIT)",
        )


def test_a_group_has_its_own_in_place_of_what_the_variables_say() -> None:
    """The rest stays; an empty value takes away what a variable gave."""
    options = tables.settings(
        fastapi_group_env="LEVEL=0,TZ=UTC",
        fastapi_group_healthcheck="true",
        fastapi_group_log_driver="json-file",
        fastapi_group_log_options="max-file=2",
    )
    text = '[groups.Weld]\nimage = "gpu:1"\nreplicas = 2\nhealthcheck = ""\nlog_driver = ""\nenv.LEVEL = "9"\n'
    spec = group_spec(names_of("Weld"), options, None, parse_groups_file(text).of_service("Weld", options))
    assert (spec.image, spec.replicas, spec.healthcheck) == ("gpu:1", 2, None)
    assert (spec.log_driver, spec.log_options) == ("", {})
    assert (spec.env["LEVEL"], spec.env["TZ"]) == ("9", "UTC")
    assert spec.env["KAFKA_CONSUMER_GROUP_ID"].endswith("\0slot\0")
    other = group_spec(names_of("Paint"), options, None, parse_groups_file(text).of_service("Paint", options))
    assert other == group_spec(names_of("Paint"), options, None)


@pytest.mark.parametrize("number", ["0.33333333333333", "1.0000000001", "0.1", "2.0123456789"])
def test_a_number_is_what_an_engine_gives_back(number: str) -> None:
    """It counts in 1e-9: what it cannot keep would differ in every cycle."""
    check = f'healthcheck = {{command = "true", interval = {number}, timeout = {number}, start_period = {number}}}'
    text = f"[groups.A]\ncpu_limit = {number}\ncpu_reservation = {number}\n{check}\n"
    options = tables.settings()
    spec = group_spec(names_of("A"), options, None, parse_groups_file(text).of_service("A", options))
    live = from_engine(json.loads(json.dumps(to_engine(spec, "ofa", {}))), {})
    assert live is not None
    assert drift(live, spec) == ()
    assert abs(live.cpu_limit - float(number)) < 1e-9
    settings = tables.settings(fastapi_group_cpu_limit=float(number))
    assert group_spec(names_of("A"), settings, None).cpu_limit == live.cpu_limit


def test_a_time_of_a_healthcheck_can_be_said() -> None:
    """The others have their defaults."""
    text = '[groups.A]\nhealthcheck = {command = "true", interval = "1m", start_period = 30}\n'
    assert parse_groups_file(text).of("A").healthcheck == Healthcheck("true", 60.0, start_period=30.0)


def test_every_value_of_the_file_is_described_but_for_what_may_be_secret() -> None:
    """With its origin; variables, labels, log options and a healthcheck may have what nobody should read."""
    lines = parse_groups_file(FILE).of_service("Night Weld", tables.settings()).describe()
    assert "paused = true (GROUPS_FILE line 26, group Night Weld)" in lines
    assert "label plant (GROUPS_FILE line 10, pattern *)" in lines
    assert "env LEVEL (GROUPS_FILE line 28, group Night Weld)" in lines
    assert "constraints = node.labels.gpu==true, node.role!=manager (GROUPS_FILE line 18, group Night Weld)" in lines
    times = "a command every 10 s, timeout 5 s, 3 retries, start period 10 s"
    assert f"healthcheck = {times} (GROUPS_FILE line 25, group Night Weld)" in lines
    assert "log_options = max-size (GROUPS_FILE line 24, group Night Weld)" in lines
    assert len(lines) == len(fields(GroupOptions)) - 1 + 1  # without origins, with a second variable


def test_groups_that_are_paused_or_kept_have_the_reason() -> None:
    """And only those: a later table can say no."""
    file = parse_groups_file(
        '[patterns."N*"]\npaused = true\nkeep = true\n[groups.N1]\npaused = false\n[groups.B]\nkeep = true\n'
    )
    assert file.find_paused(["N1", "N2", "A"]) == {"N2": "paused in GROUPS_FILE line 2, pattern N*"}
    assert file.find_kept(["N1", "A", "B"]) == {
        "N1": "no assets; kept by GROUPS_FILE line 3, pattern N*",
        "B": "no assets; kept by GROUPS_FILE line 7, group B",
    }
    assert GroupFile().find_paused(["A"]) == {}


def test_a_table_for_no_group_is_named() -> None:
    """With the group that may be meant."""
    file = parse_groups_file('[groups.Weld]\n[groups.Pain]\n[patterns."X*"]\n[patterns."W*"]\n')
    assert list(file.find_unmatched(["Weld", "Paint"])) == [
        "GROUPS_FILE line 3: there is no group for pattern X*",
        "GROUPS_FILE line 2: there is no group for group Pain; did you mean Paint?",
    ]


@pytest.mark.parametrize(
    ("given", "words"),
    [
        ({"fastapi_group_memory_limit": "5m"}, "at least 6m"),
        ({"state_api_memory_reservation": "x"}, "an amount of memory"),
        ({"fastapi_group_constraints": "gpu"}, "is no constraint"),
        ({"fastapi_group_labels": "a"}, "it must be name=value"),
        ({"fastapi_group_labels": "a=1,a=2"}, "a name is there twice"),
        ({"routing_layer_labels": "org.openfactory.kind=x"}, "is reserved"),
        ({"routing_layer_env": "TLS_CERT_FILE=/x"}, "set by the operator itself"),
        ({"state_api_env": "A-B=/x"}, "is no variable's name"),
        ({"fastapi_group_networks": "a b"}, "is no network's name"),
        ({"fastapi_group_log_driver": "a b"}, "name of a log driver"),
        ({"state_api_log_options": "a=b"}, "STATE_API_LOG_OPTIONS is set and STATE_API_LOG_DRIVER is not"),
        (
            {"fastapi_group_constraints": "node.role==worker", "deployment_platform": "docker"},
            "FASTAPI_GROUP_CONSTRAINTS: plain containers have no nodes",
        ),
    ],
)
def test_a_variable_with_an_illegal_value_is_refused(given: Mapping[str, Any], words: str) -> None:
    """Before anything is read or written."""
    with pytest.raises(ValueError, match=words):
        tables.settings(**given)


def test_each_kind_has_its_own_variables() -> None:
    """One that says nothing of a kind says nothing of its services."""
    options = tables.settings(state_api_memory_limit="7m")
    assert [read_variables(options, kind).memory_limit for kind in Kind] == [0, 0, 7 << 20]
