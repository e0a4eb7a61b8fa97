"""The configuration of Kafka's client library: what the service needs and what the user's file adds."""

from __future__ import annotations

from pathlib import Path

from confluent_kafka import Consumer, KafkaException

from openfactory_common.settings_types import read_text

#: What the service itself sets, or what would change how it reads. A file with one of these is refused.
_OWNED = frozenset(
    {
        "allow.auto.create.topics",
        "auto.offset.reset",
        "bootstrap.servers",
        "enable.auto.commit",
        "enable.auto.offset.store",
        "enable.partition.eof",
        "group.id",
        "group.instance.id",
        "group.protocol",
        "metadata.broker.list",
        "partition.assignment.strategy",
    }
)

Properties = dict[str, str | int | bool]


def read_properties(path: Path) -> dict[str, str]:
    """Read a file of ``key=value`` lines; blank lines and lines that begin with # are passed over.

    Raises:
        ValueError: it cannot be read, a line has another form, the service sets the property itself, or the library
            does not accept the properties. The message has no values: they are passwords.
    """
    found: dict[str, str] = {}
    for number, line in enumerate(read_text(path).splitlines(), 1):
        key, equals, value = line.strip().partition("=")
        key = key.strip()
        if not key or key.startswith("#"):
            continue
        if not equals:
            raise ValueError(f"line {number} is no key=value")
        if key in _OWNED:
            advice = "use KAFKA_BROKER" if key in ("bootstrap.servers", "metadata.broker.list") else "remove the line"
            raise ValueError(f"line {number} sets {key}, which the service sets itself: {advice}")
        if key in found:
            raise ValueError(f"line {number} sets {key} a second time")
        found[key] = value.strip()
    try:
        Consumer({"group.id": "check", **found}, logger=None).close()
    except KafkaException as error:
        text = error.args[0].str()
        for value in sorted(found.values(), key=len, reverse=True):
            text = text.replace(f'"{value}"', "***") if value else text
        raise ValueError(f"the Kafka library does not accept it: {text}") from None
    return found


def consumer_properties(brokers: str, extra: dict[str, str], *, offset_reset: str) -> Properties:
    """Return the properties of a consumer that reads by offsets of its own, in no consumer group."""
    return {
        # A record of 1 MB (the broker's limit is configurable) must fit many times; a fetch must not fill the memory.
        "fetch.message.max.bytes": 4 * 1024 * 1024,
        "fetch.max.bytes": 16 * 1024 * 1024,
        "queued.max.messages.kbytes": 16 * 1024,
        "fetch.wait.max.ms": 100,
        "reconnect.backoff.max.ms": 1000,
        "topic.metadata.refresh.interval.ms": 10_000,
        "topic.metadata.propagation.max.ms": 3000,
        **extra,
        "bootstrap.servers": brokers,
        "group.id": "openfactory-group-service",  # the library asks for one; nothing is committed or joined
        "enable.auto.commit": False,
        "enable.auto.offset.store": False,
        "enable.partition.eof": True,
        "auto.offset.reset": offset_reset,
    }
