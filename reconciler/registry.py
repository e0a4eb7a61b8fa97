"""The registry: which group is served where, as one canonical JSON document.

It is all that the proxy needs and nothing else. Equal content has equal bytes, so its name can be derived from
its content and publishing the same thing twice is no write. There is no timestamp inside.
"""

from __future__ import annotations

import hashlib
import json
from typing import Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from reconciler.errors import RegistryError

#: Swarm refuses a config of more than 1000 KiB (measured on engine 20.10; older ones took 500 KB).
LIMIT_BYTES = 1000 * 1024
#: Header with which an operator that only stands by says so to those who follow the registry.
ROLE_HEADER = "X-Operator-Role"


class Identity(BaseModel):
    """Which Kafka cluster and which ksqlDB service the registry was made from."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    kafka: str
    ksqldb: str


class Membership(BaseModel):
    """How to find an asset's group in ksqlDB.

    ``table`` and ``key`` are identifiers, ``group`` is the SQL expression that gives the group of a row; all three
    are written by the operator, never by a user of the proxy.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    table: str
    key: str
    group: str


class Registry(BaseModel):
    """The published document.

    Attributes:
        version: of this format; a reader refuses any other.
        identity: the cluster it was made from.
        groups: URL of each group's stream service, by the group's value.
        state_api: URL of the asset state service, None where it is not deployed.
        membership: how the proxy finds an asset's group.
        installation: id of the installation that published it, None in a document of before there were ids.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    version: Literal[1] = 1
    identity: Identity
    groups: dict[str, str] = Field(default_factory=dict)
    state_api: str | None = None
    membership: Membership
    installation: str | None = None

    def canonical(self) -> bytes:
        """Return the bytes that are published: sorted keys, no blanks, UTF-8, a final newline.

        Raises:
            RegistryError: the document is larger than a Swarm config can be.
        """
        text = json.dumps(
            self.model_dump(exclude=None if self.installation else {"installation"}),
            sort_keys=True,
            separators=(",", ":"),
            ensure_ascii=False,
        )
        data = text.encode() + b"\n"
        if len(data) > LIMIT_BYTES:
            raise RegistryError(
                f"the registry of {len(self.groups)} groups has {len(data)} bytes, a Swarm config takes "
                f"{LIMIT_BYTES}: use a coarser grouping level (UNS_FASTAPI_GROUP_GROUPING_LEVEL)",
            )
        return data

    @property
    def revision(self) -> str:
        """The first 12 hex digits of the SHA-256 of the canonical bytes."""
        return hashlib.sha256(self.canonical()).hexdigest()[:12]


def parse(data: bytes, *, expect: Identity | None = None) -> Registry:
    """Read a published document.

    Args:
        data: the bytes as published.
        expect: refuse a document that was made from another cluster than this.

    Raises:
        RegistryError: not JSON, another version, other fields, or another identity.
    """
    try:
        registry = Registry.model_validate_json(data, strict=True)
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(str(part) for part in first["loc"]) or "document"
        raise RegistryError(f"registry refused: {where}: {first['msg']}") from error
    if expect is not None and registry.identity != expect:
        raise RegistryError(
            f"registry refused: it was made from cluster {registry.identity.kafka}/{registry.identity.ksqldb}, "
            f"expected {expect.kafka}/{expect.ksqldb}",
        )
    return registry
