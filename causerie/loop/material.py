"""What a round learns from and is judged by: the votes in all, how many are new, and which of them it really uses."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Any, Literal

from sqlalchemy import func, select

from causerie.core import Artifact, CauserieError, list_artifacts, read_jsonl
from causerie.feedback import TrainingSetConfig, training_set
from causerie.hub import list_versions
from causerie.loop.config import ImproveConfig
from causerie.store import Store, signals

Method = Literal["dpo", "kto", "sft", "grpo"]

TRAINED_ON: dict[str, tuple[str, ...]] = {
    "dpo": ("pairs",),
    "kto": ("pairs", "unpaired"),
    "sft": ("sft",),
    "grpo": ("pairs",),
}
"""Method → the row files that it learns from."""

DO_NOT_TRAIN = "do-not-train.txt"
"""File of the workspace that lists what is never trained on."""


def collect_votes(config: ImproveConfig, workspace: Path, store: Store, guard: Path, max_imported: int) -> Artifact:
    """The training set of a round, as a preferences artifact split by prompt.

    Raises:
        CauserieError: CAU-5101 when there are too few votes, or too few that no earlier round used.
    """
    listed = config.do_not_train
    if listed is None and (workspace / DO_NOT_TRAIN).is_file():
        listed = workspace / DO_NOT_TRAIN
    asked = TrainingSetConfig(
        held_out=config.heldout_fraction,
        max_imported=max_imported,
        max_per_user=config.max_per_user,
        do_not_train=listed,
        apart=(guard,),
    )
    votes = training_set(asked, workspace, store)
    before = used_before(store, workspace, config.model)
    new = len(set(votes.manifest.config["signals"]) - before)
    if new < config.min_votes:
        since = f"new votes since the last round of {config.model}" if before else "votes that can be used"
        raise _too_few(f"{new} {since}, {config.min_votes} are needed: {config.min_votes - new} more")
    train, held_out = count_rows(votes), count_rows(votes, "heldout_")
    if train == 0 or held_out == 0:
        raise _too_few(f"{train} votes to learn from and {held_out} to judge by: too few different questions")
    return votes


def count_rows(votes: Artifact, side: str = "") -> int:
    """Pairs and single votes of one side of the split ("" or "heldout_")."""
    return int(votes.manifest.metrics[f"{side}pairs"]) + int(votes.manifest.metrics[f"{side}unpaired"])


def used_before(store: Store, workspace: Path, name: str, *, settled: bool = True) -> set[str]:
    """Ids of the signals in the training sets of a name's earlier rounds that came to a candidate.

    A candidate that was registered but not settled (its round was killed) is no earlier round: it goes on; unless
    `settled` is false, which also counts the round whose candidate is on trial.
    """
    tried = {
        version.card.get("preferences")
        for version in list_versions(store, name)
        if not settled or version.status != "candidate"
    }
    found: set[str] = set()
    for artifact in list_artifacts(workspace, "preferences"):
        if artifact.key in tried:
            found.update(artifact.manifest.config.get("signals", ()))
    return found


def choose_method(config: ImproveConfig, votes: Artifact) -> Method:
    """SFT where most signals are edits, else DPO where pairs, KTO where thumbs have more votes behind them."""
    if config.method != "auto":
        return config.method
    metrics = votes.manifest.metrics
    edits, said = int(metrics["counts"].get("signals_edit", 0)), int(metrics["signals"])
    if metrics["sft"] and edits * 2 > said:
        return "sft"
    return "dpo" if metrics["pairs"] and metrics["pairs"] * 2 >= metrics["unpaired"] else "kto"


def promise_of(votes: Artifact, most: int) -> str:
    """The suite that judges the round: pairs or thumbs, whichever has more held-out rows (at most `most` are used)."""
    metrics = votes.manifest.metrics
    pairs, thumbs = (min(int(metrics[f"heldout_{kind}"]), most) for kind in ("pairs", "unpaired"))
    return "votes" if thumbs > pairs else "preference"


def votes_used(store: Store, votes: Artifact, method: Method) -> dict[str, Any]:
    """How many signals stand in the rows that the method read and in those that judged it, of how many people.

    Who stands behind imported votes is not known, and they cast no live ones: they are no people here.
    """
    trained = _signals_in(votes, TRAINED_ON[method])
    judged = _signals_in(votes, ("heldout-pairs", "heldout-unpaired"))
    names = sorted(trained | judged)
    people: set[str] = set()
    for start in range(0, len(names), 500):
        part = signals.c.id.in_(names[start : start + 500]) & ~signals.c.kind.startswith("imported_")
        people |= {row.user for row in store.read(select(signals.c.user).where(part).distinct())}
    return {"trained_on": len(trained), "judged_by": len(judged), "people": len(people)}


def newest_vote(store: Store) -> float:
    """When the newest signal was recorded; 0 when there is none."""
    row = store.first(select(func.max(signals.c.created).label("newest")))
    return float(row.newest or 0.0) if row else 0.0


def has_live_votes(store: Store, names: Iterable[str]) -> bool:
    """Whether any of these signals was given on the page (imported ones have no voter who could judge a canary)."""
    wanted = set(names)
    live = select(signals.c.id).where(signals.c.kind.in_(("thumb", "choice", "edit", "regenerate")))
    return any(row.id in wanted for row in store.read(live))


def _signals_in(votes: Artifact, files: Iterable[str]) -> set[str]:
    return {name for file in files for row in read_jsonl(votes.path / f"{file}.jsonl") for name in row["signals"]}


def _too_few(cause: str) -> CauserieError:
    return CauserieError(
        "CAU-5101",
        cause,
        where="feedback",
        fix="vote on more answers, or import choices: causerie feedback import FILE",
    )
