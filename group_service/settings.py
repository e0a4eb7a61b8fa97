"""Every setting of the group service, its variable, its default and what it does."""

from __future__ import annotations

import re
from enum import StrEnum
from functools import cached_property
from pathlib import Path
from typing import Annotated, Any
from urllib.parse import quote

from pydantic import AfterValidator, BeforeValidator, Field, field_validator, model_validator

from group_service.kafka_archive import TOPIC_PREFIX
from group_service.kafka_config import read_properties
from openfactory_common.patterns import GROUP_TOPIC, STORED_NAME, URL, brokers, optional
from openfactory_common.service_settings import KsqldbSettings, lower
from openfactory_common.settings_types import CaFile, Limit

_UNITS = {"": 1, "KIB": 1024, "MIB": 1024**2, "GIB": 1024**3}


class SourceKind(StrEnum):
    """Where the events come from."""

    KAFKA = "kafka"
    KSQLDB = "ksqldb"


def read_size(value: Any) -> Any:
    """Read ``1048576``, ``512KiB``, ``32MiB`` or ``1GiB`` as bytes."""
    if not isinstance(value, str):
        return value
    found = re.fullmatch(r"\s*(\d{1,15})\s*(|KIB|MIB|GIB)\s*", value.upper())
    if found is None:
        raise ValueError(f"{value!r} is not a size: use bytes, or a number with KiB, MiB or GiB")
    return int(found[1]) * _UNITS[found[2]]


def check_properties(path: Path) -> Path:
    """Refuse a file that Kafka's library would not accept."""
    read_properties(path)
    return path


Size = Annotated[int, BeforeValidator(read_size)]


class Settings(KsqldbSettings):
    """The group service's settings. The name of a variable is the field's name in upper case."""

    group_name: str = Field(min_length=1)
    """The group that is served: its value in the UNS, for `/ready`, the head of streams and the log."""
    port: int = Field(8000, ge=0, le=65535)
    """Port to listen on, on every address (0: any free one, see the log)."""
    source: SourceKind = SourceKind.KAFKA
    """Where the events come from: `kafka`, or `ksqldb`: one push query, whose history is the memory alone."""
    kafka_broker: Annotated[str, AfterValidator(lambda value: brokers(value) if value else value)] = ""
    """Kafka's bootstrap servers, `host:port` separated by commas; required with `SOURCE=kafka`."""
    kafka_topic: str = Field(pattern=GROUP_TOPIC)
    """The group's topic: `asset_stream_` and the group's slug, which begins each event's id."""
    kafka_config_file: Annotated[Path, AfterValidator(check_properties)] | None = None
    """A file of properties for Kafka's client library (librdkafka), a line each: `security.protocol=SASL_SSL`."""
    kafka_ca_file: CaFile | None = None
    """CA certificates (PEM) of the brokers; empty: the system's, or `ssl.ca.location` of `KAFKA_CONFIG_FILE`."""
    kafka_consumer_group_id: str = ""
    """Accepted and not used: the service reads without a consumer group, so every replica serves every event."""
    ksqldb_url: str = Field("", pattern=optional(URL))
    """The ksqlDB server (`http://host:8088`); required with `SOURCE=ksqldb`."""
    ksqldb_stream: str = Field("", pattern=STORED_NAME)
    """The group's stream as ksqlDB stores its name; required with `SOURCE=ksqldb`."""
    history_bytes: Size = Field(32 * 1024**2, ge=0, le=64 * 1024**3)
    """Bytes of the last events that are held in memory for clients that resume (`32MiB`)."""
    replay_limit: int = Field(1_000_000, ge=1)
    """Records that are read from Kafka for one client that resumes; older ones are told as a gap."""
    client_buffer: Size = Field(1024**2, ge=64 * 1024, le=1024**3)
    """Bytes that may wait for one slow client before it is cut; it comes back and resumes (`1MiB`)."""
    ping_seconds: Limit = 15.0
    """Seconds of silence after which a comment is sent; the routing layer cuts a stream after its `IDLE_TIMEOUT`."""

    @field_validator("source", mode="before")
    @classmethod
    def _any_case_of_source(cls, value: Any) -> Any:
        return lower(value)

    @model_validator(mode="after")
    def _complete(self) -> Settings:
        needed = ("kafka_broker",) if self.source is SourceKind.KAFKA else ("ksqldb_url", "ksqldb_stream")
        for name in needed:
            if not getattr(self, name):
                raise ValueError(f"{name.upper()} is required with SOURCE={self.source.value} and not set")
        return self

    @property
    def slug(self) -> str:
        """The group's slug, which is the end of its topic's name."""
        return self.kafka_topic.removeprefix(TOPIC_PREFIX)

    @property
    def quoted_group(self) -> str:
        """The group as a header's value."""
        return quote(self.group_name, safe="")

    @cached_property
    def kafka_properties(self) -> dict[str, str]:
        """The properties of the user's file, and the CA certificates."""
        found = {} if self.kafka_config_file is None else read_properties(self.kafka_config_file)
        return found if self.kafka_ca_file is None else {"ssl.ca.location": str(self.kafka_ca_file), **found}
