"""Every family against transformers: the same weights give the same logits, whole, cached, padded and packed."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from causerie.infer import Engine, Sampling
from causerie.model import FAMILIES, Transformer, load_model, plain_attend, save_model
from tests.model.references import DECODERS, ENCODERS, REFERENCES, Pieces, reference, saved_reference, tokens

LENGTHS = (5, 11, 1, 8)


def close(ours: torch.Tensor, theirs: torch.Tensor) -> None:
    """Logits within 1e-4 in float32, and every choice the same."""
    assert ours.dtype == torch.float32
    assert (ours - theirs).abs().max() <= 1e-4
    assert torch.equal(ours.argmax(-1), theirs.argmax(-1))


def pair(name: str, folder: Path) -> tuple[Transformer, Any]:
    theirs = saved_reference(name, folder)
    return load_model(folder), theirs


def logits(model: Transformer, ids: torch.Tensor, **how: Any) -> torch.Tensor:
    return model.logits(model(ids, **how))


def test_every_family_has_a_reference() -> None:
    assert {name.split("-")[0] for name in REFERENCES} == set(FAMILIES)


@pytest.mark.parametrize("name", REFERENCES)
@torch.no_grad()
def test_loads_what_transformers_saved(name: str, tmp_path: Path) -> None:
    ours, theirs = pair(name, tmp_path)
    ids = tokens(2, 40)
    close(logits(ours, ids), theirs(ids).logits)
    assert ours.shape.n_params == theirs.num_parameters()


@pytest.mark.parametrize("name", REFERENCES)
@torch.no_grad()
def test_transformers_loads_what_we_saved(name: str, tmp_path: Path) -> None:
    import transformers

    source, saved = tmp_path / "source", tmp_path / "saved"
    saved.mkdir()
    ours, theirs = pair(name, source)
    save_model(ours, saved, None)
    auto = transformers.AutoModelForCausalLM if ours.shape.row.causal else transformers.AutoModelForMaskedLM
    again, report = auto.from_pretrained(saved, output_loading_info=True)
    assert type(again) is type(theirs)
    assert not report["missing_keys"]
    assert not report["unexpected_keys"]
    ids = tokens(2, 40, seed=2)
    close(logits(ours, ids), again(ids).logits)
    assert load_model(saved).shape == ours.shape


@pytest.mark.parametrize("name", DECODERS)
@torch.no_grad()
def test_left_and_right_padding(name: str, tmp_path: Path) -> None:
    ours, theirs = pair(name, tmp_path)
    ids, mask = tokens(2, 20), torch.ones(2, 20, dtype=torch.long)
    mask[0, 14:] = 0
    mask[1, :6] = 0
    positions = (mask.cumsum(-1) - 1).clamp(min=0)
    attend = plain_attend(ours.shape, mask)
    expected = theirs(ids, attention_mask=mask, position_ids=positions).logits
    found = logits(ours, ids, positions=positions, attend=attend)
    close(found[mask.bool()], expected[mask.bool()])


@pytest.mark.parametrize("name", ENCODERS)
@torch.no_grad()
def test_padded_encoders(name: str, tmp_path: Path) -> None:
    ours, theirs = pair(name, tmp_path)
    ids, mask = tokens(2, 20), torch.ones(2, 20, dtype=torch.long)
    mask[0, 14:] = 0
    expected = theirs(ids, attention_mask=mask).logits
    found = logits(ours, ids, attend=plain_attend(ours.shape, mask))
    close(found[mask.bool()], expected[mask.bool()])


@torch.no_grad()
def test_token_types_of_bert(tmp_path: Path) -> None:
    ours, theirs = pair("bert", tmp_path)
    ids, types = tokens(1, 12), (torch.arange(12) > 6).long()[None]
    close(logits(ours, ids, token_types=types), theirs(ids, token_type_ids=types).logits)


def packed() -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Documents in one row: ids, document numbers, positions."""
    documents = torch.cat([torch.full((length,), number) for number, length in enumerate(LENGTHS)])[None]
    positions = torch.cat([torch.arange(length) for length in LENGTHS])[None]
    return tokens(1, sum(LENGTHS), seed=3), documents, positions


@pytest.mark.parametrize("name", REFERENCES)
@torch.no_grad()
def test_packed_documents_equal_transformers_on_each(name: str, tmp_path: Path) -> None:
    ours, theirs = pair(name, tmp_path)
    ids, documents, positions = packed()
    found = logits(ours, ids, positions=positions, attend=plain_attend(ours.shape, documents))
    close(found, torch.cat([theirs(part).logits for part in ids.split(LENGTHS, dim=1)], dim=1))


@pytest.mark.parametrize("name", REFERENCES)
def test_gradient_across_documents_is_exactly_zero(name: str, tmp_path: Path) -> None:
    ours, _ = pair(name, tmp_path)
    ids, documents, positions = packed()
    entered: list[torch.Tensor] = []
    ours.embed_tokens.register_forward_hook(lambda _m, _i, out: entered.append(out.retain_grad() or out))
    hidden = ours(ids, positions=positions, attend=plain_attend(ours.shape, documents))
    inside = documents[0] == 1
    ours.logits(hidden[0, inside]).pow(2).sum().backward()
    gradient = entered[0].grad
    assert gradient is not None
    assert (gradient[0][~inside] == 0).all()
    assert (gradient[0][inside] != 0).any(-1).all()


@pytest.mark.parametrize("name", DECODERS)
@torch.no_grad()
def test_with_a_cache(name: str, tmp_path: Path) -> None:
    ours, theirs = pair(name, tmp_path)
    ids, cache, past = tokens(2, 18, seed=4), Pieces(ours), None
    for at in range(ids.shape[1]):
        step = theirs(ids[:, at : at + 1], past_key_values=past, use_cache=True)
        past = step.past_key_values
        close(logits(ours, ids[:, at : at + 1], positions=torch.tensor([[at]]), attend=cache), step.logits)


@pytest.mark.parametrize("name", DECODERS)
def test_the_engine_writes_what_transformers_generates(name: str, tmp_path: Path) -> None:
    ours, theirs = pair(name, tmp_path)
    prompt = tokens(1, 9, seed=5)
    with torch.no_grad():
        expected = theirs.generate(prompt, max_new_tokens=14, do_sample=False, eos_token_id=None)[0, 9:].tolist()
    engine = Engine(ours)
    engine.add("one", prompt[0].tolist(), Sampling(max_tokens=14, temperature=0.0))
    found: list[int] = []
    while engine.has_work:
        for event in engine.step():
            found += event.ids
    assert found == expected


@pytest.mark.parametrize("name", REFERENCES)
def test_gradients_equal_those_of_transformers(name: str, tmp_path: Path) -> None:
    ours, theirs = pair(name, tmp_path)
    ids = tokens(2, 16, seed=6)
    logits(ours, ids).log_softmax(-1)[..., 5].sum().backward()
    theirs(ids).logits.log_softmax(-1)[..., 5].sum().backward()
    mine, other = ours.embed_tokens.weight.grad, theirs.get_input_embeddings().weight.grad
    assert mine is not None
    torch.testing.assert_close(mine, other, rtol=1e-3, atol=1e-3)


def test_references_differ_by_seed() -> None:
    ids = tokens(1, 4)
    assert not torch.equal(reference("qwen2", 1)(ids).logits, reference("qwen2", 2)(ids).logits)
