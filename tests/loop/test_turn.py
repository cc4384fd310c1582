"""Whole turns with a tiny model: new votes only, the run's last word, the card, the canary, one turn at a time."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

from causerie.core import (
    Artifact,
    CauserieError,
    list_artifacts,
    read_events,
    read_json,
    read_jsonl,
    read_run,
    write_artifact,
    write_jsonl,
)
from causerie.feedback import (
    Exposure,
    FeedbackImportConfig,
    Signal,
    TrainingSetConfig,
    import_feedback,
    record_exposure,
    record_signal,
    training_set,
)
from causerie.hub import get_version, list_audit, register
from causerie.loop import ImproveConfig, Improved, improve, keep_improving, running_canary
from causerie.loop.lock import one_turn
from causerie.loop.material import choose_method, votes_used
from causerie.model import ModelShape, init_model, save_model
from causerie.store import Store, open_store
from causerie.text import train_bpe

TEXT = "the cat sat on a mat and said yes or no to every dog in town while rain fell softly over old grey roofs"
CONFIG = ImproveConfig(
    model="home", min_votes=8, heldout_fraction=0.4, guard_rows=4, guard_prompts=4, guard_max_tokens=4,
    safety_prompts=4, batch_size=4, steps=2,
)  # fmt: skip


@pytest.fixture
def store(workspace: Path) -> Iterator[Store]:
    """A store whose home@1 is a tiny random model."""
    tokenizer = train_bpe([TEXT, "user assistant system"] * 5, 300)
    shape = ModelShape(
        family="qwen3", n_layer=1, n_embd=32, n_head=2, n_kv_head=1, head_dim=16, ffn_dim=64,
        vocab_size=tokenizer.vocab_size, max_seq_len=128,
    )  # fmt: skip
    torch.manual_seed(0)
    with write_artifact(workspace, "model", "home", "a1" * 32) as draft:
        tokenizer.save(draft.path)
        save_model(init_model(shape, 0), draft.path, draft.path)
    assert draft.artifact is not None
    with open_store(workspace) as opened:
        register(opened, workspace, "home", draft.artifact, status="promoted")
        yield opened


def vote(store: Store, numbers: range, kind: str = "choice") -> None:
    for number in numbers:
        prompt = ({"role": "user", "content": f"cat {number}?"},)
        common: dict = {"user": "local", "model": "home", "version": 1, "prompt": prompt, "consent": True}
        good, bad = Exposure(text="yes the cat sat", **common), Exposure(text="no", **common)
        record_exposure(store, good, bad)
        value: dict = {"outcome": "chosen", "others": [bad.id]}
        if kind != "choice":
            value = {"label": bool(number % 2)} if kind == "thumb" else {"text": "the cat sat on a mat"}
        record_signal(store, Signal(good.id, f"u{number % 3}", kind, value))  # type: ignore[arg-type]


@pytest.fixture
def guarded(workspace: Path) -> ImproveConfig:
    from dataclasses import replace

    rows = [
        {"messages": [{"role": "user", "content": f"dog {n}?"}, {"role": "assistant", "content": "a dog"}]}
        for n in range(6)
    ]
    write_jsonl(workspace / "guard.jsonl", rows)
    return replace(CONFIG, guard=workspace / "guard.jsonl")


def settled(result: Improved, workspace: Path) -> str:
    return str(read_run(workspace / "runs" / result.run)["status"])


def test_a_round_from_votes_to_verdict_and_card(store: Store, workspace: Path, guarded: ImproveConfig) -> None:
    vote(store, range(24))
    result = improve(guarded, workspace, store)
    assert result.candidate == "home@2"
    card = get_version(store, "home@2").card
    assert card["votes_used"] == result.votes_used
    assert 0 < card["votes_used"]["trained_on"] < 24
    assert card["votes_used"]["trained_on"] + card["votes_used"]["judged_by"] == 24
    assert card["votes_used"]["people"] == 3
    assert {row["metric"] for row in result.gate} >= {
        "margin_per_token",
        "flattery",
        "refused",
        "nats_per_token",
        "ended",
    }
    before = [row.action for row in list_audit(store) if row.subject in ("home@1", "home@2")]
    assert before.index("preregister") < len(before) - 1 - before[::-1].index("register")
    assert read_json(workspace / "runs" / result.run / "protocol.json")["preferences"] == card["preferences"]
    if result.canary:
        assert settled(result, workspace) == "done"
        assert running_canary(store, "home") is not None
    else:
        assert settled(result, workspace) == "refused"
        assert get_version(store, "home@2").status == "refused"
        with pytest.raises(CauserieError, match="CAU-5101") as raised:
            improve(guarded, workspace, store)
        assert "0 new votes since the last round" in raised.value.cause


def test_a_refused_round_says_refused_and_how_many_votes_are_missing(
    store: Store, workspace: Path, guarded: ImproveConfig
) -> None:
    from dataclasses import replace

    vote(store, range(24))
    result = improve(replace(guarded, promise_margin=9.0), workspace, store)
    assert not result.promoted
    assert settled(result, workspace) == "refused"
    again = improve(replace(guarded, promise_margin=9.0, dry_run=True, min_votes=0), workspace, store)
    assert "dry run" in again.why


def test_a_candidate_that_passes_goes_on_trial_and_the_next_round_waits(
    store: Store, workspace: Path, guarded: ImproveConfig
) -> None:
    from dataclasses import replace

    vote(store, range(24))
    easy = replace(
        guarded, promise_margin=-9.0, loss_margin=9.0, ending_margin=2.0, empty_margin=2.0, length_factor=99.0,
        sycophancy_margin=2.0, flattery_margin=2.0, refusal_margin=2.0,
    )  # fmt: skip
    result = improve(easy, workspace, store)
    trial = running_canary(store, "home")
    assert trial is not None
    assert (result.promoted, result.canary, trial.candidate) == (False, trial.id, "home@2")
    assert trial.settings.share == 0.2
    assert trial.settings.min_people == 3
    assert "answers 20% of the conversations until live votes decide" in result.why
    assert settled(result, workspace) == "done"
    assert get_version(store, "home").ref == "home@1"
    with pytest.raises(CauserieError, match="CAU-5105"):
        improve(easy, workspace, store)


@pytest.mark.parametrize(("kind", "method"), [("choice", "dpo"), ("thumb", "kto"), ("edit", "sft")])
def test_the_objective_follows_the_kind_of_votes(
    store: Store, workspace: Path, guarded: ImproveConfig, kind: str, method: str
) -> None:
    vote(store, range(24), kind)
    result = improve(guarded, workspace, store)
    assert result.method == method
    assert result.votes_used["trained_on"] > 0


def test_a_reward_model_teaches_by_grpo(store: Store, workspace: Path, guarded: ImproveConfig) -> None:
    """Judge and candidate begin from the incumbent; the prompts are the votes' own, those apart never trained on."""
    from dataclasses import replace

    vote(store, range(24))
    result = improve(replace(guarded, method="grpo", steps=2), workspace, store)
    assert result.method == "grpo"
    assert result.votes_used["trained_on"] + result.votes_used["judged_by"] == 24
    folder = workspace / "runs" / result.run
    trained, apart = (
        {str(row["prompt"]) for row in read_jsonl(folder / name)} for name in ("prompts.jsonl", "heldout-prompts.jsonl")
    )
    assert len(trained) + len(apart) == 24
    assert not trained & apart
    inputs = read_json(Path(result.candidate_path) / "manifest.json")["inputs"]
    (judge,) = list_artifacts(workspace, "reward")
    assert inputs["reward_model"] == judge.key
    assert judge.manifest.inputs["model"] == inputs["model"] == "a1" * 32
    events = [row["event"] for row in read_events(folder)]
    assert events.count("rollout") == 2
    assert "reward model ranks as people did" in str(list(read_events(folder)))


def test_the_method_asked_for_wins(store: Store) -> None:
    asked = ImproveConfig(model="home", method="kto")
    assert choose_method(asked, Artifact.__new__(Artifact)) == "kto"


def test_one_turn_at_a_time(store: Store, workspace: Path, guarded: ImproveConfig) -> None:
    with one_turn(workspace, "home"), pytest.raises(CauserieError, match="CAU-5104"):
        improve(guarded, workspace, store)


def test_the_schedule_waits_for_votes_and_turns_again(workspace: Path) -> None:
    """Looks that come too early are told and waited out; other errors end it."""
    outcomes: list[str] = ["CAU-5101", "CAU-5105", "", "CAU-5102"]
    naps: list[float] = []

    def turn(config: ImproveConfig, _workspace: Path) -> Improved:
        assert config.schedule == 0
        code = outcomes.pop(0)
        if code:
            raise CauserieError(code, "not now")
        return Improved(True, "better", "home", "home@1", "home@2", "home@2", "dpo", {}, [], "", "", "run")

    config = ImproveConfig(model="home", schedule=0.05)
    done = keep_improving(config, workspace, turns=3, turn=turn, sleep=naps.append)
    assert done is not None
    assert done.version == "home@2"
    assert sum(naps) == pytest.approx(2 * 0.05 * 60)
    with pytest.raises(CauserieError, match="CAU-5102"):
        keep_improving(config, workspace, turn=turn, sleep=naps.append)
    with one_turn(workspace, "home", "schedule"), pytest.raises(CauserieError, match="CAU-5104"):
        keep_improving(config, workspace, turn=turn, sleep=naps.append)


def test_imported_votes_have_no_people_who_could_judge_a_trial(store: Store, workspace: Path) -> None:
    """One person's votes beside an imported file: that person alone must be able to decide."""
    vote(store, range(0, 12, 3))
    write_jsonl(
        workspace / "more.jsonl", [{"prompt": f"dog {n}?", "chosen": "a dog", "rejected": "no"} for n in range(9)]
    )
    import_feedback(FeedbackImportConfig((workspace / "more.jsonl",)), workspace)
    votes = training_set(TrainingSetConfig(), workspace, store)
    used = votes_used(store, votes, "dpo")
    assert (used["people"], used["trained_on"] + used["judged_by"]) == (1, 13)
