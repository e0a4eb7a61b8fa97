"""Checks that what specs and statements refer to exists: a network, secrets, a stream, tables.

Only commands ask, for a person who has not applied anything yet. The loop learns the same from the engine and from
ksqlDB at the first write, and reads nothing more in each cycle.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from openfactory_common.errors import KsqlError, PlatformError
from openfactory_common.ksqldb.wire import fold_name
from reconciler.domain.services import Kind
from reconciler.ksqldb.api import Ksqldb
from reconciler.planning.options import GroupFile, read_variables
from reconciler.planning.survey import Survey
from reconciler.platforms.protocol import Checkable, Platform, Reference
from reconciler.settings import Settings


def find_missing(
    survey: Survey, ksqldb: Ksqldb, platform: Platform, settings: Settings, file: GroupFile
) -> tuple[str, ...]:
    """Return a note for each thing that does not exist or could not be checked; never raise."""
    kinds = (read_variables(settings, kind) for kind in Kind)
    options = [*kinds, *(file.of_service(group, settings) for group in survey.wanted)]
    joined = {name: one.origins["networks"] for one in options for name in one.networks or ()}
    return (*_check_ksqldb(survey, ksqldb, settings), *_check_platform(platform, settings, joined))


def _check_ksqldb(survey: Survey, ksqldb: Ksqldb, settings: Settings) -> Iterator[str]:
    """Check the stream and the tables; the observation has listed streams and read the UNS map already."""
    name, no_stream = settings.ksqldb_assets_stream, "no stream of a group can be created"
    if fold_name(name) not in survey.observed.source.streams:
        yield f"the stream {name} (KSQLDB_ASSETS_STREAM) does not exist in ksqlDB: {no_stream}"
    tables = {settings.ksqldb_assets_table: ("KSQLDB_ASSETS_TABLE", "the state API has no data to answer from")}
    if settings.ksqldb_uns_join_table:
        tables[settings.join_table] = ("KSQLDB_UNS_JOIN_TABLE", no_stream)
    for name, (variable, effect) in tables.items():
        try:
            found = ksqldb.describe_or_none(fold_name(name))
        except KsqlError as error:
            yield f"not checked: the table {name} ({variable}): {error}"
            continue
        if found is None or found.kind != "TABLE":
            yield f"the table {name} ({variable}) does not exist in ksqlDB: {effect}"


def _check_platform(platform: Platform, settings: Settings, joined: Mapping[str, str]) -> Iterator[str]:
    """Check the networks and secrets, each with what names it."""
    if not isinstance(platform, Checkable):
        return
    references = {Reference.NETWORK: {**joined, settings.docker_network: "DOCKER_NETWORK"}}
    if settings.secrets:
        references[Reference.SECRET] = settings.secrets
    for kind, variables in references.items():
        try:
            missing = platform.missing_references(kind, tuple(variables))
        except PlatformError as error:
            names = ", ".join(f"{name} ({variable})" for name, variable in variables.items())
            yield f"not checked: the {kind} {names}: {error}"
            continue
        for name, why in missing.items():
            yield f"the {kind} {name} ({variables[name]}) {why}"
