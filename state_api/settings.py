"""Every setting of the state API, its variable, its default and what it does."""

from __future__ import annotations

from pydantic import Field

from openfactory_common.patterns import NAME
from openfactory_common.service_settings import KsqldbSettings


class Settings(KsqldbSettings):
    """The state API's settings. The name of a variable is the field's name in upper case."""

    ksqldb_assets_table: str = Field("assets", pattern=NAME)
    """Table of the data items: key `asset_uuid|id`, columns asset_uuid, id, value, type, tag, timestamp."""
    port: int = Field(5555, ge=0, le=65535)
    """Port to listen on, on every address (0: any free one, see the log)."""
