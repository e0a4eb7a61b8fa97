"""Request properties (`streamsProperties`, `properties`, SET): which are known, refused or malformed."""

from __future__ import annotations

from typing import Any

from demo.ksqldb.catalog import Properties
from demo.ksqldb.errors import BAD_REQUEST, SERVER_ERROR, KsqlRefusal

# Settings of the server itself, which no request may change.
_PROHIBITED = frozenset({"ksql.service.id", "ksql.schema.registry.url", "ksql.connect.url"})
_PREFIXES = ("ksql.streams.consumer.", "ksql.streams.producer.", "ksql.streams.", "")
_WHOLE = frozenset(
    {"num.stream.threads", "cache.max.bytes.buffering", "commit.interval.ms", "producer.linger.ms", "linger.ms",
     "max.poll.records", "session.timeout.ms", "consumer.session.timeout.ms", "heartbeat.interval.ms"}
)  # fmt: skip
_TEXT = frozenset({"auto.offset.reset", "internal.leave.group.on.close", "processing.guarantee", "application.id",
                   "statestore.cache.max.bytes", "replication.factor", "num.standby.replicas"})  # fmt: skip


def short_name(name: str) -> str | None:
    """The Kafka name of a property without ksqlDB's prefixes, or None where there is no such property."""
    for prefix in _PREFIXES:
        rest = name.removeprefix(prefix)
        if name.startswith(prefix) and (rest in _WHOLE or rest in _TEXT):
            return rest
    return None


def known(name: str) -> bool:
    """Whether ksqlDB knows the property."""
    prefixed = name.startswith(("ksql.query.", "ksql.variable.", "ksql.persistence.", "ksql.functions."))
    return prefixed or short_name(name) is not None or name in _PROHIBITED or name == "bootstrap.servers"


def prohibited(name: str) -> KsqlRefusal | None:
    """The refusal of a server-level property, or None."""
    if name not in _PROHIBITED:
        return None
    return KsqlRefusal(
        "One or more properties overrides set locally are prohibited by the KSQL server (use UNSET to reset their "
        f"default value): [{name}]",
        code=BAD_REQUEST,
    )


def check(properties: Properties, request: str) -> None:
    """Check the properties of a request to /ksql.

    Raises:
        KsqlRefusal: an unknown name (500), a prohibited one or a malformed value (400).
    """
    for name, value in properties.items():
        refusal = prohibited(name)
        if refusal is not None:
            raise refusal
        if not known(name):
            reason = f"Not recognizable as ksql, streams, consumer, or producer property: '{name}'"
            raise KsqlRefusal(reason, code=SERVER_ERROR, statement=request)
        cause = _malformed(name, value)
        if cause is not None:
            message = f"Failed to coerce type of value '{value}' for key '{name}'\nCaused by: {cause}"
            raise KsqlRefusal(message, code=BAD_REQUEST)


def _malformed(name: str, value: Any) -> str | None:
    short = short_name(name)
    if name == "bootstrap.servers":
        return "Cannot override property 'bootstrap.servers'"
    if short == "auto.offset.reset" and value not in ("latest", "earliest", "none"):
        rule = "String must\n\tbe one of: latest, earliest, none"
        return f"Invalid value {value} for configuration auto.offset.reset: {rule}"
    if short in _WHOLE and not str(value).lstrip("-").isdigit():
        return f"Invalid value {value} for configuration {short}: Not a number\n\tof type INT"
    return None


def bad_offset(properties: Properties) -> bool:
    """Whether a query asks for an offset that it cannot start from; ksqlDB answers 500 to it."""
    names = ("auto.offset.reset", "ksql.streams.auto.offset.reset")
    return any(name in properties and str(properties[name]) not in ("latest", "earliest") for name in names)
