"""One asset event and its form on the wire."""

from __future__ import annotations

import json
from dataclasses import dataclass

from demo.ksql_rest import Row

KEYS = ("id", "value", "type", "tag", "timestamp", "asset_uuid")


@dataclass(frozen=True)
class AssetEvent:
    """An event of one data item of one asset, framed once for all clients.

    Attributes:
        asset: the ``asset_uuid``.
        data_item: the data item's id.
        frame: the complete server-sent event, blank line included.
    """

    asset: str
    data_item: str | None
    frame: bytes


def event_of(row: Row) -> AssetEvent | None:
    """Return the event of a stream's row, or nothing for a row without an asset.

    Columns are looked up by folded name, so streams with quoted lower-case and with plain columns look alike to
    clients. JSON escapes line breaks, so the data is one line whatever the value contains.
    """
    asset = row.get("asset_uuid")
    if not asset:
        return None
    data = json.dumps({key: row.get(key) for key in KEYS}, ensure_ascii=False, separators=(",", ":"))
    frame = f"event: asset_update\ndata: {data}\n\n".encode("utf-8", "replace")
    return AssetEvent(asset=asset, data_item=row.get("id"), frame=frame)
