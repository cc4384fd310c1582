"""Greedy samples against transformers; what a run is recognised by; what evaluations must not disturb."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from causerie.model import load_model
from causerie.text import load_tokenizer
from causerie.train import undisturbed
from causerie.train.identity import NOT_COMPARED, differences, identity
from causerie.train.machine import expected_seconds, keep_freed_memory, uses_bf16
from causerie.train.sample import continue_greedily
from tests.train.tiny import model_folder, settings, tiny_model

PLAIN = st.dictionaries(st.text("abcdef", min_size=1, max_size=5), st.integers() | st.text(max_size=5), max_size=6)


def test_samples_are_what_transformers_generates(tmp_path: Path) -> None:
    transformers = pytest.importorskip("transformers")
    folder = model_folder(tmp_path / "model", seed=3)
    model, tokenizer = load_model(folder), load_tokenizer(folder)
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.3 * torch.randn(parameter.shape, generator=generator))
    from causerie.model import save_model

    save_model(model, folder, folder)
    reference = transformers.AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32)
    prompts = ("the cat", "and the dog ran", "")
    for prompt, found in zip(prompts, continue_greedily(model, tokenizer, prompts, 12), strict=True):
        ids = torch.tensor([[tokenizer.eot_id, *tokenizer.encode(prompt)]])
        made = reference.generate(
            ids, attention_mask=torch.ones_like(ids), max_new_tokens=12, do_sample=False,
            eos_token_id=tokenizer.eot_id, pad_token_id=tokenizer.eot_id,
        )[0, 1:].tolist()  # fmt: skip
        ended = made.index(tokenizer.eot_id) if tokenizer.eot_id in made else len(made)
        assert found == tokenizer.decode(made[:ended])


@given(PLAIN, PLAIN)
def test_a_run_is_like_itself_whatever_its_length(config: dict[str, Any], inputs: dict[str, str]) -> None:
    made = identity(config, inputs)
    assert differences(made, made) == []
    longer = identity({**config, **dict.fromkeys(NOT_COMPARED, "something else")}, inputs)
    assert differences(made, longer) == []


@given(PLAIN, st.sampled_from(["inputs", "settings"]), st.text("xyz", min_size=1, max_size=3))
def test_whatever_changes_is_named(config: dict[str, Any], part: str, name: str) -> None:
    before = {"inputs": {}, "settings": {}} | {part: dict(config)}
    now = {"inputs": {}, "settings": {}} | {part: {**config, name: "changed"}}
    assert differences(before, now) == [f"{name}: None → changed"]
    assert differences(now, before) == [f"{name}: changed → None"]


def test_digests_are_shown_short() -> None:
    assert differences({"inputs": {"shards": "a" * 64}}, {"inputs": {"shards": "b" * 64}}) == [
        "shards: aaaaaaaa → bbbbbbbb"
    ]


def test_an_evaluation_leaves_mode_gradients_and_random_numbers_as_they_were() -> None:
    model = tiny_model().train()
    torch.manual_seed(5)
    expected = torch.rand(3)
    torch.manual_seed(5)
    with pytest.raises(ValueError, match="inside"), undisturbed(model):
        assert not model.training
        assert not torch.is_grad_enabled()
        torch.rand(100)
        raise ValueError("inside")
    assert model.training
    assert torch.is_grad_enabled()
    assert torch.equal(torch.rand(3), expected)


@pytest.mark.parametrize(
    ("limits", "seconds"),
    [
        ({"steps": None, "minutes": 2.0}, 120.0),
        ({"steps": 100, "batch_size": 10, "seq_len": 50}, 5e4 * 1e6 / 5e10),
        ({"steps": None, "tokens": 10**6}, 1e6 * 1e6 / 5e10),
        ({"steps": 100, "batch_size": 10, "seq_len": 50, "tokens": 10, "minutes": 9.0}, 10 * 1e6 / 5e10),
    ],
)
def test_the_length_of_a_run_is_guessed_from_the_limit_that_comes_first(limits: dict[str, Any], seconds: float) -> None:
    found = expected_seconds(settings(**limits), torch.device("cpu"), flops_per_token=1e6)
    assert found == pytest.approx(seconds)


def test_arithmetic_is_as_asked(monkeypatch: pytest.MonkeyPatch) -> None:
    cpu = torch.device("cpu")
    assert uses_bf16(settings(precision="bf16"), cpu)
    assert not uses_bf16(settings(precision="fp32"), cpu)
    for there in (True, False):
        monkeypatch.setattr("causerie.train.machine.cpu_has_bf16", lambda there=there: there)
        assert uses_bf16(settings(precision="auto"), cpu) == there


def test_the_allocator_is_left_alone_where_asked(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CAUSERIE_ALLOCATOR", "plain")
    monkeypatch.setattr("causerie.train.machine.ctypes.CDLL", lambda name: pytest.fail("the allocator was touched"))
    keep_freed_memory(torch.device("cpu"))
    monkeypatch.delenv("CAUSERIE_ALLOCATOR")
    keep_freed_memory(torch.device("cuda"))
