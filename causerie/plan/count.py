"""Counting: what a shape has of parameters, what a token costs in FLOPs, what training and serving take in memory."""

from __future__ import annotations

from typing import Any, Final

from causerie.model import ModelShape

CONVENTION: Final = (
    "training FLOPs per token = 6 x matrix parameters (output projection in, embedding lookup out) "
    "+ 12 x sum over layers of heads x head_dim x context; causal attention not halved, local layers capped at their "
    "window (PaLM appendix B, arXiv:2204.02311); forward alone is one third"
)
"""How FLOPs are counted; printed beside every figure, since conventions differ by half."""


def matrix_params(shape: ModelShape) -> int:
    """Parameters that every token is multiplied with: all projections and the output projection."""
    q, kv = shape.n_head * shape.head_dim, shape.n_kv_head * shape.head_dim
    layer = 2 * shape.n_embd * (q + kv) + 3 * shape.n_embd * shape.ffn_dim
    return shape.n_layer * layer + shape.vocab_size * shape.n_embd


def count(shape: ModelShape, *, seq_len: int | None = None) -> dict[str, Any]:
    """Parameters and FLOPs of a shape.

    Args:
        shape: the model.
        seq_len: context that attention is counted for; None for the longest the model is meant for.

    Returns:
        `parameters`, `parameters_without_embedding`, `matrix_parameters`, `seq_len`, `flops_per_token` (training),
        `flops_per_token_forward`, `convention`.
    """
    length = seq_len or shape.max_seq_len
    reach = sum(min(length, shape.window(layer) or length) for layer in range(shape.n_layer))
    training = 6 * matrix_params(shape) + 12 * shape.n_head * shape.head_dim * reach
    return {
        "parameters": shape.n_params,
        "parameters_without_embedding": shape.n_params_without_embedding,
        "matrix_parameters": matrix_params(shape),
        "seq_len": length,
        "flops_per_token": training,
        "flops_per_token_forward": training // 3,
        "convention": CONVENTION,
    }


def memory(
    shape: ModelShape,
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
    """Bytes that training a shape takes, and bytes of its key-value cache when serving.

    Weights, gradients, optimiser and cache are exact; activations are an estimate of the tensors that the backward
    pass keeps: per token and layer 4 widths, 3 queries, 3 keys and 4 inner widths of the MLP; attention itself keeps
    nothing that grows with the square of the context (fused kernels), and the loss holds `logit_rows` rows of logits.

    Args:
        batch_size, seq_len: sequences per step on this device and their length.
        weight_bytes: bytes of a stored weight and of its gradient.
        optimizer_bytes: bytes of optimiser state per parameter: 8 for Adam in float32, 4 for one momentum.
        activation_bytes: bytes of a kept activation.
        cache_bytes: bytes of a cached key or value.
        recompute: keep only each layer's input, and one layer's tensors at a time.
        logit_rows: rows of float32 logits held at once by the loss.
    """
    length = seq_len or shape.max_seq_len
    tokens, n = batch_size * length, shape.n_params
    q, kv = shape.n_head * shape.head_dim, shape.n_kv_head * shape.head_dim
    per_layer = (4 * shape.n_embd + 3 * q + 3 * kv + 4 * shape.ffn_dim) * activation_bytes
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
    reach = sum(min(length, shape.window(layer) or length) for layer in range(shape.n_layer))
    return {
        **parts,
        "training_total": sum(parts.values()),
        "cache_per_token": shape.kv_bytes_per_token(cache_bytes),
        "cache": batch_size * reach * 2 * kv * cache_bytes,
        "batch_size": batch_size,
        "seq_len": length,
    }
