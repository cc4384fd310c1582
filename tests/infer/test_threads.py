"""Which number of threads small steps get: the quicker one, found again when the machine changes; results unchanged."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import torch

from causerie.infer import Engine, EngineConfig, Sampling, generate_batch
from causerie.infer.attend import KeyValueCache, plan_attend
from causerie.infer.runner import FEW_ROWS
from causerie.infer.sampler import CHUNK, log_probs_of, log_total
from causerie.infer.scheduler import Sequence, Work
from causerie.infer.threads import TRY_EVERY, StepThreads

from .tiny import prompt_of


@pytest.fixture
def two_threads() -> Iterator[None]:
    kept = torch.get_num_threads()
    torch.set_num_threads(2)
    yield
    torch.set_num_threads(kept)


class Machine:
    """A clock that goes on by what a step takes on a pretended machine."""

    def __init__(self, seconds: Callable[[int], float]) -> None:
        self.seconds, self.now = seconds, 0.0

    def run(self, threads: StepThreads, rows: int, count: int) -> list[int]:
        """Threads of `count` steps."""
        used = []
        for _ in range(count):
            with threads.step(rows):
                used.append(torch.get_num_threads())
                self.now += self.seconds(used[-1])
        return used


@pytest.mark.usefixtures("two_threads")
@pytest.mark.parametrize("best", [1, 2])
def test_the_quicker_number_is_used_and_the_other_tried_seldom(best: int) -> None:
    machine = Machine(lambda threads: 0.010 if threads == best else 0.013)
    used = machine.run(StepThreads(lambda: machine.now), 1, 10 * TRY_EVERY)
    assert used[:2] == [1, 2]  # both are timed first
    assert used[2:].count(3 - best) == 10
    assert torch.get_num_threads() == 2


@pytest.mark.usefixtures("two_threads")
def test_a_machine_that_becomes_busy_is_noticed() -> None:
    """Two threads are quicker until others want the cores: within some tries one is used."""
    machine = Machine(lambda threads: 0.016 if threads == 1 else 0.011)
    threads = StepThreads(lambda: machine.now)
    assert machine.run(threads, 1, 100)[-1] == 2
    machine.seconds = lambda threads: 0.020 if threads == 1 else 0.050
    assert machine.run(threads, 1, 3 * TRY_EVERY)[-3:] == [1] * 3
    machine.seconds = lambda threads: 0.016 if threads == 1 else 0.011
    assert machine.run(threads, 1, 20 * TRY_EVERY)[-3:] == [2] * 3


@pytest.mark.usefixtures("two_threads")
def test_one_step_that_waited_for_the_system_changes_nothing() -> None:
    machine = Machine(lambda threads: 0.015 if threads == 1 else 0.010)
    threads = StepThreads(lambda: machine.now)
    machine.run(threads, 1, 50)
    machine.seconds = lambda threads: 5.0
    machine.run(threads, 1, 1)
    machine.seconds = lambda threads: 0.015 if threads == 1 else 0.010
    assert machine.run(threads, 1, 10) == [2] * 10


@pytest.mark.usefixtures("two_threads")
def test_kinds_of_steps_are_told_apart() -> None:
    """Few rows may want one thread where many want two; 5 to 8 rows are one kind."""
    threads = StepThreads(lambda: machine.now)
    machine = Machine(lambda threads: 0.010 * threads)
    assert machine.run(threads, 1, 10)[2:] == [1] * 8
    machine.seconds = lambda threads: 0.030 / threads
    assert machine.run(threads, 8, 10)[2:] == [2] * 8
    assert machine.run(threads, 5, 5) == [2] * 5
    machine.seconds = lambda threads: 0.010 * threads
    assert machine.run(threads, 1, 5) == [1] * 5


@pytest.mark.usefixtures("two_threads")
def test_threads_come_back_after_an_error_which_is_not_timed() -> None:
    threads = StepThreads()
    with pytest.raises(ZeroDivisionError), threads.step(1):
        assert torch.get_num_threads() == 1
        raise ZeroDivisionError
    assert torch.get_num_threads() == 2
    assert threads.choose(0, 2) == 1  # still unknown


def test_with_one_thread_there_is_no_choice() -> None:
    kept = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        assert Machine(lambda threads: 0.01).run(StepThreads(), 1, 2 * TRY_EVERY) == [1] * 2 * TRY_EVERY
    finally:
        torch.set_num_threads(kept)


@pytest.mark.usefixtures("two_threads")
@pytest.mark.skipif(not torch.cpu._is_vnni_supported(), reason="needs a processor with VNNI instructions")
@pytest.mark.parametrize("rows", [1, 3, FEW_ROWS])
def test_answers_do_not_depend_on_the_threads(folder: Path, monkeypatch: pytest.MonkeyPatch, rows: int) -> None:
    """Log-probabilities bit for bit, whichever number every step takes."""
    prompts = [prompt_of(9, seed=index) for index in range(rows)]
    settings = [Sampling(max_tokens=12, seed=index, logprobs=True) for index in range(rows)]
    done = []
    for number in (1, 2):
        monkeypatch.setattr(StepThreads, "choose", lambda *_, number=number: number)
        engine = Engine(folder, EngineConfig(dtype="bfloat16", quantize="int8"))
        assert engine.runner._small
        done.append(generate_batch(engine, prompts, settings))
    assert [item.ids for item in done[0]] == [item.ids for item in done[1]]
    assert [item.logprobs for item in done[0]] == [item.logprobs for item in done[1]]


@pytest.mark.usefixtures("two_threads")
@pytest.mark.parametrize("tokens", [5, 12])
def test_attention_of_a_sequence_alone_has_the_bits_it_has_in_company(tokens: int) -> None:
    """With Gemma's heads, in many layers, because few numbers show it: left to all threads, a product of 16 keys alone
    shares its sums among them."""
    count = 150
    cache = KeyValueCache(count, 3, 16, 1, 256, torch.bfloat16, torch.device("cpu"))
    generator = torch.Generator().manual_seed(tokens)
    work = []
    for index, length in enumerate((tokens, 13, tokens + 3)):
        sequence = Sequence(str(index), [1] * length, length, Sampling(), 0)
        sequence.blocks = [index]
        work.append(Work(sequence, length - 1, 1))
    windows = [None] * count
    together = plan_attend(cache, work, windows, scale=0.06)
    alone = plan_attend(cache, work[:1], windows, scale=0.06)
    for layer in range(count):
        cache.layers[layer].copy_(torch.randn(cache.layers[layer].shape, generator=generator))
        q, k, v = (torch.randn(1, heads, 3, 256, generator=generator).bfloat16() for heads in (4, 1, 1))
        wanted = together(layer, q, k, v)[:, :, :1]
        assert torch.equal(alone(layer, q[:, :, :1], k[:, :, :1], v[:, :, :1]), wanted), layer
    assert torch.get_num_threads() == 2


@pytest.mark.usefixtures("two_threads")
@pytest.mark.parametrize("vocab", [CHUNK * 4096, CHUNK * 1000 + 1, 97, 1])
def test_totals_of_a_row_alone_have_the_bits_they_have_in_company(vocab: int) -> None:
    logits = torch.randn(3, vocab, generator=torch.Generator().manual_seed(vocab)) * 4
    logits[1, : vocab // 2] = float("-inf")
    found = log_total(logits)
    assert torch.allclose(found.double(), logits.double().logsumexp(-1, keepdim=True), atol=2e-6)
    for number in (1, 2):
        torch.set_num_threads(number)
        assert torch.equal(torch.cat([log_total(row[None]) for row in logits]), found), number
    ids = [int(row.argmax()) for row in logits]
    assert log_probs_of(logits, ids, 0)[0] == [log_probs_of(logits[i : i + 1], [ids[i]], 0)[0][0] for i in range(3)]
