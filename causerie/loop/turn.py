"""One turn of the loop: feedback → training set → candidate → gate → a canary or a new version, or a refusal in words.

Progress goes to a run folder that the page reads: events `stage`, `step`, `gate` and `verdict`. What the candidate will
be judged by is registered before it is trained (`protocol`).
"""

from __future__ import annotations

import contextlib
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from causerie.core import (
    Artifact,
    CauserieError,
    Finding,
    artifact_key,
    code_digest,
    open_run,
    read_jsonl,
    say,
    sha256_file,
)
from causerie.evals import EvalConfig, EvalReport, evaluate
from causerie.hub import ResolvedModel, promote, refuse, register, resolve
from causerie.loop.canary import need_no_canary, start_canary
from causerie.loop.candidate import max_imported, train_candidate
from causerie.loop.config import GUARD_FILE, CanaryConfig, ImproveConfig
from causerie.loop.gate import Verdict, judge
from causerie.loop.lock import one_turn
from causerie.loop.material import Method, choose_method, collect_votes, has_live_votes, promise_of, votes_used
from causerie.loop.protocol import register_protocol, registered_rules, rules
from causerie.loop.rows import gate_rows
from causerie.store import Store, open_store

SHARE_WITH_VOTERS = 0.2
PEOPLE_AT_LEAST = 5
"""People without whom a canary decides nothing, where as many voted for the training set."""


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
    canary: str = ""
    """Id of the canary that the candidate is on trial with ("" when there is none)."""
    missing_votes: int | None = None
    """About how many more votes would settle a round that had not enough evidence."""
    votes_used: dict[str, Any] = field(default_factory=dict)
    protocol: str = ""
    """SHA-256 of the protocol that was registered before the candidate was trained."""


def improve(config: ImproveConfig, workspace: Path, store: Store | None = None) -> Improved:
    """Turn the loop once.

    A round whose candidate is refused leaves its run as "refused"; the verdict is returned, not raised.

    Args:
        config: see `ImproveConfig`.
        workspace: where votes, versions and artifacts are.
        store: an open store; the workspace's own when not given.

    Raises:
        CauserieError: CAU-5101 when there are too few new votes, CAU-5102 when no version is promoted, CAU-5103 when
            the guard file cannot be used, CAU-5104 when another turn is under way, CAU-5105 while a candidate is on
            trial, CAU-5106 for settings that cannot be, CAU-5107 when the registered protocol was changed.
        Stopped: when asked to stop; the same call goes on from there.
    """
    if store is None:
        with open_store(workspace) as opened:
            return improve(config, workspace, opened)
    with one_turn(workspace, config.model):
        return _turn(config, workspace, store)


@dataclass(frozen=True)
class _Round:
    """What is settled before training begins."""

    config: ImproveConfig
    workspace: Path
    store: Store
    incumbent: ResolvedModel
    guard: Path
    votes: Artifact
    method: Method
    suites: tuple[str, ...]


def _turn(config: ImproveConfig, workspace: Path, store: Store) -> Improved:
    config.check()
    need_no_canary(store, config.model)
    incumbent = _incumbent(store, workspace, config.model)
    guard = _guard(config)
    votes = collect_votes(config, workspace, store, guard, max_imported(config, incumbent))
    method = choose_method(config, votes)
    this = _Round(config, workspace, store, incumbent, guard, votes, method, _suites(config, votes))
    result: Improved | None = None
    settings = {**asdict(config), "guard": str(guard), "do_not_train": str(config.do_not_train or "")}
    with contextlib.suppress(Finding), open_run(workspace, "improve", config.model, _key(this), settings) as run:
        run.log("votes", **votes.manifest.metrics)
        digest = register_protocol(store, run.path, incumbent.name, _rules(this), _facts(this))
        run.log("protocol", sha256=digest)
        candidate = train_candidate(config, workspace, incumbent, votes, method, run)
        run.log("stage", name="evaluate", text="candidate and incumbent answer the same held-out votes and prompts")
        report = _evaluate(this, candidate)
        verdict = judge(gate_rows(report, registered_rules(store, run.path)), config.heldout_fraction)
        run.log("gate", rows=[row.as_dict() for row in verdict.rows])
        result = _settle(this, candidate, verdict, run.id, digest)
        shown = {name: getattr(result, name) for name in ("promoted", "why", "version", "canary", "missing_votes")}
        run.log("verdict", **shown, candidate=result.candidate)
        run.result.update(asdict(result))
        if not verdict.promoted:
            raise Finding(verdict.why)
    assert result is not None
    say(result.why)
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


def _suites(config: ImproveConfig, votes: Artifact) -> tuple[str, ...]:
    metrics = votes.manifest.metrics
    asked = {
        "preference": metrics["heldout_pairs"],
        "votes": metrics["heldout_unpaired"],
        "sycophancy": config.safety_prompts,
        "over_refusal": config.safety_prompts,
    }
    return ("answer_loss", "ending", *(suite for suite, wanted in asked.items() if wanted))


def _key(this: _Round) -> str:
    inputs = {"model": this.incumbent.key, "preferences": this.votes.key, "guard": sha256_file(this.guard)}
    settings = {**asdict(this.config), "guard": "", "do_not_train": "", "schedule": 0, "method": this.method}
    return artifact_key("improve", settings, inputs, code_digest("causerie.loop"))


def _rules(this: _Round) -> Sequence[Any]:
    return rules(this.config, this.suites, promise_of(this.votes, this.config.max_heldout))


def _facts(this: _Round) -> dict[str, Any]:
    return {
        "model": this.config.model,
        "incumbent": {"version": this.incumbent.name, "key": this.incumbent.key},
        "preferences": this.votes.key,
        "guard_sha256": sha256_file(this.guard),
        "method": this.method,
        "suites": list(this.suites),
        "limits": _limits(this.config),
        "confidence": this.config.confidence,
        "seed": this.config.seed,
        "canary_share": _share(this),
    }


def _evaluate(this: _Round, candidate: Artifact) -> EvalReport:
    asked = EvalConfig(
        model=candidate.path,
        against=this.incumbent.path,
        suites=this.suites,
        pairs=this.votes.path,
        chats=(this.guard,),
        prompts=this.guard,
        max_tokens=this.config.guard_max_tokens,
        limits=_limits(this.config),
        seed=this.config.seed,
        confidence=this.config.confidence,
        name=f"{this.config.model}-gate",
    )
    return evaluate(asked, this.workspace)


def _limits(config: ImproveConfig) -> dict[str, int]:
    votes = dict.fromkeys(("preference", "votes"), config.max_heldout)
    guards = dict.fromkeys(("sycophancy", "over_refusal"), config.safety_prompts)
    return {**votes, **guards, "answer_loss": config.guard_rows, "ending": config.guard_prompts}


def _share(this: _Round) -> float:
    if this.config.canary >= 0:
        return this.config.canary
    live = has_live_votes(this.store, this.votes.manifest.config["signals"])
    return SHARE_WITH_VOTERS if live else 0.0


def _settle(this: _Round, candidate: Artifact, verdict: Verdict, run: str, digest: str) -> Improved:
    """Register the candidate and act on the verdict; in a dry run only tell it."""
    config, store = this.config, this.store
    rows = [row.as_dict() for row in verdict.rows]
    used = votes_used(store, this.votes, this.method)
    why, ref, canary, promoted = verdict.why + _beyond(verdict, this.config.max_heldout), "", "", False
    if config.dry_run:
        why += " (dry run: nothing was registered)"
    else:
        card = {
            "gate": rows,
            "verdict": verdict.why,
            "votes": this.votes.manifest.metrics,
            "votes_used": used,
            "preferences": this.votes.key,
            "method": this.method,
            "missing_votes": verdict.missing,
            "protocol": digest,
            "run": run,
        }
        version = register(store, this.workspace, config.model, candidate, parents=[this.incumbent.name], card=card)
        ref = version.ref
        share = _share(this)
        if not verdict.promoted:
            refuse(store, ref, actor="gate", reason=verdict.why)
        elif share:
            people = max(1, min(PEOPLE_AT_LEAST, used["people"]))
            settings = CanaryConfig(
                share=share, max_duels=config.canary_votes, min_people=people, coalition=config.canary_coalition
            )
            canary = start_canary(store, ref, settings, actor="gate").id
            why = why.replace("promoted:", "passed the gate:", 1)
            why += f"; {ref} now answers {share:.0%} of the conversations until live votes decide"
        else:
            promoted = promote(store, ref, actor="gate", reason=verdict.why).status == "promoted"
    return Improved(
        promoted=promoted,
        why=why,
        model=config.model,
        incumbent=this.incumbent.name,
        version=ref if promoted else this.incumbent.name,
        candidate=ref,
        method=this.method,
        votes=this.votes.manifest.metrics,
        gate=rows,
        candidate_path=str(candidate.path),
        preferences_path=str(this.votes.path),
        run=run,
        canary=canary,
        missing_votes=verdict.missing,
        votes_used=used,
        protocol=digest,
    )


def _beyond(verdict: Verdict, most: int) -> str:
    """What to ask for where more votes would tell than the gate reads."""
    wanted = max((row.items + row.missing for row in verdict.rows if row.missing), default=0)
    return f" (the gate reads at most {most} held-out votes: --max-heldout {wanted})" if 0 < most < wanted else ""
