"""Adapters of every family: peft loads ours, we load peft's, and the logits are equal."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch

from causerie.core import CauserieError
from causerie.model import (
    add_lora,
    load_adapter,
    load_model,
    lora_parameters,
    lora_targets,
    merge_lora,
    named_shape,
    save_adapter,
)
from tests.model.references import REFERENCES, saved_reference, tokens

pytestmark = pytest.mark.filterwarnings("ignore::FutureWarning", "ignore:fan_in_fan_out")  # peft's own
NAMES = [name for name in REFERENCES if name in {key.split("-")[0] for key in REFERENCES}]
PEFT_TARGETS = {
    "phi3": ["qkv_proj", "o_proj", "gate_up_proj", "down_proj"],
    "phi": ["q_proj", "v_proj", "dense", "fc1", "fc2"],
    "gpt2": ["c_attn", "c_proj", "c_fc"],
    "bert": ["query", "value", "attention.output.dense"],
    "modernbert": ["Wqkv", "Wi", "Wo"],
}


def stir(parameters: Any) -> None:
    with torch.no_grad():
        for number, parameter in enumerate(parameters):
            parameter.copy_(torch.randn(parameter.shape, generator=torch.Generator().manual_seed(number)) * 0.2)


@pytest.mark.parametrize("name", NAMES)
def test_peft_runs_our_adapter(name: str, tmp_path: Path) -> None:
    import peft

    theirs = saved_reference(name, tmp_path / "base")
    ours = load_model(tmp_path / "base")
    add_lora(ours, 3, 6.0)
    stir(lora_parameters(ours).values())
    assert len(lora_parameters(ours)) == 2 * len(lora_targets(ours.shape)) * ours.shape.n_layer
    (tmp_path / "adapter").mkdir()
    save_adapter(ours, tmp_path / "adapter", tmp_path / "base")
    adapted = peft.PeftModel.from_pretrained(theirs, tmp_path / "adapter").eval()
    ids = tokens(2, 14)
    with torch.no_grad():
        expected, found = adapted(ids).logits, ours.logits(ours(ids))
        merge_lora(ours)
        merged = ours.logits(ours(ids))
    assert (expected - found).abs().max() <= 1e-4
    assert (expected - merged).abs().max() <= 1e-4
    assert lora_parameters(ours) == {}


@pytest.mark.parametrize("name", NAMES)
def test_we_run_pefts_adapter(name: str, tmp_path: Path) -> None:
    import peft

    theirs = saved_reference(name, tmp_path / "base")
    targets = PEFT_TARGETS.get(name, ["q_proj", "down_proj"])
    adapted = peft.get_peft_model(theirs, peft.LoraConfig(r=4, lora_alpha=9, target_modules=targets)).eval()
    stir(parameter for key, parameter in adapted.named_parameters() if "lora_" in key)
    adapted.save_pretrained(tmp_path / "adapter")
    ours = load_model(tmp_path / "base")
    load_adapter(ours, tmp_path / "adapter")
    ids = tokens(2, 14, seed=3)
    with torch.no_grad():
        assert (adapted(ids).logits - ours.logits(ours(ids))).abs().max() <= 1e-4
    (tmp_path / "again").mkdir()
    save_adapter(ours, tmp_path / "again", tmp_path / "base")
    kept = json.loads((tmp_path / "again" / "adapter_config.json").read_text())
    assert kept["fan_in_fan_out"] is (name == "gpt2")
    assert kept["task_type"] == (None if "bert" in name else "CAUSAL_LM")


def test_targets_that_end_alike_are_told_apart(tmp_path: Path) -> None:
    saved_reference("bert", tmp_path / "base")
    model = load_model(tmp_path / "base")
    add_lora(model, 2, 4.0, ["o_proj"])
    save_adapter(model, tmp_path, "base")
    assert json.loads((tmp_path / "adapter_config.json").read_text())["target_modules"] == ["attention.output.dense"]


def test_a_target_that_the_model_lacks_is_refused(tmp_path: Path) -> None:
    saved_reference("gpt2", tmp_path / "base")
    model = load_model(tmp_path / "base")
    with pytest.raises(CauserieError, match="CAU-3008"):
        add_lora(model, 2, 4.0, ["q_proj"])


def test_targets_follow_the_familys_parts() -> None:
    assert lora_targets(named_shape("gpt2-124m").shape) == ("qkv_proj", "o_proj", "up_proj", "down_proj")
    assert lora_targets(named_shape("modernbert-base").shape) == ("qkv_proj", "o_proj", "gate_up_proj", "down_proj")
    assert lora_targets(named_shape("llama3-8b").shape)[0] == "q_proj"
