"""What a job asks of the trainer: how many conversations make an update, and which figures its models get."""

from __future__ import annotations

import asyncio
import os
from pathlib import Path
from typing import Any

import hypothesis.strategies as st
import pytest
from hypothesis import given
from starlette.applications import Starlette

from causerie.serve.fine_tuning.checkpoints import CHECKPOINT, figures_at, figures_at_end, keep_models_on_the_way
from causerie.serve.fine_tuning.plan import COUNTED, SEQ_LEN, Plan, count_tokens, model_name, plan_of, row_shape
from causerie.serve.fine_tuning.training_files import TrainingRows, jsonl
from causerie.text import load_chat_format
from causerie.train.chat_rows import pack_rows, read_rows

lengths = st.lists(st.integers(4, 400), min_size=1, max_size=200)


def talk(*words: str) -> dict[str, Any]:
    """A row that says some words."""
    return {"messages": [{"role": "user", "content": "Dis."}, {"role": "assistant", "content": " ".join(words)}]}


@given(st.integers(1, 64), st.data())
def test_about_as_many_conversations_make_an_update_as_asked(batch: int, data: st.DataObject) -> None:
    """As the trainer's own packing says: several short ones share a row."""
    tokens = data.draw(st.lists(st.integers(4, 400), min_size=2 * batch, max_size=4 * batch))
    together, seq_len = row_shape(batch, tokens)
    rows = pack_rows([length - 1 for length in tokens], seq_len, range(len(tokens)))
    in_an_update = together * len(tokens) / len(rows)
    assert batch / 2 - 0.5 <= in_an_update <= 2 * batch + 0.5


@given(lengths, st.integers(1, 64))
def test_no_row_is_cut_that_was_not_cut_before(tokens: list[int], batch: int) -> None:
    _, seq_len = row_shape(batch, tokens)
    assert min(max(tokens), SEQ_LEN) <= seq_len <= SEQ_LEN


@given(lengths, st.integers(1, 64), st.integers(2, 4_096))
def test_a_length_that_was_asked_for_stays(tokens: list[int], batch: int, seq_len: int) -> None:
    together, kept = row_shape(batch, tokens, seq_len)
    assert kept == seq_len
    assert together >= 1


def test_files_too_long_to_count_keep_room_for_long_rows() -> None:
    assert row_shape(1, [10] * COUNTED) == (1, SEQ_LEN)
    assert row_shape(1, [10] * (COUNTED - 1)) == (1, 10)


def test_tokens_are_counted_as_the_trainer_counts_them(folder: Path, tmp_path: Path) -> None:
    rows = TrainingRows([talk("oui"), talk("L'été", "à", "Orléans"), talk(*["mot"] * 40)])
    (tmp_path / "train.jsonl").write_bytes(jsonl(rows.rows))
    read = read_rows([tmp_path / "train.jsonl"], load_chat_format(folder), 10_000)
    assert count_tokens(folder, rows) == [len(row.ids) for row in read.rows]


def test_what_cannot_be_counted_is_left_to_the_trainer(folder: Path, tmp_path: Path) -> None:
    assert count_tokens(tmp_path, TrainingRows([talk("oui")])) == []
    odd = {"messages": [{"role": "user", "content": "a"}, {"role": "user", "content": "b"}]}
    assert len(count_tokens(folder, TrainingRows([talk("oui"), odd, talk("non")]))) in (1, 3)


def job_of(kind: str = "supervised", **settings: Any) -> dict[str, Any]:
    method = {"type": kind, kind: {"hyperparameters": settings}}
    return {"id": "ftjob_abcdefghij", "model": "petit@3", "method": method, "seed": 3, "validation_file": None}


def flags_of(plan: Plan) -> dict[str, str]:
    return dict(zip(plan.command[5:-1:2], plan.command[6:-1:2], strict=True))


@pytest.mark.parametrize(
    ("settings", "tokens", "batch", "length"),
    [
        ({"batch_size": 4}, [12] * 8, "1", "48"),
        ({"batch_size": 4, "seq_len": 24}, [12] * 8, "2", "24"),
        ({"batch_size": 64}, [100] * 80, "12", "512"),
        ({"batch_size": "auto"}, [30] * 100, "1", "240"),
        ({}, [], "2", "512"),
    ],
)
def test_the_command_holds_rows_and_the_job_conversations(
    settings: dict[str, Any], tokens: list[int], batch: str, length: str, tmp_path: Path
) -> None:
    plan = plan_of(job_of(**settings), tmp_path / "base", tmp_path, len(tokens) or 16, tokens)
    flags = flags_of(plan)
    assert (flags["--batch-size"], flags["--seq-len"]) == (batch, length)
    asked = settings.get("batch_size", "auto")
    assert plan.hyperparameters["batch_size"] == (
        max(1, min(8, (len(tokens) or 16) // 8)) if asked == "auto" else asked
    )
    assert plan.command[3:5] == ("train", "sft")


def test_a_job_goes_on_as_it_was_begun(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever a later version would plan, wherever the workspace is moved, whichever version the model's name has."""
    home, moved, job = tmp_path / "home", tmp_path / "moved", job_of("dpo", beta=0.3)
    bases = [tmp_path / "base", home / "artifacts" / "base"]
    for base in bases:
        base.mkdir(parents=True)
        begun = plan_of(job, base, home, 100)
        begun.folder.mkdir(parents=True, exist_ok=True)
        assert begun.as_begun() is begun  # nothing was kept yet, or by a version that kept nothing
        begun.write()
        with monkeypatch.context() as patch:
            patch.setattr("causerie.serve.fine_tuning.plan.EPOCHS", 7)
            patch.setattr("causerie.serve.fine_tuning.plan.SEQ_LEN", 77)
            later = plan_of(job, tmp_path / "newer base", home, 100)
        assert later.command != begun.command
        assert later.as_begun() == begun
        (begun.folder / "begun.json").unlink()
    begun.write()
    home.rename(moved)
    gone = plan_of(job, moved / "artifacts" / "base", moved, 100)
    assert flags_of(gone.as_begun()) == flags_of(gone)
    gone.flags["model"].rmdir()
    newer = plan_of(job, tmp_path / "newer base", moved, 100).as_begun()
    assert newer.flags["model"] == tmp_path / "newer base"


def test_a_job_goes_on_from_the_last_run_that_can(tmp_path: Path) -> None:
    plan = plan_of(job_of(), tmp_path / "base", tmp_path, 100)
    assert plan.run_folder() is None
    assert plan.goes_on() is plan
    runs = [tmp_path / "runs" / f"sft-{plan.artifact_name}-{key * 8}" for key in "cab"]
    for number, run in enumerate(runs):
        (run / "checkpoints" / "step-1").mkdir(parents=True)
        (run / "run.json").write_text("{}")
        os.utime(run / "run.json", (number, number))
    assert plan.run_folder() == runs[2]
    assert plan.goes_on() is plan  # no checkpoint is whole
    for number in (0, 1):
        (runs[number] / "checkpoints" / "step-1" / "manifest.json").write_text("{}")
    assert flags_of(plan.goes_on())["--resume"] == str(runs[1])


def test_pairs_are_counted_as_they_are(tmp_path: Path) -> None:
    flags = flags_of(plan_of(job_of("dpo", batch_size=4, beta=0.3), tmp_path / "base", tmp_path, 100))
    assert (flags["--batch-size"], flags["--seq-len"], flags["--beta"]) == ("4", "512", "0.3")


@given(st.text(max_size=30), st.text(max_size=30))
def test_any_suffix_gives_a_name_that_a_path_takes(model: str, suffix: str) -> None:
    name = model_name({"id": "ftjob_abcdefghij", "model": model or "m", "suffix": suffix})
    assert name.isascii()
    assert name.startswith("ft-")
    assert name.endswith("-abcdefgh")
    assert not set(name) - set("abcdefghijklmnopqrstuvwxyz0123456789-.")
    assert ".." not in name or ".." in model + suffix


TOLD = [
    {"data": None},
    {"data": {"step": 0, "train_loss": 9.0, "train_accuracy": 0.5}},
    {"data": {"step": 1, "train_loss": 3.0, "learning_rate": 1e-3}},
    {"data": {"step": 3, "train_loss": 1.0, "learning_rate": 1e-3}},
    {"data": {"step": 2, "train_loss": 2.0, "learning_rate": 1e-3}},
    {"data": {"step": 2, "train_mean_reward": 0.5, "mean_length": 7.0}},
    {"data": {"step": 3, "train_loss": 0.1, "train_accuracy": 1.0}},
]


@pytest.mark.parametrize(
    ("step", "figures"),
    [
        (0, {}),
        (1, {"train_loss": 3.0}),
        (2, {"train_loss": 2.0, "train_mean_reward": 0.5}),
        (3, {"train_loss": 1.0, "train_mean_reward": 0.5}),
        (9, {"train_loss": 1.0, "train_mean_reward": 0.5}),
    ],
)
def test_a_models_figures_are_of_its_last_update(step: int, figures: dict[str, float]) -> None:
    """Neither of later ones, nor of a measurement whose loss is another, in whatever order they were told."""
    assert figures_at(step, TOLD) == {"step": float(step), **figures}


def test_the_results_figures_hold_what_was_measured() -> None:
    assert figures_at_end({"steps": 1, "answer_loss_after": 0.5}, TOLD) == {
        "step": 1.0,
        "train_loss": 3.0,
        "valid_loss": 0.5,
        "full_valid_loss": 0.5,
    }
    assert figures_at_end({"steps": 3, "after": {"reward": 0.75}}, TOLD)["full_valid_mean_reward"] == 0.75
    assert "valid_mean_reward" not in figures_at_end({"steps": 1, "after": {"reward": 0.75}}, TOLD)


def test_models_on_the_way_are_offered_once_and_in_order(app: Starlette, tmp_path: Path) -> None:
    """Those beyond the step that was told wait: their figures are not known yet."""
    office = app.state.office
    plan = Plan({}, tmp_path / "f", tmp_path, "sft", "ft-abc", "ft-petit-abc", {})
    for step in (2, 10, 3):
        folder = tmp_path / "runs" / "sft-ft-abc-12345678" / "snapshots" / f"step-{step}"
        folder.mkdir(parents=True)
        (folder / "manifest.json").write_text("{}")
        (folder.parent.parent / "run.json").write_text("{}")
    (folder.parent / "step-11").mkdir()  # not whole: it has no manifest

    async def work() -> tuple[list[list[str]], list[dict[str, Any]]]:
        keep = [await keep_models_on_the_way(office, "default", "job", plan, TOLD, until) for until in (2, 3, None, 99)]
        return keep, await office.objects.all(CHECKPOINT, "default", parent="job")

    kept, bodies = asyncio.run(work())
    assert kept == [[f"ft-petit-abc:ckpt-step-{step}"] for step in (2, 3, 10)] + [[]]
    assert [body["metrics"]["train_loss"] for body in bodies] == [2.0, 1.0, 1.0]
    assert office.pool.folder_of("ft-petit-abc:ckpt-step-10", "default").name == "step-10"
    assert "ft-petit-abc:ckpt-step-10" not in dict(office.pool.models())  # it sleeps until somebody asks
