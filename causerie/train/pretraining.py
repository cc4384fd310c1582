"""`pretrain`: a model from random weights on packed token shards."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor

from causerie.core import (
    Artifact,
    CauserieError,
    Run,
    content_key,
    existing_artifact,
    open_artifact,
    open_run,
    say,
    seed_for,
    sha256_json,
)
from causerie.data import TokenBatches
from causerie.model import (
    ModelShape,
    Transformer,
    causal_attend,
    chunked_loss,
    init_model,
    save_model,
    shape_from_depth,
)
from causerie.text import Tokenizer, load_tokenizer
from causerie.train.artifacts import open_output, output_folder, result_key
from causerie.train.checkpoint import delete_checkpoints
from causerie.train.config import PretrainConfig
from causerie.train.loop import Batch, Callback, FitResult, LossParts, fit
from causerie.train.machine import autocast, uses_bf16
from causerie.train.plot import loss_curve, plot_loss
from causerie.train.sample import continue_greedily

DIMENSIONS = ("n_layer", "n_embd", "n_head", "n_kv_head", "head_dim", "ffn_dim")


def pretrain(config: PretrainConfig, workspace: Path) -> Artifact:
    """Train a model from scratch: artifact "model", a Hugging Face folder with `loss.svg` and `loss.png`.

    Rows hold packed documents that do not see each other. Metrics: `val_bits_per_byte_before` and `..._after`,
    `val_loss_...` (nats per token), `tokens_per_second`, `gflops_per_second` (see `flops_per_token`), `steps`,
    `tokens`, `seconds`, `parameters`, samples before and after.

    Raises:
        CauserieError: CAU-4001 for bad settings, CAU-4005 when shards and tokenizer do not belong together.
        Stopped: on SIGTERM or SIGINT, with the state saved.
    """
    config.check()
    shards = open_artifact(config.shards)
    tokenizer = load_tokenizer(config.tokenizer)
    inputs = {"shards": shards.key, "tokenizer": content_key(config.tokenizer)}
    _check_pair(shards, inputs["tokenizer"], config)
    key = result_key(config, "model", inputs)
    if found := existing_artifact(config.out, workspace, "model", config.name, key):
        return found
    shape = model_shape(config, tokenizer.vocab_size)
    with open_run(workspace, "pretrain", config.name, key, config.as_dict()) as run:
        model = init_model(shape, seed_for(config.seed, "model"))
        result = _train(model, config, shards, tokenizer, run)
        metrics = _metrics(result, shape, config, shards)
        with open_output(config, workspace, "model", key, inputs) as draft:
            save_model(model, draft.path, config.tokenizer)
            draft.metrics.update(metrics)
            points = _points(run.path, result)
            plot_loss(run.path, draft.path, _title(shape, result), points, "validation (bits per byte)")
        run.result.update({**metrics, "artifact": str(output_folder(config, workspace, "model", key))})
        delete_checkpoints(run.path)
    assert draft.artifact is not None
    return draft.artifact


def model_shape(config: PretrainConfig, vocab_size: int) -> ModelShape:
    """The dial's shape with the dimensions given by hand put in."""
    shape = shape_from_depth(config.depth, vocab_size, max(2048, config.seq_len))
    given = {name: getattr(config, name) for name in DIMENSIONS if getattr(config, name) is not None}
    return replace(shape, **given)


def flops_per_token(shape: ModelShape, seq_len: int) -> float:
    """Training FLOPs per token: 6 × matrix parameters (output projection in, embedding lookup out) + 12·L·H·Dh·T.

    Causal attention is not halved (the convention of PaLM's appendix B, arXiv:2204.02311).
    """
    head = shape.vocab_size * shape.n_embd
    attention = 12.0 * shape.n_layer * shape.n_head * shape.head_dim * seq_len
    return 6.0 * (shape.n_params_without_embedding + head) + attention


class PackedRows:
    """Micro-batches of packed documents from token shards, as `Batches`: ids, targets, positions and doc_ids (B, T)."""

    def __init__(self, shards: Path, config: PretrainConfig, split: Literal["train", "val"] = "train") -> None:
        self._source = TokenBatches(
            shards, batch_size=config.batch_size, seq_len=config.seq_len, seed=config.seed, split=split
        )
        self._micro = config.micro_batch or config.batch_size
        self.windows = self._source.windows

    @property
    def fingerprint(self) -> str:
        """See `Batches`."""
        return self._source.fingerprint

    def micro_batches(self, step: int) -> Sequence[Batch]:
        """See `Batches`."""
        batch = self._source.batch(step)
        tokens = torch.from_numpy(batch.tokens)
        whole = {
            "ids": tokens[:, :-1],
            "targets": tokens[:, 1:],
            "positions": torch.from_numpy(batch.positions)[:, :-1],
            "doc_ids": torch.from_numpy(batch.doc_ids)[:, :-1],
        }
        rows = range(0, tokens.shape[0], self._micro)
        return [{name: value[row : row + self._micro] for name, value in whole.items()} for row in rows]


def next_token_loss(model: Transformer, batch: Batch) -> LossParts:
    """The objective of pretraining: every next token, the token that opens the next document included."""
    nll = next_token_nll(model, batch)
    return LossParts(nll.sum(), nll.numel())


def next_token_nll(model: Transformer, batch: Mapping[str, Tensor]) -> Tensor:
    """Negative log-likelihood of every target, (B·T,) float32 nats, attention kept within documents."""
    attend = causal_attend(model.shape, batch["doc_ids"])
    hidden = model(batch["ids"], positions=batch["positions"], attend=attend)
    return chunked_loss(model, hidden.flatten(0, 1), batch["targets"].flatten())


def bits_per_byte(nats_per_token: float, tokens: int, n_bytes: int) -> float:
    """Nats per token → bits per byte of a text that has `tokens` tokens and `n_bytes` UTF-8 bytes."""
    return nats_per_token * tokens / (n_bytes * math.log(2))


def _train(model: Transformer, config: PretrainConfig, shards: Artifact, tokenizer: Tokenizer, run: Run) -> FitResult:
    val = PackedRows(shards.path, config, "val")

    def evaluate(model: Transformer, step: int) -> dict[str, Any]:
        figures = validation(model, val, config, shards)
        samples = continue_greedily(model, tokenizer, config.prompts)
        say(f"step {step}: validation {figures['val_bits_per_byte']:.3f} bits per byte")
        for text in samples:
            say(f"  {text!r}")
        return {**figures, "samples": samples}

    flops = flops_per_token(model.shape, config.seq_len)
    callback = Callback(evaluate, every=config.eval_every)
    rows = PackedRows(shards.path, config)
    return fit(model, next_token_loss, rows, config, run, callbacks=[callback], flops_per_token=flops)


@torch.no_grad()
def validation(model: Transformer, val: PackedRows, config: PretrainConfig, shards: Artifact) -> dict[str, float]:
    """Loss on the validation split: `val_loss` in nats per token, `val_bits_per_byte`; the same rows every time."""
    device = next(model.parameters()).device
    left = max(1, min(val.windows, config.eval_tokens // config.seq_len))
    total, count = 0.0, 0
    for step in range(-(-left // config.batch_size)):
        for batch in val.micro_batches(step):
            rows = {name: value[:left].to(device) for name, value in batch.items()}
            left -= len(rows["ids"])
            if len(rows["ids"]):
                with autocast(device, uses_bf16(config, device)):
                    nll = next_token_nll(model, rows)
                total, count = total + float(nll.double().sum()), count + nll.numel()
    mean = total / count
    figures = shards.manifest.metrics
    return {"val_loss": mean, "val_bits_per_byte": bits_per_byte(mean, figures["val_tokens"], figures["val_bytes"])}


def _metrics(result: FitResult, shape: ModelShape, config: PretrainConfig, shards: Artifact) -> dict[str, Any]:
    evaluations = result.figures()
    flops = flops_per_token(shape, config.seq_len)
    figures: dict[str, Any] = {
        "steps": result.steps,
        "tokens": result.tokens,
        "epochs": round(result.tokens / max(1, shards.manifest.metrics["train_tokens"]), 3),
        "seconds": result.seconds,
        "tokens_per_second": result.tokens_per_second,
        "gflops_per_second": round(result.tokens_per_second * flops / 1e9, 1),
        "flops_per_token": flops,
        "parameters": shape.n_params,
        "parameters_without_embedding": shape.n_params_without_embedding,
        "train_loss": result.loss,
        "bad_steps": result.bad_steps,
        "compiled": result.compiled,
        "precision": result.precision,
    }
    for when, row in (("before", evaluations[0]), ("after", evaluations[-1])):
        figures |= {f"{name}_{when}": row[name] for name in ("val_bits_per_byte", "val_loss", "samples")}
    return figures


def _points(run: Path, result: FitResult) -> list[tuple[int, float]]:
    tokens = {row["step"] + 1: row["tokens"] for row in loss_curve(run)}
    return [(tokens.get(row["step"], 0), row["val_bits_per_byte"]) for row in result.figures()]


def _title(shape: ModelShape, result: FitResult) -> str:
    return (
        f"{shape.n_params / 1e6:.2f}M parameters, {result.tokens / 1e6:.2f}M tokens "
        f"in {result.seconds / 60:.1f} min ({result.tokens_per_second:,.0f} tokens/s)"
    )


def _check_pair(shards: Artifact, tokenizer_key: str, config: PretrainConfig) -> None:
    made_with = shards.manifest.inputs.get("tokenizer")
    plain = sha256_json((config.tokenizer / "tokenizer.json").read_text(encoding="utf-8"))  # of a folder without key
    if made_with is not None and made_with not in (tokenizer_key, plain):
        raise CauserieError(
            "CAU-4005",
            "the shards were made with another tokenizer",
            where=f"{config.shards} and {config.tokenizer}",
            fix="give the tokenizer the shards were packed with, or pack them again",
        )
