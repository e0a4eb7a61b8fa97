"""A cache whose keys come from outside stays small."""

from __future__ import annotations

from routing_layer.ttl_cache import TtlCache


def test_the_negative_cache_is_bounded_and_forgets() -> None:
    """Invented names push each other out; time does the rest."""
    now = [0.0]
    cache = TtlCache[str, bool](2.0, 3, lambda: now[0])
    for name in "abcd":
        cache.put(name, True)
    assert len(cache._entries) == 3
    assert not cache.get("a")
    assert cache.get("d")
    now[0] = 2.1
    assert not cache.get("d")


def test_what_is_remembered_is_bounded() -> None:
    """Names that were used once are forgotten after their time, without being asked for again."""
    now = [0.0]
    recent = TtlCache[int, int](10.0, clock=lambda: now[0])
    for number in range(100_000):
        now[0] = number / 100
        recent.put(number, number)
    assert len(recent._entries) == 1000
    assert recent.get(0) is None
    assert recent.get(99_999) == 99_999
    recent.put(99_500, 1)
    now[0] += 9.99
    assert recent.get(99_999) == 99_999
    assert recent.get(99_500) == 1
    now[0] += 0.02
    assert recent.get(99_999) is None
    for number in range(100_000):  # all in one moment
        recent.put(number, number)
    assert len(recent._entries) < 50_000
    assert recent.get(99_999) == 99_999
