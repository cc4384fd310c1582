"""The block pool: no leak, no double free, no prefix that was overwritten."""

from __future__ import annotations

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from causerie.infer.blocks import BlockPool, OutOfBlocks, chain_digest, root_digest

N_BLOCKS = 6


class PoolMachine(RuleBasedStateMachine):
    """Random sequences come, share, and go; `written` is what a real cache would hold in each block."""

    def __init__(self) -> None:
        super().__init__()
        self.pool = BlockPool(N_BLOCKS)
        self.tables: list[list[int]] = []
        self.written: dict[int, bytes] = {}

    @rule(contents=st.lists(st.integers(0, 2), min_size=1, max_size=4), name_it=st.booleans())
    def admit(self, contents: list[int], name_it: bool) -> None:
        digests = [bytes(contents[: end + 1]) for end in range(len(contents))]
        shared = self.pool.find(digests)
        assert all(self.written[block] == digest for block, digest in zip(shared, digests, strict=False))
        needed = len(contents) - len(shared)
        if needed > self.pool.n_free_after_hold(shared):
            free_before = self.pool.n_free
            with pytest.raises(OutOfBlocks):
                self.pool.allocate(N_BLOCKS + 1)
            assert self.pool.n_free == free_before
            return
        self.pool.hold(shared)
        table = shared + self.pool.allocate(needed)
        for block, digest in list(zip(table, digests, strict=True))[len(shared) :]:
            self.written[block] = digest
            if name_it:
                self.pool.register(block, digest)
        self.tables.append(table)

    @precondition(lambda self: self.tables)
    @rule(data=st.data())
    def finish(self, data: st.DataObject) -> None:
        table = self.tables.pop(data.draw(st.integers(0, len(self.tables) - 1)))
        self.pool.release(table)

    @rule()
    def weights_changed(self) -> None:
        self.pool.forget_all()
        assert self.pool.find([bytes([0])]) == []

    @invariant()
    def counts_agree(self) -> None:
        held = [block for table in self.tables for block in table]
        assert [self.pool.holders(block) for block in range(N_BLOCKS)] == [held.count(b) for b in range(N_BLOCKS)]
        assert self.pool.n_free == N_BLOCKS - len(set(held))


PoolMachine.TestCase.settings = settings(max_examples=60, stateful_step_count=30, deadline=None)
TestPool = PoolMachine.TestCase


def test_a_block_cannot_be_released_twice() -> None:
    pool = BlockPool(2)
    blocks = pool.allocate(1)
    pool.release(blocks)
    with pytest.raises(ValueError, match="not held"):
        pool.release(blocks)


def test_the_beginning_of_a_sequence_is_the_last_to_be_overwritten() -> None:
    pool = BlockPool(3)
    table = pool.allocate(3)
    digests = [bytes([index]) for index in range(3)]
    for block, digest in zip(table, digests, strict=True):
        pool.register(block, digest)
    pool.release(table)
    pool.allocate(1)
    assert pool.find(digests) == table[:2]


def test_digests_depend_on_salt_history_and_content() -> None:
    roots = root_digest("one"), root_digest("two")
    digests = {chain_digest(root, ids) for root in roots for ids in ([1, 2], [2, 1], [1, 3])}
    assert len(digests) == 6
    assert chain_digest(chain_digest(roots[0], [1]), [2]) != chain_digest(chain_digest(roots[0], [3]), [2])
