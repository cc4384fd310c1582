"""Other people's files come in whole, once, and what is bad in them is counted with its place."""

from __future__ import annotations

import gzip
import json
import random
from pathlib import Path

import pytest
from sqlalchemy import func, select

from causerie.core import CauserieError, read_jsonl
from causerie.feedback import (
    FeedbackExportConfig,
    FeedbackImportConfig,
    TrainingSetConfig,
    erase_user,
    export_feedback,
    import_feedback,
    training_set,
)
from causerie.feedback.formats import BadRowError, Origin, parse_row
from causerie.feedback.imports import LINE_LIMIT
from causerie.store import Store, exposures, open_store, signals

from .conftest import Page

FILES = Path(__file__).parent / "files"


def counts(store: Store) -> tuple[int, int]:
    tables = (exposures, signals)
    found = [store.read(select(func.count()).select_from(table))[0][0] for table in tables]
    return found[0], found[1]


def test_every_trl_form_is_read(store: Store, workspace: Path) -> None:
    config = FeedbackImportConfig((FILES / "trl.jsonl",), licence="MIT", lang="en")
    result = import_feedback(config, workspace, store)
    assert result.bad_rows == []
    forms = {"label": 2, "pair": 2, "implicit-prompt": 1, "completion": 1, "messages": 1, "hh-rlhf": 1, "sharegpt": 1}
    assert dict(result.by_form) == forms
    artifact = training_set(TrainingSetConfig(held_out=0.0), workspace, store)
    pairs = {row["chosen"]: row for row in read_jsonl(artifact.file("pairs.jsonl"))}
    assert set(pairs) == {"Paris.", "Seven.", "Bonjour !", "4", "Blue", "Monday"}
    assert pairs["Bonjour !"]["prompt"][0] == {"role": "system", "content": "Answer in French."}
    assert pairs["Bonjour !"]["lang"] == "fr"
    assert [message["content"] for message in pairs["Blue"]["prompt"]] == [
        "Hi",
        "Hello, how can I help?",
        "Name a colour",
    ]
    assert pairs["Seven."]["source"] == "trl"
    demonstrations = {row["messages"][-1]["content"]: row for row in read_jsonl(artifact.file("sft.jsonl"))}
    assert set(demonstrations) == {"Hello!", "You are welcome."}
    assert demonstrations["You are welcome."]["license"] == "CC0-1.0"
    assert artifact.manifest.notices == ("feedback from trl: CC0-1.0", "feedback from trl: MIT")


def test_importing_again_adds_nothing(store: Store, workspace: Path) -> None:
    config = FeedbackImportConfig((FILES / "trl.jsonl",))
    import_feedback(config, workspace, store)
    before = counts(store)
    again = import_feedback(config, workspace, store)
    assert counts(store) == before
    assert (again.exposures_new, again.signals_new, again.duplicates) == (0, 0, 9)


def test_open_webui_ratings_bring_their_conversation(store: Store, workspace: Path) -> None:
    result = import_feedback(FeedbackImportConfig((FILES / "open-webui.json",)), workspace, store)
    assert (result.rows, result.signals_new, result.bad) == (3, 2, 1)
    assert "rating is None" in result.bad_rows[0].reason
    assert result.bad_rows[0].line == 3
    said = store.read(select(signals).order_by(signals.c.user))
    assert [(row.user, row.value, row.reasons, row.comment) for row in said] == [
        ("open-webui:u1", {"label": True}, ["accurate_information"], "nice"),
        ("open-webui:u2", {"label": False}, [], ""),
    ]
    artifact = training_set(TrainingSetConfig(held_out=0.0), workspace, store)
    (pair,) = read_jsonl(artifact.file("pairs.jsonl"))
    assert (pair["chosen"], pair["rejected"]) == ("In Norway.", "In Peru.")


@pytest.mark.parametrize(
    ("line", "reason"),
    [
        (b"{not json", "not JSON"),
        (b"[1, 2]", "object was expected"),
        (b"[" * 100_000, "not JSON"),
        (b'{"prompt": "\xff"}', "not UTF-8"),
        (b'{"a": 1}', "no known form"),
        (b'{"prompt": "x", "completion": "y", "label": "good"}', "label is 'good'"),
        (b'{"prompt": "x", "chosen": "", "rejected": "y"}', "chosen answer is empty"),
        (b'{"prompt": "x", "chosen": "y", "rejected": "y"}', "are equal"),
        (b'{"prompt": "x", "chosen": "y\\u0000", "rejected": "z"}', "NUL"),
        (b'{"prompt": "x", "chosen": "\\ud800", "rejected": "z"}', "surrogate"),
        (b'{"prompt": [{"role": "pope", "content": "x"}], "chosen": "y", "rejected": "z"}', "unknown role"),
        (b'{"prompt": [{"role": "user", "content": 3}], "chosen": "y", "rejected": "z"}', "without text"),
        (b'{"prompt": [{"role": "assistant", "content": "x"}], "chosen": "y", "rejected": "z"}', "does not end"),
        (b'{"prompt": [], "chosen": "y", "rejected": "z"}', "neither a text nor a list"),
        (b'{"chosen": "no turns", "rejected": "here"}', "share no beginning"),
        (b'{"chosen": "\\n\\nHuman: a\\n\\nAssistant: x", "rejected": "\\n\\nHuman: b\\n\\nAssistant: y"}', "part before"),
        (b'{"messages": [{"role": "user", "content": "x"}]}', "do not end with the assistant"),
        (b'{"causerie": "verdict"}', "record type"),
        (b'{"causerie": "signal", "exposure_id": "exp_1", "user": "u", "kind": "thumb", "value": {"label": true}}', "unknown answer"),
        (b'{"causerie": "signal", "exposure_id": "exp_1", "user": "u", "kind": "thumb", "value": 3}', "not an object"),
        (b'{"causerie": "exposure", "user": "u"}', "is missing"),
        (b'{"prompt": "' + b"x" * LINE_LIMIT + b'"}', "longer than"),
    ],
)  # fmt: skip
def test_a_bad_line_is_counted_with_its_place_and_the_rest_is_kept(
    store: Store, workspace: Path, tmp_path: Path, line: bytes, reason: str
) -> None:
    good = [b'{"prompt": "a", "completion": "b", "label": true}', b'{"prompt": "c", "completion": "d", "label": 0}']
    path = tmp_path / "rows.jsonl"
    path.write_bytes(b"\n".join([good[0], b"", line, good[1]]))
    result = import_feedback(FeedbackImportConfig((path,)), workspace, store)
    assert (result.rows, result.bad, result.signals_new) == (3, 1, 2)
    (bad,) = result.bad_rows
    assert (bad.file, bad.line) == (str(path), 3)
    assert reason in bad.reason


def test_files_that_cannot_be_read_are_named(store: Store, workspace: Path, tmp_path: Path) -> None:
    cut = tmp_path / "cut.jsonl.gz"
    cut.write_bytes(gzip.compress(random.Random(0).randbytes(5000))[:3000])
    (tmp_path / "broken.json").write_text("[1,")
    (tmp_path / "empty.jsonl").write_text("")
    (tmp_path / "bad.jsonl").write_text("x\ny\n")
    (tmp_path / "fake.jsonl.gz").write_text("not gzip")
    for name in ("absent.jsonl", "cut.jsonl.gz", "broken.json", "empty.jsonl", "bad.jsonl", "fake.jsonl.gz"):
        with pytest.raises(CauserieError) as caught:
            import_feedback(FeedbackImportConfig((tmp_path / name,)), workspace, store)
        assert caught.value.code == "CAU-1305"
        assert name in caught.value.where


def test_our_export_moves_everything_to_another_store(page: Page, workspace: Path, tmp_path: Path) -> None:
    first, second = page.show("Why?", "One."), page.show("Why?", "Two.", token_ids=(1, 2), log_probs=(-0.5, -0.25))
    page.choose(second, first)
    page.vote(first, "edit", {"text": "Better."}, user="bob", comment="é\u2028")
    page.thumb(page.show("Secret?", "No.", consent=False), True)
    out = tmp_path / "all.jsonl"
    done = export_feedback(FeedbackExportConfig(out), workspace, page.store)
    assert (done.rows, done.left_out) == (4, {"without_consent": 2})
    with open_store(tmp_path / "other") as other:
        result = import_feedback(FeedbackImportConfig((out,)), tmp_path, other)
        assert (result.exposures_new, result.signals_new, result.bad) == (2, 2, 0)
        for table in (exposures, signals):
            moved = {row.id: row for row in other.read(select(table))}
            here = {row.id: row for row in page.store.read(select(table)) if row.id in moved}
            assert here == moved
        one = training_set(TrainingSetConfig(), workspace, page.store)
        two = training_set(TrainingSetConfig(), tmp_path, other)
        assert one.key == two.key


def test_exports_for_other_trainers_can_be_read_back(page: Page, workspace: Path, tmp_path: Path) -> None:
    first, second = page.show("Why?", "One."), page.show("Why?", "Two.")
    page.choose(second, first)
    page.thumb(first, False)
    page.vote(first, "edit", {"text": "Better."})
    for form, expected in (("pairs", 2), ("labels", 1), ("messages", 1)):
        out = tmp_path / f"{form}.jsonl"
        assert export_feedback(FeedbackExportConfig(out, form=form), workspace, page.store).rows == expected  # type: ignore[arg-type]
        with open_store(tmp_path / form) as other:
            assert import_feedback(FeedbackImportConfig((out,)), tmp_path, other).signals_new == expected


def test_an_import_does_not_bring_back_an_erased_user(page: Page, workspace: Path, tmp_path: Path) -> None:
    page.thumb(page.show("Why?", "Because.", user="eve"), True, "eve")
    page.thumb(page.show("When?", "Now."), True)
    out = tmp_path / "all.jsonl"
    export_feedback(FeedbackExportConfig(out), workspace, page.store)
    with open_store(tmp_path / "other") as other:
        erase_user(other, "eve")
        result = import_feedback(FeedbackImportConfig((out,)), tmp_path, other)
        assert (result.erased, result.exposures_new, result.signals_new) == (2, 1, 1)


def test_rows_say_their_own_source_and_licence() -> None:
    row = {"prompt": "a", "completion": "b", "label": 1, "source": "books", "license": "CC0-1.0", "lang": "fr"}
    _, ((shown,), _) = parse_row(row, Origin("file", "MIT", "en"))
    assert (shown.source, shown.licence, shown.lang, shown.user) == ("books", "CC0-1.0", "fr", "import:books")
    with pytest.raises(BadRowError):
        parse_row({}, Origin("file", "MIT"))


def test_real_hh_rlhf_rows(store: Store, workspace: Path, pack: Path) -> None:
    """The first rows of each part of hh-rlhf: nearly all are read, prompts end with the user, answers differ."""
    files = tuple(sorted((pack / "preference" / "hh-rlhf").glob("*/train.jsonl.gz")))
    assert len(files) == 4
    result = import_feedback(FeedbackImportConfig(files, source="hh-rlhf", licence="MIT", limit=150), workspace, store)
    assert result.rows == 600
    assert result.bad <= 12
    assert result.signals_new + result.duplicates + result.bad == 600
    artifact = training_set(TrainingSetConfig(held_out=0.1), workspace, store)
    pairs = list(read_jsonl(artifact.file("pairs.jsonl"))) + list(read_jsonl(artifact.file("heldout-pairs.jsonl")))
    assert len(pairs) == result.signals_new - artifact.manifest.metrics["counts"].get("contradictory_pairs", 0)
    for pair in pairs:
        roles = [message["role"] for message in pair["prompt"]]
        assert roles == ["user", "assistant"] * (len(roles) // 2) + ["user"]
        assert pair["chosen"] != pair["rejected"]
        assert "\n\nHuman:" not in json.dumps(pair["prompt"])


def test_real_oasst_and_sharegpt_rows(store: Store, workspace: Path, pack: Path, tmp_path: Path) -> None:
    """French OASST conversations as `messages` rows, and the ShareGPT pairs of the pack."""
    rows = []
    with open(pack / "sft" / "oasst_fr_1k.jsonl", encoding="utf-8", newline="\n") as file:
        for line in [next(file) for _ in range(50)]:
            turns = json.loads(line)["conversation"]
            roles = {"UTILISATEUR": "user", "ASSISTANT": "assistant"}
            rows.append({"messages": [{"role": roles[turn["role"]], "content": turn["content"]} for turn in turns]})
    path = tmp_path / "oasst.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    config = FeedbackImportConfig((path, pack / "preference" / "dpo_en_demo.json"), limit=50, licence="Apache-2.0")
    result = import_feedback(config, workspace, store)
    assert result.bad == 0
    assert dict(result.by_form) == {"messages": 50, "sharegpt": 50}
