"""The cache of candidates: its size limit and the order in which it drops entries."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from augment_service.service.cache import ByteLru


@given(st.lists(st.tuples(st.integers(0, 9), st.integers(0, 40))), st.integers(0, 100))
def test_the_cache_never_exceeds_its_limit(puts: list[tuple[int, int]], limit: int) -> None:
    cache: ByteLru[int] = ByteLru(limit)
    sizes: dict[int, int] = {}
    for key, size in puts:
        cache.put(key, size, size)
        if size <= limit:
            sizes[key] = size
        assert cache.num_bytes <= limit
        kept = [one for one in sizes if cache._entries.get(one) is not None]
        assert cache.num_bytes == sum(cache._entries[one][1] for one in kept)
        assert size > limit or cache.get(key) == size


def test_the_cache_drops_the_least_recently_used_entry() -> None:
    cache: ByteLru[str] = ByteLru(30)
    for key in "abc":
        cache.put(key, key, 10)
    assert cache.get("a") == "a"
    cache.put("d", "d", 10)
    assert [cache.get(key) for key in "abcd"] == ["a", None, "c", "d"]
