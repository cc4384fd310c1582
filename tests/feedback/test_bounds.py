"""What bounds a user, what is never trained on, and what an erasure reaches."""

from __future__ import annotations

from pathlib import Path

import pytest

from causerie.core import CauserieError, read_jsonl, write_artifact, write_json, write_jsonl
from causerie.feedback import (
    FeedbackExportConfig,
    Signal,
    TrainingSetConfig,
    erase_user,
    export_feedback,
    training_set,
)
from causerie.feedback.standing import READ_PER_VOTE, load_records
from causerie.store import Store, signals
from tests.feedback.conftest import Page


def test_a_flood_of_one_user_is_read_only_as_far_as_it_may_count(store: Store, page: Page, workspace: Path) -> None:
    """20,000 votes of one user on 300 answers: 200 count, a thousand rows are read, the others' votes stay."""
    shown = [page.show(f"q{number}", f"a{number}", user="troll") for number in range(300)]
    flood = [
        Signal(shown[number % 300].id, "troll", "thumb", {"label": bool(number % 2)}, created=float(number)).row()
        for number in range(20_000)
    ]
    store.add(signals, flood)
    page.thumb(page.show("honest", "yes"), up=True)
    records = load_records(store, most_per_user=READ_PER_VOTE * 200)
    assert len(records.signals) == READ_PER_VOTE * 200 + 1
    metrics = training_set(TrainingSetConfig(max_per_user=200), workspace, store).manifest.metrics
    assert metrics["signals"] == 201
    assert metrics["people"] == 2
    assert sum(metrics["left_out"].values()) == 20_000 - 200


def rows(workspace: Path, store: Store, listed: str, **more: object) -> tuple[set[str], dict[str, int]]:
    path = workspace / "list.txt"
    path.write_text(listed)
    made = training_set(TrainingSetConfig(do_not_train=path, held_out=0.0, **more), workspace, store)  # type: ignore[arg-type]
    found = {row["completion"] for row in read_jsonl(made.path / "unpaired.jsonl")}
    return found, made.manifest.metrics["left_out"]


@pytest.mark.parametrize(
    "entry",
    ["user:bob", "conversation:conv_secret", "answer:{id}", "source:elsewhere", "text:my PIN", "text: SECRET word"],
)
def test_each_kind_of_entry_keeps_its_answer_out(store: Store, page: Page, workspace: Path, entry: str) -> None:
    secret = page.show("What is My Pin?", "a secret word", user="bob", conversation="conv_secret", source="elsewhere")
    page.thumb(secret, up=True, user="bob")
    page.thumb(page.show("Hello?", "Hi."), up=True)
    found, left_out = rows(workspace, store, f"# kept by hand\n\n{entry.format(id=secret.id)}\n")
    assert found == {"Hi."}
    assert left_out == {"do_not_train": 1}


def test_questions_that_judge_are_not_trained_on(store: Store, page: Page, workspace: Path) -> None:
    page.thumb(page.show("  What IS  two plus two?", "4"), up=True)
    page.thumb(page.show("Hello?", "Hi."), up=True)
    write_jsonl(workspace / "guard.jsonl", [{"messages": [{"role": "user", "content": "What is two plus two?"}]}])
    found, left_out = rows(workspace, store, "", apart=(workspace / "guard.jsonl",))
    assert found == {"Hi."}
    assert left_out == {"kept_apart": 1}


@pytest.mark.parametrize("line", ["bob", "person:bob", "user:"])
def test_a_bad_entry_is_refused_with_its_line(store: Store, page: Page, workspace: Path, line: str) -> None:
    page.thumb(page.show("Hello?", "Hi."), up=True)
    with pytest.raises(CauserieError, match="CAU-1307") as raised:
        rows(workspace, store, f"user:eve\n{line}\n")
    assert raised.value.where.endswith("list.txt:2")


def test_an_erasure_reaches_sets_elsewhere_and_evaluations_and_names_the_rest(
    store: Store, page: Page, workspace: Path, tmp_path: Path
) -> None:
    page.thumb(page.show("My name is Bob?", "Yes, Bob.", user="bob"), up=True, user="bob")
    page.thumb(page.show("Hello?", "Hi."), up=True)
    inside = training_set(TrainingSetConfig(), workspace, store)
    outside = training_set(TrainingSetConfig(out=tmp_path / "set"), workspace, store)
    export_feedback(FeedbackExportConfig(tmp_path / "copy.jsonl"), workspace, store)
    with write_artifact(workspace, "model", "home", "ab" * 32, inputs={"preferences": inside.key}) as draft:
        (draft.path / "config.json").write_text("{}")
    with write_artifact(workspace, "evaluation", "gate", "cd" * 32, config={"pairs": str(inside.path)}) as judged:
        write_jsonl(judged.path / "items.jsonl", [{"prompt": "My name is Bob?"}])
    run = workspace / "runs" / "eval-gate-1"
    run.mkdir(parents=True)
    write_json(run / "run.json", {"config": {"pairs": str(inside.path)}})
    (run / "votes.json").write_text("My name is Bob?")
    done = erase_user(store, "bob", workspace)
    assert done.training_sets == (inside.key,)
    assert len(done.evaluations) == 2
    left = [path for path in [*workspace.rglob("*.json*"), *(tmp_path / "set").rglob("*")] if path.is_file()]
    assert not [path for path in left if b"Bob" in path.read_bytes()]
    assert outside.path.is_dir()
    assert any("home-abababab" in line for line in done.out_of_reach)
    assert str(tmp_path / "copy.jsonl") in done.out_of_reach
