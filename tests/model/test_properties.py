"""What holds for any weights: who may influence whom, what a shift of positions changes, what a batch mixes."""

from __future__ import annotations

import itertools
from dataclasses import replace

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from causerie.model import (
    ModelShape,
    Transformer,
    add_extras,
    causal_attend,
    chunked_loss,
    encoder_of,
    fold_extras,
    init_model,
    shape_from_depth,
    token_log_probs,
)
from tests.model.references import tokens

QWEN = shape_from_depth(3, 97)
WINDOWED = replace(QWEN, sliding_window=3, local_layers=(True, True, True))
FAMILIES = {
    "qwen3": QWEN,
    "llama": replace(QWEN, family="llama"),
    "qwen2": replace(QWEN, family="qwen2", n_head=4, n_kv_head=2, head_dim=36, n_embd=144),
    "gemma3": replace(WINDOWED, family="gemma3", rope_local_theta=100.0),
    "phi3": replace(QWEN, family="phi3", rotary_dim=16),
    "phi": replace(QWEN, family="phi", n_kv_head=3, head_dim=48, rotary_dim=24),
    "gpt2": replace(QWEN, family="gpt2", n_kv_head=3, head_dim=48),
}
LENGTH = 20


def stirred(shape: ModelShape, seed: int = 0) -> Transformer:
    """A model whose every weight is away from its start."""
    model = init_model(shape, seed).eval()
    with torch.no_grad():
        for place, weight in enumerate(model.parameters()):
            weight.add_(0.1 * torch.randn(weight.shape, generator=torch.Generator().manual_seed(seed + place)))
    return model


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("at", [0, 7, LENGTH - 1])
@torch.no_grad()
def test_a_token_changes_nothing_before_itself(family: str, at: int) -> None:
    model, ids = stirred(FAMILIES[family]), tokens(1, LENGTH)
    other = ids.clone()
    other[0, at] = (other[0, at] + 1) % 97
    before, after = model(ids), model(other)
    assert torch.equal(before[:, :at], after[:, :at])
    assert not torch.equal(before[:, at], after[:, at])


@torch.no_grad()
def test_an_encoders_token_changes_all_of_its_document_and_no_other() -> None:
    from causerie.model import encoder_attend

    shape = encoder_of(QWEN)
    model, ids = stirred(shape), tokens(1, LENGTH)
    documents = (torch.arange(LENGTH) >= 12).long()[None]
    other = ids.clone()
    other[0, 5] = (other[0, 5] + 1) % 97
    before, after = (model(each, attend=encoder_attend(shape, documents)) for each in (ids, other))
    changed = (before != after).any(-1)[0]
    assert changed[:12].all()
    assert not changed[12:].any()


@pytest.mark.parametrize("window", [2, 3, 5])
@torch.no_grad()
def test_a_windows_reach_is_its_size_times_the_layers(window: int) -> None:
    """A token reaches window − 1 further in each layer, and not one more."""
    model, ids = stirred(replace(WINDOWED, sliding_window=window)), tokens(1, LENGTH)
    other = ids.clone()
    other[0, 2] = (other[0, 2] + 1) % 97
    changed = (model(ids) != model(other)).any(-1)[0]
    reach = 2 + 3 * (window - 1)
    assert changed[2 : reach + 1].all()
    assert not changed[reach + 1 :].any()


@pytest.mark.parametrize("family", [name for name in FAMILIES if name != "gpt2"])
@pytest.mark.parametrize("shift", [1, 37])
@torch.no_grad()
def test_rotated_positions_count_relative_to_each_other(family: str, shift: int) -> None:
    model, ids = stirred(FAMILIES[family]), tokens(2, LENGTH)
    positions = torch.arange(LENGTH)[None]
    found, shifted = model(ids, positions=positions), model(ids, positions=positions + shift)
    torch.testing.assert_close(found, shifted, rtol=1e-3, atol=2e-4)
    uneven = model(ids, positions=positions * 2)
    assert (uneven - found).abs().max() > 1e-3


@torch.no_grad()
def test_learned_positions_are_places_of_their_own() -> None:
    model, ids = stirred(FAMILIES["gpt2"]), tokens(1, LENGTH)
    assert (model(ids, positions=torch.arange(LENGTH)[None] + 1) - model(ids)).abs().max() > 1e-2


@pytest.mark.parametrize("family", FAMILIES)
@torch.no_grad()
def test_rows_of_a_batch_do_not_mix(family: str) -> None:
    model, ids = stirred(FAMILIES[family]), tokens(4, LENGTH)
    together, order = model(ids), [2, 0, 3, 1]
    torch.testing.assert_close(model(ids[order]), together[order], rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(model(ids[1:2]), together[1:2], rtol=1e-4, atol=1e-5)


@settings(max_examples=25, deadline=None)
@given(cuts=st.lists(st.integers(1, LENGTH - 1), max_size=5, unique=True), seed=st.integers(0, 3))
def test_any_packing_is_its_documents_alone(cuts: list[int], seed: int) -> None:
    """Log-probabilities in a packed row are those of each document alone, wherever it is cut."""
    model, ids = stirred(QWEN, seed), tokens(1, LENGTH, seed=seed + 1)
    edges = [0, *sorted(cuts), LENGTH]
    lengths = [b - a for a, b in itertools.pairwise(edges)]
    documents = torch.cat([torch.full((n,), place) for place, n in enumerate(lengths)])[None]
    positions = torch.cat([torch.arange(n) for n in lengths])[None]
    mask = torch.ones_like(ids)
    mask[0, edges[:-1]] = 0
    with torch.no_grad():
        attend = causal_attend(model.shape, documents)
        packed = token_log_probs(model, ids, mask, positions=positions, attend=attend)
        alone = [token_log_probs(model, part, torch.ones_like(part)) for part in ids.split(lengths, dim=1)]
    torch.testing.assert_close(packed, torch.cat(alone, dim=1), rtol=1e-4, atol=1e-4)


@settings(max_examples=25, deadline=None)
@given(chunk=st.integers(1, 40), count=st.integers(1, 30), seed=st.integers(0, 5))
def test_a_loss_does_not_depend_on_its_chunks(chunk: int, count: int, seed: int) -> None:
    model = stirred(QWEN, seed)
    hidden = torch.randn(count, QWEN.n_embd, generator=torch.Generator().manual_seed(seed))
    targets = tokens(1, count, seed=seed)[0]
    with torch.no_grad():
        found = chunked_loss(model, hidden, targets, chunk=chunk)
        expected = torch.nn.functional.cross_entropy(model.logits(hidden), targets, reduction="none")
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-4)


@settings(max_examples=15, deadline=None)
@given(
    scales=st.lists(st.floats(0.5, 2.0), min_size=3, max_size=3),
    gain=st.floats(0.8, 1.5),
    tied=st.booleans(),
    seed=st.integers(0, 3),
)
def test_any_residual_scales_fold(scales: list[float], gain: float, tied: bool, seed: int) -> None:
    """Choices and log-probabilities of the folded model are those of the one in training, for any scales."""
    model = stirred(replace(QWEN, tie_embeddings=tied), seed)
    add_extras(model, embed_norm=True, residual_scales=True, qk_gain=gain)
    extras = model.extras
    assert extras is not None
    ids = tokens(2, LENGTH, seed=seed)
    with torch.no_grad():
        extras.log_scales.copy_(torch.tensor(scales).log())  # type: ignore[operator,union-attr]
        before = model.logits(model(ids)).log_softmax(-1)
        after = (folded := fold_extras(model)).logits(folded(ids)).log_softmax(-1)
    assert folded.shape.tie_embeddings is False
    torch.testing.assert_close(after, before, rtol=1e-3, atol=1e-3)


@torch.no_grad()
def test_only_the_direction_of_the_stream_counts() -> None:
    """Behind norms, the size of the embeddings changes nothing where nothing else is added to them at that size."""
    shape = replace(QWEN, tie_embeddings=False, norm_eps=1e-12)
    model, ids = stirred(shape), tokens(1, LENGTH)
    before = model(ids)
    for weight in (model.embed_tokens.weight, *(w for n, w in model.named_parameters() if _writes(n))):
        weight.mul_(8.0)
    torch.testing.assert_close(model(ids), before, rtol=1e-3, atol=1e-3)


def _writes(name: str) -> bool:
    return name.endswith(("o_proj.weight", "down_proj.weight"))
