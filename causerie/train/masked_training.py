"""`mlm`: an encoder from random weights, by guessing hidden tokens (Devlin et al. 2018, arXiv:1810.04805)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor

from causerie.core import Artifact, CauserieError, say
from causerie.model import ModelShape, Transformer, chunked_loss, encoder_of, plain_attend, summed_loss
from causerie.text import Tokenizer
from causerie.train.config import MlmConfig, PretrainConfig
from causerie.train.from_scratch import PackedRows, Recipe, Rows, train_from_scratch, validation_batches
from causerie.train.machine import autocast, uses_bf16
from causerie.train.masking import mask_tokens
from causerie.train.objective import Batch, LossParts
from causerie.train.pretraining import model_shape

MASK_NAMES = ("<|mask|>", "<mask>", "[MASK]", "<|reserved_0|>")
"""Special tokens that stand for a hidden one, the first that a tokenizer has."""


def mlm(config: MlmConfig, workspace: Path) -> Artifact:
    """Train an encoder from scratch: artifact "model", a ModernBERT-shaped Hugging Face folder.

    Metrics: `val_masked_loss_before` and `..._after` (nats per hidden token), `val_masked_accuracy_...` (shares), and
    those of `pretrain`.

    Raises:
        CauserieError: as `pretrain`; CAU-4005 when the tokenizer has no token to hide others with.
    """
    return train_from_scratch(RECIPE, config, workspace)


def mask_id(tokenizer: Tokenizer) -> int:
    """The token that stands for a hidden one: a mask token, or with our own tokenizers a reserved one.

    Raises:
        CauserieError: CAU-4005 when there is none.
    """
    for name in MASK_NAMES:
        if name in tokenizer.special:
            return tokenizer.special[name]
    fix = f"add a special token {MASK_NAMES[0]} to the tokenizer and pack the shards again"
    raise CauserieError("CAU-4005", "the tokenizer has no mask token", where="tokenizer", fix=fix)


def encoder_shape(config: PretrainConfig, vocab_size: int) -> ModelShape:
    """The dial's sizes in ModernBERT's shape: both ways, all layers see all, the width shared out to the heads."""
    return encoder_of(model_shape(config, vocab_size))


class MaskedRows:
    """Micro-batches with hidden tokens, as `Batches`: ids (B, T) as shown; where (N,) flat places; targets (N,)."""

    def __init__(
        self, shards: Path, config: MlmConfig, tokenizer: Tokenizer, split: Literal["train", "val"], micro: int
    ) -> None:
        self._rows = PackedRows(shards, config, split)
        self._micro = micro or config.batch_size
        self._share, self._seed = config.mask_share, config.seed
        self._mask, self._keep = mask_id(tokenizer), tokenizer.eot_id
        self._plain = tokenizer.vocab_size - len(tokenizer.special)
        self.windows = self._rows.windows

    @property
    def fingerprint(self) -> str:
        """See `Batches`."""
        return f"{self._rows.fingerprint}-mask{self._share:g}"

    def micro_batches(self, step: int) -> Sequence[Batch]:
        """See `Batches`."""
        whole = self._rows.whole(step)
        seen, guess = mask_tokens(
            whole["ids"].numpy(), self._share, self._mask, self._plain, self._keep, self._seed, step
        )
        shown, hidden = torch.from_numpy(seen), torch.from_numpy(guess)
        made: list[Batch] = []
        for start in range(0, len(shown), self._micro):
            part = slice(start, start + self._micro)
            where = hidden[part].flatten().nonzero().flatten()
            batch = {name: whole[name][part] for name in ("positions", "doc_ids")}
            made.append({"ids": shown[part], **batch, "where": where, "targets": whole["ids"][part].flatten()[where]})
        return made


def masked_loss(model: Transformer, batch: Batch) -> LossParts:
    """The objective of `mlm`: the hidden tokens, given all the others of their document."""
    loss = summed_loss(model, _hidden(model, batch), batch["targets"])
    return LossParts(loss, len(batch["targets"]), seen=batch["ids"].numel())


def _hidden(model: Transformer, batch: Mapping[str, Tensor]) -> Tensor:
    attend = plain_attend(model.shape, batch["doc_ids"])
    hidden: Tensor = model(batch["ids"], positions=batch["positions"], attend=attend)
    return hidden.flatten(0, 1)[batch["where"]]


@torch.no_grad()
def masked_validation(model: Transformer, val: Rows, config: PretrainConfig) -> dict[str, float]:
    """`val_masked_loss` (nats per hidden token) and `val_masked_accuracy` on the same rows and masks every time."""
    device = next(model.parameters()).device
    total, right, count = 0.0, 0, 0
    for batch in validation_batches(val, config, device):
        with autocast(device, uses_bf16(config, device)):
            hidden = _hidden(model, batch)
            total += float(chunked_loss(model, hidden, batch["targets"]).double().sum())
            right += int((model.logits(hidden).argmax(-1) == batch["targets"]).sum())
        count += len(batch["targets"])
    return {"val_masked_loss": total / count, "val_masked_accuracy": right / count}


def _evaluate(
    model: Transformer, val: Rows, config: PretrainConfig, shards: Artifact, tokenizer: Tokenizer, step: int
) -> dict[str, Any]:
    figures = masked_validation(model, val, config)
    loss, right = figures["val_masked_loss"], figures["val_masked_accuracy"]
    say(f"step {step}: {loss:.3f} nats per hidden token, {right:.1%} right")
    return dict(figures)


def _rows(
    shards: Path, config: PretrainConfig, tokenizer: Tokenizer, split: Literal["train", "val"], micro: int
) -> MaskedRows:
    assert isinstance(config, MlmConfig)
    return MaskedRows(shards, config, tokenizer, split, micro)


RECIPE = Recipe(
    command="mlm",
    shape=lambda config, tokenizer: encoder_shape(config, tokenizer.vocab_size),
    rows=_rows,
    objective=masked_loss,
    evaluate=_evaluate,
    best="val_masked_loss",
    label="validation (nats per hidden token)",
)
