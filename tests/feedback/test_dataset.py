"""From votes to training rows: the mapping, what is left out, the split, and that it is all repeatable."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from causerie.core import Artifact, CauserieError, open_artifact, read_jsonl
from causerie.feedback import TrainingSetConfig, is_held_out, training_set, withdraw_signal

from .conftest import Page

ALL = TrainingSetConfig(held_out=0.0)


def rows(artifact: Artifact, name: str) -> list[dict[str, Any]]:
    return list(read_jsonl(artifact.file(f"{name}.jsonl")))


def made(page: Page, workspace: Path, config: TrainingSetConfig = ALL) -> Artifact:
    return training_set(config, workspace, page.store)


def test_thumbs_become_labels_and_where_they_differ_a_pair(page: Page, workspace: Path) -> None:
    good, bad, lone = page.show("Why?", "Because."), page.show("Why?", "No."), page.show("When?", "Now.")
    votes = [page.thumb(good, True), page.thumb(bad, False), page.thumb(lone, True)]
    artifact = made(page, workspace)
    labels = {row["completion"]: row["label"] for row in rows(artifact, "unpaired")}
    assert labels == {"Because.": True, "No.": False, "Now.": True}
    (pair,) = rows(artifact, "pairs")
    assert (pair["chosen"], pair["rejected"], pair["weight"]) == ("Because.", "No.", 1.0)
    assert pair["prompt"] == [{"role": "user", "content": "Why?"}]
    assert pair["prompt_key"] == good.prompt_key
    assert artifact.manifest.config["signals"] == sorted(vote.id for vote in votes)
    assert artifact.manifest.metrics["counts"]["pairs_from_thumbs"] == 1


def test_choices_become_pairs_and_ties_are_counted(page: Page, workspace: Path) -> None:
    first, second, third = (page.show("Why?", text) for text in ("One.", "Two.", "Three."))
    vote = page.choose(second, first, third)
    tie = page.choose(first, third, outcome="tie")
    page.choose(first, second, user="bob", outcome="neither")
    artifact = made(page, workspace)
    assert {(row["chosen"], row["rejected"]) for row in rows(artifact, "pairs")} == {
        ("Two.", "One."),
        ("Two.", "Three."),
    }
    assert artifact.manifest.metrics["counts"]["tie_choices"] == 1
    assert artifact.manifest.metrics["counts"]["neither_choices"] == 1
    assert artifact.manifest.config["signals"] == [vote.id]
    assert tie.id not in artifact.manifest.config["signals"]


def test_the_majority_decides_and_an_even_vote_makes_no_pair(page: Page, workspace: Path) -> None:
    first, second, third = (page.show("Why?", text) for text in ("One.", "Two.", "Three."))
    for user in ("u1", "u2", "u3"):
        page.choose(first, second, user=user)
    page.choose(second, first, user="u4")
    page.choose(first, third, user="u1")
    page.choose(third, first, user="u2")
    artifact = made(page, workspace)
    (pair,) = rows(artifact, "pairs")
    assert (pair["chosen"], pair["rejected"], pair["weight"]) == ("One.", "Two.", 0.5)
    assert artifact.manifest.metrics["counts"]["contradictory_pairs"] == 1


def test_a_kept_answer_beats_the_discarded_one_weakly(page: Page, workspace: Path) -> None:
    old, new = page.show("Why?", "Old."), page.show("Why?", "New.")
    page.vote(new, "regenerate", {"discarded": [old.id]})
    (pair,) = rows(made(page, workspace), "pairs")
    assert (pair["chosen"], pair["rejected"], pair["weight"]) == ("New.", "Old.", 0.5)


def test_an_edit_beats_its_original_and_is_a_demonstration(page: Page, workspace: Path) -> None:
    shown, same = page.show("Why?", "Becaus.", lang="en"), page.show("When?", "Now.")
    page.vote(shown, "edit", {"text": "Because."})
    page.vote(same, "edit", {"text": "Now. "})
    artifact = made(page, workspace)
    (pair,) = rows(artifact, "pairs")
    assert (pair["chosen"], pair["rejected"], pair["lang"]) == ("Because.", "Becaus.", "en")
    (demonstration,) = rows(artifact, "sft")
    assert demonstration["messages"] == [*shown.prompt, {"role": "assistant", "content": "Because."}]
    assert artifact.manifest.metrics["counts"]["unchanged_edits"] == 1


def test_what_may_not_be_used_is_left_out_and_counted(page: Page, workspace: Path) -> None:
    kept, private = page.show("Why?", "Because."), page.show("Why?", "No.", consent=False)
    used = page.thumb(kept, True)
    page.thumb(private, False)
    page.choose(kept, private)
    withdraw_signal(page.store, page.thumb(page.show("When?", "Now."), True).id)
    artifact = made(page, workspace)
    assert artifact.manifest.config["signals"] == [used.id]
    assert artifact.manifest.metrics["left_out"] == {"without_consent": 2, "withdrawn": 1}


def test_the_last_word_counts(page: Page, workspace: Path) -> None:
    shown = page.show("Why?", "Because.")
    page.thumb(shown, True)
    last = page.thumb(shown, False)
    artifact = made(page, workspace)
    assert [row["label"] for row in rows(artifact, "unpaired")] == [False]
    assert artifact.manifest.config["signals"] == [last.id]
    assert artifact.manifest.metrics["left_out"] == {"superseded": 1}


def test_a_users_votes_are_capped_to_the_newest(page: Page, workspace: Path) -> None:
    loud = [page.thumb(page.show(f"Question {number}?", "Yes."), True, "eve") for number in range(10)]
    quiet = page.thumb(page.show("Why?", "Because."), True, "bob")
    artifact = made(page, workspace, TrainingSetConfig(held_out=0.0, max_per_user=3))
    assert artifact.manifest.config["signals"] == sorted([quiet.id, *(vote.id for vote in loud[-3:])])
    assert artifact.manifest.metrics["left_out"] == {"over_user_cap": 7}


def test_only_the_wanted_sources_are_used(page: Page, workspace: Path) -> None:
    page.thumb(page.show("Why?", "Because."), True)
    page.thumb(page.show("When?", "Now.", source="survey"), True)
    artifact = made(page, workspace, TrainingSetConfig(held_out=0.0, sources=("survey",)))
    assert [row["source"] for row in rows(artifact, "unpaired")] == ["survey"]
    assert artifact.manifest.metrics["left_out"] == {"other_source": 1}


def test_no_conversation_is_on_both_sides(page: Page, workspace: Path) -> None:
    for number in range(60):
        question = f"Question {number}?"
        page.thumb(page.show(question, "Yes."), True)
        later = (
            {"role": "user", "content": question},
            {"role": "assistant", "content": "Yes."},
            {"role": "user", "content": "Why?"},
        )
        page.thumb(_turn(page, later), False)
    artifact = made(page, workspace, TrainingSetConfig(held_out=0.25, max_per_user=0))
    train = {row["prompt"][0]["content"] for row in rows(artifact, "unpaired")}
    held_out = {row["prompt"][0]["content"] for row in rows(artifact, "heldout-unpaired")}
    assert not train & held_out
    assert len(train | held_out) == 60
    assert 5 <= len(held_out) <= 25  # 15 expected, three standard deviations are 10
    again = {f"Question {number}?" for number in range(60) if is_held_out(_ask(number), 0.25)}
    assert again == held_out


def _ask(number: int) -> list[dict[str, str]]:
    return [{"role": "user", "content": f"Question {number}?"}]


def _turn(page: Page, prompt: tuple[dict[str, str], ...]) -> Any:
    from causerie.feedback import Exposure, record_exposure

    shown = Exposure(user="ada", model="home", prompt=prompt, text="So.", consent=True, created=page.tick())
    record_exposure(page.store, shown)
    return shown


def test_the_same_votes_give_the_same_artifact(page: Page, workspace: Path, tmp_path: Path) -> None:
    for number in range(10):
        page.thumb(page.show(f"Question {number}?", "Yes."), number % 2 == 0)
    first = made(page, workspace)
    before = first.path.stat().st_mtime_ns
    again = made(page, workspace)
    assert (again.path, again.path.stat().st_mtime_ns) == (first.path, before)
    apart = made(page, workspace, TrainingSetConfig(held_out=0.0, out=tmp_path / "elsewhere"))
    assert apart.key == first.key
    assert [entry.sha256 for entry in apart.manifest.files] == [entry.sha256 for entry in first.manifest.files]
    assert made(page, workspace, TrainingSetConfig(held_out=0.0, out=tmp_path / "elsewhere")).key == first.key
    page.thumb(page.show("Another?", "Yes."), True)
    assert made(page, workspace).key != first.key
    open_artifact(first.path, verify="digest")


def test_without_usable_votes_it_says_why(page: Page, workspace: Path) -> None:
    with pytest.raises(CauserieError) as caught:
        made(page, workspace)
    assert caught.value.code == "CAU-1306"
    assert "nothing was recorded" in caught.value.cause
    page.thumb(page.show("Why?", "Because.", consent=False), True)
    with pytest.raises(CauserieError) as caught:
        made(page, workspace)
    assert "without_consent 1" in caught.value.cause
