from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch

from causerie.core import open_run, read_events
from causerie.model import load_model
from causerie.text import ChatFormat, chat_format, load_chat_format
from causerie.train import SftConfig, fit, sft
from causerie.train.chat_rows import ChatStream, Row, lay_out, pack_rows, read_rows, split_rows
from causerie.train.finetuning import PackedConversations, answer_loss, answer_nll, as_batch, load_data, load_trainable
from tests.train.tiny import conversation, model_folder, tiny_model, tiny_tokenizer, write_rows

ROWS = [
    conversation("the cat", "sat on the mat"),
    conversation("and the dog", "ran to the sea"),
    {
        "messages": [
            {"role": "system", "content": "the"},
            {"role": "user", "content": "dog"},
            {"role": "assistant", "content": "big"},
            {"role": "user", "content": "cat"},
            {"role": "assistant", "content": "red"},
        ]
    },
]


@pytest.fixture(scope="module")
def chat() -> ChatFormat:
    return chat_format(tiny_tokenizer(), "chatml")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return model_folder(tmp_path_factory.mktemp("model"))


def rows_of(chat: ChatFormat, tmp_path: Path, rows: list[Any], seq_len: int = 64, **options: Any) -> Any:
    return read_rows([write_rows(tmp_path / "rows.jsonl", rows)], chat, seq_len, **options)


def config(model: Path, data: Path, **changes: Any) -> SftConfig:
    plain: dict[str, Any] = {
        "batch_size": 2,
        "seq_len": 64,
        "steps": 3,
        "compile": "off",
        "precision": "fp32",
        "device": "cpu",
        "heldout_fraction": 0.0,
    }
    return SftConfig(model=model, data=(data,), **{**plain, **changes})


def test_only_the_assistants_words_and_its_end_are_trained(chat: ChatFormat, tmp_path: Path) -> None:
    """Decoding the trained targets gives back the answers, each with its end-of-turn token."""
    rows = rows_of(chat, tmp_path, ROWS).rows
    groups = [[rows[0], rows[1]], [rows[2]]]
    batch = as_batch(lay_out(groups, 80))
    targets = batch["targets"].tolist()
    wanted: list[int] = []
    for answer in ("sat on the mat", "ran to the sea", "big", "red"):
        wanted += [*chat.tokenizer.encode(answer), chat.end_id]
    assert targets == wanted
    flat = batch["ids"].flatten()[batch["where"]]
    assert (
        flat[1 : len(chat.tokenizer.encode("sat on the mat"))].tolist()
        == targets[: len(flat)][:-1][: len(chat.tokenizer.encode("sat on the mat")) - 1]
    )


def test_packed_equals_unpacked(chat: ChatFormat, tmp_path: Path) -> None:
    """Sharing a row changes neither the loss of a conversation nor its gradient: nothing is seen across."""
    rows = rows_of(chat, tmp_path, ROWS).rows
    model = tiny_model(vocab_size=chat.tokenizer.vocab_size)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(torch.randn(parameter.shape, generator=torch.Generator().manual_seed(1)) * 0.2)
    packed = answer_nll(model, as_batch(lay_out([rows], 128)))
    packed.sum().backward()
    together = {name: p.grad.clone() for name, p in model.named_parameters() if p.grad is not None}
    model.zero_grad()
    alone = torch.cat([answer_nll(model, as_batch(lay_out([[row]], len(row.ids) - 1))) for row in rows])
    alone.sum().backward()
    torch.testing.assert_close(packed, alone, atol=1e-5, rtol=1e-5)
    for name, parameter in model.named_parameters():
        torch.testing.assert_close(parameter.grad, together[name], atol=1e-4, rtol=1e-4)


def test_packing_keeps_every_row_once_and_wastes_little() -> None:
    dice = torch.Generator().manual_seed(0)
    lengths = torch.randint(5, 120, (500,), generator=dice).tolist()
    bins = pack_rows(lengths, 128, range(500))
    assert sorted(index for group in bins for index in group) == list(range(500))
    assert all(sum(lengths[i] for i in group) <= 128 for group in bins)
    assert sum(lengths) / (128 * len(bins)) > 0.97


def test_the_stream_is_a_function_of_seed_and_number(chat: ChatFormat, tmp_path: Path) -> None:
    rows = rows_of(chat, tmp_path, [conversation(f"the cat {i}", "sat " * (i % 5 + 1)) for i in range(20)]).rows
    one, other = ChatStream(rows, 64, 3), ChatStream(rows, 64, 3)
    late = other.rows(17, 4)  # asked for first: nothing depends on what was asked before
    assert (one.rows(0, 4).ids == other.rows(0, 4).ids).all()
    assert (one.rows(17, 4).ids == late.ids).all()
    assert one.fingerprint == other.fingerprint != ChatStream(rows, 64, 4).fingerprint
    epoch = one.rows(0, one.rows_per_epoch)
    assert int(epoch.trained.sum()) == sum(row.trained for row in rows)


def test_bad_rows_are_counted_by_reason(chat: ChatFormat, tmp_path: Path) -> None:
    bad = [
        "{not json",
        "[1, 2]",
        '{"messages": "text"}',
        '{"messages": [{"role": "user"}]}',
        json.dumps({"messages": [{"role": "user", "content": "the"}]}),
        json.dumps(conversation("the", "  ")),
        json.dumps({"messages": [{"role": "wizard", "content": "a"}, {"role": "assistant", "content": "b"}]}),
        "[" * 100_000,
    ]
    found = rows_of(chat, tmp_path, [*ROWS, *bad])
    assert len(found.rows) == 3
    assert sum(found.skipped.values()) == len(bad)
    assert found.skipped["not JSON"] == 2
    assert found.skipped["no assistant answer"] == 2
    assert any("wizard" in reason for reason in found.skipped)
    path = tmp_path / "bytes.jsonl"
    path.write_bytes(b'{"messages": "\xff"}\n' + json.dumps(ROWS[0]).encode())  # no newline at the end
    found = read_rows([path], chat, 64)
    assert (len(found.rows), dict(found.skipped)) == (1, {"not UTF-8": 1})


def test_long_rows_are_cut_or_dropped_and_counted(chat: ChatFormat, tmp_path: Path) -> None:
    long_answer, long_question = conversation("the", "the cat sat " * 30), conversation("the cat sat " * 30, "the")
    rows = [ROWS[0], long_answer, long_question]
    cut = rows_of(chat, tmp_path, rows, 32)
    assert [len(row.ids) for row in cut.rows][1] == 33
    assert cut.truncated == 1
    assert sum(cut.skipped.values()) == 1
    dropped = rows_of(chat, tmp_path, rows, 32, too_long="drop")
    assert (len(dropped.rows), dropped.truncated, dropped.skipped["too long"]) == (1, 0, 2)


def test_no_prompt_is_on_both_sides() -> None:
    rows = [Row((1, 2), (0, 1), f"prompt {i // 2}") for i in range(400)]
    train, heldout = split_rows(rows, 0.2)
    assert not {row.prompt_key for row in train} & {row.prompt_key for row in heldout}
    assert 40 < len(heldout) < 130
    assert len(train) + len(heldout) == 400


def test_full_fine_tuning_makes_a_model_that_answers_better(folder: Path, tmp_path: Path) -> None:
    data = write_rows(tmp_path / "data.jsonl", [*ROWS, "broken"])
    same_answer = conversation("and the red dog", "ran to the sea")
    heldout = write_rows(tmp_path / "held.jsonl", [ROWS[0], same_answer])
    chosen = config(folder, data, steps=80, heldout=heldout, lr=2e-2)
    artifact = sft(chosen, tmp_path)
    metrics = artifact.manifest.metrics
    assert artifact.manifest.kind == "model"
    assert metrics["answer_loss_after"] < metrics["answer_loss_before"]
    assert metrics["rows"] == 2  # the held-out prompt is not trained on
    assert metrics["rows_skipped"] == {"not JSON": 1, "prompt is in the held-out file": 1}
    assert metrics["train_loss"] < 0.5
    assert artifact.file("loss.svg").read_text().startswith("<?xml")
    assert artifact.file("loss.png").read_bytes().startswith(b"\x89PNG")
    assert load_model(artifact.path).shape == load_model(folder).shape
    assert load_chat_format(artifact.path).name == "chatml"
    assert sft(chosen, tmp_path).manifest.created == artifact.manifest.created  # made once


def test_an_adapter_is_made_and_trained_further(folder: Path, tmp_path: Path) -> None:
    base = tmp_path / "model" / "base"
    model_folder(base)
    data = write_rows(tmp_path / "data.jsonl", ROWS)
    first = sft(config(base, data, lora_rank=4, steps=10), tmp_path)
    assert first.manifest.kind == "adapter"
    told = json.loads(first.file("adapter_config.json").read_text())
    assert (told["base_model_name_or_path"], told["r"], told["lora_alpha"]) == ("../../model/base", 4, 8.0)
    second = sft(config(first.path, data, steps=10, name="more"), tmp_path)
    assert second.manifest.inputs["base"] == first.manifest.inputs["base"]
    assert second.manifest.inputs["model"] == first.key
    assert second.manifest.metrics["train_loss"] < first.manifest.metrics["train_loss"]
    weights = load_model(second.path).state_dict()
    assert any(not torch.equal(value, weights[name]) for name, value in load_model(first.path).state_dict().items())
    assert json.loads(second.file("adapter_config.json").read_text())["base_model_name_or_path"] == "../../model/base"


def test_an_adapters_base_is_held_in_bf16(folder: Path, tmp_path: Path) -> None:
    chosen = config(folder, write_rows(tmp_path / "data.jsonl", ROWS), lora_rank=2, precision="bf16")
    model = load_trainable(chosen)
    kinds = {(p.dtype, p.requires_grad) for p in model.parameters()}
    assert kinds == {(torch.bfloat16, False), (torch.float32, True)}
    with open_run(tmp_path, "sft", "bf16", "0" * 64, {}) as run:
        fit(model, answer_loss, PackedConversations(load_data(chosen).train, chosen), chosen, run)
    assert all(row["loss"] > 0 for row in read_events(run.path) if row["event"] == "step")


def test_micro_batches_cover_the_batch(chat: ChatFormat, tmp_path: Path) -> None:
    rows = rows_of(chat, tmp_path, ROWS * 3).rows
    whole = PackedConversations(rows, config(tmp_path, tmp_path, batch_size=4)).micro_batches(1)
    split = PackedConversations(rows, config(tmp_path, tmp_path, batch_size=4, micro_batch=3)).micro_batches(1)
    assert [len(part["ids"]) for part in split] == [3, 1]
    assert torch.equal(torch.cat([part["ids"] for part in split]), whole[0]["ids"])
    assert torch.equal(torch.cat([part["targets"] for part in split]), whole[0]["targets"])
