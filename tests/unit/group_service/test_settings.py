"""A wrong setting is one line that names the variable; a right one is read."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from group_service.settings import Settings, SourceKind
from openfactory_common.errors import ConfigurationError
from openfactory_common.service_settings import describe, load

ENOUGH = {"group_name": "Weld", "kafka_topic": "asset_stream_Weld", "kafka_broker": "k:9092"}


def read(**overrides: Any) -> Settings:
    """Read settings without the environment's `.env`."""
    return load(Settings, _env_file=None, **{**ENOUGH, **overrides})


def test_defaults_are_enough_for_what_the_operator_passes() -> None:
    """The operator's variables alone, with a consumer group that is not used."""
    settings = read(kafka_consumer_group_id="asset_stream_Weld_consumer_group", ksqldb_url="http://k:8088")
    assert (settings.source, settings.port, settings.slug) == (SourceKind.KAFKA, 8000, "Weld")
    assert (settings.history_bytes, settings.client_buffer, settings.ping_seconds) == (32 << 20, 1 << 20, 15.0)


def test_a_group_with_any_characters_fits_into_a_header() -> None:
    """Percent-encoded, as the contract says."""
    assert read(group_name="Weld & Röst/1").quoted_group == "Weld%20%26%20R%C3%B6st%2F1"


@pytest.mark.parametrize(
    ("variable", "value", "text"),
    [
        ("group_name", None, "GROUP_NAME is required and not set"),
        ("kafka_topic", None, "KAFKA_TOPIC is required and not set"),
        ("kafka_topic", "weld", "KAFKA_TOPIC='weld'"),
        ("kafka_topic", "asset_stream_../x", "KAFKA_TOPIC="),
        ("kafka_broker", None, "KAFKA_BROKER is required with SOURCE=kafka"),
        ("kafka_broker", "k", "KAFKA_BROKER='k': 'k' has no port"),
        ("source", "mqtt", "SOURCE='mqtt'"),
        ("source", "ksqldb", "KSQLDB_URL is required with SOURCE=ksqldb"),
        ("ksqldb_url", "ksql:8088", "KSQLDB_URL="),
        ("ksqldb_stream", "a`b", "KSQLDB_STREAM="),
        ("history_bytes", "lots", "is not a size"),
        ("history_bytes", "-1", "HISTORY_BYTES"),
        ("client_buffer", "1KiB", "CLIENT_BUFFER="),
        ("replay_limit", "0", "REPLAY_LIMIT="),
        ("ping_seconds", "0", "PING_SECONDS="),
        ("port", "http", "PORT="),
        ("log_level", "loud", "LOG_LEVEL="),
        ("kafka_config_file", "/nowhere/at/all", "KAFKA_CONFIG_FILE="),
    ],
)
def test_a_wrong_setting_names_its_variable(variable: str, value: str | None, text: str) -> None:
    """One line, with what to do."""
    overrides = {**ENOUGH, variable: value}
    with pytest.raises(ConfigurationError) as caught:
        load(Settings, _env_file=None, **{name: given for name, given in overrides.items() if given is not None})
    assert text in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(("text", "size"), [("0", 0), ("1048576", 1 << 20), ("4 MiB", 4 << 20), ("1gib", 1 << 30)])
def test_sizes_have_units(text: str, size: int) -> None:
    """Bytes, or binary units in any case."""
    assert read(history_bytes=text).history_bytes == size


def test_the_file_of_properties_is_read(tmp_path: Path) -> None:
    """Comments, blank lines, blanks around names and values, and = within a value."""
    file = tmp_path / "client.properties"
    file.write_text(
        "# factory\n\n security.protocol = SASL_SSL\nsasl.mechanisms=PLAIN\nsasl.username=u\nsasl.password=a=b c\n"
    )
    settings = read(kafka_config_file=file)
    expected = {
        "security.protocol": "SASL_SSL",
        "sasl.mechanisms": "PLAIN",
        "sasl.username": "u",
        "sasl.password": "a=b c",
    }
    assert settings.kafka_properties == expected


@pytest.mark.parametrize(
    ("content", "text"),
    [
        ("bootstrap.servers=k:1", "line 1 sets bootstrap.servers, which the service sets itself: use KAFKA_BROKER"),
        ("#\ngroup.id=x", "line 2 sets group.id, which the service sets itself: remove the line"),
        ("enable.auto.commit=true", "which the service sets itself"),
        ("auto.offset.reset=latest", "which the service sets itself"),
        ("security.protocol", "line 1 is no key=value"),
        ("client.id=a\nclient.id=b", "line 2 sets client.id a second time"),
        ("no.such.thing=1", 'No such configuration property: "no.such.thing"'),
        ("security.protocol=hunter2", "the Kafka library does not accept it"),
    ],
)
def test_a_wrong_file_of_properties_is_explained(tmp_path: Path, content: str, text: str) -> None:
    """With the line, and without any value: it may be a password."""
    file = tmp_path / "client.properties"
    file.write_text(content)
    with pytest.raises(ConfigurationError) as caught:
        read(kafka_config_file=file)
    assert text in str(caught.value)
    assert "hunter2" not in str(caught.value)


def test_every_setting_is_described() -> None:
    """``--help`` teaches each one."""
    assert all(info.description for info in Settings.model_fields.values())
    assert "KAFKA_CONFIG_FILE" in describe(Settings)
