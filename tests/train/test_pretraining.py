from __future__ import annotations

import json
import math
import os
import signal
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import zstandard

from causerie.core import Artifact, CauserieError, Stopped, write_artifact
from causerie.data import PackConfig, pack
from causerie.model import load_model
from causerie.train import PretrainConfig, loop, pretrain
from causerie.train.plot import smooth
from causerie.train.pretraining import (
    PackedRows,
    bits_per_byte,
    flops_per_token,
    model_shape,
    next_token_loss,
    next_token_nll,
    validation,
)
from tests.train.tiny import SHAPE, WORDS, tiny_model, tiny_tokenizer


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Artifact]:
    """A tokenizer folder and packed shards of 150 short documents."""
    root = tmp_path_factory.mktemp("shards")
    words = WORDS.split()
    texts = [" ".join(words[(i + 3 * j) % len(words)] for j in range(6 + i % 20)) for i in range(150)]
    tokenizer = tiny_tokenizer(texts)
    (root / "tokenizer").mkdir()
    tokenizer.save(root / "tokenizer")
    with write_artifact(root, "corpus", "corpus", "0" * 64) as draft:
        rows = [{"id": str(i), "text": text, "url": "", "title": "", "lang": "en"} for i, text in enumerate(texts)]
        lines = "".join(json.dumps(row) + "\n" for row in rows)
        (draft.path / "documents.jsonl.zst").write_bytes(zstandard.compress(lines.encode()))
    assert draft.artifact is not None
    config = PackConfig(corpus=draft.artifact.path, tokenizer=root / "tokenizer", val_fraction=0.1)
    return root / "tokenizer", pack(config, root)


def config(made: tuple[Path, Artifact], **changes: Any) -> PretrainConfig:
    plain: dict[str, Any] = {
        "shards": made[1].path,
        "tokenizer": made[0],
        "depth": 1,
        "steps": 30,
        "batch_size": 8,
        "seq_len": 32,
        "lr": 0.01,
        "matrix_lr": 0.02,
        "compile": "off",
        "precision": "fp32",
        "device": "cpu",
        "prompts": ("the cat",),
    }
    return PretrainConfig(**{**plain, **changes})


def test_a_pretrained_model_predicts_better_and_is_a_whole_folder(made: tuple[Path, Artifact], tmp_path: Path) -> None:
    artifact = pretrain(config(made, eval_every=10), tmp_path)
    metrics = artifact.manifest.metrics
    assert metrics["val_bits_per_byte_after"] < 0.7 * metrics["val_bits_per_byte_before"]
    uniform = math.log(load_model(artifact.path).shape.vocab_size)
    assert metrics["val_loss_before"] == pytest.approx(uniform, rel=0.02)  # a fresh model knows nothing
    assert metrics["tokens"] == 30 * 8 * 32
    assert metrics["samples_after"][0].startswith("the cat")
    assert set(artifact.manifest.inputs) == {"shards", "tokenizer"}
    for name in ("config.json", "model.safetensors", "tokenizer.json", "loss.svg", "loss.png"):
        assert artifact.file(name).stat().st_size > 100
    run = next((tmp_path / "runs").glob("pretrain-*"))
    assert not (run / "checkpoints").exists()
    assert pretrain(config(made, eval_every=10), tmp_path).manifest.created == artifact.manifest.created


@pytest.mark.parametrize("extras", [True, False])
def test_what_leaves_pretraining_is_a_plain_model(made: tuple[Path, Artifact], tmp_path: Path, extras: bool) -> None:
    """Folded exactly: the stored model has the validation loss that the trained one had, here and in transformers."""
    import transformers

    wanted = config(made, extras=extras, steps=12)
    artifact = pretrain(wanted, tmp_path)
    metrics = artifact.manifest.metrics
    model = load_model(artifact.path)
    assert model.extras is None
    assert model.shape.tie_embeddings == (not extras)
    assert metrics["stored_parameters"] == sum(p.numel() for p in model.parameters())
    assert metrics["stored_parameters"] - metrics["parameters"] == (model.head_weight.numel() if extras else 0)
    again = validation(model.eval(), PackedRows(made[1].path, wanted, "val"), wanted, made[1])
    assert again["val_loss"] == pytest.approx(metrics["val_loss_after"], abs=2e-6)
    theirs = transformers.AutoModelForCausalLM.from_pretrained(artifact.path)
    ids = torch.arange(40)[None] * 7 % model.shape.vocab_size
    with torch.no_grad():
        assert (theirs(ids).logits - model.logits(model(ids))).abs().max() <= 1e-4


def test_a_stopped_run_with_extras_goes_on_bit_for_bit(
    made: tuple[Path, Artifact], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Stopped in the middle by what a SIGTERM does; the scales come back from the checkpoint."""
    whole = pretrain(config(made, steps=8), tmp_path / "whole")
    real, stopped = loop._Sitting.update, []

    def update(self: Any, share: float) -> None:
        real(self, share)
        if self.progress.step == 5 and not stopped:
            stopped.append(True)
            os.kill(os.getpid(), signal.SIGTERM)

    monkeypatch.setattr(loop._Sitting, "update", update)
    with pytest.raises(Stopped):
        pretrain(config(made, steps=8), tmp_path / "parts")
    resumed = pretrain(config(made, steps=8), tmp_path / "parts")
    assert resumed.file("model.safetensors").read_bytes() == whole.file("model.safetensors").read_bytes()


def test_a_folded_model_is_taught_and_saved_like_any_other(made: tuple[Path, Artifact], tmp_path: Path) -> None:
    from gguf import GGUFReader

    from causerie.model import save_gguf
    from causerie.train import SftConfig, sft
    from tests.train.tiny import conversation, write_rows

    base = pretrain(config(made, steps=6), tmp_path)
    rows = write_rows(tmp_path / "rows.jsonl", [conversation(f"the cat {n}", "sat on the mat") for n in range(12)])
    for rank in (0, 2):
        taught = sft(
            SftConfig(
                model=base.path, data=(rows,), steps=4, seq_len=64, lora_rank=rank, compile="off", name=f"r{rank}"
            ),
            tmp_path,
        )
        figures = taught.manifest.metrics
        assert load_model(taught.path).shape.tie_embeddings is False
        assert figures["steps"] == 4
    save_gguf(load_model(base.path), tmp_path / "model.gguf", base.path, dtype="f32")
    names = {tensor.name for tensor in GGUFReader(tmp_path / "model.gguf").tensors}
    assert {"token_embd.weight", "output.weight"} <= names


def test_encoders_have_no_extras(made: tuple[Path, Artifact]) -> None:
    from causerie.train import MlmConfig

    plain = MlmConfig(shards=made[1].path, tokenizer=made[0], steps=1)
    plain.check()
    with pytest.raises(CauserieError, match="extras"):
        replace(plain, extras=True).check()


def test_out_is_written_exactly_there(made: tuple[Path, Artifact], tmp_path: Path) -> None:
    artifact = pretrain(config(made, steps=2, out=tmp_path / "here"), tmp_path)
    assert artifact.path == tmp_path / "here"
    again = pretrain(config(made, steps=2, out=tmp_path / "here"), tmp_path)
    assert again.manifest.created == artifact.manifest.created


def test_shards_of_another_tokenizer_are_refused(made: tuple[Path, Artifact], tmp_path: Path) -> None:
    (tmp_path / "other").mkdir()
    tiny_tokenizer(["quite other words here"]).save(tmp_path / "other")
    with pytest.raises(CauserieError) as caught:
        pretrain(config((tmp_path / "other", made[1])), tmp_path)
    assert caught.value.code == "CAU-4005"
    assert caught.value.fix


def test_documents_in_a_row_do_not_see_each_other(made: tuple[Path, Artifact]) -> None:
    """Changing a row's first document leaves the losses inside its second as they were."""
    model = tiny_model(vocab_size=400)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(torch.randn(parameter.shape, generator=torch.Generator().manual_seed(1)) * 0.3)
    (batch,) = PackedRows(made[1].path, config(made)).micro_batches(0)
    row = {name: value[:1].clone() for name, value in batch.items()}
    second = row["doc_ids"][0] == 1
    assert second.sum() >= 3
    before = next_token_nll(model, row)
    row["ids"][0, row["doc_ids"][0] == 0] = 7
    after = next_token_nll(model, row)
    assert torch.equal(before[second], after[second])
    assert not torch.equal(before[row["doc_ids"][0] == 0], after[row["doc_ids"][0] == 0])


def test_rows_are_a_function_of_the_step(made: tuple[Path, Artifact]) -> None:
    one, other = PackedRows(made[1].path, config(made)), PackedRows(made[1].path, config(made, micro_batch=3))
    (whole,), split = one.micro_batches(5), other.micro_batches(5)
    assert [len(part["ids"]) for part in split] == [3, 3, 2]
    assert torch.equal(torch.cat([part["ids"] for part in split]), whole["ids"])
    assert torch.equal(whole["ids"][:, 1:], whole["targets"][:, :-1])


def test_bits_per_byte() -> None:
    assert bits_per_byte(math.log(2), 100, 50) == pytest.approx(2.0)  # one bit per token, half a byte per token
    assert bits_per_byte(8 * math.log(2), 10, 10) == pytest.approx(8.0)


def test_flops_count_matrices_head_and_attention() -> None:
    """By hand for two layers of width 16: q, k, v, o, MLP and head, times six; attention as in PaLM."""
    matrices = 2 * (16 * 16 + 2 * 16 * 8 + 16 * 16 + 3 * 16 * 32)
    assert flops_per_token(SHAPE, 8) == 6 * (matrices + 64 * 16) + 12 * 2 * 2 * 8 * 8


def test_dimensions_given_by_hand_replace_the_dials() -> None:
    folder = Path()
    by_dial = model_shape(PretrainConfig(shards=folder, tokenizer=folder, depth=4), 512)
    by_hand = model_shape(PretrainConfig(shards=folder, tokenizer=folder, depth=4, n_embd=64, ffn_dim=96), 512)
    assert by_hand == replace(by_dial, n_embd=64, ffn_dim=96)


@pytest.mark.parametrize("half_life", [0.5, 3, 20])
@pytest.mark.parametrize("count", [2, 3, 50])
def test_smoothing_lags_behind_no_line_at_either_end(half_life: float, count: int) -> None:
    line = [5.0 - 0.1 * i for i in range(count)]
    assert smooth(line, half_life) == pytest.approx(line)
    assert smooth([2.5], half_life) == [2.5]
    assert smooth([], half_life) == []


def test_smoothing_is_a_weighted_fit_the_same_from_both_sides() -> None:
    values = np.random.default_rng(0).normal(size=40).cumsum()
    curve = smooth(values.tolist(), 4)
    assert curve[::-1] == pytest.approx(smooth(values[::-1].tolist(), 4))
    for at in (0, 7, 39):
        away = np.arange(40) - at
        slope_and_level = np.polyfit(away, values, 1, w=np.sqrt(0.5 ** (np.abs(away) / 4)))
        assert curve[at] == pytest.approx(slope_and_level[1])


def test_smoothing_takes_noise_away_and_keeps_a_steep_beginning() -> None:
    falls = 2 + 3 * np.exp(-np.arange(400) / 40)
    noisy = falls + np.random.default_rng(0).normal(0, 0.1, 400)
    curve = np.array(smooth(noisy.tolist(), 10))
    trailing = [np.average(noisy[: i + 1], weights=0.5 ** (np.arange(i + 1)[::-1] / 10)) for i in range(40)]
    assert np.abs(curve - falls).mean() < 0.4 * np.abs(noisy - falls).mean()
    assert np.abs(curve[:40] - falls[:40]).mean() < 0.3 * np.abs(trailing - falls[:40]).mean()


def test_rows_of_whole_documents_count_only_their_own_targets(made: tuple[Path, Artifact]) -> None:
    rows = PackedRows(made[1].path, config(made, layout="rows"))
    whole = rows.whole(0)
    counted = whole["mask"].bool()
    assert 0 < int(counted.sum()) < counted.numel()  # padding there is
    model = tiny_model(vocab_size=int(whole["ids"].max()) + 1)
    parts = next_token_loss(model, whole)
    nll = next_token_nll(model, whole).detach()
    assert float(parts.n_tokens) == int(counted.sum())
    assert float(parts.loss_sum.detach()) == pytest.approx(float(nll[counted.flatten()].sum()), rel=1e-5)
    parts.loss_sum.backward()
    before = [p.grad.clone() for p in model.parameters() if p.grad is not None]
    model.zero_grad()
    other = {**whole, "targets": torch.where(counted, whole["targets"], 0)}
    next_token_loss(model, other).loss_sum.backward()
    after = [p.grad for p in model.parameters() if p.grad is not None]
    assert all(torch.equal(a, b) for a, b in zip(before, after, strict=True))
