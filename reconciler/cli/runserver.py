"""``runserver``: the routing layer on this host."""

from __future__ import annotations

import argparse
import os
import sys
import tempfile
from pathlib import Path
from typing import Any

import structlog
from dotenv import dotenv_values
from prometheus_client import CollectorRegistry

from openfactory_common.errors import ConfigurationError, PlatformError
from reconciler.app import build_dependencies, registry_file
from reconciler.cli.output import add_command
from reconciler.metrics import Metrics
from reconciler.planning.specs import routing_layer_options
from reconciler.settings import Settings

log = structlog.get_logger()


def add(commands: Any) -> None:
    """Register ``runserver``."""
    add_command(commands, "runserver", _runserver)


def _runserver(_: argparse.Namespace, settings: Settings) -> int:
    """Run the routing layer on this host.

    It listens on ROUTING_LAYER_PORT and starts from the published registry: for ENVIRONMENT=local, and for debugging.
    It replaces this process and ends at SIGTERM or Ctrl-C, after a drain. With DEPLOYMENT_PLATFORM=docker it follows
    the registry's file and needs no running operator.
    """
    _check_files(settings)
    environment = {**os.environ, **make_environment(settings)}
    os.execve(sys.executable, [sys.executable, "-m", "routing_layer"], environment)  # noqa: S606 - no shell is meant


def _check_files(settings: Settings) -> None:
    """Refuse to run open what is meant to be closed: this process has none of the Swarm's secrets.

    Raises:
        ConfigurationError: names the secret's variable, and that of the file which takes its place.
    """
    given = {name.upper() for name in (*os.environ, *dotenv_values(".env"))}
    for variable in ("AUTH_KEYS", "TLS_CERT"):
        if variable in settings.routing_layer_secrets and f"{variable}_FILE" not in given:
            raise ConfigurationError(
                f"ROUTING_LAYER_{variable}_SECRET is set, and runserver has no Swarm secrets: set {variable}_FILE"
            )


def make_environment(settings: Settings) -> dict[str, str]:
    """Return the routing layer's variables, as the operator sets them when it deploys it."""
    file = registry_file(settings)
    operator = f"http://127.0.0.1:{settings.reconciler_port}" if file is None else ""
    return {
        "DRAIN_SECONDS": "",  # the operator's own, which means something else to the routing layer
        **routing_layer_options(settings),
        "KSQLDB_URL": settings.ksqldb_url,
        "ROUTING_LAYER_PORT": str(settings.routing_layer_port),
        "LOG_LEVEL": settings.log_level.value,
        "RECONCILER_URL": os.environ.get("RECONCILER_URL", operator),
        "REGISTRY_FILE": os.environ.get("REGISTRY_FILE") or str(file or _write_boot_copy(settings)),
    }


def _write_boot_copy(settings: Settings) -> str:
    path = Path(tempfile.mkdtemp(prefix="openfactory-")) / "registry.json"
    try:
        for live in build_dependencies(settings, Metrics(CollectorRegistry())).platform.observe().registries[:1]:
            path.write_bytes(live.data)
    except PlatformError as error:
        log.warning("no boot copy of the registry", error=str(error))
    return str(path)
