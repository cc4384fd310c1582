"""Families at sizes drawn at random against transformers: logits, packed rows, caches fed in pieces, every gradient."""

from __future__ import annotations

import random
import tempfile
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F

from causerie.model import Transformer, load_model, plain_attend, shape_to_hf, summed_loss
from causerie.model.hf_names import hf_name, is_turned
from tests.model.references import BERT_IDS, IDS, Pieces, tokens

VOCABULARY = 97
CLASSES = {
    "qwen3": ("Qwen3Config", "Qwen3ForCausalLM"),
    "qwen2": ("Qwen2Config", "Qwen2ForCausalLM"),
    "llama": ("LlamaConfig", "LlamaForCausalLM"),
    "gemma3": ("Gemma3TextConfig", "Gemma3ForCausalLM"),
    "phi3": ("Phi3Config", "Phi3ForCausalLM"),
    "modernbert": ("ModernBertConfig", "ModernBertForMaskedLM"),
}
SEEDS = range(3)
CASES = [(family, seed) for family in CLASSES for seed in SEEDS]
DECODERS = [(family, seed) for family, seed in CASES if family != "modernbert"]


def drawn(family: str, seed: int) -> dict[str, Any]:
    """A config's values: heads that do and do not share keys, odd widths, windows of any size, any base of rotation."""
    dice = random.Random(f"{family} {seed}")
    kv_heads = dice.choice([1, 2, 3])
    heads, size = kv_heads * dice.choice([1, 2, 4]), dice.choice([8, 12, 20])
    values: dict[str, Any] = {
        **IDS, "vocab_size": VOCABULARY, "hidden_size": heads * size, "num_attention_heads": heads,
        "num_key_value_heads": kv_heads, "intermediate_size": dice.choice([17, 40, 96]),
        "num_hidden_layers": dice.choice([2, 3, 5]), "max_position_embeddings": 128,
        "tie_word_embeddings": dice.random() < 0.5,
    }  # fmt: skip
    window, eps = dice.choice([2, 3, 7]), dice.choice([1e-6, 1e-5, 1e-3])
    if family in ("qwen3", "gemma3"):
        values |= {"head_dim": size + dice.choice([0, 4]), "hidden_size": heads * (size + dice.choice([0, 5]))}
    if family in ("qwen3", "qwen2"):
        values |= {"use_sliding_window": True, "sliding_window": window, "max_window_layers": dice.choice([0, 1])}
        values |= {"rope_theta": dice.choice([100.0, 1e6]), "rms_norm_eps": eps}
    if family == "gemma3":
        values |= {"sliding_window": window, "query_pre_attn_scalar": dice.choice([7, 32]), "num_hidden_layers": 7}
    if family == "phi3":
        values |= {"sliding_window": dice.choice([None, window]), "partial_rotary_factor": dice.choice([0.5, 1.0])}
    if family == "modernbert":
        values |= {**BERT_IDS, "local_attention": 2 * window, "global_attn_every_n_layers": dice.choice([1, 2])}
        values |= {"num_key_value_heads": heads, "tie_word_embeddings": True}
    return values


def pair(family: str, seed: int) -> tuple[Transformer, Any]:
    """The same random weights in both; norms and biases are not at their start values."""
    import transformers

    config, model = (getattr(transformers, name) for name in CLASSES[family])
    torch.manual_seed(seed)
    theirs = model(config(**drawn(family, seed))).eval()
    with torch.no_grad():
        for parameter in theirs.parameters():
            parameter.add_(torch.randn_like(parameter) * (0.3 if parameter.ndim == 1 else 0.05))
    with tempfile.TemporaryDirectory() as folder:
        theirs.save_pretrained(folder)
        return load_model(Path(folder)), theirs


def close(ours: torch.Tensor, theirs: torch.Tensor) -> None:
    torch.testing.assert_close(ours, theirs, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize(("family", "seed"), CASES)
@torch.no_grad()
def test_logits_config_and_count(family: str, seed: int) -> None:
    ours, theirs = pair(family, seed)
    ids = tokens(2, 23, seed=seed)
    close(ours.logits(ours(ids)), theirs(ids).logits)
    assert ours.shape.n_params == theirs.num_parameters()
    import transformers

    config = transformers.AutoConfig.for_model(**shape_to_hf(ours.shape))
    with torch.device("meta"):
        assert type(theirs)(config).num_parameters() == theirs.num_parameters()


@pytest.mark.parametrize(("family", "seed"), CASES)
@torch.no_grad()
def test_packed_documents_are_documents_alone(family: str, seed: int) -> None:
    ours, theirs = pair(family, seed)
    dice = random.Random(seed)
    lengths = [dice.randint(1, 12) for _ in range(5)]
    ids = tokens(1, sum(lengths), seed=seed)
    documents = torch.cat([torch.full((n,), place) for place, n in enumerate(lengths)])[None]
    positions = torch.cat([torch.arange(n) for n in lengths])[None]
    found = ours.logits(ours(ids, positions=positions, attend=plain_attend(ours.shape, documents)))
    close(found, torch.cat([theirs(part).logits for part in ids.split(lengths, dim=1)], dim=1))


@pytest.mark.parametrize(("family", "seed"), DECODERS)
@torch.no_grad()
def test_a_cache_fed_in_pieces(family: str, seed: int) -> None:
    ours, theirs = pair(family, seed)
    ids, cache, at = tokens(2, 24, seed=seed), Pieces(ours), 0
    expected = theirs(ids).logits
    for length in (9, 1, 1, 6, 7):
        positions = torch.arange(at, at + length)[None]
        found = ours.logits(ours(ids[:, at : at + length], positions=positions, attend=cache))
        close(found, expected[:, at : at + length])
        at += length


@pytest.mark.parametrize(("family", "seed"), DECODERS)
def test_every_gradient_of_a_training_step(family: str, seed: int) -> None:
    """Ours by the written gradients and the chunked loss, theirs by autograd."""
    ours, theirs = pair(family, seed)
    ids = tokens(2, 24, seed=seed)
    summed_loss(ours, ours(ids[:, :-1]).flatten(0, 1), ids[:, 1:].flatten()).backward()
    logits = theirs(ids[:, :-1]).logits
    F.cross_entropy(logits.flatten(0, 1), ids[:, 1:].flatten(), reduction="sum").backward()
    expected = {name: p.grad for name, p in theirs.named_parameters()}
    for name, parameter in ours.named_parameters():
        other, mine = expected[hf_name(family, name)], parameter.grad
        assert mine is not None
        assert other is not None
        turned = other.t() if is_turned(family, name) else other
        torch.testing.assert_close(mine, turned, rtol=2e-3, atol=2e-4 * float(other.abs().max()), msg=name)
