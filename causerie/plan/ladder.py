"""The ladder: small models trained one after another, a law through them, a signed prediction, the large run, a score.

Every rung is an ordinary `train pretrain` artifact of the workspace: a ladder that was stopped goes on where it was,
and rungs that are there already are not trained again.
"""

from __future__ import annotations

import csv
import io
import re
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from causerie.core import Artifact, CauserieError, read_json, say, write_atomic
from causerie.model import ModelShape, shape_from_depth
from causerie.plan.config import FitConfig, LadderConfig, PredictConfig, ScoreConfig
from causerie.plan.fitting import plan_fit
from causerie.plan.prediction import plan_predict, plan_score
from causerie.text import load_tokenizer

if TYPE_CHECKING:
    from causerie.train import PretrainConfig

HEAD_WIDTH: Final = 48
"""Width that one head of 32 goes with, as in `shape_from_depth`."""
COUNTING: Final = "all parameters of a tied model: embedding, which is the output projection, counted once"


@dataclass(frozen=True)
class Rung:
    """One run of the series."""

    layers: int
    width: int
    tokens: int

    @property
    def label(self) -> str:
        """The rung as it is written in the configuration, tokens in thousands."""
        return f"{self.layers}x{self.width}-{self.tokens // 1000}k"


def parse_rung(text: str, field: str = "rungs") -> Rung:
    """A rung from LAYERSxWIDTH:TOKENS.

    Raises:
        CauserieError: CAU-4301 when it is written otherwise, or a number is out of range.
    """
    match = re.fullmatch(r"(\d{1,3})x(\d{1,5}):(\d{1,15})", text)
    if not match:
        fix = "write LAYERSxWIDTH:TOKENS, such as 2x96:1000000"
        raise CauserieError("CAU-4301", f"{text!r} is no rung", where=field, fix=fix)
    rung = Rung(*map(int, match.groups()))
    if rung.layers < 1 or rung.width < 16 or rung.tokens < 1000:
        fix = "give at least 1 layer, a width of 16 and 1000 tokens"
        raise CauserieError("CAU-4301", f"{text!r} is too small", where=field, fix=fix)
    return rung


def rung_shape(rung: Rung, vocab_size: int) -> ModelShape:
    """The dial's proportions at any width: heads of 32, one for 48 of width, MLP 8/3 of the width."""
    heads = max(1, round(rung.width / HEAD_WIDTH))
    return replace(
        shape_from_depth(rung.layers, vocab_size), n_embd=rung.width, n_head=heads,
        n_kv_head=heads if heads % 2 else heads // 2, head_dim=32, ffn_dim=-(-rung.width * 8 // 48) * 16,
    )  # fmt: skip


def rung_config(rung: Rung, config: LadderConfig) -> PretrainConfig:
    """The settings of a rung's training: one batch and one schedule for all."""
    from causerie.train import PretrainConfig

    shape = rung_shape(rung, 512)
    return PretrainConfig(
        name=f"{config.name}-{rung.label}", shards=config.shards, tokenizer=config.tokenizer, depth=rung.layers,
        n_layer=rung.layers, n_embd=rung.width, n_head=shape.n_head, n_kv_head=shape.n_kv_head,
        head_dim=shape.head_dim, ffn_dim=shape.ffn_dim, tokens=rung.tokens, batch_size=config.batch_size,
        seq_len=config.seq_len, compile="off", prompts=(), eval_tokens=config.eval_tokens, seed=config.seed,
    )  # fmt: skip


def plan_ladder(config: LadderConfig, workspace: Path) -> dict[str, Any]:
    """Train the series, fit, predict, train the large run, score it.

    Returns:
        `runs`, `fit`, `prediction` and, unless `stop_before_target`, `score`.

    Raises:
        CauserieError: CAU-4301 for a bad or repeated rung, those of `train pretrain`, `plan fit`, `plan predict`.
        Stopped: on SIGTERM or SIGINT, with the state saved.
    """
    rungs = [parse_rung(text) for text in config.rungs]
    target = parse_rung(config.target, "target")
    if len(set(rungs)) < len(rungs) or target in rungs:
        fix = "name each run once, and the target only as target"
        raise CauserieError("CAU-4301", "a rung is there twice", where="rungs", fix=fix)
    rows = []
    for place, rung in enumerate(rungs, 1):
        say(f"rung {place} of {len(rungs)}: {rung.label}")
        rows.append(_row(rung, _train(rung, config, workspace)))
    table = config.prediction.with_suffix(".runs.csv")
    write_atomic(table, _csv(rows))
    law = config.prediction.with_suffix(".law.json")
    settings = FitConfig(
        table, out=law, counting=COUNTING, tied=config.tied, bootstrap=config.bootstrap, seed=config.seed
    )
    fit = plan_fit(settings)
    prediction = _predict(config, target, law, workspace)
    result: dict[str, Any] = {"runs": rows, "fit": {k: v for k, v in fit.items() if k != "resampled"}}
    result["prediction"] = prediction
    if config.stop_before_target:
        return result
    made = _train(target, config, workspace)
    result["score"] = plan_score(ScoreConfig(config.prediction, model=made.path), workspace)
    return result


def _predict(config: LadderConfig, target: Rung, law: Path, workspace: Path) -> dict[str, Any]:
    """The prediction; one that was written in an earlier sitting is kept."""
    if config.prediction.exists():
        say(f"the prediction stands in {config.prediction}")
        found: dict[str, Any] = read_json(config.prediction)
        return found
    shape = rung_shape(target, load_tokenizer(config.tokenizer).vocab_size)
    note = f"rung {target.label} of {config.name}, validation loss in nats a token"
    question = PredictConfig(law, config.prediction, params=shape.n_params, tokens=target.tokens, note=note)
    return plan_predict(question, workspace)


def _train(rung: Rung, config: LadderConfig, workspace: Path) -> Artifact:
    from causerie.train import pretrain

    return pretrain(rung_config(rung, config), workspace)


def _row(rung: Rung, made: Artifact) -> dict[str, Any]:
    metrics = made.manifest.metrics
    return {
        "run": rung.label, "N": metrics["parameters"], "D": metrics["tokens"], "loss": metrics["val_loss_after"],
        "seconds": metrics["seconds"], "flops_per_token": metrics["flops_per_token"], "key": made.manifest.key,
    }  # fmt: skip


def _csv(rows: list[dict[str, Any]]) -> str:
    file = io.StringIO()
    writer = csv.DictWriter(file, rows[0], lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    return file.getvalue()
