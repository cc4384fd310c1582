"""Training-only parts fold into a plain model that computes the same, here and in transformers."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch

from causerie.core import CauserieError
from causerie.model import (
    ModelShape,
    Transformer,
    add_extras,
    fold_extras,
    init_model,
    load_model,
    named_shape,
    save_model,
    shape_from_depth,
)
from tests.model.references import tokens

QWEN = shape_from_depth(3, 97)
UNTIED = replace(QWEN, tie_embeddings=False)
LLAMA = replace(QWEN, family="llama")


def trained(shape: ModelShape, *, gain: float = 1.2) -> Transformer:
    """A model with extras whose every weight has moved."""
    model = init_model(shape, seed=3)
    add_extras(model, embed_norm=True, residual_scales=True, qk_gain=gain if shape.row.qk_norm else 1.0)
    generator = torch.Generator().manual_seed(4)
    with torch.no_grad():
        for name, weight in model.named_parameters():
            weight.add_(torch.randn(weight.shape, generator=generator) * (0.02 if name.endswith("scales") else 0.1))
        assert model.extras is not None
        model.extras.log_scales.copy_(torch.tensor([1.15, 0.9, 1.3]).log())  # type: ignore[union-attr]
    return model


@pytest.mark.parametrize("shape", [QWEN, UNTIED, LLAMA], ids=["tied", "untied", "llama"])
@torch.no_grad()
def test_folded_logits_are_equal(shape: ModelShape) -> None:
    model = trained(shape).double()
    ids = tokens(2, 30)
    # norms, rotation and logits are float32 in both, so a model in float64 leaves their rounding alone
    before, folded = model.logits(model(ids)), fold_extras(model)
    assert folded.extras is None
    assert not folded.shape.tie_embeddings
    after = folded.logits(folded(ids))
    assert (before - after).abs().max() <= 2e-5 * before.abs().max()
    assert torch.equal(before.argmax(-1), after.argmax(-1))


@torch.no_grad()
def test_the_extras_matter() -> None:
    model = trained(QWEN)
    ids = tokens(1, 12)
    with_extras = model.logits(model(ids))
    model.extras = None
    assert (with_extras - model.logits(model(ids))).abs().max() > 0.05


@torch.no_grad()
def test_the_export_is_a_plain_model_in_transformers(tmp_path: Path) -> None:
    import transformers

    model = trained(QWEN)
    save_model(model, tmp_path, None)
    theirs = transformers.AutoModelForCausalLM.from_pretrained(tmp_path)
    assert type(theirs).__name__ == "Qwen3ForCausalLM"
    ids = tokens(2, 30)
    ours = model.logits(model(ids))
    assert (theirs(ids).logits - ours).abs().max() <= 1e-4
    assert (load_model(tmp_path).logits(load_model(tmp_path)(ids)) - ours).abs().max() <= 1e-4
    assert model.extras is not None  # saving leaves the model in training as it was


def test_gain_is_a_start_value_of_the_plain_models_own_weights() -> None:
    model = init_model(QWEN, 0)
    add_extras(model, qk_gain=1.2)
    assert model.extras is None
    assert fold_extras(model) is model
    assert torch.allclose(model.layers[0].self_attn.q_norm.weight, torch.full((32,), 1.2))  # type: ignore[union-attr]


def test_without_extras_nothing_changes_bit_for_bit() -> None:
    plain, same = init_model(QWEN, 5), init_model(QWEN, 5)
    add_extras(same)
    ids = tokens(1, 9)
    assert torch.equal(plain(ids), same(ids))


def test_scales_start_neutral_and_get_gradients() -> None:
    model = init_model(UNTIED, 1)
    with torch.no_grad():
        for name, weight in model.named_parameters():
            if name.endswith(("o_proj.weight", "down_proj.weight")):
                weight.normal_(0, 0.1, generator=torch.Generator().manual_seed(1))
    add_extras(model, embed_norm=True, residual_scales=True)
    model.logits(model(tokens(1, 9))).square().mean().backward()
    scales = model.extras.log_scales  # type: ignore[union-attr]
    assert isinstance(scales, torch.nn.Parameter)
    assert torch.equal(scales.detach(), torch.zeros(3))
    assert scales.grad is not None
    assert (scales.grad[1:] != 0).all()


@pytest.mark.parametrize("name", ["gemma3-270m", "gpt2-124m", "phi-1.5", "bert-base", "modernbert-base"])
def test_families_in_which_they_do_not_fold_refuse(name: str) -> None:
    with torch.device("meta"):
        model = Transformer(named_shape(name).shape)
    with pytest.raises(CauserieError, match="CAU-3011"):
        add_extras(model, embed_norm=True)


def test_what_cannot_fold_is_refused() -> None:
    with pytest.raises(CauserieError, match="CAU-3011"):
        add_extras(init_model(LLAMA, 0), qk_gain=1.2)
    with pytest.raises(CauserieError, match="CAU-3011"):
        add_extras(init_model(QWEN, 0), residual_scales=True)
    model = trained(QWEN)
    with pytest.raises(CauserieError, match="CAU-3011"):
        add_extras(model, embed_norm=True)
    with torch.no_grad():
        model.extras.log_scales[1] = float("-inf")  # type: ignore[union-attr,index]
    with pytest.raises(CauserieError, match="CAU-3011"):
        fold_extras(model)
