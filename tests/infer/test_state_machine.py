"""Any interleaving of adding, stepping, cancelling and preempting: blocks come back, nobody starves, tokens stay."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from causerie.infer import Engine, EngineConfig, Sampling
from causerie.model import Transformer

from .tiny import QWEN, naive_greedy, prompt_of, random_model

MODEL: Transformer = random_model(QWEN)
N_BLOCKS = 14
WANTED: dict[tuple[int, int], list[int]] = {}


def wanted(length: int, seed: int) -> list[int]:
    """The unbatched run's tokens."""
    if (length, seed) not in WANTED:
        WANTED[length, seed] = naive_greedy(MODEL, prompt_of(length, seed=seed), 12)
    return WANTED[length, seed]


class EngineMachine(RuleBasedStateMachine):
    """An engine whose cache holds about two sequences, and what each request should say."""

    def __init__(self) -> None:
        super().__init__()
        self.count = 0
        self.open: dict[str, tuple[int, int, int]] = {}
        self.said: dict[str, list[int]] = {}
        self.cancelled: dict[str, int] = {}
        self.steps = 0

    @initialize(prefix_cache=st.booleans(), budget=st.integers(4, 20))
    def start(self, prefix_cache: bool, budget: int) -> None:
        config = EngineConfig(
            block_size=4, n_blocks=N_BLOCKS, max_running=4, max_batch_tokens=budget, prefix_cache=prefix_cache
        )
        self.engine = Engine(MODEL, config)

    @rule(length=st.integers(1, 25), seed=st.integers(0, 2), new=st.integers(1, 12), priority=st.integers(0, 1))
    def add(self, length: int, seed: int, new: int, priority: int) -> None:
        name = str(self.count)
        self.count += 1
        self.engine.add(name, prompt_of(length, seed=seed), Sampling(max_tokens=new, temperature=0), priority=priority)
        self.open[name], self.said[name] = (length, seed, new), []

    @rule(length=st.integers(1, 25))
    def embed(self, length: int) -> None:
        name = f"e{self.count}"
        self.count += 1
        self.engine.add_embedding(name, prompt_of(length))
        self.open[name], self.said[name] = (length, 0, 0), []

    @rule(times=st.integers(1, 6))
    def step(self, times: int) -> None:
        for _ in range(times):
            if self.engine.has_work:
                self.read()

    @rule(data=st.data())
    def cancel(self, data: st.DataObject) -> None:
        if self.open:
            name = data.draw(st.sampled_from(sorted(self.open)))
            self.engine.cancel(name)
            self.cancelled[name] = self.steps

    @rule()
    def preempt(self) -> None:
        self.engine.scheduler.preempt_all()

    def read(self) -> None:
        self.steps += 1
        for event in self.engine.step():
            name = event.request_id
            self.said[name] += event.ids
            length, seed, new = self.open[name]
            assert self.said[name] == wanted(length, seed)[: len(self.said[name])]
            if event.finish == "cancelled":
                assert self.steps - self.cancelled[name] <= 2
            elif event.finish:
                assert len(self.said[name]) == new
            if event.finish:
                del self.open[name]

    @invariant()
    def blocks_are_counted(self) -> None:
        if hasattr(self, "engine"):
            held = {block for item in self.engine.scheduler.running for block in item.blocks}
            assert self.engine.pool.n_free == N_BLOCKS - len(held)
            assert all(not item.blocks for item in self.engine.scheduler.waiting)

    def teardown(self) -> None:
        if not hasattr(self, "engine"):
            return
        for _ in range(2000):
            if not self.engine.has_work:
                break
            self.read()
        assert not self.open, "somebody starved"
        assert self.engine.pool.n_free == N_BLOCKS


class TestEngineMachine(EngineMachine.TestCase):  # type: ignore[name-defined,misc]
    """Run by pytest."""

    settings = settings(
        max_examples=25, stateful_step_count=25, deadline=None, suppress_health_check=[HealthCheck.too_slow]
    )


@pytest.mark.parametrize("phase", ["waiting", "first chunk", "last chunk", "decoding", "embedding"])
def test_leaving_in_any_phase_frees_blocks_and_changes_nobody(phase: str) -> None:
    """S2 of the fault list: within two steps the blocks are free, and the others' tokens are the same."""
    engine = Engine(MODEL, EngineConfig(block_size=4, n_blocks=60, max_running=3, max_batch_tokens=8))
    others = {f"o{index}": prompt_of(6 + index, seed=index) for index in range(2)}
    for name, prompt in others.items():
        engine.add(name, prompt, Sampling(max_tokens=12, temperature=0))
    said: dict[str, list[int]] = {name: [] for name in others}

    def step() -> list[Any]:
        events = engine.step()
        for event in events:
            said.setdefault(event.request_id, []).extend(event.ids)
        return events

    step()
    if phase == "waiting":
        engine.add("third", prompt_of(5), Sampling(max_tokens=50))
    if phase == "embedding":
        engine.add_embedding("left", prompt_of(30, seed=9))
    else:
        engine.add("left", prompt_of(30, seed=9), Sampling(max_tokens=50, temperature=0))
    sequence = engine._sequences["left"]
    for _ in range({"waiting": 0, "first chunk": 1, "last chunk": 4, "decoding": 7, "embedding": 2}[phase]):
        step()
    assert bool(sequence.blocks) == (phase != "waiting")
    engine.cancel("left")
    ends = [event.finish for _ in range(2) for event in step() if event.request_id == "left"]
    assert ends == ["cancelled"]
    assert sequence.blocks == []
    engine.cancel("third")
    while engine.has_work:
        step()
    assert {name: said[name] for name in others} == {name: naive_greedy(MODEL, p, 12) for name, p in others.items()}
    assert engine.pool.n_free == 60
