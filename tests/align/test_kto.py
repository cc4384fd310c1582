"""KTO end to end on a tiny random model."""

from __future__ import annotations

from pathlib import Path

import pytest

from causerie.align import KtoConfig, kto, read_votes
from causerie.align.objective_kto import side_weights, strangers, vote_groups
from causerie.align.pairs import Vote
from causerie.core import CauserieError, read_events, write_jsonl
from causerie.text import load_chat_format

from .conftest import ask

FAST = {"precision": "fp32", "warmup": 0, "schedule": "wsd"}


def vote(prompt: int, liked: bool = True, weight: float = 1.0) -> Vote:
    return Vote(str(prompt), (prompt,), (prompt, 9), liked, weight)


def test_votes_are_learnt(tiny: Path, preferences: Path, workspace: Path) -> None:
    made = kto(KtoConfig(model=tiny, preferences=preferences, epochs=15, lr=1e-3, **FAST), workspace)
    before, after = made.manifest.metrics["before"], made.manifest.metrics["after"]
    assert before["train_margin"] == pytest.approx(0, abs=1e-4)
    assert before["train_kl"] == pytest.approx(0, abs=1e-4)
    assert after["train_liked_ratio"] > 0.5
    assert after["train_disliked_ratio"] < -0.5
    assert after["heldout_margin"] > 1
    assert made.manifest.metrics["rows"]["weights"] == {"liked": 1.0, "disliked": 1.0}


def test_first_update_is_one_half(tiny: Path, preferences: Path, workspace: Path) -> None:
    """alignment.md §3.5: with π = π_ref and KL = 0 the loss is 0.5."""
    kto(KtoConfig(model=tiny, preferences=preferences, steps=1, **FAST), workspace)
    (run,) = (workspace / "runs").glob("kto-*")
    (step,) = [row for row in read_events(run) if row["event"] == "step"]
    assert step["loss"] == pytest.approx(0.5, abs=1e-5)
    assert step["kl"] == pytest.approx(0, abs=1e-5)


def test_pairs_can_be_used_as_votes(tiny: Path, preferences: Path, workspace: Path) -> None:
    made = kto(KtoConfig(model=tiny, preferences=preferences, use_pairs=True, steps=1, **FAST), workspace)
    assert made.manifest.metrics["rows"]["train"]["used"] == 32


def test_strangers_come_from_other_prompts() -> None:
    votes = [vote(number % 5) for number in range(20)]
    pairing = strangers(votes, seed=3)
    assert all(votes[other].prompt != votes[row].prompt for row, other in enumerate(pairing))
    assert pairing == strangers(votes, seed=3)
    assert pairing != strangers(votes, seed=4)
    assert strangers([vote(1), vote(1)], seed=0) == [1, 0]  # no other prompt: still not itself


def test_groups_hold_the_own_and_the_strangers_answer(tiny: Path, preferences: Path) -> None:
    votes = read_votes(preferences / "unpaired.jsonl", load_chat_format(tiny), 256).rows
    for row, group in enumerate(vote_groups(votes, 0)):
        assert group.prompt == votes[row].prompt
        assert group.completions[0] == votes[row].completion


def test_the_rarer_side_is_weighted_up_to_the_same_mass(tiny: Path, preferences: Path) -> None:
    config = KtoConfig(model=tiny, preferences=preferences)
    assert side_weights(config, [vote(1), vote(2), vote(3), vote(4, False)]) == (1.0, 3.0)
    assert side_weights(config, [vote(1, weight=0.5), vote(2, False)]) == (2.0, 1.0)
    assert side_weights(config, [vote(1)]) == (1.0, 1.0)
    given = KtoConfig(model=tiny, preferences=preferences, liked_weight=1.5)
    assert side_weights(given, [vote(1), vote(2, False), vote(3, False)]) == (1.5, 1.0)


@pytest.mark.parametrize("wrong", [{"batch_size": 1}, {"micro_batch": 1}])
def test_single_row_batches_are_refused(wrong: dict, tiny: Path, preferences: Path, workspace: Path) -> None:
    with pytest.raises(CauserieError) as caught:
        kto(KtoConfig(model=tiny, preferences=preferences, **wrong), workspace)
    assert caught.value.code == "CAU-4102"


def test_a_single_vote_is_refused(tiny: Path, tmp_path: Path, workspace: Path) -> None:
    row = {"prompt": ask("the cat"), "completion": "yes", "label": True}
    write_jsonl(tmp_path / "unpaired.jsonl", [row])
    with pytest.raises(CauserieError) as caught:
        kto(KtoConfig(model=tiny, preferences=tmp_path), workspace)
    assert caught.value.code == "CAU-4102"
    (tmp_path / "unpaired.jsonl").write_text("")
    with pytest.raises(CauserieError) as caught:
        kto(KtoConfig(model=tiny, preferences=tmp_path), workspace)
    assert caught.value.code == "CAU-4101"
