"""Rows that share a prompt: the same numbers as plain sequences, for every kind of attention."""

from __future__ import annotations

import pytest
import torch

from causerie.align import Group, completion_log_probs, layout
from causerie.align.checks import leak
from causerie.align.scoring import score_groups
from causerie.model import ModelShape, Transformer, init_model, token_log_probs

QWEN = ModelShape(family="qwen3", n_layer=2, n_embd=24, n_head=2, n_kv_head=1, head_dim=8, ffn_dim=32, vocab_size=50)
GEMMA = ModelShape(
    family="gemma3",
    n_layer=3,
    n_embd=24,
    n_head=2,
    n_kv_head=1,
    head_dim=8,
    ffn_dim=32,
    vocab_size=50,
    sliding_window=5,
    local_layers=(True, True, False),
    rope_local_theta=1000.0,
    query_scale=0.3,
)
GROUPS = [
    Group((1, 2, 3, 4, 5, 6, 7), ((8, 9, 10), (11, 12, 13, 14, 15, 16))),
    Group((9,), ((8,), (11,))),
    Group((3, 1, 4, 1, 5), ((9, 2, 6, 5, 3, 5, 8, 9), (7, 9))),
]


@pytest.fixture(scope="module", params=[QWEN, GEMMA], ids=["qwen3", "gemma3 with windows"])
def model(request: pytest.FixtureRequest) -> Transformer:
    built = init_model(request.param, 0)
    generator = torch.Generator().manual_seed(3)
    with torch.no_grad():
        for weight in built.parameters():
            weight.add_(0.2 * torch.randn(weight.shape, generator=generator))
    return built


def plain(model: Transformer) -> torch.Tensor:
    found = []
    for group in GROUPS:
        for completion in group.completions:
            ids = torch.tensor([[*group.prompt, *completion]])
            mask = torch.tensor([[0] * len(group.prompt) + [1] * len(completion)])
            found.append(token_log_probs(model, ids, mask).sum())
    return torch.stack(found)


def test_log_probs_equal_those_of_separate_sequences(model: Transformer) -> None:
    got = completion_log_probs(model, layout(GROUPS))
    torch.testing.assert_close(got.sums, plain(model), atol=1e-4, rtol=1e-5)
    assert got.tokens.tolist() == [3, 6, 1, 1, 8, 2]


def test_gradients_equal_those_of_separate_sequences(model: Transformer) -> None:
    weights = torch.arange(1.0, 7.0)
    grads = []
    for value in ((completion_log_probs(model, layout(GROUPS)).sums * weights).sum(), (plain(model) * weights).sum()):
        grads.append(torch.autograd.grad(value, list(model.parameters())))
    for ours, theirs in zip(*grads, strict=True):
        torch.testing.assert_close(ours, theirs, atol=2e-3, rtol=1e-3)


def test_no_gradient_flows_between_completions(model: Transformer) -> None:
    assert leak(model, GROUPS[0]) == 0


def test_score_groups_keeps_the_order_and_the_mode(model: Transformer) -> None:
    model.train()
    got = score_groups(model, GROUPS)
    assert model.training
    assert not got.requires_grad
    torch.testing.assert_close(got.flatten(), plain(model).detach(), atol=1e-4, rtol=1e-5)
    assert score_groups(model, []).shape == (0, 0)


def test_a_prompt_is_laid_out_once() -> None:
    batch = layout(GROUPS[:1])
    assert batch["ids"].tolist() == [[1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15, 16]]
    assert batch["positions"].tolist() == [[0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 7, 8, 9, 10, 11, 12]]
    assert batch["segment"].tolist() == [[0] * 7 + [1] * 3 + [2] * 6]
    assert batch["source"].tolist() == [6, 7, 8, 6, 10, 11, 12, 13, 14]  # both first tokens follow the prompt's last


def test_a_stranger_that_is_read_on_has_the_same_log_probs_and_no_gradient(model: Transformer) -> None:
    from causerie.align.continued import own_and_stranger

    batch = layout(GROUPS)
    got, want = own_and_stranger(model, batch), completion_log_probs(model, batch)
    torch.testing.assert_close(got.own.sums, want.sums[::2], atol=1e-4, rtol=1e-5)
    torch.testing.assert_close(got.strangers, want.sums[1::2].detach(), atol=1e-4, rtol=1e-5)
    assert got.own.tokens.tolist() == [3, 1, 8]
    assert not got.strangers.requires_grad
    weights = torch.tensor([1.0, 0.0, 2.0, 0.0, 3.0, 0.0])
    ours = torch.autograd.grad((got.own.sums * weights[::2]).sum(), list(model.parameters()))
    theirs = torch.autograd.grad((want.sums * weights).sum(), list(model.parameters()))
    for one, other in zip(ours, theirs, strict=True):
        torch.testing.assert_close(one, other, atol=2e-3, rtol=1e-3)
