"""Seeds: 63 bits, the same on every machine, another one for every name."""

from __future__ import annotations

import hashlib

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from causerie.core import seed_for

NAMES = st.lists(st.text(alphabet="abc01", max_size=4) | st.integers(0, 99), max_size=4)


@given(root=st.integers(-5, 10**12), names=NAMES)
def test_a_seed_is_the_digest_of_its_names_in_63_bits(root: int, names: list[str | int]) -> None:
    found = seed_for(root, *names)
    digest = hashlib.sha256("\0".join(map(str, (root, *names))).encode()).hexdigest()
    assert found == int(digest[:16], 16) // 2
    assert 0 <= found < 2**63
    np.random.Generator(np.random.Philox(found)).random()  # every generator takes it


def test_names_are_told_apart_and_keep_their_order() -> None:
    calls = [(0,), (1,), (0, "a"), (0, "a", "b"), (0, "ab"), (0, "b", "a"), (0, "a", 1), (0, "a", 11), (0, "a", 1, 1)]
    assert len({seed_for(*call) for call in calls}) == len(calls)
    assert seed_for(0, "batches", 3) == seed_for(0, "batches", "3")
