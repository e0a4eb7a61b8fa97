"""What specs and statements refer to and others make: a network, secrets, a stream, tables. Is it there?

Asked by commands alone, for a person who has not applied anything yet. The loop hears the same from the engine and
from ksqlDB at the first write, and asks nothing more at each cycle.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from openfactory_common.errors import KsqlError, PlatformError
from openfactory_common.ksqldb.wire import stored
from reconciler.ksqldb.api import Ksqldb
from reconciler.planning.survey import Survey
from reconciler.platforms.protocol import Checkable, Platform, Reference
from reconciler.settings import Environment, Settings


def unmet(survey: Survey, ksqldb: Ksqldb, platform: Platform, settings: Settings) -> tuple[str, ...]:
    """Return a note for each thing that is not there, or of which that could not be found out; never an error."""
    return (*_streams(survey, settings), *_tables(ksqldb, settings), *_on_platform(platform, settings))


def _streams(survey: Survey, settings: Settings) -> Iterator[str]:
    """The look has listed them already."""
    name = settings.ksqldb_assets_stream
    if stored(name) not in survey.observed.source.streams:
        yield f"the stream {name} (KSQLDB_ASSETS_STREAM) does not exist in ksqlDB: no stream of a group can be made"


def _tables(ksqldb: Ksqldb, settings: Settings) -> Iterator[str]:
    """The UNS map is not asked about: the look has read it."""
    for name, (variable, effect) in _wanted_tables(settings).items():
        try:
            found = ksqldb.describe_or_none(stored(name))
        except KsqlError as error:
            yield f"not checked: the table {name} ({variable}): {error}"
            continue
        if found is None or found.kind != "TABLE":
            yield f"the table {name} ({variable}) does not exist in ksqlDB: {effect}"


def _wanted_tables(settings: Settings) -> Mapping[str, tuple[str, str]]:
    wanted = {settings.ksqldb_assets_table: ("KSQLDB_ASSETS_TABLE", "the state API has nothing to answer from")}
    if settings.ksqldb_uns_join_table:
        wanted[settings.join_table] = ("KSQLDB_UNS_JOIN_TABLE", "no stream of a group can be made")
    return wanted


def _on_platform(platform: Platform, settings: Settings) -> Iterator[str]:
    if not isinstance(platform, Checkable):
        return
    for kind, variables in _referred(settings).items():
        try:
            lacking = platform.missing_references(kind, tuple(variables))
        except PlatformError as error:
            names = ", ".join(f"{name} ({variable})" for name, variable in variables.items())
            yield f"not checked: the {kind} {names}: {error}"
            continue
        for name, why in lacking.items():
            yield f"the {kind} {name} ({variables[name]}) {why}"


def _referred(settings: Settings) -> Mapping[Reference, Mapping[str, str]]:
    """Names with the variables that they stand in; what is not referred to is not asked about."""
    secrets = {name: f"{variable}_SECRET" for variable, name in settings.routing_layer_secrets.items()}
    network = {Reference.NETWORK: {settings.docker_network: "DOCKER_NETWORK"}}
    if not secrets or settings.environment is Environment.LOCAL:  # it has no routing layer's service
        return network
    return {**network, Reference.SECRET: secrets}
