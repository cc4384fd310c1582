"""Our models against transformers: the same weights give the same logits, in both directions."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from causerie.core import CauserieError
from causerie.model import init_model, load_model, save_model, shape_from_depth, shape_from_hf, shape_to_hf
from causerie.model.shape import ModelShape

SIZES: dict[str, Any] = {
    "vocab_size": 97,
    "hidden_size": 48,
    "intermediate_size": 80,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "head_dim": 16,
    "max_position_embeddings": 128,
    "bos_token_id": 1,
    "eos_token_id": 2,
    "pad_token_id": 0,
}
CONFIGS: dict[str, dict[str, Any]] = {
    "qwen3": {"num_hidden_layers": 3, "rope_theta": 5000.0, "tie_word_embeddings": False},
    "qwen3-tied": {"num_hidden_layers": 2, "rope_theta": 1e6, "tie_word_embeddings": True, "rms_norm_eps": 1e-5},
    "gemma3": {"num_hidden_layers": 7, "sliding_window": 5, "query_pre_attn_scalar": 20, "rope_theta": 30000.0},
}


def reference(name: str) -> Any:
    """A small random transformers model, with norm weights that are not at their start values."""
    import transformers

    kind = name.split("-")[0]
    classes = {
        "qwen3": (transformers.Qwen3Config, transformers.Qwen3ForCausalLM),
        "gemma3": (transformers.Gemma3TextConfig, transformers.Gemma3ForCausalLM),
    }
    config_class, model_class = classes[kind]
    torch.manual_seed(7)
    model = model_class(config_class(**SIZES, **CONFIGS[name])).eval()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(torch.randn_like(parameter) * (0.3 if parameter.ndim == 1 else 0.1))
    return model


@pytest.mark.parametrize("name", CONFIGS)
def test_loads_what_transformers_saved(name: str, tmp_path: Path) -> None:
    theirs = reference(name)
    theirs.save_pretrained(tmp_path)
    ours = load_model(tmp_path)
    ids = torch.randint(0, 97, (2, 23), generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        expected, found = theirs(ids).logits, ours.logits(ours(ids))
    assert found.dtype == torch.float32
    assert (expected - found).abs().max() <= 1e-4
    assert torch.equal(expected.argmax(-1), found.argmax(-1))


@pytest.mark.parametrize("name", CONFIGS)
def test_transformers_loads_what_we_saved(name: str, tmp_path: Path) -> None:
    import transformers

    source, saved = tmp_path / "source", tmp_path / "saved"
    saved.mkdir()
    reference(name).save_pretrained(source)
    ours = load_model(source)
    save_model(ours, saved, None)
    theirs, report = transformers.AutoModelForCausalLM.from_pretrained(saved, output_loading_info=True)
    assert not report["missing_keys"]
    assert not report["unexpected_keys"]
    ids = torch.randint(0, 97, (2, 23), generator=torch.Generator().manual_seed(2))
    with torch.no_grad():
        assert (theirs(ids).logits - ours.logits(ours(ids))).abs().max() <= 1e-4


def test_our_series_runs_in_transformers(tmp_path: Path) -> None:
    import transformers

    ours = init_model(shape_from_depth(2, 300), seed=3)
    with torch.no_grad():
        for parameter in ours.parameters():
            parameter.add_(torch.randn(parameter.shape, generator=torch.Generator().manual_seed(4)) * 0.05)
    save_model(ours, tmp_path, None)
    theirs = transformers.AutoModelForCausalLM.from_pretrained(tmp_path)
    assert type(theirs).__name__ == "Qwen3ForCausalLM"
    assert theirs.num_parameters() == ours.shape.n_params
    ids = torch.arange(40)[None]
    with torch.no_grad():
        assert (theirs(ids).logits - ours.logits(ours(ids))).abs().max() <= 1e-4


@pytest.mark.parametrize("shape", [shape_from_depth(4, 5000), shape_from_depth(14, 32768)])
def test_config_round_trip(shape: ModelShape) -> None:
    assert shape_from_hf(json.loads(json.dumps(shape_to_hf(shape)))) == shape


def test_save_then_load_is_bitwise(tmp_path: Path) -> None:
    model = init_model(shape_from_depth(2, 64), seed=0)
    save_model(model, tmp_path, None)
    again = load_model(tmp_path)
    assert all(torch.equal(a, b) for a, b in zip(model.parameters(), again.parameters(), strict=True))


def test_special_ids_and_companions_come_from_the_tokenizer_folder(tmp_path: Path) -> None:
    source, folder = tmp_path / "source", tmp_path / "folder"
    source.mkdir()
    folder.mkdir()
    added = [{"id": 60 + n, "content": name} for n, name in enumerate(("<bos>", "<|im_end|>", "<|endoftext|>"))]
    (source / "tokenizer.json").write_text(json.dumps({"added_tokens": added}))
    names = {"bos_token": "<bos>", "eos_token": {"content": "<|endoftext|>"}, "pad_token": "<none>"}
    (source / "tokenizer_config.json").write_text(json.dumps(names))
    (source / "NOTICE.txt").write_text("hand me on")
    (source / "other.txt").write_text("not me")
    save_model(init_model(shape_from_depth(2, 64), seed=0), folder, source, dtype=torch.bfloat16)
    generation = json.loads((folder / "generation_config.json").read_text())
    assert generation == {"bos_token_id": 60, "eos_token_id": [62, 61]}
    assert json.loads((folder / "config.json").read_text())["dtype"] == "bfloat16"
    assert (folder / "NOTICE.txt").read_text() == "hand me on"
    assert not (folder / "other.txt").exists()


def test_sharded_folder_loads(tmp_path: Path) -> None:
    theirs = reference("qwen3")
    theirs.save_pretrained(tmp_path, max_shard_size="60KB")
    assert len(list(tmp_path.glob("*.safetensors"))) > 1
    load_model(tmp_path)


def saved(tmp_path: Path) -> Path:
    save_model(init_model(shape_from_depth(2, 64), seed=0), tmp_path, None)
    return tmp_path


def edit_config(folder: Path, **values: Any) -> None:
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps({**config, **values}))


@pytest.mark.parametrize("name", ["modeling_x.py", "pytorch_model.bin", "weights.pt"])
def test_refuses_code_and_pickles(name: str, tmp_path: Path) -> None:
    folder = saved(tmp_path)
    (folder / name).write_bytes(b"")
    with pytest.raises(CauserieError, match="CAU-3003"):
        load_model(folder)


@pytest.mark.parametrize(
    "values",
    [
        {"auto_map": {"AutoModel": "x.Y"}},
        {"architectures": ["BertModel"]},
        {"rope_scaling": {"rope_type": "yarn", "factor": 4.0}},
        {"hidden_act": "relu"},
        {"hidden_size": "96"},
        {"layer_types": ["linear_attention", "full_attention"]},
    ],
)
def test_refuses_configs_it_cannot_run(values: dict[str, Any], tmp_path: Path) -> None:
    folder = saved(tmp_path)
    edit_config(folder, **values)
    with pytest.raises(CauserieError, match="CAU-3002"):
        load_model(folder)


def test_refuses_wrong_tensors(tmp_path: Path) -> None:
    folder = saved(tmp_path)
    good = load_file(folder / "model.safetensors")
    norm = "model.norm.weight"
    bad = {
        "missing": {name: tensor for name, tensor in good.items() if name != norm},
        "does not belong": {**good, "model.extra.weight": torch.zeros(1)},
        "where config.json means": {**good, norm: torch.zeros(5)},
        "differs": {**good, "lm_head.weight": good["model.embed_tokens.weight"] + 1},
    }
    for cause, tensors in bad.items():
        save_file(tensors, folder / "model.safetensors")
        with pytest.raises(CauserieError, match=cause):
            load_model(folder)
    (folder / "model.safetensors").write_bytes(b"\xff" * 40)
    with pytest.raises(CauserieError, match="CAU-3004"):
        load_model(folder)
    with pytest.raises(CauserieError, match="CAU-3005"):
        load_model(tmp_path.parent)


def test_index_cannot_point_elsewhere(tmp_path: Path) -> None:
    folder = saved(tmp_path)
    (folder / "model.safetensors").rename(tmp_path.parent / "outside.safetensors")
    index = {"weight_map": {"model.norm.weight": "../outside.safetensors"}}
    (folder / "model.safetensors.index.json").write_text(json.dumps(index))
    with pytest.raises(CauserieError, match="CAU-3004"):
        load_model(folder)
