"""The factory's settings: environment variables of the same names in upper case."""

from __future__ import annotations

import re
from typing import Annotated, Any

from pydantic import Field, field_validator
from pydantic_settings import NoDecode

from demo.service import ServiceSettings

PLAIN_NAME = r"^[A-Za-z_][A-Za-z0-9_]*$"


class FactorySettings(ServiceSettings):
    """What is simulated, and where.

    Attributes:
        workcenters: their names, a comma-separated list.
        assets_per_workcenter: how many assets each starts with.
        events_per_second: inserted in total, however many assets there are.
        ksqldb_assets_stream: the stream that events are inserted into; a plain name, as the two below.
        ksqldb_assets_table: the table of the present values.
        ksqldb_uns_map: the queryable map of assets to UNS levels; mappings go into ``<name>_raw``.
    """

    workcenters: Annotated[tuple[str, ...], NoDecode] = ("Weld", "Paint", "Assembly")
    assets_per_workcenter: int = Field(default=4, ge=0, le=10_000)
    events_per_second: float = Field(default=12.0, gt=0, le=1000)
    ksqldb_assets_stream: str = Field(default="enriched_assets_stream", pattern=PLAIN_NAME)
    ksqldb_assets_table: str = Field(default="assets", pattern=PLAIN_NAME)
    ksqldb_uns_map: str = Field(default="asset_to_uns_map", pattern=PLAIN_NAME)

    @field_validator("workcenters", mode="before")
    @classmethod
    def _split(cls, value: Any) -> Any:
        if not isinstance(value, str):
            return value
        return tuple(name for part in re.split(",", value) if (name := part.strip()))
