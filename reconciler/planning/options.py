"""What services may have of their own: from variables for each kind, and from groups.toml for single groups. Pure.

Of a group, the variables (`FASTAPI_GROUP_...`) come first, then every pattern of the file that fits its name, in the
order of the file, then its own table; a later value takes the place of an earlier one. Variables and labels are taken
one by one. Each value has its origin, which plans and `reconciler why` show.
"""

from __future__ import annotations

import difflib
import tomllib
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass, field, fields, replace
from fnmatch import fnmatchcase
from functools import lru_cache
from typing import Annotated, Any

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field, ValidationError

from openfactory_common import patterns
from openfactory_common.errors import ConfigurationError
from openfactory_common.settings_types import Cores, Seconds, Tasks, Wait
from reconciler.domain import service_values as values
from reconciler.domain.services import Healthcheck, Kind, show_number
from reconciler.settings import Image, Memory, Settings

#: The start of the variables of each kind.
_PREFIXES = {Kind.GROUP: "fastapi_group", Kind.ROUTING_LAYER: "routing_layer", Kind.STATE_API: "state_api"}
DEFAULT = "default"
#: The line of each key of a document, by the names of the tables around it and its own.
Lines = Mapping[tuple[str, ...], int]


@dataclass(frozen=True)
class GroupOptions:
    """What a service has of its own. None, False, or nothing in it: not said.

    Attributes:
        image: reference with tag.
        replicas: how many tasks.
        cpu_limit: cores a task may use, 0 for no limit.
        cpu_reservation: cores a node must have free, 0 for none.
        memory_limit: bytes a task may use, 0 for no limit.
        memory_reservation: bytes a node must have free, 0 for none.
        constraints: on its nodes, sorted.
        labels: further labels.
        env: further variables.
        networks: further networks, sorted.
        log_driver: ``""`` for the engine's default.
        log_options: of that log driver; said together with it.
        healthcheck: one without a command stands for the image's own.
        paused: nothing of the group is written.
        keep: the group is never removed.
        idle_after: seconds without a stream after which it sleeps, 0 for never.
        origins: where each value comes from, by the name of the field; of variables and labels by ``env NAME`` and
            ``label NAME``, as `reconciler.domain.services.drift` names them.
    """

    image: str | None = None
    replicas: int | None = None
    cpu_limit: float | None = None
    cpu_reservation: float | None = None
    memory_limit: int | None = None
    memory_reservation: int | None = None
    constraints: tuple[str, ...] | None = None
    labels: Mapping[str, str] = field(default_factory=dict)
    env: Mapping[str, str] = field(default_factory=dict)
    networks: tuple[str, ...] | None = None
    log_driver: str | None = None
    log_options: Mapping[str, str] | None = None
    healthcheck: Healthcheck | None = None
    paused: bool | None = None
    keep: bool | None = None
    idle_after: float | None = None
    origins: Mapping[str, str] = field(default_factory=dict)

    def merge(self, later: GroupOptions) -> GroupOptions:
        """Return these options with those that ``later`` says in their place."""
        said = {name: value for name in _NAMES if (value := getattr(later, name)) is not None}
        said |= {"labels": {**self.labels, **later.labels}, "env": {**self.env, **later.env}}
        return replace(self, **said, origins={**self.origins, **later.origins})

    def describe(self) -> tuple[str, ...]:
        """Return a line for each value that is not a default, with its origin.

        Of variables, labels and log options there are only the names, of a healthcheck only the times: others read it.
        """
        found = [
            f"{name} ({origin})" if " " in name else f"{name} = {_show(getattr(self, name))} ({origin})"
            for name, origin in self.origins.items()
            if origin != DEFAULT
        ]
        return tuple(sorted(found))


_NAMES = tuple(one.name for one in fields(GroupOptions) if one.name not in ("labels", "env", "origins"))


def _show(value: object) -> str:
    match value:
        case bool():
            return str(value).lower()
        case Healthcheck():
            return value.text if value.command else "the image's own"
        case tuple():
            return ", ".join(map(str, value)) or "none"
        case dict():
            return ", ".join(value) or "none"
        case float():
            return f"{value:.15g}"
        case int():
            return show_number(value)
    return str(value)


@lru_cache(maxsize=16)  # it is asked for every group in every cycle
def read_variables(settings: Settings, kind: Kind) -> GroupOptions:
    """Return what the variables of a kind say; every value is there, some by default."""
    prefix = _PREFIXES[kind]
    names = [name for name in _NAMES if f"{prefix}_{name}" in Settings.model_fields]
    given = {name: getattr(settings, f"{prefix}_{name}") for name in (*names, "labels", "env")}
    origins = {
        name: DEFAULT if value == Settings.model_fields[f"{prefix}_{name}"].default else f"{prefix}_{name}".upper()
        for name, value in given.items()
    }
    for name in ("constraints", "networks"):
        given[name] = getattr(values, name)(values.split_list(given[name]))
    for name in ("labels", "env", "log_options"):
        given[name] = values.split_pairs(given[name])
    for name, title in (("labels", "label"), ("env", "env")):
        origins |= dict.fromkeys((f"{title} {key}" for key in given[name]), origins.pop(name))
    given["healthcheck"] = values.healthcheck(given["healthcheck"])
    return GroupOptions(**given, origins=origins)


@dataclass(frozen=True)
class Rule:
    """One table of the file: the pattern or the exact name that it is for, and where it begins."""

    name: str
    exact: bool
    line: int
    options: GroupOptions

    @property
    def title(self) -> str:
        """As plans and messages name it."""
        return f"{'group' if self.exact else 'pattern'} {self.name}"

    def fits(self, group: str) -> bool:
        """Whether it is for this group."""
        return self.name == group if self.exact else fnmatchcase(group, self.name)


@dataclass(frozen=True)
class GroupFile:
    """groups.toml, read: its rules in the order in which they apply, patterns before exact names."""

    rules: tuple[Rule, ...] = ()
    # Every cycle asks for every group: with 1,000 groups and tables of their own that is a second.
    _known: dict[str, GroupOptions] = field(default_factory=dict, compare=False, repr=False)
    _merged: dict[str, tuple[GroupOptions, GroupOptions]] = field(default_factory=dict, compare=False, repr=False)

    def of(self, group: str) -> GroupOptions:
        """Return what the file says of a group."""
        if group not in self._known:
            found = GroupOptions()
            for rule in self.rules:
                if rule.fits(group):
                    found = found.merge(rule.options)
            self._known[group] = found
        return self._known[group]

    def of_service(self, group: str, settings: Settings) -> GroupOptions:
        """Return what a group's service has: from the variables, then from the file."""
        common = read_variables(settings, Kind.GROUP)
        if not self.rules:
            return common
        base, merged = self._merged.get(group, (None, common))
        if base is not common:
            merged = common.merge(self.of(group))
            self._merged[group] = common, merged
        return merged

    def find_paused(self, groups: Collection[str]) -> dict[str, str]:
        """Return the groups of which the file says that nothing is written, with the reason."""
        found = ((group, self.of(group)) for group in groups)
        return {group: f"paused in {said.origins['paused']}" for group, said in found if said.paused}

    def find_kept(self, groups: Collection[str]) -> dict[str, str]:
        """Return the groups that the file keeps from being removed, with the reason."""
        found = ((group, self.of(group)) for group in groups)
        return {group: f"no assets; kept by {said.origins['keep']}" for group, said in found if said.keep}

    def find_unmatched(self, groups: Collection[str]) -> Iterator[str]:
        """Return a note for each table that is for no group."""
        for rule in self.rules:
            if not any(rule.fits(group) for group in groups):
                close = difflib.get_close_matches(rule.name, sorted(groups), 1, 0.7)
                meant = f"; did you mean {close[0]}?" if close else ""
                yield f"GROUPS_FILE line {rule.line}: there is no group for {rule.title}{meant}"


def _check_env(value: dict[str, str]) -> dict[str, str]:
    return values.variables(value, Kind.GROUP)


_CheckTime = Annotated[Wait, AfterValidator(values.check_time)]


class _Healthcheck(BaseModel):
    """A healthcheck with its times."""

    model_config = ConfigDict(extra="forbid", strict=True)

    command: Annotated[str, Field(min_length=1)]
    interval: Annotated[_CheckTime, Field(gt=0)] = Healthcheck.interval
    timeout: Annotated[_CheckTime, Field(gt=0)] = Healthcheck.timeout
    retries: Annotated[int, Field(ge=1, le=100)] = Healthcheck.retries
    start_period: _CheckTime = Healthcheck.start_period


def _make_check(value: Any) -> Any:
    """Read the short form, a command alone; without one it stands for the image's own check."""
    if isinstance(value, str):
        return _Healthcheck.model_construct(command=value.strip())
    return value


class _Table(BaseModel):
    """One table of the file, with its types; what is not in it has no meaning."""

    model_config = ConfigDict(extra="forbid", strict=True, allow_inf_nan=False)

    image: Image | None = None
    replicas: Annotated[Tasks, Field(ge=1)] | None = None
    cpu_limit: Cores | None = None
    cpu_reservation: Cores | None = None
    memory_limit: Memory | None = None
    memory_reservation: Memory | None = None
    constraints: Annotated[list[str], AfterValidator(values.constraints)] | None = None
    labels: Annotated[dict[str, str], AfterValidator(values.labels)] = {}
    env: Annotated[dict[str, str], AfterValidator(_check_env)] = {}
    networks: Annotated[list[str], AfterValidator(values.networks)] | None = None
    log_driver: Annotated[str, AfterValidator(values.log_driver)] | None = None
    log_options: Annotated[dict[str, str], AfterValidator(values.log_options)] | None = None
    healthcheck: Annotated[_Healthcheck, BeforeValidator(_make_check)] | None = None
    paused: bool | None = None
    keep: bool | None = None
    idle_after: Annotated[Seconds, AfterValidator(values.idle_time)] | None = None


def parse_groups_file(text: str) -> GroupFile:
    """Read the text of groups.toml.

    Raises:
        ConfigurationError: one line a problem, each with the line and the key, and what it must be.
    """
    try:
        return _parse(text)
    except ValueError as error:  # also a number of more digits than Python reads
        raise ConfigurationError(f"GROUPS_FILE: this is no TOML: {error}") from error
    except RecursionError as error:
        raise ConfigurationError("GROUPS_FILE: it is nested too deeply") from error


def _parse(text: str) -> GroupFile:
    document, lines = tomllib.loads(text), _find_lines(text)
    problems: list[str] = []
    # In this order they apply.
    rules = [
        rule for part in ("patterns", "groups") for rule in _read_part(part, document.pop(part, {}), lines, problems)
    ]
    problems += [_locate(lines, (key,)) + 'unknown; write [groups."NAME"] or [patterns."NAME*"]' for key in document]
    if problems:
        raise ConfigurationError("\n".join(problems))
    return GroupFile(tuple(rules))


def _read_part(part: str, tables: object, lines: Lines, problems: list[str]) -> Iterator[Rule]:
    """Read the tables of one part; what is wrong with the others is added to ``problems``."""
    named = tables.items() if isinstance(tables, dict) else [(None, tables)]
    for name, table in named:
        at = (part,) if name is None else (part, name)
        if name is None or not isinstance(table, dict):
            problems.append(_locate(lines, at) + f'it must be a table: write [{part}."NAME"]')
            continue
        try:
            yield _read_rule(part, name, table, lines)
        except ValidationError as error:
            problems += [_explain((part, name), dict(item), lines) for item in error.errors()]
        except ValueError as error:
            problems.append(_locate(lines, at) + str(error))


def _read_rule(part: str, name: str, table: Mapping[str, Any], lines: Lines) -> Rule:
    if "log_options" in table and not table.get("log_driver"):
        raise ValueError("log_options need a log_driver in the same table")
    read = _Table.model_validate(table)
    said: dict[str, Any] = {key: getattr(read, key) for key in table}
    if "log_driver" in table:  # options belong to a driver: those of another do not stay
        said.setdefault("log_options", {})
    if read.healthcheck is not None:
        said["healthcheck"] = Healthcheck(**dict(read.healthcheck))
    where = f", {'group' if part == 'groups' else 'pattern'} {name}"
    origins: dict[str, str] = {}
    for key in table:
        title = {"labels": "label ", "env": "env "}.get(key)
        paths = {f"{title}{one}": (key, one) for one in table[key]} if title else {key: (key,)}
        origins |= {name_: f"{_source(lines, (part, name, *path))}{where}" for name_, path in paths.items()}
    options = GroupOptions(**said, origins=origins)
    return Rule(name, part == "groups", _line(lines, (part, name)), options)


def _explain(at: tuple[str, str], item: Mapping[str, Any], lines: Lines) -> str:
    """Return one of pydantic's errors as a line that names the line and the key."""
    keys = [str(part) for part in item["loc"] if isinstance(part, str)]
    text = patterns.message(item)
    if item["type"] == "extra_forbidden":
        known = _Healthcheck.model_fields if len(keys) > 1 else _Table.model_fields
        close = difflib.get_close_matches(keys[-1], known, 1)
        text = "unknown key" + (f"; did you mean {close[0]}?" if close else f"; there are {', '.join(known)}")
    return _locate(lines, (*at, *keys)) + text


def _locate(lines: Lines, path: tuple[str, ...]) -> str:
    (part, *rest) = path
    head = f'[{part}."{rest[0]}"]' if rest else part
    return f"{_source(lines, path)}: {' '.join((head, '.'.join(rest[1:]))).strip()}: "


def _source(lines: Lines, path: tuple[str, ...]) -> str:
    return f"GROUPS_FILE line {_line(lines, path)}"


def _line(lines: Lines, path: tuple[str, ...]) -> int:
    """Return the line of a key, or of the nearest table around it."""
    return next((lines[path[:end]] for end in range(len(path), 0, -1) if path[:end] in lines), 1)


def _find_lines(text: str) -> dict[tuple[str, ...], int]:
    """Return the line of each key of a document that is valid: `tomllib` does not say it.

    A statement ends with the first line with which it can be parsed, and begins after the one before.
    """
    found: dict[tuple[str, ...], int] = {}
    table: tuple[str, ...] = ()
    statement, first = "", 1
    for number, line in enumerate(text.split("\n"), 1):
        statement, first = (f"{statement}\n{line}", first) if statement else (line, number)
        try:
            read = tomllib.loads(statement)
        except tomllib.TOMLDecodeError:
            continue
        header, statement = statement.lstrip().startswith("["), ""
        paths = list(_list_paths(read))
        if header:
            table = paths[-1] if paths else table
        for path in paths:
            found.setdefault(path if header else (*table, *path), first)
    return found


def _list_paths(value: object, path: tuple[str, ...] = ()) -> Iterator[tuple[str, ...]]:
    if path:
        yield path
    if isinstance(value, dict):
        for key, inner in value.items():
            yield from _list_paths(inner, (*path, key))
