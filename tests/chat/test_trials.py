"""A canary on a served page: some conversations go to the candidate, votes decide, and the name changes hands."""

from __future__ import annotations

import time
from typing import Any

import pytest
from sqlalchemy import select

from causerie.hub import get_version, register
from causerie.loop import CanaryConfig, running_canary, start_canary
from causerie.store import exposures
from causerie.text import Tokenizer
from tests.chat.conftest import Served, make_model
from tests.waiting import wait_for as eventually

SETTINGS = CanaryConfig(share=0.5, min_duels=6)


@pytest.fixture
def trial(served: Served, tokenizer: Tokenizer) -> str:
    """demo@3 on trial against demo@2; every answer of a conversation says another word, so that choices differ."""
    made = make_model(served.workspace, tokenizer, "c3", {"base": "b2" * 32})
    register(served.store, served.workspace, "demo", made, parents=["demo@2"])
    served.script.answer = lambda prompt, seed: f"Bread costs ${seed}."
    canary = start_canary(served.store, "demo@3", SETTINGS)
    ask(served)
    eventually(lambda: "demo@3" in [row["id"] for row in served.get("/v1/models")["data"]])
    return canary.id


def ask(served: Served, drafts: int = 1) -> list[Any]:
    """Ask in a new conversation; the exposures in the order on the screen."""
    conversation = served.post("/api/conversations", {})["id"]
    body = {"conversation": conversation, "content": "What does bread cost?", "model": "demo", "drafts": drafts}
    assert served.send("POST", "/api/chat", body).status_code == 200
    query = select(exposures).where(exposures.c.conversation == conversation).order_by(exposures.c.position)
    return served.store.read(query)


def test_conversations_are_shared_out_and_keep_their_version(served: Served, trial: str) -> None:
    canary = running_canary(served.store, "demo")
    assert canary is not None
    seen = set()
    for number in range(200):  # conversations are shared out by the digests of their random names
        (shown,) = ask(served)
        assert shown.version == (3 if canary.takes(shown.conversation) else 2)
        seen.add(shown.version)
        if number >= 12 and seen == {2, 3}:
            break
    assert seen == {2, 3}


def test_the_page_does_not_offer_the_candidate_and_shows_how_it_stands(served: Served, trial: str) -> None:
    assert [model["name"] for model in served.get("/api/state")["models"]] == ["demo"]
    newest = served.get("/api/versions?model=demo")["versions"][0]
    assert newest["version"] == "demo@3"
    assert newest["canary"]["status"] == "running"
    assert newest["canary"]["share"] == 0.5


def compare(served: Served, winner: int) -> None:
    shown = ask(served, drafts=2)
    if {row.version for row in shown} != {2, 3}:
        return
    side = "left" if shown[0].version == winner else "right"
    signal = {"kind": "choice", "id": f"vote{time.monotonic_ns()}", "message": shown[0].message, "value": side}
    served.post("/api/feedback", {"signal": signal})


@pytest.mark.parametrize(("winner", "serving", "status"), [(3, "demo@3", "promoted"), (2, "demo@2", "refused")])
def test_votes_decide_and_the_engines_follow(
    served: Served, trial: str, winner: int, serving: str, status: str
) -> None:
    for _ in range(400):
        compare(served, winner)
        if running_canary(served.store, "demo") is None:
            break
    eventually(lambda: running_canary(served.store, "demo") is None)
    assert get_version(served.store, "demo").ref == serving
    assert get_version(served.store, "demo@3").status == status
    eventually(lambda: [row["id"] for row in served.get("/v1/models")["data"]] == ["demo"])
    assert ask(served)[0].version == int(serving[-1])
    assert [model["version"] for model in served.get("/api/state")["models"]] == [serving]


def test_answers_on_trial_hide_their_version_until_they_are_judged(served: Served, trial: str) -> None:
    before = served.store.read(select(exposures))
    (row,) = ask(served)
    path = f"/api/conversations/{row.conversation}"
    answer = served.get(path)["messages"][1]
    assert answer["exposure"]["version"] is None
    assert "demo@" not in served.send("GET", path + "/export?format=md").text
    signal = {"kind": "thumb", "id": "sig_blind", "message": answer["id"], "value": "down"}
    served.post("/api/feedback", {"signal": signal})
    assert served.get(path)["messages"][1]["exposure"]["version"] == f"demo@{row.version}"
    served.send("DELETE", "/api/feedback/sig_blind")
    assert served.get(path)["messages"][1]["exposure"]["version"] is None, "taken back, it is blind again"
    assert len(before) >= 1


def test_a_trial_is_ended_by_hand(served: Served, trial: str) -> None:
    assert served.send("DELETE", "/api/trials/demo@2").status_code == 404, "the incumbent is not on trial"
    assert served.send("DELETE", "/api/trials/demo@3").status_code == 200
    assert running_canary(served.store, "demo") is None
    assert "demo@3" not in [row["id"] for row in served.get("/v1/models")["data"]]
    (shown,) = ask(served)
    assert shown.version == 2
    assert served.get(f"/api/conversations/{shown.conversation}")["messages"][1]["exposure"]["version"] == "demo@2"
    assert served.send("DELETE", "/api/trials/demo@3").status_code == 404
    newest = served.get("/api/versions?model=demo")["versions"][0]["canary"]
    assert (newest["status"], newest["share"], newest["most_votes"]) == ("stopped", SETTINGS.share, SETTINGS.max_duels)
