"""What an engine's answers must contain, so that the code that reads them can rely on it.

`engine.Engine` checks every answer where it arrives and passes it on unchanged. An answer that lacks what every engine
sends is an error and never an empty answer; a ``KeyError`` after this check is a bug of ours and is reported as one.
Only what we read is listed here: any further field is allowed.
"""

from __future__ import annotations

import base64
import re
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Annotated, Any

from pydantic import AfterValidator, ConfigDict, Field, TypeAdapter, ValidationError, create_model

from openfactory_common.errors import PlatformError

_FRACTION = re.compile(r"(\.\d{1,6})\d*")


def parse_time(text: str) -> datetime:
    """Parse a time of the engine (``2026-01-02T03:04:05.123456789Z``: up to nanoseconds, zeros cut off)."""
    parsed = datetime.fromisoformat(_FRACTION.sub(lambda found: found[1].ljust(7, "0"), text))
    return parsed if parsed.tzinfo else parsed.replace(tzinfo=UTC)


def _check_time(text: str) -> str:
    parse_time(text)
    return text


def _check_base64(text: str) -> str:
    base64.b64decode(text, validate=True)
    return text


def _build_type(shape: Any) -> Any:
    """Turn a shape into a type that pydantic checks.

    A dict lists fields, a list of one shape is a list of any length, anything else is a type. A field whose name ends
    with ``?`` may be missing or null, with ``=`` only missing.
    """
    match shape:
        case [item]:
            return list[_build_type(item)]  # type: ignore[misc]
        case dict():
            fields: dict[str, Any] = {}
            for name, inner in shape.items():
                kind = _build_type(inner)
                if name[-1] == "?":
                    kind = kind | None
                default = None if name[-1] in "?=" else ...
                # An alias, because pydantic reserves some of the engine's names (Config).
                fields[f"field_{len(fields)}"] = kind, Field(default, alias=name.rstrip("?="))
            return create_model("object", __config__=ConfigDict(strict=True), **fields)
    return shape


_TIME = Annotated[str, AfterValidator(_check_time)]
_BASE64 = Annotated[str, AfterValidator(_check_base64)]
_TEXTS = dict[str, str]
_ANY = dict[str, Any]

_RESOURCES = {"NanoCPUs=": int, "MemoryBytes=": int}
_HEALTHCHECK = {"Test?": [str], "Interval=": int, "Timeout=": int, "StartPeriod=": int, "Retries=": int}
_MOUNTED = {"File?": {"Name=": str}}
_SERVICE = {
    "ID": str,
    "Version": {"Index": int},
    "UpdatedAt?": _TIME,
    "Spec": {
        "Name": str,
        "Labels?": _TEXTS,
        "TaskTemplate": {
            "ContainerSpec?": {
                "Image": str,
                "Labels?": _TEXTS,
                "Healthcheck?": _HEALTHCHECK,
                "Env?": [str],
                "Configs?": [{"ConfigID": str, "ConfigName": str, **_MOUNTED}],
                "Secrets?": [{"SecretName": str, **_MOUNTED}],
                "StopGracePeriod=": int,
                "Mounts?": [_ANY],
                "Privileges?": _ANY,
            },
            "Resources?": {"Limits?": _RESOURCES, "Reservations?": _RESOURCES},
            "RestartPolicy?": _ANY,
            "Placement?": {"Constraints?": [str]},
            "LogDriver?": {"Name?": str, "Options?": _TEXTS},
            "Networks?": [{"Target": str}],
            "ForceUpdate=": int,
        },
        "Mode": {"Replicated?": {"Replicas=": int}},
        "UpdateConfig?": _ANY,
        "Networks?": [{"Target": str}],
        "EndpointSpec?": {
            "Mode?": str,
            "Ports?": [{"TargetPort=": int, "PublishedPort=": int, "PublishMode?": str, "Protocol=": str}],
        },
    },
    "ServiceStatus?": {"RunningTasks=": int},
    "UpdateStatus?": {"State=": str, "StartedAt?": _TIME, "Message=": str},
}
_TASK = {
    "ID?": str,
    "Slot?": int,
    "ServiceID": str,
    "CreatedAt": _TIME,
    "DesiredState": str,
    "Spec": _ANY,
    "Status": {"State": str, "Err?": str, "Timestamp?": _TIME},
    "NetworksAttachments?": [{"Network": {"ID": str, "Spec": {"Name": str}}}],
}
_CONFIG = {
    "ID": str,
    "Version": {"Index": int},
    "UpdatedAt": _TIME,
    "Spec": {"Name": str, "Labels?": _TEXTS, "Data?": _BASE64},
}
_CONTAINER = {
    "Id": str,
    "Name": str,
    "Created": _TIME,
    "Image": str,
    "RestartCount=": int,
    "State": {
        "Status": str,
        "StartedAt": _TIME,
        "Error?": str,
        "ExitCode=": int,
        "Health?": {"Status": str, "Log?": [{"Output?": str}]},
    },
    "Config": {
        "Image": str,
        "Labels?": _TEXTS,
        "Env?": [str],
        "StopTimeout?": int,
        "Healthcheck?": _HEALTHCHECK,
    },
    "HostConfig": {
        "NanoCpus?": int,
        "Memory?": int,
        "MemoryReservation?": int,
        "NetworkMode?": str,
        "LogConfig?": {"Type?": str, "Config?": _TEXTS},
        "PortBindings?": dict[str, _build_type([{"HostPort?": str}]) | None],  # type: ignore[misc]
        "Mounts?": [{"Target": str}],
        "RestartPolicy?": _ANY,
    },
    "NetworkSettings": {
        "Networks": dict[str, _build_type({"NetworkID?": str, "Aliases?": [str]})] | None,  # type: ignore[misc]
    },
}
#: What is read of each answer; the answers of requests that are not listed here are not read.
_SHAPES: Mapping[str, Any] = {
    "GET /services": [_SERVICE],
    "GET /services/{}": _SERVICE,
    "GET /tasks": [_TASK],
    "GET /nodes": [{"Status": {"State": str}}],
    "GET /configs": [_CONFIG],
    "GET /secrets": [{"ID": str, "Spec": {"Name": str}}],
    "GET /networks": [{"Id": str, "Name": str, "Scope": str, "Created?": _TIME}],
    "GET /containers/json": [{"Id": str, "Names?": [str], "Labels?": _TEXTS}],
    "GET /containers/{}/json": _CONTAINER,
    "GET /images/{}/json": {"Config?": {"Env?": [str], "Healthcheck?": _HEALTHCHECK}},
    "GET /distribution/{}/json": {"Descriptor": {"digest": str}},
    "POST /containers/create": {"Id": str},
    "POST /networks/create": {"Id": str},
}
_ADAPTERS: Mapping[str, TypeAdapter[Any]] = {
    request: TypeAdapter(_build_type(shape)) for request, shape in _SHAPES.items()
}


def check_answer(request: str, answer: Any) -> Any:
    """Return the answer of a request unchanged.

    Raises:
        PlatformError: a field that every engine sends is missing or has another type.
    """
    adapter = _ADAPTERS.get(request)
    if adapter is None:
        return answer
    try:
        adapter.validate_python(answer)
    except ValidationError as error:
        first = error.errors(include_input=False, include_url=False)[0]
        where = ".".join(str(part) for part in first["loc"]) or "the whole"
        text = f"{request}: the Docker engine sent an incomplete answer: {where}: {first['msg']}"
        raise PlatformError(text) from error
    return answer
