"""The scheduler: what a step takes, in which order, and who gives way when blocks run out."""

from __future__ import annotations

from hypothesis import given, settings
from hypothesis import strategies as st

from causerie.infer import Sampling
from causerie.infer.blocks import BlockPool
from causerie.infer.scheduler import Batch, Scheduler, Sequence


def make(n_blocks: int = 32, max_running: int = 8, max_batch_tokens: int = 10) -> Scheduler:
    pool = BlockPool(n_blocks)
    return Scheduler(pool, block_size=4, max_running=max_running, max_batch_tokens=max_batch_tokens)


def sequence(name: str, length: int, first: int = 0) -> Sequence:
    return Sequence(name, list(range(first, first + length)), length, Sampling(), seed=0)


def play(scheduler: Scheduler, token: int = 7) -> Batch:
    """One step with a made-up model: every sequence that samples gets `token`."""
    batch = scheduler.schedule()
    for work in batch.ordered():
        samples = work.samples
        work.sequence.n_computed += work.count
        if samples:
            work.sequence.tokens.append(token)
    return batch


def counts(batch: Batch) -> dict[str, int]:
    return {name: work.count for name, work in batch.work.items()}


def test_decoding_goes_on_beside_a_long_prompt_taken_in_chunks() -> None:
    scheduler = make()
    scheduler.add(sequence("short", 3))
    play(scheduler)
    scheduler.add(sequence("long", 25, first=100))
    steps = [counts(play(scheduler)) for _ in range(4)]
    assert steps == [{"short": 1, "long": 9}, {"short": 1, "long": 9}, {"short": 1, "long": 7}, {"short": 1, "long": 1}]


def test_single_tokens_come_first_in_a_batch() -> None:
    scheduler = make(max_batch_tokens=30)
    scheduler.add(sequence("old", 3))
    play(scheduler)
    scheduler.add(sequence("new", 6, first=50))
    assert [work.count for work in scheduler.schedule().ordered()] == [1, 6]


def test_the_youngest_gives_way_and_comes_back_first() -> None:
    scheduler = make(n_blocks=4, max_batch_tokens=64)
    for index, name in enumerate(["a", "b"]):
        scheduler.add(sequence(name, 8, first=100 * index))
    scheduler.add(sequence("later", 2, first=900))
    play(scheduler)
    batch = play(scheduler)
    assert set(batch.work) == {"a"}
    assert [item.request_id for item in scheduler.waiting] == ["b", "later"]
    assert scheduler.waiting[0].tokens[-1] == 7
    assert scheduler.preemptions == 1


def test_equal_prompts_of_one_step_share_blocks() -> None:
    scheduler = make(max_batch_tokens=64)
    scheduler.add(sequence("first", 13))
    scheduler.add(sequence("second", 13))
    batch = play(scheduler)
    assert counts(batch) == {"first": 13, "second": 1}
    first, second = (batch.work[name].sequence.blocks for name in ("first", "second"))
    assert first[:3] == second[:3]
    assert first[3] != second[3]


def test_other_salts_share_nothing() -> None:
    scheduler = make(max_batch_tokens=64)
    scheduler.add(sequence("first", 13))
    other = sequence("second", 13)
    other.salt = "another tenant"
    scheduler.add(other)
    assert counts(play(scheduler)) == {"first": 13, "second": 13}


@settings(max_examples=60, deadline=None)
@given(
    n_blocks=st.integers(8, 20),
    max_batch_tokens=st.integers(4, 24),
    arrivals=st.lists(st.tuples(st.integers(1, 20), st.integers(1, 10), st.integers(0, 2)), min_size=1, max_size=8),
    data=st.data(),
)
def test_everyone_ends_and_every_block_comes_back(
    n_blocks: int, max_batch_tokens: int, arrivals: list[tuple[int, int, int]], data: st.DataObject
) -> None:
    """Random arrivals, lengths, shared beginnings and cancellations on a pool that is too small for all."""
    scheduler = make(n_blocks=n_blocks, max_running=4, max_batch_tokens=max_batch_tokens)
    goals = {}
    for index, (length, new, kind) in enumerate(arrivals):
        item = sequence(str(index), length, first=kind)
        goals[item] = length + new
        scheduler.add(item)
    for _ in range(2000):
        if not goals:
            break
        batch = play(scheduler)
        assert sum(work.count for work in batch.work.values()) <= scheduler.max_batch_tokens
        assert batch.work, "no progress"
        for item in [item for item, goal in goals.items() if len(item.tokens) >= goal]:
            scheduler.remove(item)
            del goals[item]
        if goals and data.draw(st.integers(0, 9)) == 0:
            victim = data.draw(st.sampled_from(list(goals)))
            scheduler.remove(victim)
            del goals[victim]
    assert not goals
    assert scheduler.pool.n_free == n_blocks
