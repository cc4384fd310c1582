"""Batches are a pure function of seed and step, and hold every row once per epoch."""

from __future__ import annotations

import pytest
import torch

from causerie.align import Group, GroupBatches


def batches(n: int, batch_size: int, micro_batch: int = 0, seed: int = 0, at_least: int = 1) -> GroupBatches:
    groups = [Group(tuple(range(1, 2 + i % 5)), ((i,), (i, i))) for i in range(n)]
    return GroupBatches(groups, {"weight": torch.arange(float(n))}, batch_size, micro_batch, seed, at_least)


@pytest.mark.parametrize(("n", "batch_size"), [(1, 4), (7, 2), (8, 4), (9, 4), (23, 8), (3, 8)])
def test_an_epoch_is_every_row_once(n: int, batch_size: int) -> None:
    made = batches(n, batch_size)
    for epoch in range(2):
        steps = range(epoch * made.steps_per_epoch, (epoch + 1) * made.steps_per_epoch)
        parts = [made.rows(step) for step in steps]
        assert sorted(row for part in parts for row in part) == list(range(n))
        assert min(map(len, parts)) >= min(n, batch_size)


def test_order_changes_with_epoch_and_seed_but_not_by_asking_again() -> None:
    made = batches(30, 30)
    assert made.rows(0) == made.rows(0)
    first = [batches(30, 5, seed=seed).rows(step) for seed, step in ((0, 0), (0, 6), (1, 0))]
    assert first[0] != first[1]
    assert first[0] != first[2]


def test_micro_batches_hold_the_rows_of_the_update_with_their_values() -> None:
    made = batches(11, 11, micro_batch=4)
    parts = made.micro_batches(0)
    assert [len(part["weight"]) for part in parts] == [4, 4, 3]
    assert sorted(torch.cat([part["weight"] for part in parts]).tolist()) == list(range(11))
    for part in parts:
        assert part["target"][0] == part["weight"][0]  # row i answers with token i


def test_no_micro_batch_is_smaller_than_asked() -> None:
    assert [len(p["weight"]) for p in batches(5, 5, micro_batch=2, at_least=2).micro_batches(0)] == [3, 2]
    assert len(batches(3, 3, micro_batch=2, at_least=2).micro_batches(0)) == 1


def test_fingerprint_depends_on_everything_that_changes_the_data() -> None:
    made = {batches(*arguments).fingerprint for arguments in ((8, 4), (9, 4), (8, 2), (8, 4, 2), (8, 4, 0, 1))}
    assert len(made) == 5
    assert batches(8, 4).fingerprint == batches(8, 4).fingerprint
