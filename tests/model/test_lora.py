from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from causerie.core import CauserieError, read_json, write_json
from causerie.model import (
    ModelShape,
    Transformer,
    add_lora,
    init_model,
    load_adapter,
    load_model,
    lora_parameters,
    merge_lora,
    save_adapter,
    save_model,
)

QWEN = ModelShape(
    family="qwen3", n_layer=2, n_embd=32, n_head=4, n_kv_head=2, head_dim=8, ffn_dim=48, vocab_size=96, max_seq_len=64
)
GEMMA = replace(
    QWEN,
    family="gemma3",
    sliding_window=4,
    local_layers=(True, False),
    rope_local_theta=10_000.0,
    rope_theta=1_000_000.0,
    query_scale=8**-0.5,
)
IDS = torch.arange(24).view(2, 12) * 7 % 96


def busy_model(shape: ModelShape = QWEN) -> Transformer:
    """A model whose residual writes are not zero, so that every layer matters."""
    model = init_model(shape, 0)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(torch.randn(parameter.shape, generator=torch.Generator().manual_seed(1)) * 0.1)
    return model


def stir(model: Transformer) -> None:
    """Give the adapter weights as if it had been trained."""
    with torch.no_grad():
        for number, parameter in enumerate(lora_parameters(model).values()):
            parameter.copy_(torch.randn(parameter.shape, generator=torch.Generator().manual_seed(number)) * 0.2)


def logits(model: Transformer) -> torch.Tensor:
    with torch.no_grad():
        return model.logits(model(IDS))


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_a_fresh_adapter_changes_nothing_bit_for_bit(dtype: torch.dtype) -> None:
    model = busy_model().to(dtype)
    before = logits(model)
    add_lora(model, 4, 8.0)
    assert torch.equal(logits(model), before)
    assert all(p.dtype == torch.float32 for p in lora_parameters(model).values())


def test_only_the_adapter_gets_gradients() -> None:
    model = busy_model()
    add_lora(model, 4, 8.0)
    stir(model)
    model.logits(model(IDS)).square().mean().backward()
    adapter = lora_parameters(model)
    assert len(adapter) == 2 * 7 * QWEN.n_layer
    for name, parameter in model.named_parameters():
        assert (parameter.grad is not None) == (name in adapter), name


@pytest.mark.parametrize("shape", [QWEN, GEMMA], ids=["qwen3", "gemma3"])
def test_merging_equals_the_adapter(shape: ModelShape) -> None:
    model = busy_model(shape)
    plain = logits(model)
    names = sorted(model.state_dict())
    add_lora(model, 4, 8.0)
    stir(model)
    apart = logits(model)
    merge_lora(model)
    assert (apart - plain).abs().max() > 0.1
    torch.testing.assert_close(logits(model), apart, atol=1e-5, rtol=1e-5)
    assert sorted(model.state_dict()) == names
    assert all(p.requires_grad for p in model.parameters())


@pytest.fixture(params=[QWEN, GEMMA], ids=["qwen3", "gemma3"])
def adapted(request: Any, tmp_path: Path) -> tuple[Transformer, Path, Path]:
    """A model with a stirred adapter, its base's folder and its own."""
    base, folder = tmp_path / "base", tmp_path / "adapter"
    base.mkdir()
    folder.mkdir()
    model = busy_model(request.param)
    save_model(model, base, None)
    add_lora(model, 4, 8.0)
    stir(model)
    save_adapter(model, folder, "../base")
    return model, base, folder


def test_a_saved_adapter_comes_back(adapted: tuple[Transformer, Path, Path]) -> None:
    model, _, folder = adapted
    torch.testing.assert_close(logits(load_model(folder, merge_adapters=False)), logits(model), atol=0, rtol=0)
    torch.testing.assert_close(logits(load_model(folder)), logits(model), atol=1e-4, rtol=1e-4)


@pytest.mark.filterwarnings("ignore::FutureWarning")  # peft asks transformers for a deprecated property
def test_peft_loads_our_adapter_on_the_transformers_model(adapted: tuple[Transformer, Path, Path]) -> None:
    peft, transformers = pytest.importorskip("peft"), pytest.importorskip("transformers")
    model, base, folder = adapted
    theirs = peft.PeftModel.from_pretrained(transformers.AutoModelForCausalLM.from_pretrained(base), folder)
    with torch.no_grad():
        torch.testing.assert_close(theirs(IDS).logits.float(), logits(model), atol=1e-4, rtol=1e-4)


@pytest.mark.filterwarnings("ignore::FutureWarning")  # as above
def test_we_load_an_adapter_that_peft_saved(adapted: tuple[Transformer, Path, Path], tmp_path: Path) -> None:
    peft, transformers = pytest.importorskip("peft"), pytest.importorskip("transformers")
    _, base, _ = adapted
    config = peft.LoraConfig(
        r=3, lora_alpha=5, target_modules=["q_proj", "down_proj"], init_lora_weights=False, use_rslora=True
    )
    theirs = peft.get_peft_model(transformers.AutoModelForCausalLM.from_pretrained(base), config)
    theirs.save_pretrained(tmp_path / "theirs")
    ours = load_model(base)
    load_adapter(ours, tmp_path / "theirs")
    with torch.no_grad():
        torch.testing.assert_close(logits(ours), theirs(IDS).logits.float(), atol=1e-4, rtol=1e-4)


def test_impossible_adapters_are_refused() -> None:
    model = busy_model()
    for rank, targets in ((0, ("q_proj",)), (2, ("q_proj", "no_such")), (2, ("embed_tokens",))):
        with pytest.raises(CauserieError) as caught:
            add_lora(model, rank, 4.0, targets)
        assert caught.value.code == "CAU-3008"
        assert caught.value.fix
    add_lora(model, 2, 4.0)
    with pytest.raises(CauserieError, match="already"):
        add_lora(model, 2, 4.0)


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("peft_type", "IA3"),
        ("use_dora", True),
        ("bias", "all"),
        ("modules_to_save", ["lm_head"]),
        ("rank_pattern", {"q_proj": 8}),
        ("target_modules", "all-linear"),
        ("r", "8"),
        ("lora_alpha", None),
    ],
)
def test_unsupported_adapters_are_refused_by_name(
    adapted: tuple[Transformer, Path, Path], field: str, value: Any
) -> None:
    _, base, folder = adapted
    write_json(folder / "adapter_config.json", {**read_json(folder / "adapter_config.json"), field: value})
    with pytest.raises(CauserieError) as caught:
        load_adapter(load_model(base), folder)
    assert caught.value.code == "CAU-3008"
    assert caught.value.where.endswith("adapter_config.json")


def test_an_adapter_of_another_model_is_refused(adapted: tuple[Transformer, Path, Path]) -> None:
    _, _, folder = adapted
    for shape in (replace(QWEN, n_layer=3), replace(QWEN, n_embd=40)):
        with pytest.raises(CauserieError, match=r"does not fit|where the model needs") as caught:
            load_adapter(init_model(shape, 0), folder)
        assert caught.value.code == "CAU-3008"
    (folder / "adapter_model.safetensors").write_bytes(b"\x00" * 64)
    with pytest.raises(CauserieError, match="not a readable"):
        load_adapter(init_model(QWEN, 0), folder)
