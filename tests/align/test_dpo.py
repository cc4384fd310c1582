"""DPO end to end on a tiny random model: golden start values, learning, lineage, adapters."""

from __future__ import annotations

import math
from pathlib import Path

import pytest
import torch

from causerie.align import DpoConfig, dpo, dpo_objective, read_pairs, score_groups
from causerie.align.batches import GroupBatches
from causerie.align.objective_dpo import pair_group, pair_side
from causerie.core import Artifact, CauserieError, read_events, read_json, write_jsonl
from causerie.model import load_model, save_model
from causerie.text import load_chat_format

from .conftest import ask

FAST = {"precision": "fp32", "warmup": 0, "schedule": "wsd"}


def test_eight_pairs_are_learnt(tiny: Path, preferences: Path, workspace: Path) -> None:
    """The margin grows on all pairs and generalises to held-out prompts of the same rule; the start is exact."""
    config = DpoConfig(model=tiny, preferences=preferences, epochs=30, lr=1e-3, batch_size=8, **FAST)
    made = dpo(config, workspace)
    before, after = made.manifest.metrics["before"], made.manifest.metrics["after"]
    assert before["train_loss"] == pytest.approx(math.log(2), abs=1e-5)
    assert before["train_margin"] == pytest.approx(0, abs=1e-4)
    assert before["train_accuracy"] == 0.5  # all margins are 0: ties
    assert after["train_accuracy"] == after["heldout_accuracy"] == 1.0
    assert after["train_margin"] > 5
    assert after["train_loss"] < 0.5
    assert after["train_chosen_drift"] > 0  # the NLL term kept the chosen answers likely
    assert after["train_chosen_nats_per_token"] < before["train_chosen_nats_per_token"]
    assert made.manifest.metrics["rows"]["train"]["used"] == 8


def test_first_update_logs_the_closed_form_loss(tiny: Path, preferences: Path, workspace: Path) -> None:
    heard: list[tuple[str, dict]] = []
    config = DpoConfig(model=tiny, preferences=preferences, steps=1, nll_weight=0, batch_size=8, **FAST)
    dpo(config, workspace, events=lambda event, **values: heard.append((event, values)))
    (run,) = (workspace / "runs").glob("dpo-*")
    (step,) = [row for row in read_events(run) if row["event"] == "step"]
    assert step["loss"] == pytest.approx(math.log(2), abs=1e-5)
    assert step["margin"] == pytest.approx(0, abs=1e-4)
    assert [values["loss"] for event, values in heard if event == "step"] == [step["loss"]]


def test_lineage_and_reuse(tiny: Path, preferences: Path, workspace: Path) -> None:
    config = DpoConfig(model=tiny, preferences=preferences, steps=2, **FAST)
    made = dpo(config, workspace)
    assert made.manifest.kind == "model"
    assert set(made.manifest.inputs) == {"model", "preferences"}
    assert made.path.parent == workspace / "model"
    stamp = (made.path / "manifest.json").stat().st_mtime_ns
    again = dpo(config, workspace)
    assert (again.path, again.key) == (made.path, made.key)
    assert (made.path / "manifest.json").stat().st_mtime_ns == stamp
    other = dpo(DpoConfig(model=tiny, preferences=preferences, steps=2, seed=1, **FAST), workspace)
    assert other.key != made.key
    references = list((workspace / "reference").iterdir())
    assert len(references) == 2  # training and held-out side, computed once for both runs
    placed = dpo(DpoConfig(model=tiny, preferences=preferences, steps=2, out=workspace / "here", **FAST), workspace)
    assert placed.path == workspace / "here"
    assert placed.key == made.key


def test_a_new_adapter_learns_and_is_continued_from_its_own_start(
    tiny: Path, preferences: Path, workspace: Path
) -> None:
    settings = {"preferences": preferences, "epochs": 10, "lr": 3e-3, **FAST}
    first = dpo(DpoConfig(model=tiny, lora_rank=4, **settings), workspace)
    assert first.manifest.kind == "adapter"
    assert set(first.manifest.inputs) == {"model", "base", "preferences"}
    assert first.manifest.inputs["base"] == first.manifest.inputs["model"]
    assert first.manifest.metrics["after"]["train_accuracy"] == 1.0
    written = read_json(first.path / "adapter_config.json")["base_model_name_or_path"]
    assert (first.path / written).resolve() == tiny.resolve()
    second = dpo(DpoConfig(model=first.path, **settings), workspace)
    assert second.manifest.inputs["model"] == first.key
    assert second.manifest.inputs["base"] == first.manifest.inputs["base"]
    # the reference of the second stage is the first adapter, not the bare base: the margin starts at 0 again
    assert second.manifest.metrics["before"]["train_margin"] == pytest.approx(0, abs=1e-4)
    chosen = "train_chosen_nats_per_token"
    assert second.manifest.metrics["before"][chosen] == pytest.approx(first.manifest.metrics["after"][chosen], abs=1e-4)
    base, trained = load_model(tiny), load_model(second.path)
    assert torch.equal(base.embed_tokens.weight, trained.embed_tokens.weight)  # frozen


def test_saved_weights_give_the_reported_figures(tiny: Path, preferences: Path, workspace: Path) -> None:
    made = dpo(DpoConfig(model=tiny, preferences=preferences, epochs=5, lr=1e-3, **FAST), workspace)
    pairs = read_pairs(preferences / "heldout-pairs.jsonl", load_chat_format(made.path), 256).rows
    groups = [pair_group(pair) for pair in pairs]
    policy, fixed = score_groups(load_model(made.path), groups), score_groups(load_model(tiny), groups)
    margin = ((policy[:, 0] - policy[:, 1]) - (fixed[:, 0] - fixed[:, 1])).mean()
    assert made.manifest.metrics["after"]["heldout_margin"] == pytest.approx(float(margin), abs=1e-3)


def test_weights_of_pairs_count(tiny: Path, preferences: Path) -> None:
    """A pair of weight 2 pulls like the same pair twice."""
    chat = load_chat_format(tiny)
    pairs = read_pairs(preferences / "pairs.jsonl", chat, 256).rows[:2]
    config = DpoConfig(model=tiny, preferences=preferences)
    model = load_model(tiny)
    zeros = torch.tensor([[-20.0, -21.0], [-19.0, -25.0]])

    def loss(rows: list[int], weights: list[float]) -> float:
        side = pair_side(tuple(pairs[i] for i in rows), zeros[rows])
        values = {**side.values, "weight": torch.tensor(weights)}
        (batch,) = GroupBatches(side.groups, values, len(rows), 0, 0).micro_batches(0)
        parts = dpo_objective(config)(model, batch)
        return float(parts.loss_sum.detach()) / float(parts.n_tokens)

    assert loss([0, 1], [2.0, 1.0]) == pytest.approx(loss([0, 0, 1], [1.0, 1.0, 1.0]), rel=1e-5)


def test_micro_batches_do_not_change_the_result(tiny: Path, preferences: Path, tmp_path: Path) -> None:
    """8×1, 4×2 and 1×8 give the same loss and gradient norm, whatever the answers' lengths."""
    figures = []
    for micro in (0, 2, 1):
        workspace = tmp_path / str(micro)
        config = DpoConfig(
            model=tiny, preferences=preferences, steps=2, batch_size=8, micro_batch=micro, lr=1e-3, **FAST
        )
        dpo(config, workspace)
        (run,) = (workspace / "runs").glob("dpo-*")
        figures.append([(e["loss"], e["grad_norm"]) for e in read_events(run) if e["event"] == "step"])
    for other in figures[1:]:
        for (loss, norm), (other_loss, other_norm) in zip(figures[0], other, strict=True):
            assert other_loss == pytest.approx(loss, abs=1e-5)
            assert other_norm == pytest.approx(norm, rel=1e-4)


@pytest.mark.parametrize("loss", ["sigmoid_norm", "ipo", "robust"])
def test_other_losses_learn_too(loss: str, tiny: Path, preferences: Path, workspace: Path) -> None:
    beta = 5.0 if loss == "sigmoid_norm" else 0.1
    config = DpoConfig(
        model=tiny, preferences=preferences, loss=loss, beta=beta, epochs=10, lr=1e-3, nll_weight=0, **FAST
    )
    metrics = dpo(config, workspace).manifest.metrics
    start = 25.0 if loss == "ipo" else math.log(2)
    assert metrics["before"]["train_loss"] == pytest.approx(start, abs=1e-4)
    assert metrics["after"]["train_loss"] < metrics["before"]["train_loss"]
    assert metrics["after"]["heldout_accuracy"] == 1.0


def test_the_reference_is_the_given_model_not_an_older_one(tiny: Path, preferences: Path, workspace: Path) -> None:
    """TRL reloads the reference from the path in the config; weights changed since then gave 0.65 instead of ln 2."""
    model = load_model(tiny)
    with torch.no_grad():
        model.embed_tokens.weight.mul_(1.5)
    changed = workspace / "changed"
    changed.mkdir()
    save_model(model, changed, tiny)
    for folder in (tiny, changed):
        made = dpo(DpoConfig(model=folder, preferences=preferences, steps=1, **FAST), workspace)
        assert made.manifest.metrics["before"]["train_loss"] == pytest.approx(math.log(2), abs=1e-5)


def test_adapters_and_full_runs_do_not_share_a_reference_in_bf16(
    tiny: Path, preferences: Path, workspace: Path
) -> None:
    """An adapter's base is held in bf16, a fully trained model in fp32: their log-probabilities differ."""
    for rank in (0, 2):
        settings = {"model": tiny, "preferences": preferences, "lora_rank": rank, "steps": 1, "precision": "bf16"}
        made = dpo(DpoConfig(**settings), workspace)
        assert made.manifest.metrics["before"]["train_margin"] == 0
        assert made.manifest.metrics["before"]["train_loss"] == pytest.approx(math.log(2), abs=1e-6)


def test_no_pairs_is_an_error_that_says_why(tiny: Path, tmp_path: Path, workspace: Path) -> None:
    write_jsonl(tmp_path / "pairs.jsonl", [{"prompt": ask("the cat"), "chosen": "", "rejected": "no"}])
    with pytest.raises(CauserieError) as caught:
        dpo(DpoConfig(model=tiny, preferences=tmp_path), workspace)
    assert caught.value.code == "CAU-4101"
    assert "empty chosen answer: 1" in caught.value.cause


@pytest.mark.parametrize(
    "wrong",
    [
        {"beta": 0.0},
        {"noise": 0.5},
        {"nll_weight": -1.0},
        {"seq_len": 1},
        {"lora_rank": -1},
        {"epochs": 0.0},
        {"lora_rank": 2, "optimizer": "muon"},
    ],
)
def test_impossible_settings_are_named(wrong: dict, tiny: Path, preferences: Path, workspace: Path) -> None:
    with pytest.raises(CauserieError) as caught:
        dpo(DpoConfig(model=tiny, preferences=preferences, **wrong), workspace)
    assert caught.value.code in ("CAU-4001", "CAU-4103")
    assert caught.value.where in wrong


def test_a_damaged_reference_is_computed_again(tiny: Path, preferences: Path, workspace: Path) -> None:
    def run(seed: int) -> Artifact:
        return dpo(DpoConfig(model=tiny, preferences=preferences, steps=1, seed=seed, **FAST), workspace)

    run(0)
    for file in (workspace / "reference").glob("*/log_probs.safetensors"):
        file.write_bytes(b"")
    assert run(1).manifest.metrics["before"]["train_loss"] == pytest.approx(math.log(2), abs=1e-5)
