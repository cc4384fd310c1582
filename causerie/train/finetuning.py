"""`sft`: teach a model from conversations, all of its weights or a low-rank adapter."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from causerie.core import Artifact, CauserieError, content_key, existing_artifact, open_run, say
from causerie.model import Transformer, add_lora, causal_attend, chunked_loss, load_model, lora_parameters, summed_loss
from causerie.text import load_chat_format
from causerie.train.artifacts import (
    base_key,
    is_adapter,
    open_output,
    output_folder,
    result_key,
    save_trained,
)
from causerie.train.chat_rows import (
    ChatStream,
    PackedChats,
    Row,
    lay_out,
    nothing_usable,
    pack_rows,
    read_rows,
    split_rows,
)
from causerie.train.checkpoint import delete_checkpoints
from causerie.train.config import SftConfig, bad_setting
from causerie.train.loop import fit
from causerie.train.machine import autocast, pick_device, uses_bf16
from causerie.train.objective import Batch, Callback, FitResult, LossParts
from causerie.train.optim import count_trainable
from causerie.train.plot import loss_curve, plot_loss
from causerie.train.snapshots import keep_snapshots

EVAL_ROWS = 8
"""Packed rows per forward pass when measuring."""


def sft(config: SftConfig, workspace: Path) -> Artifact:
    """Fine-tune on conversations: artifact "model" or, with an adapter, "adapter"; with `loss.svg` and `loss.png`.

    The loss is on the assistant's words and the token that ends its turn; only these go through the output projection.
    Metrics: `answer_loss_before` and `answer_loss_after` (held-out rows, nats per answer token), `rows`, `rows_skipped`
    by reason, `rows_truncated`, `seconds_per_step`, `tokens_per_second`, `steps`, `tokens`.

    Raises:
        CauserieError: CAU-4001 for bad settings, CAU-4002 when no usable row is left, CAU-1001 when a file is missing.
        Stopped: on SIGTERM or SIGINT, with the state saved.
    """
    config.check()
    _check_adapter(config)
    inputs = {"model": content_key(config.model)}
    inputs |= {f"data{number}": content_key(path) for number, path in enumerate(config.data)}
    if config.heldout:
        inputs["heldout"] = content_key(config.heldout)
    kind = "adapter" if config.lora_rank or is_adapter(config.model) else "model"
    if kind == "adapter":
        inputs["base"] = base_key(config.model)
    key = result_key(config, kind, inputs, "causerie.text")
    if found := existing_artifact(config.out, workspace, kind, config.name, key, inputs):
        return found
    data = load_data(config)
    with open_run(workspace, "sft", config.name, key, config.as_dict()) as run:
        run.log("data", **data.counts())
        model = load_trainable(config)
        rows = PackedConversations(data.train, config)
        peak = (config.lr or default_sft_lr(model)) * config.lr_scale
        settings = replace(config, steps=_steps(config, rows), lr=peak)
        callback = Callback(
            lambda model, step: heldout_loss(model, data.heldout, settings), every=config.eval_every, best="answer_loss"
        )
        kept = keep_snapshots(config.snapshots, settings.steps, run.path, config.model, key, workspace)
        result = fit(model, answer_loss, rows, settings, run, callbacks=[callback, *kept], inputs=inputs)
        final = output_folder(config, workspace, kind, key)
        metrics = {**data.counts(), **_metrics(result, model, rows)}
        with open_output(config, workspace, kind, key, inputs, config.model) as draft:
            save_trained(model, draft, final, config.model, workspace)
            draft.metrics.update(metrics)
            plot_loss(run.path, draft.path, _title(result), _points(run.path, result), "held-out (nats per token)")
        run.result.update({**metrics, "artifact": str(final)})
        delete_checkpoints(run.path)
    assert draft.artifact is not None
    return draft.artifact


@dataclass(frozen=True)
class SftData:
    """Conversations to train on and to measure on, and what was left out."""

    train: list[Row]
    heldout: list[Row]
    skipped: Mapping[str, int]
    truncated: int

    def counts(self) -> dict[str, Any]:
        """The counts as metrics."""
        return {
            "rows": len(self.train),
            "heldout_rows": len(self.heldout),
            "rows_skipped": dict(self.skipped),
            "rows_truncated": self.truncated,
        }


def load_data(config: SftConfig) -> SftData:
    """Read, render and split the conversations; says what was left out.

    Raises:
        CauserieError: CAU-4002 when nothing usable is left.
    """
    chat = load_chat_format(config.model)
    found = read_rows(config.data, chat, config.seq_len, config.too_long)
    train, heldout = found.rows, []
    if config.heldout:
        heldout = read_rows([config.heldout], chat, config.seq_len, config.too_long).rows
        known = {row.prompt_key for row in heldout}
        train = [row for row in train if row.prompt_key not in known]
        found.skipped["prompt is in the held-out file"] += len(found.rows) - len(train)
    else:
        train, heldout = split_rows(found.rows, config.heldout_fraction)
    if not train:
        raise nothing_usable(found.skipped, config.data)
    for reason, count in found.skipped.items():
        if count:
            say(f"left out {count} rows: {reason}")
    if found.truncated:
        say(f"cut {found.truncated} rows at {config.seq_len} tokens")
    skipped = {reason: count for reason, count in found.skipped.items() if count}
    return SftData(train, heldout[: config.heldout_rows], skipped, found.truncated)


def load_trainable(config: SftConfig) -> Transformer:
    """The model with what is to be trained requiring gradients.

    An adapter's base is frozen and, where products run in bf16, held in bf16; what is trained is float32.
    """
    lora = config.lora_rank > 0 or is_adapter(config.model)
    device = pick_device(config)
    dtype = torch.bfloat16 if lora and uses_bf16(config, device) else torch.float32
    model = load_model(config.model, dtype=dtype, merge_adapters=False)
    if config.lora_rank:
        add_lora(model, config.lora_rank, config.lora_alpha or 2.0 * config.lora_rank, seed=config.seed)
    return model


class PackedConversations:
    """Micro-batches of packed conversations, as `Batches`.

    ids, positions, doc_ids are (B, T); `where` (N,) says which positions the loss counts, `targets` (N,) what follows.
    """

    def __init__(self, rows: Sequence[Row], config: SftConfig) -> None:
        self._stream = ChatStream(rows, config.seq_len, config.seed)
        self._batch_size = config.batch_size
        self._micro = config.micro_batch or config.batch_size
        self.rows_per_epoch = self._stream.rows_per_epoch
        self.fingerprint = f"{self._stream.fingerprint}-{config.batch_size}"

    def micro_batches(self, step: int) -> Sequence[Batch]:
        """See `Batches`."""
        first, last = step * self._batch_size, (step + 1) * self._batch_size
        starts = range(first, last, self._micro)
        return [as_batch(self._stream.rows(start, min(self._micro, last - start))) for start in starts]


def as_batch(packed: PackedChats) -> Batch:
    """Tensors of a packed batch, with the trained positions as flat indices."""
    trained = torch.from_numpy(packed.trained).flatten()
    where = trained.nonzero().flatten()
    return {
        "ids": torch.from_numpy(packed.ids),
        "positions": torch.from_numpy(packed.positions),
        "doc_ids": torch.from_numpy(packed.doc_ids),
        "where": where,
        "targets": torch.from_numpy(packed.targets).flatten()[where],
    }


def answer_loss(model: Transformer, batch: Batch) -> LossParts:
    """The objective of `sft`: the assistant's tokens given what came before in their conversation."""
    loss = summed_loss(model, _hidden(model, batch), batch["targets"])
    return LossParts(loss, batch["targets"].numel(), seen=int((batch["doc_ids"] >= 0).sum()))


def answer_nll(model: Transformer, batch: Mapping[str, Tensor]) -> Tensor:
    """Negative log-likelihood of the counted tokens, (N,) float32 nats."""
    return chunked_loss(model, _hidden(model, batch), batch["targets"])


def _hidden(model: Transformer, batch: Mapping[str, Tensor]) -> Tensor:
    attend = causal_attend(model.shape, batch["doc_ids"])
    hidden: Tensor = model(batch["ids"], positions=batch["positions"], attend=attend)
    return hidden.flatten(0, 1)[batch["where"]]


@torch.no_grad()
def heldout_loss(model: Transformer, rows: Sequence[Row], config: SftConfig) -> dict[str, float]:
    """`answer_loss`: mean over the answer tokens of the held-out rows, nats per token; nothing without rows."""
    if not rows:
        return {}
    device = next(model.parameters()).device
    bins = pack_rows([len(row.ids) - 1 for row in rows], config.seq_len, range(len(rows)))
    total, count = 0.0, 0
    for start in range(0, len(bins), EVAL_ROWS):
        packed = lay_out([[rows[i] for i in group] for group in bins[start : start + EVAL_ROWS]], config.seq_len)
        with autocast(device, uses_bf16(config, device)):
            nll = answer_nll(model, {name: value.to(device) for name, value in as_batch(packed).items()})
        total, count = total + float(nll.double().sum()), count + nll.numel()
    say(f"held-out answers: {total / count:.3f} nats per token ({count} tokens, {len(rows)} conversations)")
    return {"answer_loss": total / count}


def default_sft_lr(model: Transformer) -> float:
    """AdamW's peak learning rate: 5e-4 for adapters; for all weights 1e-3 at 1.5M weights, falling with their number.

    Rules of thumb: adapters bear more than full fine-tuning, large models less than small ones.
    """
    if lora_parameters(model):
        return 5e-4
    return min(2e-3, 1e-3 * (1.5e6 / model.shape.n_params_without_embedding) ** 0.6)


def _steps(config: SftConfig, rows: PackedConversations) -> int | None:
    """Steps of the run: given, or from the epochs, or one epoch when nothing limits the run."""
    unlimited = config.steps is None and config.minutes is None and config.tokens is None
    epochs = config.epochs or (1.0 if unlimited else None)
    if epochs is None:
        return config.steps
    steps = max(1, math.ceil(epochs * rows.rows_per_epoch / config.batch_size))
    return steps if config.steps is None else min(steps, config.steps)


def _check_adapter(config: SftConfig) -> None:
    if not config.lora_rank and not is_adapter(config.model):
        return
    if config.optimizer == "muon":
        raise bad_setting("optimizer", "muon", "adamw: an adapter's thin matrices are not what Muon is for")
    if is_adapter(config.model) and (config.lora_rank or config.lora_alpha):
        raise CauserieError(
            "CAU-4001",
            "the model is an adapter already, which keeps its rank and scale",
            where="lora_rank, lora_alpha",
            fix="leave them out, or give the base model to begin a new adapter",
        )


def _metrics(result: FitResult, model: Transformer, rows: PackedConversations) -> dict[str, Any]:
    figures: dict[str, Any] = {name: value for name, value in asdict(result).items() if name != "evaluations"}
    figures["train_loss"] = figures.pop("loss")
    figures["packed_rows_per_epoch"] = rows.rows_per_epoch
    figures["trained_parameters"] = count_trainable(model)
    evaluations = result.figures()
    for when, row in (("before", evaluations[0]), ("after", evaluations[-1])):
        if "answer_loss" in row:
            figures[f"answer_loss_{when}"] = row["answer_loss"]
    return figures


def _points(run: Path, result: FitResult) -> list[tuple[int, float]]:
    tokens = {row["step"] + 1: row["tokens"] for row in loss_curve(run)}
    return [(tokens.get(row["step"], 0), row["answer_loss"]) for row in result.figures() if "answer_loss" in row]


def _title(result: FitResult) -> str:
    return f"fine-tuning: {result.steps} steps, {result.tokens / 1e6:.2f}M tokens in {result.seconds / 60:.1f} min"
