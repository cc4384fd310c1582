"""The page's API over a scripted engine, through a real server."""

from __future__ import annotations

import json
from typing import Any
from unittest.mock import AsyncMock

from causerie.chat.improve import Improver
from causerie.feedback import get_exposure, signals_of
from tests.waiting import wait_for

from .conftest import Served


def events(text: str) -> list[tuple[str, Any]]:
    """The events of a stream, keep-alive comments left out."""
    found = []
    for block in text.split("\n\n"):
        fields = dict(line.split(": ", 1) for line in block.split("\n") if ": " in line and not line.startswith(":"))
        if "event" in fields:
            found.append((fields["event"], json.loads(fields["data"])))
    return found


def ask(served: Served, conversation: str, **fields: Any) -> list[tuple[str, Any]]:
    """One turn to its end."""
    body = {"conversation": conversation, "model": "demo", **fields}
    response = served.send("POST", "/api/chat", body)
    assert response.status_code == 200, response.text
    assert response.headers["content-type"].startswith("text/event-stream")
    return events(response.text)


def new_conversation(served: Served) -> str:
    return str(served.post("/api/conversations", {})["id"])


def tree(served: Served, conversation: str) -> list[dict[str, Any]]:
    return list(served.get(f"/api/conversations/{conversation}")["messages"])


def test_state_names_the_models_with_version_terms_and_card(served: Served) -> None:
    state = served.get("/api/state")
    (model,) = state["models"]
    assert (model["name"], model["version"], model["licence"]) == ("demo", "demo@2", "Apache-2.0")
    assert model["notices"] == ["Made for tests."]
    assert model["card"]["summary"] == "A small test model."
    french = served.client.get("/api/state", headers={"accept-language": "fr-CH, fr;q=0.9"}).json()
    assert (state["language"], french["language"]) == ("en", "fr")


def test_conversations_are_made_renamed_listed_and_deleted(served: Served) -> None:
    first, second = new_conversation(served), new_conversation(served)
    assert (
        served.send("PATCH", f"/api/conversations/{first}", {"title": "  Sea & bread "}).json()["title"]
        == "Sea & bread"
    )
    assert [row["id"] for row in served.get("/api/conversations")["conversations"]] == [second, first]
    assert served.send("DELETE", f"/api/conversations/{first}").status_code == 200
    assert [row["id"] for row in served.get("/api/conversations")["conversations"]] == [second]
    gone = served.send("GET", f"/api/conversations/{first}")
    assert (gone.status_code, gone.json()["error"]["code"]) == (404, "CAU-6102")


def test_an_answer_streams_and_is_recorded_with_ids_and_log_probs_before_done(served: Served) -> None:
    conversation = new_conversation(served)
    stream = ask(served, conversation, content="What colour is the sea?\nIn a word.")
    assert stream[0][0] == "start"
    assert stream[-1][0] == "done"
    text = "".join(data["text"] for name, data in stream if name == "delta")
    question, answer = tree(served, conversation)
    assert text == answer["content"] == "The sea is blue."
    assert answer["parent"] == question["id"] == stream[0][1]["question"]
    assert answer["exposure"]["version"] == "demo@2"
    exposure = get_exposure(served.store, answer["exposure"]["id"])
    assert exposure is not None
    assert len(exposure.token_ids) == len(exposure.log_probs) > 1
    assert exposure.version_key == "b2" * 32
    assert (exposure.chat_format, exposure.consent, exposure.finish) == ("chatml", True, "stop")
    assert isinstance(exposure.sampling["seed"], int)
    assert list(exposure.prompt) == [{"role": "user", "content": "What colour is the sea?\nIn a word."}]
    assert served.get("/api/conversations")["conversations"][0]["title"] == "What colour is the sea?"


def test_the_next_question_carries_the_path_not_the_other_branches(served: Served) -> None:
    conversation = new_conversation(served)
    ask(served, conversation, content="one")
    question, first = tree(served, conversation)
    served.script.answer = lambda _prompt, _seed: "La mer est bleue."
    ask(served, conversation, parent=question["id"])
    assert [message["content"] for message in tree(served, conversation)[1:]] == [
        "The sea is blue.",
        "La mer est bleue.",
    ]
    ask(served, conversation, content="two", parent=first["id"])
    assert "The sea is blue." in served.script.prompts[-1]
    assert "La mer" not in served.script.prompts[-1]


def test_two_drafts_are_blind_until_chosen_and_their_order_is_drawn_by_chance(served: Served) -> None:
    served.script.answer = lambda _prompt, seed: f"Answer {seed}"
    orders = set()
    for _ in range(12):
        conversation = new_conversation(served)
        stream = ask(served, conversation, content="Which?", drafts=2, other="demo@2")
        drafts = stream[0][1]["drafts"]
        orders.add(tuple(draft["position"] for draft in drafts))
        assert "demo" not in json.dumps([data for name, data in stream if name != "error"])
    assert orders == {(0, 1), (1, 0)}
    answers = tree(served, conversation)[1:]
    assert {answer["exposure"]["position"] for answer in answers} == {0, 1}
    assert len({answer["exposure"]["group"] for answer in answers}) == 1
    assert [answer["exposure"]["version"] for answer in answers] == [None, None]
    right = next(answer for answer in answers if answer["exposure"]["position"] == 1)
    sent = served.post(
        "/api/feedback", {"signal": {"kind": "choice", "id": "sig_1", "message": answers[0]["id"], "value": "right"}}
    )
    assert sent["new"] is True
    (signal,) = signals_of(served.store, right["exposure"]["id"])
    left = next(answer for answer in answers if answer["exposure"]["position"] == 0)
    assert signal.value == {"outcome": "chosen", "others": [left["exposure"]["id"]]}
    after = tree(served, conversation)[1:]
    assert [answer["exposure"]["version"] for answer in after] == ["demo@2", "demo@2"]
    assert [[said["value"] for said in answer["signals"]] for answer in after if answer["signals"]] == [["right"]]
    served.send("DELETE", "/api/feedback/sig_1")
    assert [answer["exposure"]["version"] for answer in tree(served, conversation)[1:]] == [None, None]


def test_a_signal_is_recorded_once_and_can_be_withdrawn(served: Served) -> None:
    conversation = new_conversation(served)
    ask(served, conversation, content="Hello")
    answer = tree(served, conversation)[1]
    thumb = {"kind": "thumb", "id": "sig_a", "message": answer["id"], "value": "down", "reasons": ["wrong"]}
    assert served.post("/api/feedback", {"signal": thumb})["new"] is True
    assert served.post("/api/feedback", {"signal": thumb})["new"] is False
    assert served.send("POST", "/api/feedback", {"signal": {**thumb, "value": "up"}}).status_code == 400
    assert served.get("/api/teach?model=demo")["counts"] == {"down": 1}
    assert served.send("DELETE", "/api/feedback/sig_a").json()["was_standing"] is True
    assert served.send("DELETE", "/api/feedback/sig_a").json()["was_standing"] is False
    assert served.send("DELETE", "/api/feedback/sig_b").status_code == 404
    stats = served.get("/api/teach?model=demo")
    assert (stats["counts"], stats["withdrawn"]) == ({}, 1)
    assert (stats["votes"], stats["needed"], stats["missing"], stats["to_start"]) == (0, 340, 340, 20)


def test_an_edit_is_what_the_conversation_goes_on_with(served: Served) -> None:
    conversation = new_conversation(served)
    ask(served, conversation, content="Hello")
    answer = tree(served, conversation)[1]
    edit = {"kind": "edit", "id": "sig_e", "message": answer["id"], "text": "Good day to you."}
    served.post("/api/feedback", {"signal": edit})
    assert tree(served, conversation)[1]["edited"] == "Good day to you."
    ask(served, conversation, content="And you?", parent=answer["id"])
    assert "Good day to you." in served.script.prompts[-1]
    assert "The sea is blue." not in served.script.prompts[-1]
    served.send("DELETE", "/api/feedback/sig_e")
    assert tree(served, conversation)[1]["edited"] is None


def test_without_leave_to_learn_the_answer_is_recorded_without_consent(served: Served) -> None:
    conversation = new_conversation(served)
    ask(served, conversation, content="Hello", learn=False)
    exposure = get_exposure(served.store, tree(served, conversation)[1]["exposure"]["id"])
    assert exposure is not None
    assert exposure.consent is False


def test_an_answer_goes_on_when_the_browser_leaves_and_can_be_followed_again(served: Served) -> None:
    served.script.pause = 0.02
    conversation = new_conversation(served)
    body = {"conversation": conversation, "model": "demo", "content": "Hello"}
    with served.client.stream("POST", "/api/chat", json=body) as response:
        first = next(response.iter_text())
    turn = events(first)[0][1]["turn"]
    assert served.get(f"/api/conversations/{conversation}")["turn"]["id"] == turn
    busy = served.send("POST", "/api/chat", body)
    assert (busy.status_code, busy.json()["error"]["code"]) == (409, "CAU-6105")
    replay = events(served.client.get(f"/api/chat/{turn}").text)
    assert "".join(data["text"] for name, data in replay if name == "delta") == "The sea is blue."
    later = events(served.client.get(f"/api/chat/{turn}?after=3").text)
    assert later == replay[3:]
    assert tree(served, conversation)[1]["content"] == "The sea is blue."
    assert served.get(f"/api/conversations/{conversation}")["turn"] is None


def test_stop_stops_the_engine_and_keeps_what_was_said(served: Served) -> None:
    served.script.pause = 0.05
    served.script.answer = lambda _prompt, _seed: "The sea is blue. " * 50
    conversation = new_conversation(served)
    with served.client.stream(
        "POST", "/api/chat", json={"conversation": conversation, "model": "demo", "content": "Go"}
    ) as response:
        seen = ""
        for piece in response.iter_text():
            seen += piece
            if "delta" in seen:
                break
        turn = events(seen)[0][1]["turn"]
        stopped = served.send("DELETE", f"/api/chat/{turn}")
    assert stopped.status_code == 200
    assert served.script.cancelled == 1
    answer = tree(served, conversation)[1]
    assert answer["exposure"]["finish"] == "cancelled"
    assert 0 < len(answer["content"]) < 200


def test_a_failing_engine_is_told_as_an_error_and_saves_nothing(served: Served) -> None:
    def broken(_prompt: str, _seed: int) -> str:
        raise RuntimeError("no memory")

    served.script.answer = broken
    conversation = new_conversation(served)
    stream = ask(served, conversation, content="Hello")
    assert [name for name, _ in stream] == ["start", "error", "done"]
    assert [message["role"] for message in tree(served, conversation)] == ["user"]


def test_a_model_may_say_nul_and_controls_without_harm(served: Served) -> None:
    served.script.answer = lambda _prompt, _seed: "a\0b\x1b\u2028c"
    conversation = new_conversation(served)
    stream = ask(served, conversation, content="Hello")
    assert stream[-1][0] == "done"
    assert tree(served, conversation)[1]["content"] == "a\ufffdb\x1b\u2028c"


BAD: list[tuple[str, str, Any]] = [
    ("POST", "/api/chat", {"conversation": "c", "model": "demo", "content": "a\0b"}),
    ("POST", "/api/chat", {"conversation": "c", "model": "demo", "content": ""}),
    ("POST", "/api/chat", {"conversation": "c", "model": "demo"}),
    ("POST", "/api/chat", {"conversation": "c", "model": "demo", "content": "x", "drafts": 3}),
    ("POST", "/api/chat", {"conversation": "c", "model": "demo", "content": "x", "drafts": "2"}),
    ("POST", "/api/chat", {"conversation": "c", "model": "demo", "content": "x", "other": "demo"}),
    ("POST", "/api/chat", {"conversation": "c", "model": "demo", "content": "x", "params": {"temperature": 9}}),
    ("POST", "/api/chat", {"conversation": "c", "model": "demo", "content": "x", "surprise": 1}),
    ("POST", "/api/conversations", {"title": "x" * 201}),
    ("POST", "/api/conversations", ["not", "an", "object"]),
    ("POST", "/api/feedback", {"signal": {"kind": "thumb", "id": "../x", "message": "m", "value": "up"}}),
    ("POST", "/api/feedback", {"signal": {"kind": "shout", "id": "x", "message": "m"}}),
    ("POST", "/api/rollback", {"version": "demo"}),
    ("GET", "/api/teach", None),
    ("GET", "/api/runs/x/events?after=-1", None),
]


def test_bad_input_is_refused_with_code_cause_and_place(served: Served) -> None:
    for method, path, body in BAD:
        response = served.send(method, path, body)
        assert response.status_code == 400, (path, body, response.text)
        error = response.json()["error"]
        assert error["code"] == "CAU-6101", (path, body)
        assert error["cause"], (path, body)
        assert error["where"], (path, body)


def test_what_does_not_exist_is_404_and_too_much_is_413(served: Served) -> None:
    conversation = new_conversation(served)
    assert (
        served.send("POST", "/api/chat", {"conversation": conversation, "model": "nobody", "content": "x"}).status_code
        == 404
    )
    assert (
        served.send("POST", "/api/chat", {"conversation": "conv_x", "model": "demo", "content": "x"}).status_code == 404
    )
    assert served.send("GET", "/api/chat/turn_x").status_code == 404
    assert served.send("GET", "/api/nothing").status_code == 404
    assert served.send("GET", "/api/runs/..%2F..%2Fetc/events").status_code == 404
    assert served.send("POST", "/api/rollback", {"version": "demo@99"}).status_code == 404
    large = served.client.post(
        "/api/conversations", content=b" " * 2_000_000, headers={"content-type": "application/json"}
    )
    assert (large.status_code, large.json()["error"]["code"]) == (413, "CAU-6104")


def test_other_pages_hosts_and_forms_are_refused(served: Served) -> None:
    own = served.url
    assert served.send("POST", "/api/conversations", {}, origin=own).status_code == 201
    for headers in (
        {"origin": "http://evil.example"},
        {"origin": "null"},
        {"sec-fetch-site": "cross-site"},
        {"sec-fetch-site": "same-site"},
        {"host": "evil.example:8000"},
    ):
        refused = served.send("POST", "/api/conversations", {}, **headers)
        assert (refused.status_code, refused.json()["error"]["code"]) == (403, "CAU-6103"), headers
    form = served.client.post("/api/conversations", content=b"{}", headers={"content-type": "text/plain"})
    assert form.status_code == 403
    for path in ("/api/state", "/", "/assets/app.js"):
        assert served.send("GET", path, host="evil.example").status_code == 403


def test_the_page_is_served_under_a_strict_policy(served: Served) -> None:
    page = served.client.get("/")
    assert page.status_code == 200
    policy = page.headers["content-security-policy"]
    assert policy.startswith("default-src 'self';")
    assert "unsafe" not in policy
    assert page.headers["x-content-type-options"] == "nosniff"
    assert "http" not in page.text.replace("http-equiv", "")
    assert served.client.get("/assets/app.js").headers["content-type"].startswith("text/javascript")


def wait_for_round(served: Served) -> dict[str, Any]:
    """The improvement's progress when it has ended."""
    wait_for(lambda: served.get("/api/improve")["status"] not in ("starting", "running"))
    progress: dict[str, Any] = served.get("/api/improve")
    return progress


def test_a_promoted_candidate_answers_at_once_and_rollback_goes_back(served: Served) -> None:
    assert served.get("/api/improve")["status"] == "idle"
    assert served.send("POST", "/api/improve", {"model": "demo"}).status_code == 202
    again = served.send("POST", "/api/improve", {"model": "demo"})
    assert (again.status_code, again.json()["error"]["code"]) == (409, "CAU-6105")
    progress = wait_for_round(served)
    assert progress["status"] == "done"
    assert progress["verdict"]["promoted"] is True
    assert [stage["name"] for stage in progress["stages"]] == ["train", "evaluate"]
    assert len(progress["curve"]) == 29
    assert progress["gate"][0]["metric"] == "margin_per_token"
    assert served.get("/api/state")["models"][0]["version"] == "demo@3"
    versions = served.get("/api/versions?model=demo")["versions"]
    assert [version["version"] for version in versions] == ["demo@3", "demo@2", "demo@1"]
    assert versions[0]["parents"] == ["demo@2"]
    assert versions[0]["votes"] == 2
    assert versions[0]["notices"] == ["Made for tests."]
    assert [source["kind"] for source in versions[0]["data"]] == ["preferences"]
    served.post("/api/rollback", {"version": "demo@2"})
    assert served.get("/api/state")["models"][0]["version"] == "demo@2"
    conversation = new_conversation(served)
    ask(served, conversation, content="Who answers?")
    assert tree(served, conversation)[1]["exposure"]["version"] == "demo@2"


def test_a_refused_candidate_changes_nothing_and_cannot_be_chosen(served: Served) -> None:
    (served.workspace / "improve-verdict").write_text("refused")
    served.post("/api/improve", {"model": "demo"})
    progress = wait_for_round(served)
    assert progress["verdict"]["promoted"] is False
    assert served.get("/api/state")["models"][0]["version"] == "demo@2"
    assert served.send("POST", "/api/rollback", {"version": "demo@3"}).json()["error"]["code"] == "CAU-5003"
    assert served.get("/api/improve?model=demo") == progress
    other = served.get("/api/improve?model=starter")
    assert (other["status"], other["model"], other["verdict"], other["gate"]) == ("idle", None, None, None)
    later = Improver(served.workspace, AsyncMock())  # as after a restart of the server
    assert later.progress("demo")["verdict"] == progress["verdict"]
    assert later.progress("starter")["status"] == "idle"


def test_a_failed_start_says_why(served: Served) -> None:
    (served.workspace / "improve-verdict").write_text("fails")
    served.post("/api/improve", {"model": "demo"})
    progress = wait_for_round(served)
    assert progress["status"] == "failed"
    assert progress["error"]["code"] == "CAU-5101"
    assert served.get("/api/improve?model=starter")["error"] is None
    assert "3 votes to learn from" in progress["log"]


def test_a_stopped_round_is_stopped_and_rollback_waits_for_it(served: Served) -> None:
    (served.workspace / "improve-verdict").write_text("waits")
    served.post("/api/improve", {"model": "demo"})
    wait_for(lambda: served.get("/api/improve")["share"] is not None)
    assert served.send("POST", "/api/rollback", {"version": "demo@1"}).status_code == 409
    elsewhere = served.get("/api/improve?model=starter")  # there is one round at a time, and it says whose
    assert (elsewhere["status"], elsewhere["model"]) == ("running", "demo")
    assert served.send("DELETE", "/api/improve").status_code == 200
    assert wait_for_round(served)["status"] == "stopped"
    kinds = {run["kind"]: run for run in served.get("/api/runs")["runs"]}
    assert kinds["improve"]["status"] == kinds["dpo"]["status"] == "stopped"
    assert len(kinds["dpo"]["curve"]) > 5
    told = served.get(f"/api/runs/{kinds['dpo']['id']}/events?after=2")
    assert told["events"][0] == {**told["events"][0], "step": 3, "loss": None}
    assert told["next"] == 2 + len(told["events"])


def test_the_openai_routes_are_beside_the_page(served: Served) -> None:
    body = {"model": "demo", "messages": [{"role": "user", "content": "Hello"}]}
    answer = served.post("/v1/chat/completions", body)
    assert answer["choices"][0]["message"]["content"] == "The sea is blue."
