"""Which installation an operator is of: a table of what is there, what is known and what a person says."""

from __future__ import annotations

from dataclasses import replace

import pytest

from openfactory_common.registry import GroupLookup, Identity, Registry
from reconciler.domain.installation import RECORD, Claim, Installation, claim, is_id, new_id, parse, sift
from reconciler.domain.names import LEGACY
from reconciler.domain.services import LiveRegistry, LiveService, PlatformState, Record
from tests.harness.fake_platform import NOW

OURS, THEIRS, FRESH = "1a2b3c4d", "99999999", "ffffffff"
SHARED = "OFA_ASSETS_WITH_UNS_1A2B3C4D_0F0F0F0F_1"
LEGACY_SHARED = "OFA_ASSETS_WITH_UNS_0F0F0F0F"


def record(identity: str = OURS, adopted: str = "") -> Record:
    """Return the record."""
    return Record("r", 1, RECORD, {"id": identity, "adopted": adopted})


def service(name: str, installation: str, owner: str | None = "ofa") -> LiveService:
    """Return a service."""
    return LiveService(name, 1, name, owner, None, 1, installation=installation)


def registry(installation: str | None) -> LiveRegistry:
    """Return a published document."""
    document = Registry(
        identity=Identity(kafka="k", ksqldb="q"),
        membership=GroupLookup(table="T", key="K", levels=("area",)),
        installation=installation,
    )
    return LiveRegistry("c", 1, "c", 1, document.canonical(), NOW)


def state(*things: object) -> PlatformState:
    """Return a platform on which these are."""
    services = {one.name: one for one in things if isinstance(one, LiveService)}
    records = {one.name: one for one in things if isinstance(one, Record)}
    return PlatformState(services, tuple(one for one in things if isinstance(one, LiveRegistry)), records)


def stand(*things: object, streams: tuple[str, ...] = (), known: Installation | None = None, adopt: str = "") -> Claim:
    """Decide."""
    return claim(state(*things), streams, "ofa", fresh=FRESH, known=known, adopt=adopt)


def test_a_first_installation_gets_an_id_of_its_own() -> None:
    """It is written down with the first write, and not by looking."""
    assert stand() == Claim(Installation(FRESH), provisional=True)
    assert stand(service("ofa_x", THEIRS, "other"), streams=(SHARED,)).installation.id == FRESH


def test_the_record_says_it() -> None:
    """Whatever else is there, and then nothing has to be written."""
    found = stand(record(), service("ofa_a", OURS), service("ofa_b", THEIRS), registry(OURS), streams=(LEGACY_SHARED,))
    assert found == Claim(Installation(OURS), record())


@pytest.mark.parametrize(
    ("things", "ids"),
    [
        ([service("ofa_a", OURS)], {OURS}),
        ([service("ofa_a", "")], {LEGACY}),
        ([service("ofa_a", OURS), service("ofa_b", "")], {OURS, LEGACY}),
        ([registry(OURS)], {OURS}),
        ([registry(None)], {LEGACY}),
        ([service("ofa_a", OURS), Record("r", 1, RECORD, {"id": "nonsense"})], {OURS}),
    ],
)
def test_without_a_record_nothing_is_adopted_silently(things: list[object], ids: set[str]) -> None:
    """Objects of our owner id are here: a person says whose they are, and all ids are named."""
    found = stand(*things)
    assert found.installation.id == FRESH
    assert not found.due
    assert {one for one in (OURS, THEIRS, LEGACY) if f"--adopt {one}" in found.refusal} == ids


@pytest.mark.parametrize(
    ("things", "streams", "adopt", "expected"),
    [
        ([service("ofa_a", OURS)], (), OURS, Installation(OURS)),
        ([service("ofa_a", "")], (), LEGACY, Installation(FRESH, frozenset({LEGACY}))),
        ([], (SHARED,), OURS, Installation(OURS)),
        ([], (LEGACY_SHARED,), LEGACY, Installation(FRESH, frozenset({LEGACY}))),
        ([record(), service("ofa_a", THEIRS)], (), THEIRS, Installation(OURS, frozenset({THEIRS}))),
        ([record(), service("ofa_a", "")], (), LEGACY, Installation(OURS, frozenset({LEGACY}))),
    ],
)
def test_a_person_says_whose_it_is(
    things: list[object], streams: tuple[str, ...], adopt: str, expected: Installation
) -> None:
    """And that is written down before anything else."""
    found = stand(*things, streams=streams, adopt=adopt)
    assert (found.installation, found.due, found.refusal) == (expected, True, "")


@pytest.mark.parametrize("things", [[], [service("ofa_a", OURS)], [record()]])
def test_what_is_nowhere_cannot_be_adopted(things: list[object]) -> None:
    """A slip of the finger is refused, with the ids that there are."""
    found = stand(*things, streams=(SHARED,), adopt=THEIRS)
    assert f"--adopt {THEIRS}: nothing of that installation is here; found: {OURS}" in found.refusal
    assert not found.due


def test_what_is_ours_already_is_adopted_without_a_word() -> None:
    """The command can be run again."""
    assert stand(record(), adopt=OURS) == Claim(Installation(OURS), record())


def test_adoption_is_forgotten_when_nothing_of_it_is_left() -> None:
    """What comes later with that id, or with none, is another party's."""
    kept = stand(record(adopted=LEGACY), streams=(LEGACY_SHARED,))
    assert (kept.installation.adopted, kept.due) == ({LEGACY}, False)
    gone = stand(record(adopted=LEGACY), registry(OURS), streams=(SHARED,))
    assert (gone.installation.adopted, gone.due) == (frozenset(), True)


def test_a_record_that_was_removed_is_written_again_by_who_has_read_it() -> None:
    """A process that runs knows which installation it is."""
    found = stand(service("ofa_a", OURS), known=Installation(OURS))
    assert (found.installation, found.due, found.refusal) == (Installation(OURS), True, "")


def test_a_registry_of_another_installation_stops_everything() -> None:
    """A user replaced the record, or brought the configs from elsewhere."""
    found = stand(record(), registry(THEIRS))
    assert THEIRS in found.refusal
    assert OURS in found.refusal
    assert not found.due
    assert stand(record(adopted=THEIRS), registry(THEIRS)).refusal == ""
    assert stand(record(), registry(None)).refusal == "", "one that an earlier version published names none"


def test_services_of_others_are_theirs() -> None:
    """By their label, though the owner's is the same."""
    ours, theirs, old = service("a", OURS), service("b", THEIRS), service("c", "")
    stranger = service("d", OURS, None)
    there = sift(state(ours, theirs, old, stranger), "ofa", Installation(OURS)).services
    assert (there["a"], there["d"]) == (ours, stranger)
    assert there["b"] == replace(theirs, owner=f"ofa, installation {THEIRS}")
    assert there["c"].owner == "ofa, installation legacy"
    adopted = Installation(OURS, frozenset({LEGACY}))
    assert sift(state(old), "ofa", adopted).services["c"] == old


@pytest.mark.parametrize(
    ("fields", "expected"),
    [
        ({"id": OURS, "adopted": f"legacy {THEIRS}"}, Installation(OURS, frozenset({LEGACY, THEIRS}))),
        ({"id": OURS}, Installation(OURS)),
        ({"id": OURS, "adopted": "x; DROP", "more": "fields"}, Installation(OURS)),
        ({"id": OURS.upper()}, None),
        ({"id": ""}, None),
        ({}, None),
    ],
)
def test_the_record_is_read(fields: dict[str, str], expected: Installation | None) -> None:
    """What a user spoilt by hand is no record; what a later version added is passed over."""
    assert parse(Record("r", 1, RECORD, fields)) == expected
    assert parse(None) is None


def test_ids_are_made_to_be_told_apart() -> None:
    """Eight hex digits, never the same."""
    made = {new_id() for _ in range(100)}
    assert len(made) == 100
    assert all(is_id(one) for one in made)
    assert not any(is_id(one) for one in ("", "1A2B3C4D", "1a2b3c4", "Legacy", "1a2b3c4d "))
