"""Types of settings that both programs share: numbers with their limits, log levels, URLs without credentials."""

from __future__ import annotations

import re
import ssl
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any
from urllib.parse import urlsplit, urlunsplit

from pydantic import AfterValidator, BeforeValidator, Field

from openfactory_common.tokens import check_token_file

_CREDENTIALS = re.compile(r"^(\w+://)?.*@", re.DOTALL)
_QUERY = re.compile(r"[?#].*", re.DOTALL)
#: Variables of the routing layer, which are often in the same file as the operator's; a test compares them with
#: `routing_layer.settings`.
ROUTING_LAYER_VARIABLES = frozenset(
    {
        "AUTH_AUDIENCE",
        "AUTH_CA_FILE",
        "AUTH_CLAIM",
        "AUTH_COOKIE",
        "AUTH_ISSUER",
        "AUTH_JWKS_URL",
        "AUTH_KEYS_FILE",
        "AUTH_LEEWAY",
        "CLIENT_HEAD_TIMEOUT",
        "CLIENT_IDLE_TIMEOUT",
        "CONNECTIONS_PER_ADDRESS",
        "CONNECT_TIMEOUT",
        "CORS_ORIGINS",
        "DRAIN_SECONDS",
        "HEAD_TIMEOUT",
        "IDLE_TIMEOUT",
        "KSQLDB_CA_FILE",
        "KSQLDB_PASSWORD",
        "KSQLDB_PASSWORD_FILE",
        "KSQLDB_URL",
        "KSQLDB_USERNAME",
        "KSQLDB_USERNAME_FILE",
        "LAZY_DEPLOY_WAIT",
        "LOG_LEVEL",
        "MAX_STREAMS",
        "MAX_STREAMS_PER_CLIENT",
        "MEMBERSHIP_RESYNC",
        "METRICS_PORT",
        "NEGATIVE_CACHE_SECONDS",
        "NEGATIVE_CACHE_SIZE",
        "RECONCILER_TOKEN_FILE",
        "RECONCILER_URL",
        "REGISTRY_FILE",
        "REGISTRY_POLL",
        "REPLACE_WAIT",
        "ROUTING_LAYER_PORT",
        "ROUTING_LAYER_WORKERS",
        "ROUTING_MODE",
        "TLS_CERT_FILE",
        "TLS_KEY_FILE",
        "TRUSTED_PROXIES",
    }
)
_UNITS = {"ms": 0.001, "": 1.0, "s": 1.0, "m": 60.0, "h": 3600.0, "d": 86400.0}
_DURATION = re.compile(r"\s*(\d+(?:\.\d+)?)\s*(ms|s|m|h|d|)\s*")
_CENTURY = 3_155_760_000.0
_DAY = 86_400.0
#: The smallest limit of cores that a container can have (engine 20.10 and later).
_LEAST_CORES = 0.01


def seconds(value: Any) -> Any:
    """Read ``90``, ``90s``, ``1.5m``, ``168h`` or ``7d`` as seconds."""
    if not isinstance(value, str):
        return value
    match = _DURATION.fullmatch(value)
    if match is None:
        raise ValueError(f"{value!r} is not a duration: use seconds, or a number with ms, s, m, h or d")
    return float(match[1]) * _UNITS[match[2]]


def cores(value: float) -> float:
    """Refuse a part of a core that the engine would refuse when it creates the first service; it counts in 1e-9."""
    if 0 < value < _LEAST_CORES:
        raise ValueError(f"it must be 0 (none) or at least {_LEAST_CORES:g} cores: the engine takes no less")
    return round(value, 9)


def read_text(path: Path) -> str:
    """Return the text of a file, without the end of its last line.

    Raises:
        ValueError: it cannot be read, or is no text; the message does not repeat the path.
    """
    try:
        return path.read_text(encoding="utf-8").rstrip("\r\n")
    except OSError as error:
        raise ValueError(error.strerror or "the file cannot be read") from error
    except UnicodeDecodeError as error:
        raise ValueError("the file is no UTF-8 text") from error


def check_secret_file(path: Path) -> Path:
    """Refuse a file that does not hold one line of text: what a secret is made of."""
    content = read_text(path)
    if not content:
        raise ValueError("the file is empty")
    if not content.isprintable():
        raise ValueError("it has several lines, or characters that cannot be printed (a byte order mark?)")
    return path


def check_ca_file(path: Path) -> Path:
    """Refuse a file without PEM certificates."""
    read_text(path)
    try:
        ssl.create_default_context(cafile=path)
    except ssl.SSLError as error:
        raise ValueError("there is no PEM certificate in it") from error
    return path


SecretFile = Annotated[Path, AfterValidator(check_secret_file)]
TokensFile = Annotated[Path, AfterValidator(check_token_file)]
CaFile = Annotated[Path, AfterValidator(check_ca_file)]
Seconds = Annotated[float, BeforeValidator(seconds), Field(ge=0, le=_CENTURY)]
"""A time that may be zero."""
Limit = Annotated[float, BeforeValidator(seconds), Field(gt=0, le=_DAY)]
"""A time after which something is done: more than zero, at most a day."""
Wait = Annotated[float, BeforeValidator(seconds), Field(ge=0, le=_DAY)]
"""A time to wait: zero to a day."""
Retention = Annotated[float, BeforeValidator(seconds), Field(ge=1, le=_CENTURY)]
"""How long Kafka keeps events: at least a second."""
Cores = Annotated[float, Field(ge=0, le=4096), AfterValidator(cores)]
Tasks = Annotated[int, Field(ge=0, le=10_000)]
TcpPort = Annotated[int, Field(ge=1, le=65535)]


class RoutingMode(StrEnum):
    """What the routing layer does with a request for an asset's stream."""

    PROXY = "proxy"
    REDIRECT = "redirect"


class LogLevel(StrEnum):
    """How much is logged."""

    DEBUG = "debug"
    INFO = "info"
    WARNING = "warning"
    ERROR = "error"
    CRITICAL = "critical"


def strip_user(url: str) -> str:
    """Return a URL without the user and password that may be in it."""
    parts = urlsplit(url)
    return urlunsplit(parts._replace(netloc=parts.netloc.rpartition("@")[2]))


def mask(text: str) -> str:
    """Return a value with what may be the credentials of a URL, or a token in its query, replaced by ``***``."""
    return _QUERY.sub("?***", _CREDENTIALS.sub(r"\1***@", text))
