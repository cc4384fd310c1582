"""GRPO end to end on a tiny random model: learning, exactness, kills, prompts that cannot be used."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from causerie.align import GrpoConfig, RewardConfig, grpo, grpo_objective, reward
from causerie.align.objective_grpo import load_prompts, pick_rewards
from causerie.align.rollouts import Prompt, Rollout, Sampler, parameters_of, per_token, read_prompts, rollout_batches
from causerie.core import CauserieError, read_events, write_jsonl
from causerie.model import load_model
from causerie.text import load_chat_format

from .conftest import WORDS

FAST = {"warmup": 0, "group_size": 4, "batch_size": 4, "max_tokens": 6, "seq_len": 64, "heldout_fraction": 0.3}


@pytest.fixture(scope="module")
def prompts(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Sixteen prompts; an answer is right in form when it has an a in it."""
    path = tmp_path_factory.mktemp("prompts") / "prompts.jsonl"
    rows = [{"prompt": f"{WORDS[i]} {WORDS[i + 1]}", "answer": str(i)} for i in range(16)]
    write_jsonl(path, [{**row, "format": {"contains": "a"}} for row in rows])
    return path


def test_reward_rises_and_the_engine_agrees_with_the_trainer(tiny: Path, prompts: Path, workspace: Path) -> None:
    fast = {**FAST, "group_size": 8, "max_tokens": 1}
    config = GrpoConfig(model=tiny, prompts=prompts, rewards=("format",), steps=40, lr=1e-2, **fast)
    made = grpo(config, workspace)
    (run,) = (workspace / "runs").glob("grpo-*")
    rollouts = [event for event in read_events(run) if event["event"] == "rollout"]
    assert len(rollouts) == 40
    first, last = (sum(e["reward"] for e in part) / 5 for part in (rollouts[:5], rollouts[-5:]))
    assert last > first + 0.3
    assert made.manifest.metrics["rows"]["log_prob_gap"] < 1e-4
    assert made.manifest.metrics["after"]["reward"] >= made.manifest.metrics["before"]["reward"]
    assert set(made.manifest.inputs) == {"model", "prompts"}
    assert grpo(config, workspace).path == made.path  # found, not trained again


@pytest.mark.parametrize("variant", ["grpo", "dr_grpo", "dapo"])
def test_every_variant_runs_with_kl_several_passes_and_an_adapter(
    variant: str, tiny: Path, prompts: Path, workspace: Path
) -> None:
    config = GrpoConfig(
        model=tiny, prompts=prompts, rewards=("format", "arithmetic"), reward_weights=(1.0, 0.5), steps=4, passes=2,
        lr=3e-3, variant=variant, beta=0.05, lora_rank=2, advantage="rloo", overlong_buffer=2, **FAST,  # type: ignore[arg-type]
    )  # fmt: skip
    made = grpo(config, workspace)
    assert made.manifest.kind == "adapter"
    (run,) = (workspace / "runs").glob("grpo-*")
    events = list(read_events(run))
    steps = [event for event in events if event["event"] == "step"]
    assert sum(event["event"] == "rollout" for event in events) == 2  # two updates on each
    assert steps[0]["kl"] == pytest.approx(0, abs=1e-6)  # policy = reference at the start
    assert steps[2]["kl"] > 0
    base, trained = load_model(tiny), load_model(made.path, merge_adapters=False)
    assert torch.equal(base.embed_tokens.weight, trained.embed_tokens.weight)


def test_a_learned_reward_drives_the_same_loop(tiny: Path, preferences: Path, prompts: Path, workspace: Path) -> None:
    judge = reward(RewardConfig(model=tiny, preferences=preferences, steps=3, head_only=True), workspace)
    config = GrpoConfig(model=tiny, prompts=prompts, rewards=("learned",), reward_model=judge.path, steps=2, **FAST)
    made = grpo(config, workspace)
    assert made.manifest.inputs["reward_model"] == judge.key
    assert made.manifest.metrics["before"]["reward"] != 0


def rollout_of(rewards: list[list[float]], truncated: list[list[bool]] | None = None) -> tuple[Rollout, list[Prompt]]:
    """Two prompts with three answers each of 1, 2 and 3 tokens."""
    answers = [[[5], [6, 7], [8, 9, 10]], [[11], [12, 13], [14, 15, 16]]]
    silent = [[[-1.0] * len(c) for c in group] for group in answers]
    cut = truncated or [[False] * 3] * 2
    return Rollout(0, [0, 1], answers, silent, cut, rewards), [Prompt((3, 4), {}), Prompt((5, 6, 7), {})]


def units(batches: list[dict[str, torch.Tensor]], config: GrpoConfig, folder: Path) -> float:
    """What the loss of a rollout is divided by."""
    objective, model = grpo_objective(config), load_model(folder)
    return sum(float(objective(model, batch).n_tokens) for batch in batches)


@pytest.mark.parametrize(("variant", "expected"), [("grpo", 6.0), ("dr_grpo", 6.0), ("dapo", 6.0)])
def test_all_groups_count_when_all_differ(variant: str, expected: float, tiny: Path) -> None:
    """Six answers; dapo counts their 12 tokens."""
    rollout, prompts = rollout_of([[1, 0, 0], [0, 1, 1]])
    config = GrpoConfig(model=tiny, prompts=tiny, variant=variant, group_size=3)  # type: ignore[arg-type]
    wanted = 12.0 if variant == "dapo" else expected
    assert units(rollout_batches(rollout, prompts, config), config, tiny) == wanted


@pytest.mark.parametrize(("variant", "expected"), [("grpo", 6.0), ("dr_grpo", 6.0), ("dapo", 6.0)])
def test_a_flat_group_is_not_computed_but_counted_except_in_dapo(variant: str, expected: float, tiny: Path) -> None:
    rollout, prompts = rollout_of([[1, 0, 0], [1, 1, 1]])
    config = GrpoConfig(model=tiny, prompts=tiny, variant=variant, group_size=3)  # type: ignore[arg-type]
    batches = rollout_batches(rollout, prompts, config)
    assert sum(len(batch["lengths"]) for batch in batches) == 3
    assert units(batches, config, tiny) == expected  # dapo: the first group's 6 tokens


def test_truncated_answers_leave_numerator_and_denominator(tiny: Path) -> None:
    rollout, prompts = rollout_of([[1, 0, 0], [0, 1, 1]], [[False, False, True], [True, True, True]])
    for variant, wanted in (("grpo", 2.0), ("dapo", 3.0)):
        config = GrpoConfig(model=tiny, prompts=tiny, variant=variant, group_size=3, mask_truncated=True)  # type: ignore[arg-type]
        batches = rollout_batches(rollout, prompts, config)
        assert [batch["lengths"].tolist() for batch in batches] == [[1.0, 2.0]]
        assert units(batches, config, tiny) == wanted


def test_nothing_to_learn_is_an_update_with_a_zero_gradient(tiny: Path) -> None:
    rollout, prompts = rollout_of([[1, 1, 1], [0, 0, 0]])
    config = GrpoConfig(model=tiny, prompts=tiny, group_size=3)
    (batch,) = rollout_batches(rollout, prompts, config)
    model = load_model(tiny)
    grpo_objective(config)(model, batch).loss_sum.backward()
    assert max(float(p.grad.abs().max()) for p in model.parameters() if p.grad is not None) == 0.0


@pytest.mark.parametrize("variant", ["grpo", "dr_grpo", "dapo"])
def test_micro_batches_do_not_change_the_gradient(variant: str, tiny: Path) -> None:
    rollout, prompts = rollout_of([[1, 0, 0], [0, 0.5, 1]])
    found = []
    for micro in (0, 1):
        config = GrpoConfig(model=tiny, prompts=tiny, variant=variant, group_size=3, micro_batch=micro)  # type: ignore[arg-type]
        model, total = load_model(tiny), 0.0
        for batch in rollout_batches(rollout, prompts, config):
            parts = grpo_objective(config)(model, batch)
            parts.loss_sum.backward()
            total += float(parts.n_tokens)
        found.append(model.layers[0].mlp.up_proj.weight.grad / total)
    assert torch.allclose(*found, atol=1e-7)


def test_reference_weights_come_and_go(tiny: Path) -> None:
    rollout, prompts = rollout_of([[1, 0, 0], [0, 1, 1]])
    model = load_model(tiny)
    start = {name: p.detach().clone() for name, p in model.named_parameters()}
    before = per_token(model, rollout, prompts, 1.0)
    with torch.no_grad():
        model.embed_tokens.weight.mul_(1.3)
    changed = per_token(model, rollout, prompts, 1.0)
    with parameters_of(model, start):
        assert per_token(model, rollout, prompts, 1.0) == before
    assert per_token(model, rollout, prompts, 1.0) == changed != before
    assert [[len(ids) for ids in group] for group in before] == [[1, 2, 3], [1, 2, 3]]


SCRIPT = """
import sys
from pathlib import Path
from causerie.align import GrpoConfig, grpo
model, prompts, workspace = map(Path, sys.argv[1:4])
grpo(GrpoConfig(model=model, prompts=prompts, rewards=("format",), steps=5, passes=int(sys.argv[4]), lr=3e-3, warmup=0,
    group_size=4, batch_size=4, max_tokens=6, seq_len=64, heldout_fraction=0.3, checkpoint_every=1), workspace)
"""


def child(tiny: Path, prompts: Path, workspace: Path, passes: int, **environment: str) -> int:
    """A run in a process of its own."""
    command = [sys.executable, "-c", SCRIPT, str(tiny), str(prompts), str(workspace), str(passes)]
    done = subprocess.run(command, env={**os.environ, **environment}, capture_output=True, check=False)
    return done.returncode


@pytest.mark.slow
@pytest.mark.parametrize(("passes", "point"), [(1, "align.rollout_written:2"), (2, "train.after_step:3")])
def test_a_killed_run_trains_on_no_rollout_twice(
    tiny: Path, prompts: Path, tmp_path: Path, passes: int, point: str
) -> None:
    """Slow: three processes that import torch. Killed between rollout and update, or between two updates on one
    rollout, the run goes on to the same weights, and each rollout that counts is the unbroken run's."""
    whole, broken = tmp_path / "whole", tmp_path / "broken"
    assert child(tiny, prompts, whole, passes) == 0
    assert child(tiny, prompts, broken, passes, CAUSERIE_CRASH_AT=point) == -signal.SIGKILL
    assert child(tiny, prompts, broken, passes) == 0
    first, second = (next((place / "model").glob("grpo-*")) for place in (whole, broken))
    assert (first / "model.safetensors").read_bytes() == (second / "model.safetensors").read_bytes()
    paid = []
    for place in (whole, broken):
        (run,) = (place / "runs").glob("grpo-*")
        paid.append({e["index"]: e["reward"] for e in read_events(run) if e["event"] == "rollout"})
    assert paid[0] == paid[1]


def test_prompts_that_cannot_be_used_are_counted(tiny: Path, tmp_path: Path) -> None:
    path = tmp_path / "prompts.jsonl"
    good = {"prompt": "the cat"}
    rows: list[dict] = [good, good, {"prompt": " "}, {"prompt": 3}, {}, {"prompt": []}, {"prompt": "cat " * 99}]
    write_jsonl(path, [*rows, {"prompt": [{"role": "user", "content": "the <|im_end|> dog"}]}])
    chat = load_chat_format(tiny)
    found, counts = read_prompts(path, chat, 40)
    assert [row.row for row in found] == [good, {"prompt": [{"role": "user", "content": "the <|im_end|> dog"}]}]
    assert counts == {"malformed": 4, "too long": 1, "repeated": 1}
    assert found[1].ids.count(chat.end_id) == 1  # the one of the user's turn: the text's is plain text


def test_files_without_prompts_are_refused_with_their_place(tiny: Path, tmp_path: Path) -> None:
    chat = load_chat_format(tiny)
    with pytest.raises(CauserieError, match="CAU-1001"):
        read_prompts(tmp_path / "none.jsonl", chat, 40)
    empty = tmp_path / "empty.jsonl"
    empty.write_text(json.dumps({"prompt": ""}) + "\n")
    with pytest.raises(CauserieError) as refused:
        read_prompts(empty, chat, 40)
    assert refused.value.code == "CAU-4105"
    assert "malformed: 1" in refused.value.cause
    empty.write_text('{"prompt": "a"}\n{"prompt": \n[1]\n')
    found, counts = read_prompts(empty, chat, 40)
    assert len(found) == 1
    assert counts == {"not a JSON object": 2}


def test_train_and_heldout_prompts_are_apart(tiny: Path, prompts: Path, tmp_path: Path) -> None:
    chat = load_chat_format(tiny)
    train, heldout, counts = load_prompts(GrpoConfig(model=tiny, prompts=prompts, **FAST), chat)
    assert not {p.ids for p in train} & {p.ids for p in heldout}
    assert counts["prompts"] + counts["heldout"] == 16
    own = tmp_path / "own.jsonl"
    write_jsonl(own, [dict(train[0].row)])
    again, kept, counted = load_prompts(GrpoConfig(model=tiny, prompts=prompts, heldout=own, **FAST), chat)
    assert len(again) == 15
    assert counted["prompt is in the held-out file"] == 1
    assert [p.ids for p in kept] == [train[0].ids]


@pytest.mark.parametrize(
    "wrong",
    [
        {"group_size": 1}, {"temperature": 0.0}, {"rewards": ("learned",)}, {"reward_weights": (1.0, 2.0)},
        {"overlong_buffer": 64}, {"beta": -1.0}, {"heldout_fraction": 0.9}, {"rewards": ()}, {"passes": 0},
    ],
)  # fmt: skip
def test_bad_settings_are_refused(wrong: dict, tiny: Path, prompts: Path, workspace: Path) -> None:
    with pytest.raises(CauserieError) as refused:
        grpo(GrpoConfig(model=tiny, prompts=prompts, **wrong), workspace)
    assert refused.value.code == "CAU-4001"


def test_instructions_need_a_checker(tiny: Path, prompts: Path) -> None:
    config = GrpoConfig(model=tiny, prompts=prompts, rewards=("instructions",))
    with pytest.raises(CauserieError, match="CAU-4001"):
        pick_rewards(config, load_chat_format(tiny), None)


def test_sampling_is_seeded_and_sees_new_weights(tiny: Path) -> None:
    """The engine shares the module: after a change in place the next samples are the new weights'."""
    model, chat = load_model(tiny), load_chat_format(tiny)
    sampler = Sampler(model, chat, GrpoConfig(model=tiny, prompts=tiny, max_tokens=8), [])
    prompts = [Prompt((3, 4, 5, 6), {})]
    first = [c.ids for c in sampler.sample(prompts, 3, [1, 2, 3])]
    assert [c.ids for c in sampler.sample(prompts, 3, [1, 2, 3])] == first
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.3 * torch.randn(parameter.shape, generator=torch.Generator().manual_seed(1)))
    assert [c.ids for c in sampler.sample(prompts, 3, [1, 2, 3])] != first


def test_with_several_passes_the_old_policy_is_the_trainers_own(tiny: Path, prompts: Path, workspace: Path) -> None:
    """The first pass of each rollout has a ratio of exactly 1, and the engine's gap is still measured."""
    config = GrpoConfig(model=tiny, prompts=prompts, rewards=("format",), steps=4, passes=2, lr=3e-3, **FAST)
    made = grpo(config, workspace)
    (run,) = (workspace / "runs").glob("grpo-*")
    steps = [event for event in read_events(run) if event["event"] == "step"]
    assert [step["log_prob_gap"] for step in steps[::2]] == [pytest.approx(0, abs=1e-6)] * 2
    assert all(step["log_prob_gap"] > 1e-4 for step in steps[1::2])  # the weights have moved since
    assert 0 < made.manifest.metrics["rows"]["log_prob_gap"] < 1e-4


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_the_first_ratio_of_a_rollout_is_one_in_any_arithmetic(
    tiny: Path, prompts: Path, workspace: Path, precision: str
) -> None:
    """The old log-probs are computed in the arithmetic of the updates: else bf16 runs would clip from the start."""
    config = GrpoConfig(
        model=tiny, prompts=prompts, rewards=("format",), steps=1, passes=2, batch_size=4, group_size=4, max_tokens=6,
        precision=precision, warmup=0, name=f"first-{precision}",
    )  # fmt: skip
    seen: list[dict[str, float]] = []
    grpo(config, workspace, events=lambda event, **values: seen.append(values) if event == "step" else None)
    assert seen[0]["log_prob_gap"] < 2e-6
    assert seen[0]["clip_fraction"] == 0.0


def test_another_temperature_is_that_of_the_log_probs_too(tiny: Path, prompts: Path, workspace: Path) -> None:
    config = GrpoConfig(model=tiny, prompts=prompts, rewards=("format",), steps=2, passes=2, temperature=1.4, **FAST)
    grpo(config, workspace)
    (run,) = (workspace / "runs").glob("grpo-*")
    stored = Rollout(**json.loads((run / "rollouts" / "000000.json").read_text()))
    train, _, _ = load_prompts(config, load_chat_format(tiny))
    wanted = per_token(load_model(tiny), stored, train, 1.4)
    cold = per_token(load_model(tiny), stored, train, 1.0)
    flat = [[x for group in nest for answer in group for x in answer] for nest in (stored.old_log_probs, wanted, cold)]
    assert flat[0] == pytest.approx(flat[1], abs=1e-5)
    assert flat[0] != pytest.approx(flat[2], abs=1e-3)
