"""One turn of the loop: feedback → training set → candidate → gate → a new version, or a refusal in words.

Progress goes to a run folder that the page reads: events `stage`, `step`, `gate` and `verdict`.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

from causerie.align import DpoConfig, KtoConfig, dpo, kto
from causerie.core import (
    Artifact,
    CauserieError,
    Run,
    artifact_key,
    code_digest,
    open_run,
    read_json,
    read_jsonl,
    say,
    sha256_file,
)
from causerie.evals import EvalConfig, EvalReport, evaluate
from causerie.feedback import TrainingSetConfig, training_set
from causerie.hub import ResolvedModel, promote, refuse, register, resolve
from causerie.loop.config import GUARD_FILE, ImproveConfig
from causerie.loop.gate import Verdict, judge
from causerie.loop.rows import gate_rows
from causerie.model import shape_from_hf
from causerie.store import Store, open_store

ADAPTER_FROM_PARAMETERS = 50_000_000
ADAPTER_RANK = 16
MINUTES_FOR_BIG = 15.0
IMPORTED_FOR_BIG = 160
"""Imported votes that a round of a big model uses: about five minutes on two cores."""


@dataclass(frozen=True)
class Improved:
    """What a turn of the loop came to."""

    promoted: bool
    why: str
    model: str
    incumbent: str
    version: str
    """The version that serves from now on: the new one when promoted, else the incumbent."""
    candidate: str
    """The version the candidate was registered as ("" in a dry run)."""
    method: str
    votes: dict[str, Any]
    gate: list[dict[str, Any]]
    candidate_path: str
    preferences_path: str
    run: str


def improve(config: ImproveConfig, workspace: Path, store: Store | None = None) -> Improved:
    """Turn the loop once.

    Args:
        config: see `ImproveConfig`.
        workspace: where votes, versions and artifacts are.
        store: an open store; the workspace's own when not given.

    Raises:
        CauserieError: CAU-5101 when there are too few votes, CAU-5102 when no version is promoted,
            CAU-5103 when the guard file cannot be used.
        Stopped: when asked to stop; the same call goes on from there.
    """
    if store is None:
        with open_store(workspace) as opened:
            return improve(config, workspace, opened)
    incumbent = _incumbent(store, workspace, config.model)
    guard = _guard(config)
    big = _is_big(incumbent)
    votes = _votes(config, workspace, store, big)
    method = _method(config, votes)
    key = _round_key(config, incumbent, votes, guard, method)
    settings = {**asdict(config), "guard": str(guard)}
    with open_run(workspace, "improve", config.model, key, settings) as run:
        run.log("votes", **votes.manifest.metrics)
        candidate = _train(config, workspace, incumbent, votes, method, run)
        run.log("stage", name="evaluate", text="candidate and incumbent answer the same held-out votes and prompts")
        report = _evaluate(config, workspace, incumbent, candidate, votes, guard)
        verdict = judge(gate_rows(report, config))
        run.log("gate", rows=[row.as_dict() for row in verdict.rows])
        result = _settle(config, workspace, store, incumbent, candidate, votes, verdict, method, run.id)
        run.log("verdict", promoted=result.promoted, why=result.why, version=result.version)
        run.result.update(asdict(result))
    say(verdict.why)
    return result


def _incumbent(store: Store, workspace: Path, name: str) -> ResolvedModel:
    found = resolve(store, workspace, name)
    if found.version is None:
        raise CauserieError(
            "CAU-5102",
            f"{name!r} is a folder, not a registered model",
            where="model",
            fix="register it first: causerie models import FOLDER --name NAME",
        )
    return found


def _guard(config: ImproveConfig) -> Path:
    path = config.guard or GUARD_FILE
    if not path.is_file() or next(read_jsonl(path), None) is None:
        raise CauserieError("CAU-5103", "no guard conversations", where=str(path), fix="give --guard FILE.jsonl")
    return path


def _votes(config: ImproveConfig, workspace: Path, store: Store, big: bool) -> Artifact:
    imported = config.max_imported if config.max_imported >= 0 else (IMPORTED_FOR_BIG if big else 0)
    asked = TrainingSetConfig(held_out=config.heldout_fraction, max_imported=imported)
    votes = training_set(asked, workspace, store)
    train, held_out = _count(votes), _count(votes, "heldout_")
    if train + held_out < config.min_votes or train == 0 or held_out == 0:
        raise CauserieError(
            "CAU-5101",
            f"{train} votes to learn from and {held_out} to judge by, {config.min_votes} in all are needed",
            where="feedback",
            fix="vote on more answers, or import choices: causerie feedback import FILE",
        )
    return votes


def _count(votes: Artifact, side: str = "") -> int:
    return int(votes.manifest.metrics[f"{side}pairs"]) + int(votes.manifest.metrics[f"{side}unpaired"])


def _method(config: ImproveConfig, votes: Artifact) -> Literal["dpo", "kto"]:
    if config.method != "auto":
        return config.method
    metrics = votes.manifest.metrics
    return "dpo" if metrics["pairs"] and metrics["pairs"] * 2 >= metrics["unpaired"] else "kto"


def _round_key(config: ImproveConfig, incumbent: ResolvedModel, votes: Artifact, guard: Path, method: str) -> str:
    inputs = {"model": incumbent.key, "preferences": votes.key, "guard": sha256_file(guard)}
    settings = {**asdict(config), "guard": "", "method": method}
    return artifact_key("improve", settings, inputs, code_digest("causerie.loop"))


def _train(
    config: ImproveConfig, workspace: Path, incumbent: ResolvedModel, votes: Artifact, method: str, run: Run
) -> Artifact:
    rank = _rank(config, incumbent)
    shared: dict[str, Any] = {
        "model": incumbent.path,
        "preferences": votes.path,
        "name": config.model,
        "beta": config.beta,
        "epochs": config.epochs,
        "batch_size": config.batch_size,
        "lora_rank": rank,
        "seed": config.seed,
    }
    minutes = config.minutes if config.minutes >= 0 else (MINUTES_FOR_BIG if _is_big(incumbent) else 0)
    given = {"lr": config.lr or None, "steps": config.steps or None, "minutes": minutes or None}
    shared |= {name: value for name, value in given.items() if value is not None}
    learnt = DpoConfig(**shared) if method == "dpo" else KtoConfig(**shared)
    part = "an adapter" if rank or incumbent.kind == "adapter" else "all weights"
    rows = f"{votes.manifest.metrics['pairs']} pairs" if method == "dpo" else f"{_count(votes)} votes"
    run.log("stage", name="train", text=f"{method} on {rows}, {part}")
    if isinstance(learnt, DpoConfig):
        return dpo(learnt, workspace, events=run.log)
    return kto(learnt, workspace, events=run.log)


def _rank(config: ImproveConfig, incumbent: ResolvedModel) -> int:
    """Rank of a new adapter; 0 for all weights, and for an incumbent that is an adapter already (it is trained on)."""
    if incumbent.kind == "adapter":
        return 0
    if config.lora_rank >= 0:
        return config.lora_rank
    return ADAPTER_RANK if _is_big(incumbent) else 0


def _is_big(incumbent: ResolvedModel) -> bool:
    """Whether the model is one for adapters: an adapter already, or of 50 million parameters and more."""
    if incumbent.kind == "adapter":
        return True
    return shape_from_hf(read_json(incumbent.path / "config.json")).n_params >= ADAPTER_FROM_PARAMETERS


def _evaluate(
    config: ImproveConfig, workspace: Path, incumbent: ResolvedModel, candidate: Artifact, votes: Artifact, guard: Path
) -> EvalReport:
    metrics = votes.manifest.metrics
    suites = ["answer_loss", "ending"]
    suites += ["preference"] if metrics["heldout_pairs"] else []
    suites += ["votes"] if metrics["heldout_unpaired"] else []
    asked = EvalConfig(
        model=candidate.path,
        against=incumbent.path,
        suites=tuple(suites),
        pairs=votes.path,
        chats=(guard,),
        prompts=guard,
        max_tokens=config.guard_max_tokens,
        limits=_limits(config),
        seed=config.seed,
        confidence=config.confidence,
        name=f"{config.model}-gate",
    )
    return evaluate(asked, workspace)


def _limits(config: ImproveConfig) -> dict[str, int]:
    votes = dict.fromkeys(("preference", "votes"), config.max_heldout)
    return {**votes, "answer_loss": config.guard_rows, "ending": config.guard_prompts}


def _settle(
    config: ImproveConfig,
    workspace: Path,
    store: Store,
    incumbent: ResolvedModel,
    candidate: Artifact,
    votes: Artifact,
    verdict: Verdict,
    method: str,
    run: str,
) -> Improved:
    rows = [row.as_dict() for row in verdict.rows]
    ref = ""
    if not config.dry_run:
        card = {"gate": rows, "verdict": verdict.why, "votes": votes.manifest.metrics, "method": method, "run": run}
        version = register(store, workspace, config.model, candidate, parents=[incumbent.name], card=card)
        ref = version.ref
        decide = promote if verdict.promoted else refuse
        decide(store, ref, actor="gate", reason=verdict.why)
    promoted = verdict.promoted and not config.dry_run
    return Improved(
        promoted=promoted,
        why=verdict.why + (" (dry run: nothing was registered)" if config.dry_run else ""),
        model=config.model,
        incumbent=incumbent.name,
        version=ref if promoted else incumbent.name,
        candidate=ref,
        method=method,
        votes=votes.manifest.metrics,
        gate=rows,
        candidate_path=str(candidate.path),
        preferences_path=str(votes.path),
        run=run,
    )
