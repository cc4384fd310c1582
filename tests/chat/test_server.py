"""What `causerie serve` serves, and what is saved when it ends."""

from __future__ import annotations

import sys
import time
from pathlib import Path

import httpx
import pytest
from sqlalchemy import select

from causerie.chat import ServeConfig
from causerie.chat.server import _served_name, models_to_serve
from causerie.core import CauserieError
from causerie.hub import register
from causerie.store import exposures, messages, open_store
from causerie.text import Tokenizer
from tests.waiting import PATIENCE

from .conftest import IMPROVE, Script, make_model, start_server


def test_without_names_every_promoted_model_is_served(workspace: Path, tokenizer: Tokenizer) -> None:
    with open_store(workspace) as store:
        with pytest.raises(CauserieError) as caught:
            models_to_serve(ServeConfig(), workspace, store)
        assert caught.value.code == "CAU-6111"
        register(store, workspace, "demo", make_model(workspace, tokenizer, "a1"), status="promoted")
        register(store, workspace, "demo", make_model(workspace, tokenizer, "b2"), status="promoted")
        assert [model.name for model in models_to_serve(ServeConfig(), workspace, store)] == ["demo@2"]
        both = models_to_serve(ServeConfig(models=("demo", "demo@1")), workspace, store)
        assert [_served_name(model, both) for model in both] == ["demo", "demo@1"]


def test_an_answer_under_way_is_saved_when_the_server_ends(workspace: Path, tokenizer: Tokenizer) -> None:
    script = Script(answer=lambda _prompt, _seed: "The sea is blue. " * 100, pause=0.02)
    with open_store(workspace) as store:
        register(store, workspace, "demo", make_model(workspace, tokenizer, "a1"), status="promoted")
        server, thread = start_server(workspace, store, script, (sys.executable, str(IMPROVE)))
        with httpx.Client(base_url=server.url) as client:
            conversation = client.post("/api/conversations", json={}).json()["id"]
            body = {"conversation": conversation, "model": "demo", "content": "Go on"}
            with client.stream("POST", "/api/chat", json=body) as response:
                for piece in response.iter_text():
                    if "event: delta" in piece:
                        break
            time.sleep(0.1)
        server.stop()
        thread.join(PATIENCE)
        (answer,) = store.read(select(messages).where(messages.c.role == "assistant"))
        (exposure,) = store.read(select(exposures))
    assert answer.content.startswith("The sea")
    assert (exposure.finish, exposure.text) == ("cancelled", answer.content)
