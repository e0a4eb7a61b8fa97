"""What an engine's answers must contain, so that what reads them can rely on it.

Every answer is checked where it arrives (`swarm_engine.Engine`), and stays as it came. One that lacks what every engine
answers is no answer, and never an empty one; a ``KeyError`` behind this edge is a bug of ours and is reported as one.
Only what is read is named here: any further field is allowed.
"""

from __future__ import annotations

import base64
import re
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Annotated, Any

from pydantic import AfterValidator, BaseModel, ConfigDict, TypeAdapter, ValidationError

from openfactory_common.errors import PlatformError

_FRACTION = re.compile(r"(\.\d{1,6})\d*")


def moment(text: str) -> datetime:
    """Parse a time of the engine (``2026-01-02T03:04:05.123456789Z``: up to nanoseconds, zeros cut off)."""
    parsed = datetime.fromisoformat(_FRACTION.sub(lambda found: found[1].ljust(7, "0"), text))
    return parsed if parsed.tzinfo else parsed.replace(tzinfo=UTC)


def _is_moment(text: str) -> str:
    moment(text)
    return text


def _is_base64(text: str) -> str:
    base64.b64decode(text, validate=True)
    return text


Time = Annotated[str, AfterValidator(_is_moment)]
Base64 = Annotated[str, AfterValidator(_is_base64)]
Texts = dict[str, str] | None


class _Part(BaseModel):
    model_config = ConfigDict(strict=True, extra="ignore")


class _Id(_Part):
    Id: str


class _Index(_Part):
    Index: int


class _Target(_Part):
    Target: str


class _Replicas(_Part):
    Replicas: int = 0


class _Mode(_Part):
    Replicated: _Replicas | None = None


class _File(_Part):
    Name: str = ""


class _Config(_Part):
    ConfigID: str
    ConfigName: str
    File: _File | None = None


class _Secret(_Part):
    SecretName: str
    File: _File | None = None


class _Container(_Part):
    Image: str
    Env: list[str] | None = None
    Configs: list[_Config] | None = None
    Secrets: list[_Secret] | None = None
    StopGracePeriod: int = 0
    Mounts: list[dict[str, Any]] | None = None
    Privileges: dict[str, Any] | None = None


class _Cores(_Part):
    NanoCPUs: int = 0


class _Resources(_Part):
    Limits: _Cores | None = None
    Reservations: _Cores | None = None


class _Template(_Part):
    ContainerSpec: _Container | None = None
    Resources: _Resources | None = None
    RestartPolicy: dict[str, Any] | None = None
    Placement: dict[str, Any] | None = None
    Networks: list[_Target] | None = None
    ForceUpdate: int = 0


class _Port(_Part):
    TargetPort: int = 0
    PublishedPort: int = 0
    PublishMode: str | None = None
    Protocol: str = "tcp"


class _Endpoint(_Part):
    Mode: str | None = None
    Ports: list[_Port] | None = None


class _ServiceSpec(_Part):
    Name: str
    Labels: Texts = None
    TaskTemplate: _Template
    Mode: _Mode
    UpdateConfig: dict[str, Any] | None = None
    Networks: list[_Target] | None = None
    EndpointSpec: _Endpoint | None = None


class _Update(_Part):
    State: str = ""
    StartedAt: Time | None = None
    Message: str = ""


class _ServiceStatus(_Part):
    RunningTasks: int = 0


class _Service(_Part):
    ID: str
    Version: _Index
    UpdatedAt: Time | None = None
    Spec: _ServiceSpec
    ServiceStatus: _ServiceStatus | None = None
    UpdateStatus: _Update | None = None


class _TaskStatus(_Part):
    State: str
    Err: str | None = None
    Timestamp: Time | None = None


class _Named(_Part):
    Name: str


class _AttachedNetwork(_Part):
    ID: str
    Spec: _Named


class _Attachment(_Part):
    Network: _AttachedNetwork


class _Task(_Part):
    ServiceID: str
    CreatedAt: Time
    DesiredState: str
    Spec: dict[str, Any]
    Status: _TaskStatus
    NetworksAttachments: list[_Attachment] | None = None


class _ConfigSpec(_Part):
    Name: str
    Labels: Texts = None
    Data: Base64 | None = None


class _ConfigObject(_Part):
    ID: str
    Version: _Index
    UpdatedAt: Time
    Spec: _ConfigSpec


class _SecretObject(_Part):
    ID: str
    Spec: _Named


class _State(_Part):
    State: str


class _Node(_Part):
    Status: _State


class _Network(_Part):
    Id: str
    Name: str
    Scope: str
    Created: Time | None = None


class _Row(_Part):
    Id: str
    Names: list[str] | None = None
    Labels: Texts = None


class _HealthResult(_Part):
    Output: str | None = None


class _Health(_Part):
    Status: str
    Log: list[_HealthResult] | None = None


class _ContainerState(_Part):
    Status: str
    StartedAt: Time
    Error: str | None = None
    ExitCode: int = 0
    Health: _Health | None = None


class _ContainerConfig(_Part):
    Image: str
    Labels: Texts = None
    Env: list[str] | None = None
    StopTimeout: int | None = None


class _Binding(_Part):
    HostPort: str | None = None


class _Host(_Part):
    NanoCpus: int | None = None
    PortBindings: dict[str, list[_Binding] | None] | None = None
    Mounts: list[_Target] | None = None
    RestartPolicy: dict[str, Any] | None = None


class _Joined(_Part):
    NetworkID: str | None = None
    Aliases: list[str] | None = None


class _NetworkSettings(_Part):
    Networks: dict[str, _Joined] | None


class _ContainerObject(_Part):
    Id: str
    Name: str
    Created: Time
    Image: str
    RestartCount: int = 0
    State: _ContainerState
    Config: _ContainerConfig
    HostConfig: _Host
    NetworkSettings: _NetworkSettings


class _ImageConfig(_Part):
    Env: list[str] | None = None


class _Image(_Part):
    Config: _ImageConfig | None = None


class _Descriptor(_Part):
    digest: str


class _Distribution(_Part):
    Descriptor: _Descriptor


#: What is read of each answer; those of requests that are not named here are not read.
_SHAPES: Mapping[str, TypeAdapter[Any]] = {
    "GET /services": TypeAdapter(list[_Service]),
    "GET /services/{}": TypeAdapter(_Service),
    "GET /tasks": TypeAdapter(list[_Task]),
    "GET /nodes": TypeAdapter(list[_Node]),
    "GET /configs": TypeAdapter(list[_ConfigObject]),
    "GET /secrets": TypeAdapter(list[_SecretObject]),
    "GET /networks": TypeAdapter(list[_Network]),
    "GET /containers/json": TypeAdapter(list[_Row]),
    "GET /containers/{}/json": TypeAdapter(_ContainerObject),
    "GET /images/{}/json": TypeAdapter(_Image),
    "GET /distribution/{}/json": TypeAdapter(_Distribution),
    "POST /containers/create": TypeAdapter(_Id),
    "POST /networks/create": TypeAdapter(_Id),
}


def checked(request: str, answer: Any) -> Any:
    """Return the answer of a request as it came.

    Raises:
        PlatformError: it lacks something that every engine answers, or has something else in its place.
    """
    shape = _SHAPES.get(request)
    if shape is None:
        return answer
    try:
        shape.validate_python(answer)
    except ValidationError as error:
        first = error.errors(include_input=False, include_url=False)[0]
        where = ".".join(str(part) for part in first["loc"]) or "the whole"
        text = f"{request}: the Docker engine answered something incomplete: {where}: {first['msg']}"
        raise PlatformError(text) from error
    return answer
