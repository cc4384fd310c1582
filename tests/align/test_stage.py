"""What surrounds the objectives: keys, limits, learning rates, resuming."""

from __future__ import annotations

from pathlib import Path

import pytest

from causerie.align import DpoConfig, dpo, length_batches
from causerie.align import objective_dpo as module
from causerie.align.stage import default_preference_lr, limited, open_stage
from causerie.core import read_events, read_run
from causerie.model import add_lora, load_model

FAST = {"precision": "fp32", "warmup": 0}


def test_a_run_that_failed_at_its_end_goes_on_from_its_checkpoint(
    tiny: Path, preferences: Path, workspace: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The reference of the second sitting is still the model as given, not the half-trained one."""
    config = DpoConfig(model=tiny, preferences=preferences, epochs=6, lr=1e-3, checkpoint_every=2, **FAST)
    whole = dpo(config, workspace / "unbroken").manifest.metrics

    def lost(*_: object) -> None:
        raise OSError("the disk went away")

    with monkeypatch.context() as patched:
        patched.setattr(module, "write_result", lost)
        with pytest.raises(OSError, match="went away"):
            dpo(config, workspace)
    (folder,) = (workspace / "runs").glob("dpo-*")
    assert read_run(folder)["status"] == "failed"
    assert not (workspace / "model").exists()
    made = dpo(config, workspace)
    assert [event["event"] for event in read_events(folder)].count("resume") == 1
    assert made.manifest.metrics["before"] == whole["before"]
    assert made.manifest.metrics["after"] == whole["after"]
    assert read_run(folder)["result"]["artifact"] == str(made.path)


def test_key_follows_what_changes_the_result_only(tiny: Path, preferences: Path, workspace: Path) -> None:
    def key(**changes: object) -> str:
        return open_stage("dpo", DpoConfig(**{"model": tiny, "preferences": preferences, **changes}), workspace).key

    assert key() == key(name="other", out=workspace / "x", checkpoint_every=7, model=Path(str(tiny)))
    different = [
        key(),
        key(lr=1e-4),
        key(beta=0.2),
        key(seed=1),
        key(loss="ipo"),
        key(lora_rank=2),
        key(nll_weight=0.0),
    ]
    assert len(set(different)) == len(different)


@pytest.mark.parametrize(
    ("limits", "steps"),
    [
        ({}, 10),
        ({"epochs": 2.0}, 20),
        ({"epochs": 0.25}, 3),
        ({"steps": 7}, 7),
        ({"steps": 7, "epochs": 2.0}, 7),
        ({"minutes": 1.0}, None),
        ({"tokens": 100}, None),
    ],
)
def test_epochs_become_steps(limits: dict, steps: int | None, tiny: Path, preferences: Path) -> None:
    assert limited(DpoConfig(model=tiny, preferences=preferences, **limits), steps_per_epoch=10).steps == steps


def test_learning_rate_falls_with_size_and_adapters_bear_more(tiny: Path) -> None:
    model = load_model(tiny)
    assert default_preference_lr(model) == 1e-4
    add_lora(model, 2, 4.0)
    assert default_preference_lr(model) == 3e-4


def test_length_batches_hold_every_item_once_within_the_budget() -> None:
    lengths = [5, 90, 3, 40, 41, 7, 200, 1]
    batches = length_batches(lengths, 100)
    assert sorted(index for batch in batches for index in batch) == list(range(8))
    for batch in batches:
        assert len(batch) == 1 or len(batch) * max(lengths[i] for i in batch) <= 100
    assert batches[0] == [6]
    assert length_batches([], 100) == []
