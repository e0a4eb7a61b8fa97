"""To which installation this operator belongs. Pure.

People choose owner ids, and two plants on one ksqlDB may both have the default. So each installation has an id of its
own: 8 hex digits, generated once and kept as a record beside lease and pause. It is in the registry, in the label
``org.openfactory.installation`` of every service and in the shared stream's name. An object with another id is not
ours.
"""

from __future__ import annotations

import re
import secrets
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace

from openfactory_common.errors import RegistryError
from openfactory_common.registry import parse as parse_registry
from openfactory_common.text import list_some
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
        adopted: other ids whose objects a person has declared to be this one's; `LEGACY` for objects without an id.
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
    """To which installation this operator belongs, and how that is known.

    Attributes:
        installation: whose objects are ours.
        before: the record as it was read, None where there is none.
        due: the record has to be written before anything else.
        provisional: this process generated the id, and it is recorded nowhere yet.
        refusal: why nothing at all may be written; ``""`` where it may.
    """

    installation: Installation
    before: Record | None = None
    due: bool = False
    provisional: bool = False
    refusal: str = ""


def new_id() -> str:
    """Generate an id that no other installation has."""
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
    """Find out which installation this is.

    Args:
        platform: what was observed, with the records.
        streams: names of all ksqlDB streams.
        owner: our owner id.
        fresh: the id to take where this is a first installation.
        known: what this process has read from the record before.
        adopt: id that a person declared to be this installation's; ``""`` for none.
    """
    before = platform.records.get(RECORD)
    recorded = parse(before)
    published = _find_publisher(platform.registries)
    here, elsewhere = _find_on_platform(platform, owner, published), _find_in_ksqldb(streams, owner)
    base = recorded or known
    if adopt and adopt not in {*here, *elsewhere} and not (base and base.owns(adopt)):
        ids = ", ".join(sorted({*here, *elsewhere})) or "none at all"
        refusal = f"--adopt {adopt}: nothing of that installation is here; found: {ids}"
        return Claim(base or Installation(fresh), before, refusal=refusal)
    if base is None and adopt:
        adopted = Installation(fresh, frozenset({adopt})) if adopt == LEGACY else Installation(adopt)
        return Claim(adopted, before, due=True)
    if base is None:
        refusal = _explain_unclaimed(here, elsewhere) if here else ""
        return Claim(Installation(fresh), before, provisional=True, refusal=refusal)
    # An adopted id whose objects have become ours, or are gone, is forgotten: others may come with the same (`LEGACY`).
    adopted_ids = frozenset(one for one in base.adopted if one in here or one in elsewhere)
    if adopt and not base.owns(adopt):
        adopted_ids |= {adopt}
    found = replace(base, adopted=adopted_ids)
    if published and not found.owns(published):
        publisher = f"the registry was published by installation {published}, and this is {found.id}"
        return Claim(found, before, refusal=f"{publisher}: {_suggest_adoption(published)}")
    return Claim(found, before, due=found != recorded)


def sift(platform: PlatformState, owner: str, installation: Installation) -> PlatformState:
    """Return the observed state, in which services of other installations are marked as foreign."""
    services = {
        name: replace(live, owner=f"{owner}, installation {live.installation or LEGACY}", spec=None)
        if live.owner == owner and not installation.owns(live.installation)
        else live
        for name, live in platform.services.items()
    }
    return replace(platform, services=services)


def find_objects(platform: PlatformState, streams: Iterable[str], owner: str) -> Mapping[str, list[str]]:
    """Return what there is of our owner id, by installation; ``platform`` as it was read, before `sift`."""
    here = _find_on_platform(platform, owner, _find_publisher(platform.registries))
    elsewhere = _find_in_ksqldb(streams, owner)
    return {one: [*here.get(one, []), *elsewhere.get(one, [])] for one in sorted({*here, *elsewhere})}


def _find_on_platform(platform: PlatformState, owner: str, published: str) -> Mapping[str, list[str]]:
    """Find the services and the registry of our owner id, by installation."""
    found: dict[str, list[str]] = {}
    for live in platform.services.values():
        if live.owner == owner:
            found.setdefault(live.installation or LEGACY, []).append(f"service {live.name}")
    if platform.registries:
        found.setdefault(published or LEGACY, []).append("the registry")
    return found


def _find_in_ksqldb(streams: Iterable[str], owner: str) -> Mapping[str, list[str]]:
    found: dict[str, list[str]] = {}
    for name in sorted(streams):
        shared = SharedName.parse(name)
        if shared is not None and shared.owner == fold(owner):
            found.setdefault(shared.installation, []).append(f"stream {name}")
    return found


def _find_publisher(registries: Iterable[LiveRegistry]) -> str:
    """Return the installation that the newest readable document names, ``""`` for none."""
    for live in registries:
        try:
            return parse_registry(live.data).installation or ""
        except RegistryError:
            continue
    return ""


def _explain_unclaimed(here: Mapping[str, list[str]], elsewhere: Mapping[str, list[str]]) -> str:
    found = {one: sorted([*here[one], *elsewhere.get(one, [])]) for one in sorted(here)}
    ids = "; ".join(f"{one}: {list_some(objects, 2)}" for one, objects in found.items())
    return (
        f"objects of this owner are here, and no record says which installation this is ({ids}): "
        f"{_suggest_adoption(*found)}"
    )


def _suggest_adoption(*ids: str) -> str:
    options = " or ".join(f"--adopt {one}" for one in ids)
    return f"if that is this one, run once with {options}"
