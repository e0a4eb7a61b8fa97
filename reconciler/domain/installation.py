"""Which installation this operator is of. Pure.

Owner ids are chosen by people, and two plants on one ksqlDB may both have the default. So each installation has an id
of its own: 8 hex digits, made once and kept as a record beside lease and pause. It stands in the registry, in the label
``org.openfactory.installation`` of every service and in the shared stream's name. What says another id is not ours.
"""

from __future__ import annotations

import re
import secrets
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, replace

from openfactory_common.errors import RegistryError
from openfactory_common.registry import parse as parse_registry
from reconciler.domain.names import LEGACY, SharedName, fold
from reconciler.domain.services import LiveRegistry, PlatformState, Record

#: Name of the record.
RECORD = "installation"
_ID = re.compile(r"[0-9a-f]{8}")


@dataclass(frozen=True)
class Installation:
    """One installation.

    Attributes:
        id: 8 hex digits.
        adopted: other ids whose objects a person has declared to be this one's; `LEGACY` for objects without one.
    """

    id: str
    adopted: frozenset[str] = frozenset()

    def owns(self, other: str) -> bool:
        """Whether what carries this id is ours; ``""`` where it carries none."""
        return (other or LEGACY) in {self.id, *self.adopted}

    @property
    def fields(self) -> dict[str, str]:
        """As a record."""
        return {"id": self.id, "adopted": " ".join(sorted(self.adopted))}


@dataclass(frozen=True)
class Claim:
    """Which installation this operator is of, and how that is known.

    Attributes:
        installation: whose objects are ours.
        before: the record as it was read, None where there is none.
        due: the record has to be written before anything else is: now, or together with the first write.
        provisional: the id was made up by this process and stands nowhere yet.
        refusal: why nothing at all may be written; ``""`` where it may.
    """

    installation: Installation
    before: Record | None = None
    due: bool = False
    provisional: bool = False
    refusal: str = ""


def new_id() -> str:
    """Make an id that no other installation has."""
    return secrets.token_hex(4)


def is_id(text: str) -> bool:
    """Whether it can be given to ``--adopt``."""
    return text == LEGACY or _ID.fullmatch(text) is not None


def parse(record: Record | None) -> Installation | None:
    """Read the record; None where there is none, or none that can be read."""
    if record is None or _ID.fullmatch(record.fields.get("id", "")) is None:
        return None
    adopted = frozenset(filter(is_id, record.fields.get("adopted", "").split()))
    return Installation(record.fields["id"], adopted)


def claim(
    platform: PlatformState,
    streams: Iterable[str],
    owner: str,
    *,
    fresh: str,
    known: Installation | None = None,
    adopt: str = "",
) -> Claim:
    """Say which installation this is.

    Args:
        platform: what is there, records included.
        streams: names of all ksqlDB streams.
        owner: our owner id.
        fresh: the id to take where this is a first installation.
        known: what this process has read from the record before.
        adopt: id that a person declared to be this installation's; ``""`` for none.
    """
    before = platform.records.get(RECORD)
    recorded = parse(before)
    published = _registry_of(platform.registries)
    here, elsewhere = _on_platform(platform, owner, published), _in_ksqldb(streams, owner)
    base = recorded or known
    unknown = adopt and adopt not in {*here, *elsewhere} and not (base and base.owns(adopt))
    if unknown:
        return Claim(base or Installation(fresh), before, refusal=_no_such(adopt, here, elsewhere))
    if base is None and adopt:
        adopted = Installation(fresh, frozenset({adopt})) if adopt == LEGACY else Installation(adopt)
        return Claim(adopted, before, due=True)
    if base is None:
        refusal = _unclaimed(here, elsewhere) if here else ""
        return Claim(Installation(fresh), before, provisional=True, refusal=refusal)
    # What was adopted and has become ours, or is gone, needs no memory: others may come with the same (`LEGACY`).
    adopted_ids = frozenset(one for one in base.adopted if one in here or one in elsewhere)
    if adopt and not base.owns(adopt):
        adopted_ids |= {adopt}
    found = replace(base, adopted=adopted_ids)
    if published and not found.owns(published):
        refusal = f"the registry was published by installation {published}, and this is {found.id}: {_cure(published)}"
        return Claim(found, before, refusal=refusal)
    return Claim(found, before, due=found != recorded)


def sift(platform: PlatformState, owner: str, installation: Installation) -> PlatformState:
    """Return what is there with services of other installations as what they are: somebody else's."""
    services = {
        name: replace(live, owner=f"{owner}, installation {live.installation or LEGACY}", spec=None)
        if live.owner == owner and not installation.owns(live.installation)
        else live
        for name, live in platform.services.items()
    }
    return replace(platform, services=services)


def _on_platform(platform: PlatformState, owner: str, published: str) -> Mapping[str, list[str]]:
    """What services and the current registry of our owner id say, by installation."""
    found: dict[str, list[str]] = {}
    for live in platform.services.values():
        if live.owner == owner:
            found.setdefault(live.installation or LEGACY, []).append(f"service {live.name}")
    if platform.registries:
        found.setdefault(published or LEGACY, []).append("the registry")
    return found


def _in_ksqldb(streams: Iterable[str], owner: str) -> Mapping[str, list[str]]:
    found: dict[str, list[str]] = {}
    for name in sorted(streams):
        shared = SharedName.parse(name)
        if shared is not None and shared.owner == fold(owner):
            found.setdefault(shared.installation, []).append(f"stream {name}")
    return found


def _registry_of(registries: Iterable[LiveRegistry]) -> str:
    """Return the installation that the newest readable document names, ``""`` for none."""
    for live in registries:
        try:
            return parse_registry(live.data).installation or ""
        except RegistryError:
            continue
    return ""


def _unclaimed(here: Mapping[str, list[str]], elsewhere: Mapping[str, list[str]]) -> str:
    ids = "; ".join(f"{one}: {_some([*here[one], *elsewhere.get(one, [])])}" for one in sorted(here))
    return (
        f"objects of this owner are here, and no record says which installation this is ({ids}): {_cure(*sorted(here))}"
    )


def _no_such(adopt: str, here: Mapping[str, list[str]], elsewhere: Mapping[str, list[str]]) -> str:
    ids = ", ".join(sorted({*here, *elsewhere})) or "none at all"
    return f"--adopt {adopt}: nothing of that installation is here; found: {ids}"


def _cure(*ids: str) -> str:
    options = " or ".join(f"--adopt {one}" for one in ids)
    return f"if that is this one, run once with {options}"


def _some(things: Collection[str]) -> str:
    named = sorted(things)
    return ", ".join(named[:2]) + (f" and {len(named) - 2} more" if len(named) > 2 else "")  # noqa: PLR2004 - enough to know them by
