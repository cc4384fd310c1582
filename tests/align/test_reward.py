"""Reward models: what transformers reads from our folder, rankings, probe, baselines, the stage end to end."""

from __future__ import annotations

import json
import math
from collections import Counter
from pathlib import Path

import pytest
import torch

from causerie.align import (
    Group,
    RewardConfig,
    is_reward_model,
    layout,
    load_reward,
    reward,
    reward_objective,
    reward_ranking_loss,
)
from causerie.align.objective_reward import (
    KnownStates,
    calibration_gap,
    correlation,
    fit_probe,
    measure_rankings,
    ranking_side,
)
from causerie.align.rankings import Ranking, read_rankings
from causerie.align.reward_model import add_score, read_states, rewards, save_reward
from causerie.core import CauserieError, read_json, write_jsonl
from causerie.model import load_model
from causerie.text import load_chat_format

from .conftest import ask

FAST = {"precision": "fp32", "warmup": 0, "schedule": "wsd"}


def test_pairs_are_learnt_and_the_folder_is_huggingfaces(tiny: Path, preferences: Path, workspace: Path) -> None:
    """transformers' class gives the same rewards, also for a padded batch."""
    transformers = pytest.importorskip("transformers")
    made = reward(RewardConfig(model=tiny, preferences=preferences, epochs=10, lr=1e-3, probe=False, **FAST), workspace)
    metrics = made.manifest.metrics
    assert made.manifest.kind == "reward"
    assert metrics["before"]["train_loss"] == pytest.approx(math.log(2), abs=1e-6)
    assert metrics["after"]["heldout_accuracy"] == 1.0
    assert metrics["after"]["heldout_accuracy_low"] <= 1.0 <= metrics["after"]["heldout_accuracy_high"]
    assert metrics["before"]["heldout_longer_wins"] == 0.0  # the rejected answer is the longer one
    assert 0 <= metrics["rows"]["untrained_heads"]["accuracy"] <= 1
    assert 0.5 <= metrics["rows"]["bag_of_words"] <= 1
    model = load_reward(made.path)
    prompt, answers = (5, 6, 7, 8), ((11, 12, 13, 2), (21, 2))
    batch = layout([Group(prompt, answers)])
    with torch.no_grad():
        mine = rewards(model, batch)
    theirs = transformers.AutoModelForSequenceClassification.from_pretrained(made.path, dtype=torch.float32)
    assert theirs.config.num_labels == 1
    padding = theirs.config.pad_token_id
    rows = [[*prompt, *answers[0]], [*prompt, *answers[1], padding, padding]]
    with torch.no_grad():
        scores = theirs(torch.tensor(rows), attention_mask=torch.tensor([[1] * 8, [1] * 6 + [0] * 2])).logits[:, 0]
    assert torch.allclose(mine, scores, atol=1e-5)
    assert padding != load_chat_format(made.path).end_id


def test_an_adapter_is_merged_and_the_head_alone_leaves_the_trunk(
    tiny: Path, preferences: Path, workspace: Path
) -> None:
    base = load_model(tiny)
    lora = reward(RewardConfig(model=tiny, preferences=preferences, epochs=10, lr=3e-3, lora_rank=4, **FAST), workspace)
    assert set(lora.manifest.inputs) == {"model", "base", "preferences"}
    trained = load_reward(lora.path)
    assert torch.equal(trained.embed_tokens.weight, base.embed_tokens.weight)
    assert not torch.equal(trained.layers[0].mlp.up_proj.weight, base.layers[0].mlp.up_proj.weight)
    head = reward(
        RewardConfig(model=tiny, preferences=preferences, steps=2, head_only=True, name="head", **FAST), workspace
    )
    assert torch.equal(load_reward(head.path).layers[1].mlp.up_proj.weight, base.layers[1].mlp.up_proj.weight)
    assert head.manifest.metrics["after"]["heldout_accuracy"] == 1.0  # the probe found the rule


def test_fewer_layers_make_a_smaller_model(tiny: Path, preferences: Path, workspace: Path) -> None:
    config = RewardConfig(model=tiny, preferences=preferences, steps=1, head_only=True, layers=1, **FAST)
    made = reward(config, workspace)
    assert read_json(made.path / "config.json")["num_hidden_layers"] == 1
    assert len(load_reward(made.path).layers) == 1
    with pytest.raises(CauserieError, match="CAU-4103"):
        reward(RewardConfig(model=tiny, preferences=preferences, steps=1, layers=9, name="deep", **FAST), workspace)


def test_a_reward_model_of_transformers_is_read(tiny: Path, tmp_path: Path) -> None:
    transformers = pytest.importorskip("transformers")
    theirs = transformers.AutoModelForSequenceClassification.from_pretrained(tiny, num_labels=1, dtype=torch.float32)
    theirs.save_pretrained(tmp_path)
    assert is_reward_model(tmp_path)
    model = load_reward(tmp_path)
    ids = (3, 4, 5, 6, 7)
    with torch.no_grad():
        mine = rewards(model, layout([Group(ids[:2], (ids[2:],))]))
        scores = theirs(torch.tensor([ids])).logits[:, 0]
    assert torch.allclose(mine, scores, atol=1e-5)


def test_what_is_no_reward_model_is_refused(tiny: Path, tmp_path: Path) -> None:
    assert not is_reward_model(tiny)
    assert not is_reward_model(tmp_path)
    for folder in (tiny, tmp_path):
        with pytest.raises(CauserieError) as refused:
            load_reward(folder)
        assert refused.value.code == "CAU-4104"


def test_saving_gives_back_the_same_model(tiny: Path, tmp_path: Path) -> None:
    model = load_model(tiny)
    weight = torch.randn(model.shape.n_embd, generator=torch.Generator().manual_seed(0))
    add_score(model, weight)
    batch = layout([Group((3, 4), ((5, 6), (7, 8, 9)))])
    with torch.no_grad():
        before = rewards(model, batch)
        save_reward(model, tmp_path, tiny)
        assert torch.equal(rewards(load_reward(tmp_path), batch), before)
        assert torch.equal(rewards(model, batch), before)  # saving leaves the model as it was
    assert "lm_head.weight" not in json.dumps(read_json(tmp_path / "config.json"))


def test_rankings_of_several_answers_are_read_and_odd_rows_counted(tiny: Path, tmp_path: Path) -> None:
    good = {"prompt": ask("the cat"), "completions": ["yes", "no", "a dog"], "ranks": [0, 2, 1]}
    rows = [
        good,
        {**good, "ranks": [0, 1]},
        {**good, "ranks": [1, 1, 1]},
        {**good, "completions": ["yes", "yes", "yes"]},
        {**good, "completions": "yes"},
        {**good, "prompt": []},
        {**good, "weight": -1},
        {**good, "ranks": [0, 1.5, 2]},
        {**good, "prompt": [{"role": "wizard", "content": "x"}]},
    ]
    write_jsonl(tmp_path / "rankings.jsonl", rows)
    found = read_rankings(tmp_path, "", load_chat_format(tiny), 64)
    assert [row.ranks for row in found.rows] == [(0, 2, 1)]
    assert found.counts == Counter({"malformed": 6, "nothing to compare": 2, "cut": 0}) - Counter()


def test_ranking_loss_is_the_mean_over_comparisons_and_pads() -> None:
    scores = torch.tensor([[1.0, 3.0, 2.0], [0.5, 0.0, 9.0]])
    ranks = torch.tensor([[0, 2, 1], [0, 1, -1]])
    found = reward_ranking_loss(scores, ranks)

    def pair(first: float, second: float) -> float:
        return math.log1p(math.exp(-(first - second)))

    assert found.tolist() == pytest.approx([(pair(1, 3) + pair(1, 2) + pair(2, 3)) / 3, pair(0.5, 0.0)], abs=1e-6)


def test_measures_of_a_known_side() -> None:
    """Rewards that follow length exactly: the figures say so."""
    rows = [
        Ranking("a", (1,), ((2, 2, 2), (3,)), (0, 1)),
        Ranking("b", (1,), ((2,), (3, 3)), (0, 1)),
        Ranking("c", (1,), ((2, 2, 2, 2), (3,)), (0, 1)),
    ]
    side = ranking_side(rows)
    figures = measure_rankings(side.values["tokens"].clone(), side)
    assert figures["accuracy"] == pytest.approx(2 / 3)
    assert figures["longer_wins"] == pytest.approx(2 / 3)
    assert figures["length_correlation"] == pytest.approx(1.0)
    assert figures["shorter_chosen_accuracy"] == 0.0
    assert figures["accuracy_low"] < 2 / 3 < figures["accuracy_high"]


def test_calibration_and_correlation_by_hand() -> None:
    assert calibration_gap(torch.tensor([0.9, 0.9, 0.1, 0.1]), torch.tensor([1.0, 1.0, 0.0, 0.0])) == pytest.approx(0.1)
    assert correlation(torch.tensor([1.0, 2.0, 3.0]), torch.tensor([3.0, 2.0, 1.0])) == pytest.approx(-1.0)
    assert correlation(torch.ones(3), torch.arange(3.0)) == 0.0


def test_probe_equals_sklearns_logistic_regression() -> None:
    linear = pytest.importorskip("sklearn.linear_model")
    generator = torch.Generator().manual_seed(0)
    states = torch.randn((80, 2, 6), generator=generator)
    states[:, 0, 0] += 1.0
    ranks = torch.tensor([[0, 1]] * 80)
    head = fit_probe(states, {"ranks": ranks, "weight": torch.ones(80)}, l2=2.0)
    difference = (states[:, 0] - states[:, 1]).double()
    scale = difference.square().mean(0).sqrt()
    both = torch.cat((difference / scale, -difference / scale)).numpy()
    theirs = linear.LogisticRegression(C=0.5 / 2, fit_intercept=False, tol=1e-10, max_iter=1000)
    theirs.fit(both, [1] * 80 + [0] * 80)
    wanted = torch.from_numpy(theirs.coef_[0]) / scale
    assert torch.allclose(head.double(), wanted, atol=1e-4)


@pytest.mark.parametrize(
    "wrong", [{"centring": -1.0}, {"probe_l2": 0.0}, {"head_only": True, "lora_rank": 4}, {"layers": 0}]
)
def test_bad_settings_are_refused(wrong: dict, tiny: Path, preferences: Path, workspace: Path) -> None:
    with pytest.raises(CauserieError) as refused:
        reward(RewardConfig(model=tiny, preferences=preferences, **wrong), workspace)
    assert refused.value.code == "CAU-4001"


def test_an_empty_folder_is_refused_with_its_place(tiny: Path, tmp_path: Path, workspace: Path) -> None:
    with pytest.raises(CauserieError) as refused:
        reward(RewardConfig(model=tiny, preferences=tmp_path), workspace)
    assert refused.value.code == "CAU-4101"
    assert "pairs.jsonl" in str(refused.value.where)


def test_known_states_give_the_rewards_that_the_trunk_gives(tiny: Path, preferences: Path) -> None:
    """`head_only` never runs the trunk again: rewards, loss and the head's gradient are those of the whole model."""
    chat = load_chat_format(tiny)
    sides = {
        name: ranking_side(read_rankings(preferences, prefix, chat, 64).rows)
        for name, prefix in (("train", ""), ("heldout", "heldout-"))
    }
    model = load_model(tiny)
    add_score(model, torch.randn(model.shape.n_embd, generator=torch.Generator().manual_seed(0)))
    with torch.no_grad():
        states = {
            name: torch.stack([read_states(model, layout([group])) for group in side.groups])
            for name, side in sides.items()
        }
    known = KnownStates.of(sides, states)
    placed = known.placed(sides)
    for name, side in placed.items():
        whole = torch.stack([rewards(model, layout([group])) for group in side.groups])
        assert torch.allclose(known.rewards(model, side.values), whole, atol=1e-5), name
    rows = [1, 4, 6]
    batch = layout([placed["train"].groups[row] for row in rows])
    batch |= {name: value[rows] for name, value in placed["train"].values.items()}
    config = RewardConfig(model=tiny, preferences=preferences)
    gradients = []
    for objective in (reward_objective(config), reward_objective(config, known)):
        model.zero_grad()
        parts = objective(model, batch)
        parts.loss_sum.backward()
        assert isinstance(model.score.weight.grad, torch.Tensor)
        gradients.append(model.score.weight.grad.clone())
    assert torch.allclose(gradients[0], gradients[1], atol=1e-5)
