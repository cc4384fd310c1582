"""Models kept on the way: where they are, that they are what a shorter run would have made, and that they change nothing."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from causerie.core import CauserieError, open_artifact
from causerie.model import load_model
from causerie.train import keep_snapshots, sft
from tests.train.test_finetuning import ROWS, config
from tests.train.tiny import model_folder, write_rows


@pytest.fixture
def source(tmp_path: Path) -> Path:
    """The model that training begins with."""
    return model_folder(tmp_path / "model" / "base")


def weights(folder: Path) -> dict[str, torch.Tensor]:
    """A model's parameters by name."""
    return dict(load_model(folder).named_parameters())


def same(one: Path, other: Path) -> bool:
    """Whether two folders hold the same weights, bit for bit."""
    left, right = weights(one), weights(other)
    return left.keys() == right.keys() and all(torch.equal(left[name], right[name]) for name in left)


def kept_in(workspace: Path) -> list[Path]:
    """The models on the way of the one run in a workspace, first to last."""
    return sorted(workspace.glob("runs/*/snapshots/step-*"))


@pytest.mark.parametrize(
    ("steps", "count", "wanted"), [(9, 2, [3, 6]), (10, 2, [4, 8]), (3, 2, [1, 2]), (2, 5, [1]), (9, 0, [])]
)
def test_they_are_evenly_spaced_and_the_result_is_not_among_them(
    steps: int, count: int, wanted: list[int], source: Path, tmp_path: Path
) -> None:
    callbacks = keep_snapshots(count, steps, tmp_path / "run", source, "k" * 64, tmp_path)
    model = load_model(source)
    called = [step for step in range(steps + 1) for each in callbacks if step in (0, steps) or step % each.every == 0]
    told = [each.call(model, step) for step in called for each in callbacks]
    assert [row["folder"] for row in told if row] == [f"snapshots/step-{step:08d}" for step in wanted]
    assert keep_snapshots(count, None, tmp_path, source, "k" * 64, tmp_path) == []


@pytest.mark.parametrize("rank", [0, 4], ids=["all weights", "adapter"])
def test_a_model_on_the_way_is_whole_and_the_result_is_the_same_without(
    rank: int, source: Path, tmp_path: Path
) -> None:
    data = write_rows(tmp_path / "data.jsonl", ROWS)
    settings: dict[str, Any] = {"steps": 6, "lora_rank": rank, "schedule": "linear", "warmup": 0}
    with_them = sft(config(source, data, snapshots=2, **settings), tmp_path)
    folders = kept_in(tmp_path)
    assert [folder.name for folder in folders] == ["step-00000002", "step-00000004"]
    for folder in folders:
        assert open_artifact(folder, verify="digest").manifest.kind == with_them.manifest.kind
        assert not same(folder, with_them.path)
    assert not same(*folders)
    plain = sft(config(source, data, name="plain", out=tmp_path / "plain", **settings), tmp_path)
    assert plain.manifest.key == with_them.manifest.key  # what is kept on the way is no part of the result
    assert same(plain.path, with_them.path)


def test_one_that_is_there_is_not_written_again(source: Path, tmp_path: Path) -> None:
    """A run that was killed after it, and goes on from a checkpoint before it, comes by once more."""
    (callback,) = keep_snapshots(1, 4, tmp_path / "run", source, "k" * 64, tmp_path)
    model = load_model(source)
    callback.call(model, 2)
    manifest = tmp_path / "run" / "snapshots" / "step-00000002" / "manifest.json"
    before = manifest.stat().st_mtime_ns
    assert callback.call(model, 2) == {"folder": "snapshots/step-00000002"}
    assert manifest.stat().st_mtime_ns == before


def test_fewer_than_none_are_refused(source: Path, tmp_path: Path) -> None:
    data = write_rows(tmp_path / "data.jsonl", ROWS)
    with pytest.raises(CauserieError) as caught:
        sft(config(source, data, snapshots=-1), tmp_path)
    assert caught.value.code == "CAU-4001"
