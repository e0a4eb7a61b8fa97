"""The membership in memory."""

from __future__ import annotations

from routing_layer.membership.store import UNKNOWN, MembershipStore


def test_membership_tells_of_moves_alone() -> None:
    """The first group of an asset is no move, the same group again neither; a removal is."""
    moves: list[tuple[str, str | None]] = []
    store = MembershipStore(lambda asset, group: moves.append((asset, group)))
    store.put("A", "Weld")
    store.put("A", str(b"Weld", "ascii"))
    assert moves == []
    store.put("A", "Paint")
    store.put("A", None)
    store.put("A", UNKNOWN)
    store.put("A", UNKNOWN)
    assert moves == [("A", "Paint"), ("A", None), ("A", None)]
    assert store.group_of("A") is UNKNOWN


def test_a_group_is_new_with_its_first_asset() -> None:
    """Told once, and again after it had none."""
    new: list[str] = []
    store = MembershipStore(lambda *_: None, new.append)
    for asset, group in (("A", "Weld"), ("B", "Weld"), ("A", "Paint"), ("A", "Weld"), ("B", None), ("A", UNKNOWN)):
        store.put(asset, group)
    assert new == ["Weld", "Paint"]
    store.put("A", "Weld")
    assert new == ["Weld", "Paint", "Weld"]


def test_the_names_of_groups_and_assets_are_forgotten_with_them() -> None:
    """Nothing is kept of what is gone, however many there were."""
    store = MembershipStore(lambda *_: None)
    for number in range(1000):
        store.put("A", f"G{number}")
        store.put("B", f"G{number}")
        assert store.has_group(f"G{number}")
    store.put("B", None)
    assert (store.has_group("G998"), store.has_group("G999")) == (False, True)
    store.put("A", UNKNOWN)
    store.put("B", UNKNOWN)
    store.put("B", UNKNOWN)
    assert store.group_of("A") is UNKNOWN
    assert not any(vars(store)[name] for name in ("groups", "_sizes", "_trackers"))


def test_two_questions_for_one_asset_see_the_same_change() -> None:
    """The end of one does not hide from the other that the watch was faster."""
    store = MembershipStore(lambda *_: None)
    with store.track("A") as first:
        with store.track("A"):
            pass
        store.put("A", "Weld")
        assert first.is_set()
    assert not store._trackers
