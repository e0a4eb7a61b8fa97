"""The group service's settings: environment variables of the same names in upper case."""

from __future__ import annotations

from pydantic import Field

from demo.service import ServiceSettings


class GroupServiceSettings(ServiceSettings):
    """Settings of one group service.

    ``KAFKA_BROKER``, ``KAFKA_TOPIC`` and ``KAFKA_CONSUMER_GROUP_ID``, which a service that consumes Kafka itself
    would read, are accepted and ignored: everything goes through ksqlDB.

    Attributes:
        group_name: the group served, for logs.
        ksqldb_stream: the group's stream exactly as ksqlDB stores its name, e.g. ``ASSET_STREAM_WELD``. It is sent
            in backticks, so it must not contain any.
        port: where to listen.
        client_queue: events buffered for one client before it is cut off.
        ping_seconds: a comment is sent after this much silence.
    """

    group_name: str
    ksqldb_stream: str = Field(pattern=r"^[A-Za-z0-9_-]+$")
    port: int = Field(default=8000, ge=1, le=65535)
    client_queue: int = Field(default=1000, ge=1)
    ping_seconds: float = Field(default=15.0, gt=0)
