from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from causerie.core import Artifact, CauserieError
from causerie.model import load_model
from causerie.text import load_tokenizer
from causerie.train import MlmConfig, mlm
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
    from causerie.model import init_model

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
