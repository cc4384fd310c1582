from __future__ import annotations

import itertools
from dataclasses import fields
from pathlib import Path
from typing import Any

import pytest

from causerie.core import CauserieError, Run
from causerie.train import ERRORS, PretrainConfig, SftConfig, TrainSettings, fit, pretrain, sft
from causerie.train.schedule import lr_factor
from tests.train.tiny import RandomRows, model_folder, objective, settings, tiny_model, write_rows


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("batch_size", 0),
        ("seq_len", 0),
        ("steps", 0),
        ("tokens", -1),
        ("minutes", 0.0),
        ("minutes", float("nan")),
        ("lr", -1e-3),
        ("matrix_lr", float("inf")),
        ("grad_clip", -1.0),
        ("weight_decay", float("nan")),
        ("final_lr", 1.5),
        ("decay_fraction", float("nan")),
        ("warmup", -1),
        ("micro_batch", -1),
        ("max_bad_steps", 0),
    ],
)
def test_impossible_settings_name_field_value_and_fix(field: str, value: Any, run: Run) -> None:
    with pytest.raises(CauserieError) as caught:
        fit(tiny_model(), objective, RandomRows(), settings(**{field: value}), run)
    assert caught.value.code == "CAU-4001"
    assert caught.value.where == field
    assert field in caught.value.cause
    assert caught.value.fix


def test_a_run_without_end_is_refused(run: Run) -> None:
    with pytest.raises(CauserieError, match="no end"):
        fit(tiny_model(), objective, RandomRows(), settings(steps=None), run)


def test_commands_refuse_bad_configs(tmp_path: Path) -> None:
    data = write_rows(tmp_path / "rows.jsonl", [])
    model = model_folder(tmp_path / "model")
    for config, code in (
        (SftConfig(model=model, data=()), "CAU-4001"),
        (SftConfig(model=model, data=(data,), heldout_fraction=0.9), "CAU-4001"),
        (SftConfig(model=model, data=(data,), lora_rank=4, optimizer="muon"), "CAU-4001"),
        (SftConfig(model=model, data=(tmp_path / "absent",)), "CAU-1001"),
        (SftConfig(model=model, data=(data,)), "CAU-4002"),
    ):
        with pytest.raises(CauserieError) as caught:
            sft(config, tmp_path)
        assert caught.value.code == code
        assert caught.value.where
        assert caught.value.fix
    with pytest.raises(CauserieError, match="depth"):
        pretrain(PretrainConfig(shards=tmp_path, tokenizer=model, depth=0, steps=1), tmp_path)


def test_every_field_is_documented_and_plain() -> None:
    import inspect

    from causerie.train import config

    source = inspect.getsource(config)
    for kind in (TrainSettings, PretrainConfig, SftConfig):
        for field in fields(kind):
            assert f"    {field.name}: " in source
    assert source.count('"""') // 2 >= len({f.name for k in (PretrainConfig, SftConfig) for f in fields(k)})


def test_codes_are_in_the_table() -> None:
    import re

    folder = Path(__import__("causerie.train").train.__file__).parent
    used = {code for path in folder.glob("*.py") for code in re.findall(r'"(CAU-40\d\d)"', path.read_text())}
    assert used == set(ERRORS)


@pytest.mark.parametrize("schedule", ["wsd", "cosine", "linear"])
def test_schedules_rise_then_fall_to_the_final_rate(schedule: Any) -> None:
    chosen = settings(steps=1000, warmup=10, schedule=schedule, final_lr=0.1, decay_fraction=0.4)
    curve = [lr_factor(chosen, step, step / 1000) for step in range(1001)]
    assert curve[0] == pytest.approx(0.1, rel=0.01)
    assert max(curve) == pytest.approx(1.0, abs=0.02)
    assert curve[1000] == pytest.approx(0.1)
    assert all(later <= earlier + 1e-12 for earlier, later in itertools.pairwise(curve[10:]))
    if schedule == "wsd":
        assert curve[599] == 1.0
        assert curve[800] == pytest.approx(0.55)
