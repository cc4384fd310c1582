from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from causerie.core import Artifact, CauserieError
from causerie.model import init_model, load_model, plain_attend
from causerie.text import load_tokenizer
from causerie.train import MlmConfig, mlm
from causerie.train.from_scratch import PackedRows
from causerie.train.masked_training import MaskedRows, encoder_shape, mask_id, masked_loss
from causerie.train.masking import mask_tokens
from tests.train.test_pretraining import made

__all__ = ["made"]


def config(made: tuple[Path, Artifact], **changes: Any) -> MlmConfig:
    plain: dict[str, Any] = {
        "shards": made[1].path, "tokenizer": made[0], "depth": 1, "steps": 40, "batch_size": 8, "seq_len": 32,
        "lr": 0.01, "matrix_lr": 0.02, "compile": "off", "precision": "fp32", "device": "cpu",
    }  # fmt: skip
    return MlmConfig(**{**plain, **changes})


def test_an_encoder_learns_to_guess_and_is_a_folder_that_transformers_reads(
    made: tuple[Path, Artifact], tmp_path: Path
) -> None:
    from transformers import AutoModelForMaskedLM

    artifact = mlm(config(made), tmp_path)
    metrics = artifact.manifest.metrics
    assert metrics["val_masked_loss_after"] < 0.8 * metrics["val_masked_loss_before"]
    assert metrics["val_masked_accuracy_after"] > metrics["val_masked_accuracy_before"]
    assert artifact.file("loss.svg").stat().st_size > 100
    ours, theirs = load_model(artifact.path), AutoModelForMaskedLM.from_pretrained(artifact.path).eval()
    ids = torch.randint(0, 256, (2, 9))
    with torch.no_grad():
        torch.testing.assert_close(ours.logits(ours(ids)), theirs(ids).logits, atol=1e-4, rtol=1e-4)


def test_masks_hide_the_share_asked_for_and_are_a_function_of_the_step() -> None:
    tokens = np.random.default_rng(0).integers(0, 90, (64, 128))
    tokens[:, ::40] = 99
    seen, guess = mask_tokens(tokens, 0.3, 95, 90, keep=99, seed=1, step=7)
    again, same = mask_tokens(tokens, 0.3, 95, 90, keep=99, seed=1, step=7)
    assert np.array_equal(seen, again)
    assert np.array_equal(guess, same)
    assert not np.array_equal(guess, mask_tokens(tokens, 0.3, 95, 90, 99, 1, 8)[1])
    assert not guess[tokens == 99].any()
    can = (tokens != 99).sum()
    assert guess.sum() / can == pytest.approx(0.3, abs=0.02)  # 8,000 draws: deviation 0.005
    assert np.array_equal(seen[~guess], tokens[~guess])
    assert (seen[guess] == 95).mean() == pytest.approx(0.8, abs=0.03)
    assert (seen[guess] == tokens[guess]).mean() == pytest.approx(0.1, abs=0.03)


def test_every_row_has_something_to_guess() -> None:
    _, guess = mask_tokens(np.zeros((50, 4), dtype=np.int64), 0.01, 9, 8, keep=5, seed=0, step=0)
    assert guess.any(axis=1).all()
    _, guess = mask_tokens(np.full((3, 4), 5), 0.5, 9, 8, keep=5, seed=0, step=0)
    assert not guess.any()


def test_micro_batches_are_the_whole_batch_cut(made: tuple[Path, Artifact]) -> None:
    tokenizer = load_tokenizer(made[0])
    whole = MaskedRows(made[1].path, config(made), tokenizer, "train", 8).micro_batches(3)
    split = MaskedRows(made[1].path, config(made), tokenizer, "train", 3).micro_batches(3)
    assert [len(part["ids"]) for part in split] == [3, 3, 2]
    assert torch.equal(torch.cat([part["ids"] for part in split]), whole[0]["ids"])
    assert torch.equal(torch.cat([part["targets"] for part in split]), whole[0]["targets"])
    model_shape = encoder_shape(config(made), tokenizer.vocab_size)
    assert not model_shape.row.causal
    model = init_model(model_shape, 0)
    losses = [float(sum(masked_loss(model, part).loss_sum.detach() for part in parts)) for parts in (whole, split)]
    assert losses[0] == pytest.approx(losses[1], rel=1e-5)


def test_a_tokenizer_without_a_mask_is_refused() -> None:
    class Plain:
        special: dict[str, int] = {}  # noqa: RUF012

    with pytest.raises(CauserieError) as caught:
        mask_id(Plain())  # type: ignore[arg-type]
    assert caught.value.code == "CAU-4005"
    assert caught.value.fix


@pytest.mark.parametrize("layout", ["stream", "rows"])
def test_packed_documents_do_not_see_each_other(made: tuple[Path, Artifact], layout: str) -> None:
    """Other tokens in one document of a row change nothing in the others; alone in a row it is understood the same."""
    tokenizer = load_tokenizer(made[0])
    rows = MaskedRows(made[1].path, config(made, layout=layout), tokenizer, "train", 8)
    (batch,) = rows.micro_batches(0)
    shape = encoder_shape(config(made), tokenizer.vocab_size)
    model = _noisy(init_model(shape, 0))
    plain = hidden_of(model, batch)
    ids, documents = batch["ids"].clone(), batch["doc_ids"]
    row = int((documents.max(1).values >= 1).nonzero()[0])
    chosen = documents[row] == 1
    ids[row, chosen] = (ids[row, chosen] + 7) % 250
    changed = hidden_of(model, {**batch, "ids": ids})
    differs = (plain != changed).any(-1)
    assert differs[row][chosen].all()
    assert not differs[row][~chosen].any()
    assert not differs[torch.arange(len(ids)) != row].any()
    alone = model(batch["ids"][row, chosen][None], attend=plain_attend(shape))
    torch.testing.assert_close(plain[row, chosen], alone[0], atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize("layout", ["stream", "rows"])
def test_the_gradient_of_one_documents_guesses_is_zero_in_the_others(made: tuple[Path, Artifact], layout: str) -> None:
    tokenizer = load_tokenizer(made[0])
    rows = MaskedRows(made[1].path, config(made, layout=layout), tokenizer, "train", 8)
    (batch,) = rows.micro_batches(1)
    shape = encoder_shape(config(made), tokenizer.vocab_size)
    model = _noisy(init_model(shape, 0))
    held: list[torch.Tensor] = []
    model.embed_tokens.register_forward_hook(lambda _m, _i, out: held.append(out.requires_grad_()) or out)
    hidden = hidden_of(model, batch)
    row = int((batch["doc_ids"].max(1).values >= 1).nonzero()[0])
    inside = batch["doc_ids"][row] == 0
    gradient = torch.autograd.grad(hidden[row, inside].square().sum(), held[0])[0]
    assert gradient[row, inside].abs().sum() > 0
    assert gradient[row, ~inside].abs().max() == 0.0


def test_what_fills_a_row_is_never_to_be_guessed(made: tuple[Path, Artifact]) -> None:
    tokenizer = load_tokenizer(made[0])
    wanted = config(made, layout="rows", mask_share=0.9)
    rows, packed = MaskedRows(made[1].path, wanted, tokenizer, "train", 8), PackedRows(made[1].path, wanted)
    filled = 0
    for step in range(5):
        (batch,), whole = rows.micro_batches(step), packed.whole(step)
        padding = _trailing(whole["ids"], tokenizer.eot_id)
        filled += int(padding.sum())
        guessed = torch.zeros(whole["ids"].numel(), dtype=torch.bool)
        guessed[batch["where"]] = True
        assert not (guessed.view_as(padding) & padding).any()
        assert torch.equal(whole["ids"].flatten()[batch["where"]], batch["targets"])
        assert (batch["targets"] != tokenizer.eot_id).all()
    assert filled


def test_an_encoder_learns_on_whole_documents_too(made: tuple[Path, Artifact], tmp_path: Path) -> None:
    metrics = mlm(config(made, layout="rows"), tmp_path).manifest.metrics
    assert metrics["val_masked_loss_after"] < 0.8 * metrics["val_masked_loss_before"]


def hidden_of(model: Any, batch: Any) -> torch.Tensor:
    """The last layer's output at every place of a batch."""
    attend = plain_attend(model.shape, batch["doc_ids"])
    found: torch.Tensor = model(batch["ids"], positions=batch["positions"], attend=attend)
    return found


def _noisy(model: Any) -> Any:
    """Weights that are zero at the start would hide what sees what."""
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.1 * torch.randn(parameter.shape, generator=generator))
    return model


def _trailing(ids: torch.Tensor, fill: int) -> torch.Tensor:
    """(B, T): the filling tokens at the end of each row."""
    return (ids == fill).flip(1).long().cumprod(1).flip(1).bool()
