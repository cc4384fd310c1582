"""Sorting on disk: the same order as in memory, groups never cut, nothing left behind."""

from __future__ import annotations

import itertools
from pathlib import Path

import numpy as np
import pytest

from causerie.data.external_sort import RECORD, SpillSort, records, starts_of


@pytest.mark.parametrize("memory", [1, 20_000, 1 << 30])
@pytest.mark.parametrize("spread", [3, 400, 10**9])
def test_groups_are_the_sorted_records(tmp_path: Path, memory: int, spread: int) -> None:
    chance = np.random.default_rng(spread)
    keys = chance.integers(0, spread, 5_000).astype(np.uint64)
    values = np.arange(5_000)
    sort = SpillSort(tmp_path, "x", memory)
    for start in range(0, 5_000, 700):
        sort.add(records(keys[start : start + 700], values[start : start + 700]))
    blocks = list(sort.groups())
    order = np.lexsort((values, keys))
    np.testing.assert_array_equal(np.concatenate([block["key"] for block in blocks]), keys[order])
    np.testing.assert_array_equal(np.concatenate([block["value"] for block in blocks]), values[order])
    for before, after in itertools.pairwise(blocks):
        assert before["key"][-1] < after["key"][0]  # a key is never in two blocks
    assert not list(tmp_path.iterdir())
    if memory == 20_000 and spread > 3:
        assert len(blocks) > 1


def test_nothing_in_nothing_out(tmp_path: Path) -> None:
    assert list(SpillSort(tmp_path, "x", 1000).groups()) == []
    assert len(starts_of(np.empty(0, np.uint64))) == 0
    assert records(np.array([5], np.uint64)).dtype == RECORD


def test_starts() -> None:
    np.testing.assert_array_equal(starts_of(np.array([1, 1, 4, 7, 7], np.uint64)), [0, 2, 3])
