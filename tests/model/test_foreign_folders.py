"""Folders as they come: older names, shards, spare tensors; and what is refused, with the file or field named."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from safetensors.torch import load_file, save_file

from causerie.core import CauserieError
from causerie.model import check_model, chunked_loss, load_model, save_model, shape_from_hf
from tests.model.references import REFERENCES, saved_reference, tokens

WEIGHTS = "model.safetensors"


def rewrite(folder: Path, change: Any) -> None:
    state = change(load_file(folder / WEIGHTS))
    save_file({name: tensor.contiguous().clone() for name, tensor in state.items()}, folder / WEIGHTS)


def edit(folder: Path, **values: Any) -> None:
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps({**config, **values}))


def same_logits(folder: Path, theirs: Any) -> None:
    ids, ours = tokens(1, 15), load_model(folder)
    with torch.no_grad():
        assert (ours.logits(ours(ids)) - theirs(ids).logits).abs().max() <= 1e-4


def test_the_first_berts_names_and_spare_heads(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    theirs = saved_reference("bert", tmp_path)

    def old(state: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
        renamed = {
            name.replace("LayerNorm.weight", "LayerNorm.gamma").replace("LayerNorm.bias", "LayerNorm.beta"): tensor
            for name, tensor in state.items()
        }
        tied = {
            "cls.predictions.decoder.weight": state["bert.embeddings.word_embeddings.weight"],
            "cls.predictions.decoder.bias": state["cls.predictions.bias"],
        }
        return {
            **renamed,
            **tied,
            "bert.pooler.dense.weight": torch.zeros(64, 64),
            "cls.seq_relationship.bias": torch.ones(2),
        }

    rewrite(tmp_path, old)
    same_logits(tmp_path, theirs)
    check_model(tmp_path)
    assert "2 tensors are not used" in capsys.readouterr().err


def test_the_first_gpt2s_names_and_masks(tmp_path: Path) -> None:
    theirs = saved_reference("gpt2", tmp_path)
    masks = {f"h.{layer}.attn.bias": torch.ones(1, 1, 4, 4) for layer in range(3)}
    rewrite(tmp_path, lambda state: {name.removeprefix("transformer."): t for name, t in state.items()} | masks)
    same_logits(tmp_path, theirs)
    check_model(tmp_path)


def test_a_second_copy_that_differs_is_refused(tmp_path: Path) -> None:
    saved_reference("bert", tmp_path)
    rewrite(tmp_path, lambda state: {**state, "cls.predictions.decoder.bias": state["cls.predictions.bias"] + 1})
    with pytest.raises(CauserieError, match="yet it differs"):
        load_model(tmp_path)


@pytest.mark.parametrize("name", ["gpt2", "modernbert", "llama"])
def test_shards_both_ways(name: str, tmp_path: Path) -> None:
    import transformers

    theirs = saved_reference(name, tmp_path)
    theirs.save_pretrained(tmp_path / "theirs", max_shard_size="60KB")
    assert len(list((tmp_path / "theirs").glob("*.safetensors"))) > 1
    same_logits(tmp_path / "theirs", theirs)
    (tmp_path / "ours").mkdir()
    save_model(load_model(tmp_path), tmp_path / "ours", None, shard_bytes=60_000)
    files = sorted(path.name for path in (tmp_path / "ours").glob("*.safetensors"))
    assert len(files) > 1
    assert files[0] == f"model-00001-of-{len(files):05}.safetensors"
    auto = transformers.AutoModelForCausalLM if name != "modernbert" else transformers.AutoModelForMaskedLM
    again = auto.from_pretrained(tmp_path / "ours")
    same_logits(tmp_path / "ours", again)
    save_model(load_model(tmp_path), tmp_path / "ours", None)  # one file again, and no stale shard beside it
    assert [path.name for path in (tmp_path / "ours").glob("*.safetensors*")] == [WEIGHTS]


@pytest.mark.parametrize(
    ("name", "values", "cause"),
    [
        ("phi3", {"rope_parameters": {"rope_type": "longrope", "rope_theta": 1e4, "factor": 2.0}}, "longrope"),
        ("llama", {"rope_parameters": {"rope_type": "yarn", "rope_theta": 1e4, "factor": 2.0}}, "yarn"),
        ("llama", {"rope_parameters": {"rope_type": "llama3", "rope_theta": 1e4}}, "factor"),
        ("llama", {"rope_parameters": {"rope_type": "linear", "factor": "8"}}, "factor"),
        ("llama", {"attention_bias": True}, "attention_bias"),
        ("llama", {"mlp_bias": True}, "mlp_bias"),
        ("llama", {"rms_norm_eps": float("nan")}, "rms_norm_eps"),
        ("llama", {"rms_norm_eps": "small"}, "rms_norm_eps"),
        ("llama", {"hidden_act": "relu2"}, "hidden_act"),
        ("llama", {"architectures": ["LlamaForSequenceClassification"]}, "LlamaForSequenceClassification"),
        ("phi", {"qk_layernorm": True}, "qk_layernorm"),
        ("gpt2", {"scale_attn_by_inverse_layer_idx": True}, "scale_attn_by_inverse_layer_idx"),
        ("gpt2", {"add_cross_attention": True}, "add_cross_attention"),
        ("bert", {"is_decoder": True}, "is_decoder"),
        ("bert", {"position_embedding_type": "relative_key"}, "position_embedding_type"),
        ("bert", {"type_vocab_size": 1}, "type_vocab_size"),
        ("modernbert", {"norm_bias": True}, "norm_bias"),
        ("modernbert", {"classifier_activation": "relu"}, "classifier_activation"),
        ("gemma3", {"final_logit_softcapping": 30.0}, "final_logit_softcapping"),
    ],
)
def test_settings_that_the_parts_do_not_have_are_refused(
    name: str, values: dict[str, Any], cause: str, tmp_path: Path
) -> None:
    saved_reference(name, tmp_path)
    edit(tmp_path, **values)
    for ask in (load_model, check_model):
        with pytest.raises(CauserieError, match=cause) as caught:
            ask(tmp_path)
        assert caught.value.code == "CAU-3002"
        assert "config.json" in str(caught.value)


@pytest.mark.parametrize(
    ("values", "field"),
    [
        ({"num_hidden_layers": 10**9}, "n_layer"),
        ({"hidden_size": 10**9}, "n_embd"),
        ({"vocab_size": 10**12}, "vocab_size"),
        ({"num_key_value_heads": 3}, "n_kv_head"),
        ({"head_dim": 15}, "head_dim"),
    ],
)
def test_absurd_sizes_are_refused_before_anything_is_built(values: dict[str, Any], field: str, tmp_path: Path) -> None:
    saved_reference("llama", tmp_path)
    edit(tmp_path, **values)
    with pytest.raises(CauserieError, match=field) as caught:
        load_model(tmp_path)
    assert caught.value.code == "CAU-3001"


@pytest.mark.parametrize("content", ["[]", '"x"', "3"])
def test_a_config_that_is_no_object_is_refused(content: str, tmp_path: Path) -> None:
    saved_reference("llama", tmp_path)
    (tmp_path / "config.json").write_text(content)
    with pytest.raises(CauserieError, match="CAU-"):
        load_model(tmp_path)
    with pytest.raises(CauserieError, match="CAU-3002"):
        shape_from_hf(json.loads(content))


@pytest.mark.parametrize("keep", [0, 5, 100, 3000])
def test_truncated_weights_name_the_file(keep: int, tmp_path: Path) -> None:
    saved_reference("gpt2", tmp_path)
    (tmp_path / WEIGHTS).write_bytes((tmp_path / WEIGHTS).read_bytes()[:keep])
    for ask in (load_model, check_model):
        with pytest.raises(CauserieError, match=WEIGHTS) as caught:
            ask(tmp_path)
        assert caught.value.code == "CAU-3004"


@pytest.mark.parametrize("name", [name for name in REFERENCES if "-" not in name])
def test_check_model_agrees_with_loading(name: str, tmp_path: Path) -> None:
    saved_reference(name, tmp_path)
    assert check_model(tmp_path) == load_model(tmp_path).shape
    lost = sorted(load_file(tmp_path / WEIGHTS))[-1]
    rewrite(tmp_path, lambda state: {key: tensor for key, tensor in state.items() if key != lost})
    for ask in (load_model, check_model):
        with pytest.raises(CauserieError, match="missing"):
            ask(tmp_path)


@pytest.mark.parametrize("chunk", [None, 3])
@pytest.mark.parametrize("name", ["bert", "modernbert", "phi"])
def test_losses_go_through_the_head(name: str, chunk: int | None, tmp_path: Path) -> None:
    theirs = saved_reference(name, tmp_path)
    ours = load_model(tmp_path)
    ids, chosen = tokens(2, 10), torch.arange(20) % 3 == 0
    targets = tokens(1, int(chosen.sum()), seed=8)[0]
    loss = chunked_loss(ours, ours(ids).flatten(0, 1)[chosen], targets, chunk=chunk)
    expected = F.cross_entropy(theirs(ids).logits.flatten(0, 1)[chosen], targets, reduction="none")
    torch.testing.assert_close(loss, expected, rtol=1e-5, atol=1e-5)
    loss.sum().backward()
    expected.sum().backward()
    other = theirs.get_output_embeddings().bias.grad
    assert ours.head_bias is not None
    torch.testing.assert_close(ours.head_bias.grad, other, rtol=1e-4, atol=1e-5)


def test_learned_positions_end(tmp_path: Path) -> None:
    saved_reference("gpt2", tmp_path)
    with pytest.raises(CauserieError, match="CAU-3009"):
        load_model(tmp_path)(tokens(1, 129))
