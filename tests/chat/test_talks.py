"""Conversations at length: branches, continuing, files, search, folders, export, what is learnt from asking again."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import select

from causerie.chat.citations import annotations_in
from causerie.chat.converting import convert
from causerie.chat.reading import FILE_BYTES, read_file
from causerie.chat.search import passage, words_of
from causerie.chat.series import run_in_full, thinned
from causerie.core import CauserieError, open_run
from causerie.feedback import get_exposure
from causerie.store import signals

from .conftest import Served
from .documents import a_pdf, office
from .test_api import ask, new_conversation, tree

BINARY = {"content-type": "application/octet-stream"}


def read(served: Served, name: str, content: bytes) -> Any:
    return served.client.post(f"/api/files?name={name}", content=content, headers=BINARY)


def test_an_edited_question_is_a_branch_and_keeps_its_files(served: Served) -> None:
    conversation = new_conversation(served)
    ask(served, conversation, content="One", attachments=[{"name": "sea.txt", "text": "Salt water."}])
    first = tree(served, conversation)[0]
    ask(served, conversation, content="Two", files_of=first["id"])
    roots = [message for message in tree(served, conversation) if message["parent"] is None]
    assert [(root["content"], root["files"]) for root in roots] == [
        ("One", [{"name": "sea.txt", "size": 11}]),
        ("Two", [{"name": "sea.txt", "size": 11}]),
    ]
    assert "[1] sea.txt\nSalt water.\n\nTwo" in served.script.prompts[-1]
    assert "One" not in served.script.prompts[-1]


def test_a_cut_answer_goes_on_from_its_own_tokens(served: Served) -> None:
    conversation = new_conversation(served)
    whole = served.script
    ids_seen: list[str] = whole.prompts
    ask(served, conversation, content="Which?", params={"max_tokens": 3})
    cut = tree(served, conversation)[1]
    assert cut["exposure"]["finish"] == "length"
    whole.answer = lambda _prompt, _seed: " and so on."
    ask(served, conversation, continues=cut["id"])
    assert ids_seen[-1].endswith(cut["content"])
    longer = tree(served, conversation)[2]
    assert longer["content"] == cut["content"] + " and so on."
    assert longer["parent"] == cut["parent"]
    before, after = (get_exposure(served.store, one["exposure"]["id"]) for one in (cut, longer))
    assert before is not None
    assert after is not None
    assert after.token_ids[: len(before.token_ids)] == before.token_ids
    assert len(after.token_ids) == len(after.log_probs) > len(before.token_ids)
    refused = served.send(
        "POST", "/api/chat", {"conversation": conversation, "model": "demo", "continues": longer["id"]}
    )
    assert refused.json()["error"]["code"] == "CAU-6101"
    other = served.send(
        "POST", "/api/chat", {"conversation": conversation, "model": "demo", "continues": cut["id"], "content": "x"}
    )
    assert other.status_code == 400


def test_the_system_prompt_and_a_seed_reach_the_engine_and_settings_are_kept(served: Served) -> None:
    served.script.answer = lambda _prompt, seed: f"seed {seed}"
    conversation = new_conversation(served)
    settings = {"system": "Speak like a sailor.", "params": {"temperature": 0.1, "seed": 41}}
    served.send("PATCH", f"/api/conversations/{conversation}", {"settings": settings})
    kept = served.get(f"/api/conversations/{conversation}")["conversation"]["settings"]
    assert (kept["system"], kept["params"]["temperature"]) == ("Speak like a sailor.", 0.1)
    ask(served, conversation, content="Ahoy", system=kept["system"], params=kept["params"])
    assert "Speak like a sailor." in served.script.prompts[-1]
    assert tree(served, conversation)[1]["content"] == "seed 41"
    ask(served, conversation, content="Twice", params=kept["params"], drafts=2)
    assert {message["content"] for message in tree(served, conversation)[3:]} == {"seed 41", "seed 42"}


def test_going_on_after_asking_again_is_a_signal_that_can_be_withdrawn(served: Served) -> None:
    conversation = new_conversation(served)
    ask(served, conversation, content="Hello")
    question, first = tree(served, conversation)
    ask(served, conversation, parent=question["id"])
    second = tree(served, conversation)[2]
    assert served.get("/api/teach?model=demo")["counts"] == {}
    ask(served, conversation, content="Go on", parent=second["id"])
    assert served.get("/api/teach?model=demo")["counts"] == {"regenerate": 1}
    (row,) = served.store.read(select(signals))
    assert row.exposure_id == second["exposure"]["id"]
    assert row.value == {"discarded": [first["exposure"]["id"]]}
    assert served.send("DELETE", "/api/feedback").json() == {"withdrawn": 1}
    assert served.send("DELETE", "/api/feedback").json() == {"withdrawn": 0}
    assert served.get("/api/teach?model=demo")["counts"] == {}


def test_search_folds_accents_reads_messages_and_forgets_the_deleted(served: Served) -> None:
    served.script.answer = lambda _prompt, _seed: "Un éléphant de MER dort sur le sable."
    conversation = new_conversation(served)
    ask(served, conversation, content="Quel animal ?")
    other = served.post("/api/conversations", {"title": "Élevage"})["id"]
    for words in ("elephant", "ÉLÉPHANT mer", "sabl", "animal"):
        (hit,) = served.get(f"/api/search?q={words}")["found"]
        assert hit["id"] == conversation, words
    assert "éléphant" in served.get("/api/search?q=elephant")["found"][0]["passage"]
    assert [hit["id"] for hit in served.get("/api/search?q=elevage")["found"]] == [other]
    for words in ('"', "mer AND OR (", "NEAR(", "*", "zebra", ""):
        assert served.client.get("/api/search", params={"q": words}).status_code == 200, words
    assert served.get("/api/search?q=zebra")["found"] == []
    served.send("DELETE", f"/api/conversations/{conversation}")
    assert served.get("/api/search?q=elephant")["found"] == []
    assert served.send("POST", f"/api/conversations/{conversation}/restore").status_code == 200
    assert len(served.get("/api/search?q=elephant")["found"]) == 1


def test_the_passage_is_cut_around_what_was_found() -> None:
    found = passage("word " * 60 + "Éléphant " + "tail " * 60, ["elephant"])
    assert "Éléphant" in found
    assert found.startswith("…")
    assert found.endswith("…")
    assert len(found) < 100
    assert words_of('a "b" c*') == ["a", "b", "c"]


def test_pins_folders_and_exports(served: Served) -> None:
    conversation = new_conversation(served)
    ask(served, conversation, content="What colour?", attachments=[{"name": "sea.txt", "text": "Salt."}])
    path = f"/api/conversations/{conversation}"
    assert served.send("PATCH", path, {"pinned": True, "folder": "Sea"}).json()["pinned"] is True
    changed = served.send("PATCH", path, {"folder": ""}).json()
    assert (changed["pinned"], changed["folder"], changed["title"]) == (True, None, "What colour?")
    assert served.send("PATCH", path, {"title": ""}).status_code == 400
    markdown = served.client.get(f"{path}/export?format=md&language=fr")
    assert "attachment" in markdown.headers["content-disposition"]
    for part in ("# What colour?", "## Vous", "- sea.txt", "## Réponse (demo@2)", "The sea is blue."):
        assert part in markdown.text, part
    whole = served.client.get(f"{path}/export?format=json").json()
    assert [message["role"] for message in whole["messages"]] == ["user", "assistant"]
    assert served.client.get(f"{path}/export?format=exe").status_code == 400
    assert served.client.get(f"{path}/export?leaf=msg_x").status_code == 400


@pytest.mark.parametrize("kind", ["docx", "pptx", "xlsx"])
def test_office_files_are_read(kind: str) -> None:
    found = convert(kind, office(kind), 1000)
    assert "The Moon pulls." in str(found["text"])
    assert found["cut"] is False
    if kind == "docx":
        assert str(found["text"]).startswith("# Tides")
        assert "8.2 m" in str(found["text"])
    assert convert(kind, office(kind), 5) == {"text": str(found["text"])[:5], "cut": True}
    assert "error" in convert(kind, b"PK\x03\x04 nothing", 1000)


def test_a_pdf_is_read_page_by_page() -> None:
    assert convert("pdf", a_pdf("The Moon pulls."), 1000)["text"] == "[page 1]\nThe Moon pulls."


def test_files_are_read_in_another_process_and_bad_ones_refused(served: Served) -> None:
    got = read(served, "notes.md", "# Été\nmarée".encode())
    assert got.json() == {"name": "notes.md", "text": "# Été\nmarée", "cut": False}
    for name, content, status in (
        ("x.exe", b"MZ", 422), ("x.txt", b"\0\1\2", 422), ("x.pdf", b"%PDF-1.4 broken", 422), ("x.docx", b"PK", 422),
        ("x.txt", b"   ", 422), ("", b"x", 400), ("x.txt", b"x" * (FILE_BYTES + 1), 413),
    ):  # fmt: skip
        assert read(served, name, content).status_code == status, (name, content[:8])
    assert len(read(served, "long.txt", b"y" * 300_000).json()["text"]) == 100_000


def test_a_reader_that_takes_too_long_is_killed() -> None:
    import asyncio

    with pytest.raises(CauserieError) as caught:
        asyncio.run(read_file("x.txt", b"hello", seconds=0.001))
    assert caught.value.code == "CAU-6115"


def test_citations_name_files_outside_code_and_links() -> None:
    files = [{"name": "sea.txt"}, {"name": "sky.txt", "text": "The sky is salt."}]
    found = annotations_in("Salt [2], `a[1]` and [1](http://x) [3]\n```\nb[1]\n```\n[1]", files)
    assert [(one["number"], one["filename"]) for one in found] == [(2, "sky.txt"), (1, "sea.txt")]
    assert [one.get("quote") for one in found] == ["The sky is salt.", None]
    assert "Salt [2], `a[1]` and [1](http://x) [3]\n```\nb[1]\n```\n[1]"[found[1]["index"] :] == "[1]"
    assert annotations_in("[1]", []) == []


def test_a_run_in_full_has_series_samples_and_the_prediction(workspace: Path) -> None:
    with open_run(workspace, "pretrain", "small", "a" * 64, {}) as run:
        for step in range(1500):
            run.log("step", step=step, loss=3 - step / 1000, tokens_per_second=100.0, seconds=step, lr=float("nan"))
        run.log("sample", step=7, text="The sea")
        run.result["samples"] = ["At the end"]
    (workspace / "predictions").mkdir()
    said = {"loss": 1.5, "interval": [1.4, 1.6], "created": "2026-11-01"}
    (workspace / "predictions" / "small.json").write_text(json.dumps(said))
    (workspace / "predictions" / "a-damaged.json").write_text("{")
    found = run_in_full(workspace, run.id)
    assert [one["name"] for one in found["series"]] == ["loss", "tokens_per_second"]
    points = found["series"][0]["points"]
    assert (len(points), points[0], points[-1]) == (600, [0.0, 3.0], [1499.0, 3 - 1.499])
    assert found["samples"] == [{"step": 7, "text": "The sea"}, {"step": None, "text": "At the end"}]
    assert found["prediction"] == {**said, "file": "small.json", "score": None}
    assert thinned([[1, 2.0], [1, 3.0], [0, 1.0]]) == [[0, 1.0], [1, 3.0]]
    with pytest.raises(CauserieError):
        run_in_full(workspace, "../small")
