"""`pretrain`: a model from random weights on packed token shards."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor

from causerie.core import Artifact, say
from causerie.model import ModelShape, Transformer, causal_attend, chunked_loss, shape_from_depth, summed_loss
from causerie.text import Tokenizer
from causerie.train.config import PretrainConfig
from causerie.train.from_scratch import (
    PackedRows,
    Recipe,
    Rows,
    flops_per_token,
    train_from_scratch,
    validation_batches,
)
from causerie.train.machine import autocast, uses_bf16
from causerie.train.objective import Batch, LossParts
from causerie.train.sample import continue_greedily

__all__ = ["PackedRows", "flops_per_token", "next_token_loss", "next_token_nll", "pretrain"]

DIMENSIONS = ("n_layer", "n_embd", "n_head", "n_kv_head", "head_dim", "ffn_dim")


def pretrain(config: PretrainConfig, workspace: Path) -> Artifact:
    """Train a model from scratch: artifact "model", a Hugging Face folder with `loss.svg` and `loss.png`.

    Rows hold packed documents that do not see each other. Metrics: `val_bits_per_byte_before` and `..._after`,
    `val_loss_...` (nats per token), `tokens_per_second`, `gflops_per_second`, `peak_share` (see `meter`), `steps`,
    `tokens`, `seconds`, `parameters`, samples before and after.

    Raises:
        CauserieError: CAU-4001 for bad settings, CAU-4005 when shards and tokenizer do not belong together.
        Stopped: on SIGTERM or SIGINT, with the state saved.
    """
    return train_from_scratch(RECIPE, config, workspace)


def model_shape(config: PretrainConfig, vocab_size: int) -> ModelShape:
    """The dial's shape with the dimensions given by hand put in."""
    shape = shape_from_depth(config.depth, vocab_size, max(2048, config.seq_len))
    given = {name: getattr(config, name) for name in DIMENSIONS if getattr(config, name) is not None}
    return replace(shape, **given)


def next_token_loss(model: Transformer, batch: Batch) -> LossParts:
    """The objective of pretraining: every next token, the token that opens the next document included."""
    hidden, mask = _hidden(model, batch), batch.get("mask")
    weights = None if mask is None else mask.flatten()
    loss = summed_loss(model, hidden, batch["targets"].flatten(), weights)
    tokens = batch["targets"].numel()
    return LossParts(loss, tokens if weights is None else weights.sum(), seen=tokens)


def next_token_nll(model: Transformer, batch: Mapping[str, Tensor]) -> Tensor:
    """Negative log-likelihood of every target, (B·T,) float32 nats, attention kept within documents."""
    return chunked_loss(model, _hidden(model, batch), batch["targets"].flatten())


def _hidden(model: Transformer, batch: Mapping[str, Tensor]) -> Tensor:
    attend = causal_attend(model.shape, batch["doc_ids"])
    hidden: Tensor = model(batch["ids"], positions=batch["positions"], attend=attend)
    return hidden.flatten(0, 1)


def bits_per_byte(nats_per_token: float, tokens: int, n_bytes: int) -> float:
    """Nats per token → bits per byte of a text that has `tokens` tokens and `n_bytes` UTF-8 bytes."""
    return nats_per_token * tokens / (n_bytes * math.log(2))


@torch.no_grad()
def validation(model: Transformer, val: Rows, config: PretrainConfig, shards: Artifact) -> dict[str, float]:
    """Loss on the validation split: `val_loss` in nats per token, `val_bits_per_byte`; the same rows every time."""
    device = next(model.parameters()).device
    total, count = 0.0, 0.0
    for batch in validation_batches(val, config, device):
        with autocast(device, uses_bf16(config, device)):
            nll = next_token_nll(model, batch).double()
        mask = batch.get("mask")
        weights = torch.ones_like(nll) if mask is None else mask.flatten().double()
        total, count = total + float((nll * weights).sum()), count + float(weights.sum())
    mean = total / count
    figures = shards.manifest.metrics
    return {"val_loss": mean, "val_bits_per_byte": bits_per_byte(mean, figures["val_tokens"], figures["val_bytes"])}


def _evaluate(
    model: Transformer, val: Rows, config: PretrainConfig, shards: Artifact, tokenizer: Tokenizer, step: int
) -> dict[str, Any]:
    figures = validation(model, val, config, shards)
    samples = continue_greedily(model, tokenizer, config.prompts)
    say(f"step {step}: validation {figures['val_bits_per_byte']:.3f} bits per byte")
    for text in samples:
        say(f"  {text!r}")
    return {**figures, "samples": samples}


def _rows(
    shards: Path, config: PretrainConfig, tokenizer: Tokenizer, split: Literal["train", "val"], micro: int
) -> PackedRows:
    return PackedRows(shards, config, split, micro)


RECIPE = Recipe(
    command="pretrain",
    shape=lambda config, tokenizer: model_shape(config, tokenizer.vocab_size),
    rows=_rows,
    objective=next_token_loss,
    evaluate=_evaluate,
    best="val_bits_per_byte",
    label="validation (bits per byte)",
)
