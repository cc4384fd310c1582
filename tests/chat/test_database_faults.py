"""S11 in the chat room: while the database takes nothing, questions are refused in words and votes with 503; nothing is
told to be saved that is not, and all goes on when the database does."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from typing import Any

import httpx
import pytest
from sqlalchemy import event, func, select

from causerie.store import signals
from causerie.store import store as store_module
from tests.chat.conftest import Served
from tests.chat.test_api import ask, new_conversation, tree

UNAVAILABLE = {"CAU-1101", "CAU-1102", "CAU-1103", "CAU-1104", "CAU-1105", "CAU-1111"}


@pytest.fixture(autouse=True)
def _soon(monkeypatch: pytest.MonkeyPatch) -> None:
    """A locked database is given up soon."""
    monkeypatch.setattr(store_module, "BUSY_SECONDS", 0.2)


@contextmanager
def locked(served: Served) -> Iterator[None]:
    """Somebody else holds the database."""
    with closing(sqlite3.connect(served.workspace / "causerie.db")) as other:
        other.execute("BEGIN IMMEDIATE")
        yield
        other.rollback()


@contextmanager
def read_only(served: Served) -> Iterator[None]:
    """Every new connection can only read."""

    def spoil(connection: Any, _record: Any) -> None:
        connection.execute("PRAGMA query_only=ON")

    event.listen(served.store.engine, "connect", spoil)
    served.store.engine.dispose()
    yield
    event.remove(served.store.engine, "connect", spoil)
    served.store.engine.dispose()


FAULTS = {"locked": locked, "read-only": read_only}


@pytest.mark.parametrize("fault", FAULTS.values(), ids=FAULTS)
def test_votes_get_503_and_count_when_they_are_sent_again(fault: Callable[[Served], Any], served: Served) -> None:
    conversation = new_conversation(served)
    ask(served, conversation, content="Which sea?")
    answer = tree(served, conversation)[-1]
    vote = {"signal": {"kind": "thumb", "id": "sig_fault", "message": answer["id"], "value": "up"}}
    with fault(served):
        refused = served.send("POST", "/api/feedback", vote)
        check(refused)
        assert refused.json()["error"]["cause"]
        check(served.send("DELETE", "/api/feedback"))
        assert served.get(f"/api/conversations/{conversation}")["messages"]
        assert served.client.get("/health/live").status_code == 200
    assert served.store.read(select(func.count()).select_from(signals))[0][0] == 0
    assert served.post("/api/feedback", vote)["new"] is True
    assert served.post("/api/feedback", vote)["new"] is False
    assert served.store.read(select(func.count()).select_from(signals))[0][0] == 1


@pytest.mark.parametrize("fault", FAULTS.values(), ids=FAULTS)
def test_questions_that_cannot_be_kept_are_refused_and_leave_nothing(
    fault: Callable[[Served], Any], served: Served
) -> None:
    conversation = new_conversation(served)
    asked = {"conversation": conversation, "content": "Which sea?", "model": "demo"}
    with fault(served):
        check(served.send("POST", "/api/chat", asked))
        check(served.send("POST", "/api/conversations", {"title": "another"}))
        check(served.send("DELETE", f"/api/conversations/{conversation}"))
    assert tree(served, conversation) == []
    ask(served, conversation, content="Which sea?")
    assert len(tree(served, conversation)) == 2


def check(answer: httpx.Response) -> None:
    """503 with a code of the store, and when to come again."""
    assert answer.status_code == 503, answer.text
    assert answer.json()["error"]["code"] in UNAVAILABLE
    assert int(answer.headers["retry-after"]) >= 1
