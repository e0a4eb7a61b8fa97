"""The SQL that the factory sends: one statement each, names whitelisted by the settings, values escaped. No I/O.

The definitions are those of the existing system's set-up scripts, so a real installation already has them; the
factory creates only what is missing. ``PARTITIONS`` makes ksqlDB create a topic that is not there.
"""

from __future__ import annotations

from datetime import UTC, datetime

from demo.factory.plant import Placement, Reading
from demo.factory.settings import FactorySettings
from demo.ksql_rest import literal

FROM_THE_BEGINNING = {"ksql.streams.auto.offset.reset": "earliest"}


def definitions(settings: FactorySettings) -> list[tuple[str, str]]:
    """Return the name as stored and the CREATE statement of each source, in the order of their dependence."""
    stream, table = settings.ksqldb_assets_stream, settings.ksqldb_assets_table
    map_name, raw = settings.ksqldb_uns_map, f"{settings.ksqldb_uns_map}_raw"
    statements = {
        stream: (
            f"CREATE STREAM {stream} (key VARCHAR KEY, asset_uuid VARCHAR, id VARCHAR, value VARCHAR, type VARCHAR, "
            f"tag VARCHAR, timestamp VARCHAR) WITH (KAFKA_TOPIC='{stream}_topic', VALUE_FORMAT='JSON', PARTITIONS=1);"
        ),
        raw: (
            f"CREATE TABLE {raw} (asset_uuid VARCHAR PRIMARY KEY, uns_id VARCHAR, uns_levels MAP<VARCHAR, VARCHAR>, "
            f"updated_at TIMESTAMP) WITH (KAFKA_TOPIC='{map_name}_topic', KEY_FORMAT='KAFKA', VALUE_FORMAT='JSON', "
            "PARTITIONS=1);"
        ),
        map_name: f"CREATE TABLE {map_name} AS SELECT * FROM {raw} EMIT CHANGES;",  # noqa: S608 - whitelisted names
        table: f"CREATE TABLE {table} AS SELECT key, {_latest_columns()} FROM {stream} GROUP BY key;",  # noqa: S608 - whitelisted names
    }
    return [(name.upper(), statement) for name, statement in statements.items()]


def _latest_columns() -> str:
    names = ("asset_uuid", "id", "value", "type", "tag", "timestamp")
    return ", ".join(f"LATEST_BY_OFFSET({name}) AS {name}" for name in names)


def read_map(settings: FactorySettings) -> str:
    """Return the pull query of all mappings."""
    return f"SELECT asset_uuid, uns_levels FROM {settings.ksqldb_uns_map};"  # noqa: S608 - whitelisted name


def insert_mapping(settings: FactorySettings, placement: Placement, now: datetime) -> str:
    """Return the statement that maps an asset, or moves it if it is mapped."""
    levels = ", ".join(f"{literal(name)}:={literal(value)}" for name, value in placement.levels.items())
    stamp = now.astimezone(UTC).replace(tzinfo=None).isoformat(timespec="seconds")
    values = f"{literal(placement.asset)}, {literal(placement.uns_id)}, MAP({levels}), {literal(stamp)}"
    return (
        f"INSERT INTO {settings.ksqldb_uns_map}_raw (asset_uuid, uns_id, uns_levels, updated_at) "  # noqa: S608 - name whitelisted, values escaped
        f"VALUES ({values});"
    )


def insert_reading(settings: FactorySettings, reading: Reading) -> str:
    """Return the statement that inserts one event, keyed ``asset_uuid|id`` as the existing system does."""
    fields = (reading.asset, reading.data_item, reading.value, reading.type, reading.tag, reading.timestamp)
    values = ", ".join(literal(text) for text in (f"{reading.asset}|{reading.data_item}", *fields))
    return (
        f"INSERT INTO {settings.ksqldb_assets_stream} (key, asset_uuid, id, value, type, tag, timestamp) "  # noqa: S608 - name whitelisted, values escaped
        f"VALUES ({values});"
    )
