"""Counting: what a shape has of parameters, what a token costs in FLOPs, what training and serving take in memory."""

from __future__ import annotations

from typing import Any, Final

from causerie.model import ModelShape
from causerie.plan.blueprint import Blueprint, blueprint_of

CONVENTION: Final = (
    "training FLOPs per token = 6 x matrix parameters (output projection in, embedding lookup out; of experts only the "
    "active ones) + 12 x sum over layers of heads x head_dim x context; causal attention not halved, local layers "
    "capped at their window (PaLM appendix B, arXiv:2204.02311); forward alone is one third"
)
"""How FLOPs are counted; printed beside every figure, since conventions differ by half."""


def training_flops(plan: Blueprint, seq_len: int) -> float:
    """Training FLOPs of a token, as `CONVENTION` says."""
    shape = plan.shape
    return 6 * plan.active_matrix_params + 12 * shape.n_head * shape.head_dim * plan.reach(seq_len)


def count(model: ModelShape | Blueprint, *, seq_len: int | None = None) -> dict[str, Any]:
    """Parameters and FLOPs of a model.

    Args:
        model: a shape, or a blueprint with or without experts.
        seq_len: context that attention is counted for; None for the longest the model is meant for.

    Returns:
        `parameters`, `parameters_without_embedding`, `matrix_parameters` (those that a token meets), `seq_len`,
        `flops_per_token` (training), `flops_per_token_forward`, `convention`; with experts also `active_parameters`
        (as `matrix_parameters`, with the embedding), `expert_parameters`.
    """
    plan = blueprint_of(model) if isinstance(model, ModelShape) else model
    shape, length = plan.shape, seq_len or plan.shape.max_seq_len
    tables = shape.n_params - shape.n_params_without_embedding
    training = int(training_flops(plan, length))
    figures = {
        "parameters": plan.n_params,
        "parameters_without_embedding": plan.n_params - tables,
        "matrix_parameters": plan.active_matrix_params,
        "seq_len": length,
        "flops_per_token": training,
        "flops_per_token_forward": training // 3,
        "convention": CONVENTION,
    }
    if plan.experts:
        table = 0 if shape.tie_embeddings else shape.vocab_size * shape.n_embd
        figures |= {
            "active_parameters": plan.active_matrix_params + table,
            "expert_parameters": plan.expert_params,
        }
    return figures


def memory(
    model: ModelShape | Blueprint,
    *,
    batch_size: int = 1,
    seq_len: int | None = None,
    weight_bytes: int = 4,
    optimizer_bytes: int = 8,
    activation_bytes: int = 2,
    cache_bytes: int = 2,
    recompute: bool = False,
    logit_rows: int = 1024,
) -> dict[str, Any]:
    """Bytes that training takes on one device, and bytes of the key-value cache when serving.

    Weights, gradients, optimiser and cache are exact; activations are an estimate of the tensors that our own trainer's
    backward pass keeps: per token and layer 4 widths, 3 queries, 3 keys and 4 inner widths of the MLP; attention itself
    keeps nothing that grows with the square of the context (fused kernels), and the loss holds `logit_rows` rows of
    logits. For layouts over devices, and for Megatron's accounting, see `held_bytes`.

    Args:
        batch_size, seq_len: sequences per step on this device and their length.
        weight_bytes: bytes of a stored weight and of its gradient.
        optimizer_bytes: bytes of optimiser state per parameter: 8 for Adam in float32, 4 for one momentum.
        activation_bytes: bytes of a kept activation.
        cache_bytes: bytes of a cached key or value.
        recompute: keep only each layer's input, and one layer's tensors at a time.
        logit_rows: rows of float32 logits held at once by the loss.
    """
    plan = blueprint_of(model) if isinstance(model, ModelShape) else model
    shape, n = plan.shape, plan.n_params
    length = seq_len or shape.max_seq_len
    tokens = batch_size * length
    q, kv = shape.n_head * shape.head_dim, shape.n_kv_head * shape.head_dim
    inner = shape.ffn_dim
    if plan.experts:
        inner = max(inner, plan.experts.active * plan.experts.dim + plan.experts.shared_dim)
    per_layer = (4 * shape.n_embd + 3 * q + 3 * kv + 4 * inner) * activation_bytes
    kept = (
        shape.n_layer * shape.n_embd * activation_bytes + per_layer if recompute else shape.n_layer * per_layer
    ) * tokens
    parts = {
        "weights": n * weight_bytes,
        "gradients": n * weight_bytes,
        "optimizer": n * optimizer_bytes,
        "activations_estimate": kept,
        "logits": min(tokens, logit_rows) * shape.vocab_size * 4,
    }
    return {
        **parts,
        "training_total": sum(parts.values()),
        "cache_per_token": shape.n_layer * plan.cached_values * cache_bytes,
        "cache": batch_size * plan.reach(length) * plan.cached_values * cache_bytes,
        "batch_size": batch_size,
        "seq_len": length,
    }
