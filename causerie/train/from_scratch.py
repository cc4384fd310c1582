"""What every training from random weights on token shards does around its objective: `pretrain` and `mlm`."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, Protocol

import torch

from causerie.core import (
    Artifact,
    CauserieError,
    Run,
    content_key,
    existing_artifact,
    open_artifact,
    open_run,
    seed_for,
    sha256_json,
)
from causerie.data import TokenBatches
from causerie.model import QK_GAIN, ModelShape, Transformer, add_extras, fold_extras, init_model, save_model
from causerie.text import Tokenizer, load_tokenizer
from causerie.train.artifacts import open_output, output_folder, result_key
from causerie.train.checkpoint import delete_checkpoints
from causerie.train.config import PretrainConfig
from causerie.train.loop import fit
from causerie.train.machine import pick_device
from causerie.train.meter import CONVENTION
from causerie.train.objective import Batch, Batches, Callback, FitResult, Objective
from causerie.train.plot import loss_curve, plot_loss
from causerie.train.rules import by_rule
from causerie.train.sharding import gathered
from causerie.train.world import World, open_world


class Rows(Batches, Protocol):
    """Training or validation rows."""

    windows: int
    """Rows there are."""


@dataclass(frozen=True)
class Recipe:
    """What differs between objectives."""

    command: str
    """`causerie train <command>`, and the run's kind."""
    shape: Callable[[PretrainConfig, Tokenizer], ModelShape]
    rows: Callable[[Path, PretrainConfig, Tokenizer, Literal["train", "val"], int], Rows]
    """Rows of a split, cut into micro-batches of the given number of rows."""
    objective: Objective
    evaluate: Callable[[Transformer, Rows, PretrainConfig, Artifact, Tokenizer, int], dict[str, Any]]
    """Figures on the validation rows after a step."""
    best: str
    """The figure by which evaluations are compared, the lower the better, and which is drawn."""
    label: str
    """Its name with its unit, for the picture."""


def train_from_scratch(recipe: Recipe, config: PretrainConfig, workspace: Path) -> Artifact:
    """Train a model from random weights: artifact "model", a Hugging Face folder with `loss.svg` and `loss.png`.

    Under torchrun every process calls this; the first one keeps the run and writes the artifact.

    Raises:
        CauserieError: CAU-4001 for bad settings, CAU-4005 when shards and tokenizer do not belong together.
        Stopped: on SIGTERM or SIGINT, with the state saved.
    """
    config.check()
    shards = open_artifact(config.shards)
    tokenizer = load_tokenizer(config.tokenizer)
    inputs = {"shards": shards.key, "tokenizer": content_key(config.tokenizer)}
    _check_pair(shards, inputs["tokenizer"], config)
    shape = recipe.shape(config, tokenizer)
    config = by_rule(config, shape)
    key = result_key(config, "model", inputs)
    if found := existing_artifact(config.out, workspace, "model", config.name, key, inputs):
        return found
    with open_world(pick_device(config), config.tensor_parallel) as world:
        with _run_of(world, workspace, recipe.command, config, key) as run:
            model = fresh_model(shape, config)
            result = _train(recipe, model, config, shards, tokenizer, run, world, inputs)
            finished = gathered(model)
            if world.leads:
                _write(recipe, finished, result, config, workspace, shards, run, key, inputs)
        world.wait()
        found = existing_artifact(config.out, workspace, "model", config.name, key)
    assert found is not None
    return found


def fresh_model(shape: ModelShape, config: PretrainConfig) -> Transformer:
    """The model before its first update, with the training-only parts where they are wanted."""
    model = init_model(shape, seed_for(config.seed, "model"))
    if config.extras:
        add_extras(model, embed_norm=True, residual_scales=True, qk_gain=QK_GAIN)
    return model


def flops_per_token(shape: ModelShape, seq_len: int) -> float:
    """Training FLOPs per token: 6 × multiplied parameters (output projection in, embedding lookup out) + 12·L·H·Dh·T.

    Causal attention is not halved (the convention of PaLM's appendix B, arXiv:2204.02311).
    """
    attention = 12.0 * shape.n_layer * shape.n_head * shape.head_dim * seq_len
    return 6.0 * shape.n_matrix_params + attention


def micro_rows(config: PretrainConfig, processes: int) -> int:
    """Rows of a micro-batch: as set, or all that a process has of a batch."""
    if config.exact_parts:
        return config.batch_size // config.exact_parts
    return config.micro_batch or max(1, config.batch_size // processes)


class PackedRows:
    """Micro-batches of packed documents from token shards, as `Batches`.

    Each holds ids, targets, positions and doc_ids, (B, T); and `mask`, (B, T), where some targets do not count.
    """

    def __init__(
        self, shards: Path, config: PretrainConfig, split: Literal["train", "val"] = "train", micro: int = 0
    ) -> None:
        self._source = TokenBatches(
            shards,
            batch_size=config.batch_size,
            seq_len=config.seq_len,
            seed=config.seed,
            split=split,
            layout=config.layout,
        )
        self._micro = micro or config.micro_batch or config.batch_size
        self._partial = config.layout == "rows"
        self.windows = self._source.windows

    @property
    def fingerprint(self) -> str:
        """See `Batches`."""
        return self._source.fingerprint

    def micro_batches(self, step: int) -> Sequence[Batch]:
        """See `Batches`."""
        whole = self.whole(step)
        rows = range(0, len(whole["ids"]), self._micro)
        return [{name: value[row : row + self._micro] for name, value in whole.items()} for row in rows]

    def whole(self, step: int) -> dict[str, torch.Tensor]:
        """The whole batch of an update."""
        batch = self._source.batch(step)
        tokens = torch.from_numpy(batch.tokens)
        made = {
            "ids": tokens[:, :-1],
            "targets": tokens[:, 1:],
            "positions": torch.from_numpy(batch.positions)[:, :-1],
            "doc_ids": torch.from_numpy(batch.doc_ids)[:, :-1],
        }
        if self._partial:
            made["mask"] = torch.from_numpy(batch.mask).float()
        return made


def validation_batches(rows: Rows, config: PretrainConfig, device: torch.device) -> Iterator[Batch]:
    """The same validation rows every time, about `eval_tokens` of them, on the device."""
    left = max(1, min(rows.windows, config.eval_tokens // config.seq_len))
    for step in range(-(-left // config.batch_size)):
        for batch in rows.micro_batches(step):
            if left > 0:
                yield {name: value[:left].to(device) for name, value in batch.items()}
            left -= len(batch["ids"])


@contextmanager
def _run_of(world: World, workspace: Path, kind: str, config: PretrainConfig, key: str) -> Iterator[Run]:
    """The run: owned by the first process; the others only know where it is."""
    if world.leads:
        with open_run(workspace, kind, config.name, key, config.as_dict()) as run:
            yield run
    else:
        yield _MuteRun(workspace / "runs" / f"{kind}-{config.name}-{key[:8]}", kind, config.name, config.as_dict())


class _MuteRun(Run):
    """The run as processes beside the first see it: they do not write."""

    def log(self, event: str, **values: Any) -> None:
        """Nothing."""


def _train(
    recipe: Recipe,
    model: Transformer,
    config: PretrainConfig,
    shards: Artifact,
    tokenizer: Tokenizer,
    run: Run,
    world: World,
    inputs: Mapping[str, str],
) -> FitResult:
    val = recipe.rows(shards.path, config, tokenizer, "val", config.micro_batch)
    rows = recipe.rows(shards.path, config, tokenizer, "train", micro_rows(config, world.data_size))

    def evaluate(model: Transformer, step: int) -> dict[str, Any]:
        return recipe.evaluate(model, val, config, shards, tokenizer, step)

    return fit(
        model,
        recipe.objective,
        rows,
        config,
        run,
        callbacks=[Callback(evaluate, every=config.eval_every, best=recipe.best)],
        flops_per_token=flops_per_token(model.shape, config.seq_len),
        world=world,
        inputs=inputs,
    )


def _write(
    recipe: Recipe,
    model: Transformer,
    result: FitResult,
    config: PretrainConfig,
    workspace: Path,
    shards: Artifact,
    run: Run,
    key: str,
    inputs: Mapping[str, str],
) -> None:
    plain = fold_extras(model)
    metrics = {**_metrics(result, model.shape, config, shards), "stored_parameters": plain.shape.n_params}
    with open_output(config, workspace, "model", key, inputs) as draft:
        save_model(plain, draft.path, config.tokenizer)
        draft.metrics.update(metrics)
        tokens = {row["step"] + 1: row["tokens"] for row in loss_curve(run.path)}
        points = [(tokens.get(row["step"], 0), row[recipe.best]) for row in result.figures()]
        plot_loss(run.path, draft.path, _title(model.shape, result), points, recipe.label)
    run.result.update({**metrics, "artifact": str(output_folder(config, workspace, "model", key))})
    delete_checkpoints(run.path)


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
        "peak_share": result.peak_share,
        "goodput": result.goodput,
        "evaluation_share": result.evaluation_share,
        "flops_per_token": flops,
        "flops_convention": CONVENTION,
        "parameters": shape.n_params,
        "parameters_without_embedding": shape.n_params_without_embedding,
        "train_loss": result.loss,
        "bad_steps": result.bad_steps,
        "spikes": result.spikes,
        "best_step": result.best_step,
        "compiled": result.compiled,
        "precision": result.precision,
    }
    for when, row in (("before", evaluations[0]), ("after", evaluations[-1])):
        figures |= {f"{name}_{when}": value for name, value in row.items() if name not in ("event", "step")}
    return figures


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
