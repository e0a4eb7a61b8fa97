"""The registry: which group is served where, as one canonical JSON document.

It is all that the proxy needs and nothing else. Equal content has equal bytes, so its name can be derived from
its content and publishing the same content twice is no write. There is no timestamp inside.

Reader and writer are upgraded separately. A reader ignores fields that it does not know, at every level; a writer that
reads a document with such fields publishes its own rendering without them, under the name of those bytes.
"""

from __future__ import annotations

import hashlib
import json
import re
from functools import lru_cache
from ipaddress import IPv6Address
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from openfactory_common.errors import RegistryError
from openfactory_common.ksqldb.failures import parse_json
from openfactory_common.ksqldb.levels import JoinedLevels, Level, WithFallback, split_level
from openfactory_common.ksqldb.wire import literal

#: Swarm refuses a config of more than 1000 KiB (measured on engine 20.10; older ones took 500 KB).
LIMIT_BYTES = 1000 * 1024
#: Header by which an operator on standby tells this to the followers of the registry.
ROLE_HEADER = "X-Operator-Role"

#: Kafka's limit for the name of a topic; ksqlDB's names are not longer in practice.
_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]{0,248}")
_LEVELS, _LEVEL_LENGTH = 8, 255
_LABEL = r"[A-Za-z0-9_](?:[A-Za-z0-9_-]{0,61}[A-Za-z0-9_])?"
_URL = re.compile(
    rf"https?://(?:{_LABEL}(?:\.{_LABEL})*|\[(?P<v6>[0-9A-Fa-f:.]+)\])"
    r"(?::(?P<port>[0-9]{1,5}))?(?:/[A-Za-z0-9._~!$&'()*+,;=:%/-]*)?"
)
_URL_LENGTH = 2048
_MODEL = ConfigDict(frozen=True, extra="ignore", strict=True)
_SHOWN = 200
#: Seconds since 1970 that no mark reaches: the year 2106.
_END_OF_TIME = 2**32


class OtherClusterError(RegistryError):
    """A document of another cluster than the one in use, which it does not replace."""


class Identity(BaseModel):
    """Which Kafka cluster and which ksqlDB service the registry was made from."""

    model_config = _MODEL

    kafka: str
    ksqldb: str


class GroupLookup(BaseModel):
    """How to find an asset's group in ksqlDB, as names; the reader makes the SQL.

    Attributes:
        table: the UNS map.
        key: its key column.
        levels: the UNS levels whose values make the group: one, or several that are joined.
        separator: what stands between the values of several levels.
        fallback: the group of assets that lack one of the levels, ``""`` for none; then it is not in the document, and
            a proxy that does not know it serves these assets as before there was one: not at all.
    """

    model_config = _MODEL

    table: str
    key: str
    levels: tuple[str, ...] = Field(strict=False)
    separator: str = "-"
    fallback: str = ""

    @classmethod
    def of(cls, table: str, key: str, level: Level) -> GroupLookup:
        """Return the membership of the groups at ``level``."""
        names, fallback = split_level(level)
        levels = level.levels if isinstance(level, WithFallback) else level
        separator = levels.separator if isinstance(levels, JoinedLevels) else "-"
        return cls(table=table, key=key, levels=names, separator=separator, fallback=fallback)

    @property
    def level(self) -> Level:
        """By what assets are grouped."""
        levels = self.levels[0] if len(self.levels) == 1 else JoinedLevels(self.levels, self.separator)
        return WithFallback(levels, self.fallback) if self.fallback else levels


class Registry(BaseModel):
    """The published document.

    Attributes:
        version: of this format; a reader refuses any other.
        identity: the cluster it was made from.
        replaces: the clusters whose place this one has taken, each accepted by a person, the first one first.
        groups: URL of each group's stream service, by the group's value.
        asleep: groups that sleep or fall asleep, each with since when (seconds since 1970). They have no URL: a client
            that asks for one waits, as for a new group, and what is open stays open.
        state_api: URL of the asset state service, None where it is not deployed.
        membership: how the proxy finds an asset's group.
        installation: id of the installation that published it, None in a document of before there were ids.
    """

    model_config = _MODEL

    version: Literal[1] = 1
    identity: Identity
    replaces: tuple[Identity, ...] = Field((), strict=False)
    groups: dict[str, str] = Field(default_factory=dict)
    asleep: dict[str, int] = Field(default_factory=dict)
    state_api: str | None = None
    membership: GroupLookup
    installation: str | None = None

    def canonical(self) -> bytes:
        """Return the bytes that are published: sorted keys, no blanks, UTF-8, a final newline.

        Raises:
            RegistryError: the document is larger than a Swarm config can be, or a reader would refuse it.
        """
        _check(self)
        names = ("replaces", "installation", "asleep")
        without: dict[str, Any] = {name: True for name in names if not getattr(self, name)}
        document = self.model_dump(exclude=without | ({} if self.membership.fallback else {"membership": {"fallback"}}))
        try:
            data = json.dumps(document, sort_keys=True, separators=(",", ":"), ensure_ascii=False).encode() + b"\n"
        except UnicodeEncodeError as error:
            raise RegistryError("registry refused: half of a surrogate pair is no text") from error
        if len(data) > LIMIT_BYTES:
            raise RegistryError(
                f"the registry of {len(self.groups)} groups has {len(data)} bytes, a Swarm config takes "
                f"{LIMIT_BYTES}: use a coarser grouping level (UNS_FASTAPI_GROUP_GROUPING_LEVEL)",
            )
        return data

    @property
    def revision(self) -> str:
        """The revision of the canonical bytes; that of a document as it was read is ``revision_of`` its bytes."""
        return revision_of(self.canonical())


def revision_of(data: bytes) -> str:
    """Return the first 12 hex digits of the SHA-256 of the bytes as they are published."""
    return hashlib.sha256(data).hexdigest()[:12]


def list_replaced(published: Registry | None, now: Identity) -> tuple[Identity, ...]:
    """Return the clusters that ``now`` replaces: what the published document says, and its own if that is another."""
    if published is None:
        return ()
    return published.replaces if published.identity == now else (*published.replaces, published.identity)


def parse(data: bytes, *, before: Registry | None = None) -> Registry:
    """Read a published document; nothing but ``RegistryError`` comes of any bytes.

    Args:
        data: the bytes as published.
        before: the document in use. One of another cluster takes its place only if it names this cluster among those
            it replaces, and names more of them than the one in use: an older or a foreign operator's does not.

    Raises:
        OtherClusterError: the document is of another cluster and does not replace ``before``.
        RegistryError: too large, not JSON, another version, other types, or names and URLs that cannot be right.
    """
    if len(data) > LIMIT_BYTES:
        raise RegistryError(f"registry refused: more than {LIMIT_BYTES} bytes")
    try:
        document = parse_json(data)
    except ValueError as error:
        raise RegistryError("registry refused: not JSON") from error
    try:
        registry = Registry.model_validate(_upgrade(document))
    except ValidationError as error:
        first = error.errors(include_input=False, include_url=False)[0]
        where = ".".join(str(part) for part in first["loc"]) or "document"
        raise RegistryError(f"registry refused: {ascii(where)[1:-1][:_SHOWN]}: {first['msg'][:_SHOWN]}") from None
    registry.canonical()
    if before is not None and registry.identity != before.identity and not _takes_over(registry, before):
        raise OtherClusterError(
            f"registry refused: it was made from cluster {_show(registry.identity)}, the one in use is "
            f"{_show(before.identity)}; if the change is intended, run once with --accept-identity at the operator"
        )
    return registry


def _takes_over(registry: Registry, before: Registry) -> bool:
    return before.identity in registry.replaces and len(registry.replaces) > len(before.replaces)


def _show(identity: Identity) -> str:
    return ascii(f"{identity.kafka}/{identity.ksqldb}")[1:-1][:_SHOWN]


def _check(registry: Registry) -> None:
    """Refuse what could be used as something else than a name or an address.

    Raises:
        RegistryError: names the field.
    """
    source = registry.membership
    for field, name in (("table", source.table), ("key", source.key)):
        if not _NAME.fullmatch(name):
            raise RegistryError(f"registry refused: membership.{field}: not a name of letters, digits and _")
    if not 1 <= len(source.levels) <= _LEVELS or not all(1 <= len(one) <= _LEVEL_LENGTH for one in source.levels):
        raise RegistryError(f"registry refused: membership.levels: 1 to {_LEVELS} names are needed")
    for field, text in (("separator", source.separator), ("fallback", source.fallback)):
        if len(text) > _LEVEL_LENGTH:
            raise RegistryError(f"registry refused: membership.{field}: more than {_LEVEL_LENGTH} characters")
    for group, url in registry.groups.items():
        if not _is_address(url):
            raise RegistryError(f"registry refused: groups.{ascii(group)[1:-1][:_SHOWN]}: not the URL of a service")
    for group, since in registry.asleep.items():
        _check_mark(group, since, registry)
    if registry.state_api is not None and not _is_address(registry.state_api):
        raise RegistryError("registry refused: state_api: not the URL of a service")


def _check_mark(group: str, since: int, registry: Registry) -> None:
    if group in registry.groups or not 0 <= since < _END_OF_TIME:
        raise RegistryError(f"registry refused: asleep.{ascii(group)[1:-1][:_SHOWN]}: has a URL, or no such time")


@lru_cache(maxsize=4096)  # 1,000 groups: 1.1 ms of each reading and each rendering, several times a cycle
def _is_address(url: str) -> bool:
    """Whether it is http(s), a host, perhaps a port and a path: no credentials, query, fragment or line end."""
    match = _URL.fullmatch(url) if len(url) <= _URL_LENGTH else None
    if match is None or not 1 <= int(match["port"] or 80) <= 65535:  # noqa: PLR2004 - TCP's ports
        return False
    try:
        return match["v6"] is None or bool(IPv6Address(match["v6"]))
    except ValueError:
        return False


_OLD_VALUE = re.compile(r"UNS_LEVELS\['((?:[^']|'')*)'\]")
_OLD_SEPARATOR = re.compile(r"CONCAT\(UNS_LEVELS\['(?:[^']|'')*'\], '((?:[^']|'')*)', ")


def _old_sql(level: str | JoinedLevels) -> str:
    """Return the SQL that earlier documents have instead of levels; there a blank value was a group."""
    if isinstance(level, str):
        return f"UNS_LEVELS[{literal(level)}]"
    values = [f"UNS_LEVELS[{literal(name)}]" for name in level.names]
    present = f"({values[0]} IS NOT NULL)"
    for value in values[1:]:
        present = f"({present} AND ({value} IS NOT NULL))"
    return f"CASE WHEN {present} THEN CONCAT({f', {literal(level.separator)}, '.join(values)}) END"


def _upgrade(document: Any) -> Any:
    """Return a document in which the membership's SQL, as it was once published, is levels.

    Only the exact text that was generated from levels is accepted; other SQL is left, and then the levels are missing.
    """
    source = document.get("membership") if isinstance(document, dict) else None
    if not isinstance(source, dict) or "levels" in source or not isinstance(source.get("group"), str):
        return document
    sql = source["group"]
    names = [name.replace("''", "'") for name in _OLD_VALUE.findall(sql)]
    found = _OLD_SEPARATOR.search(sql)
    separator = found[1].replace("''", "'") if found else "-"
    names = names[: len(names) // 2] if found else names
    if not all(names) or not names or (len(names) == 1) is not (found is None):
        return document
    level = names[0] if len(names) == 1 else JoinedLevels(tuple(names), separator)
    if _old_sql(level) != sql:
        return document
    return {**document, "membership": {**source, "levels": names, "separator": separator}}
