"""Permissions of fine-tuned models: who sees them, who may not give them, what a restart leaves."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from pathlib import Path

import httpx
import pytest
from starlette.applications import Starlette

from causerie.serve import EnginePool, create_app, create_key
from causerie.serve.models import FINE_TUNED
from causerie.serve.objects import Objects
from causerie.store import Store, open_store
from causerie.text import Tokenizer
from tests.serve.conftest import Script, ScriptedEngine, Start, serving

NAME = "ft-petit-mine"
PERMISSIONS = f"/v1/fine_tuning/checkpoints/{NAME}/permissions"


@pytest.fixture
def apart(tmp_path: Path) -> Iterator[Store]:
    """A store of this test's own."""
    with open_store(tmp_path) as store:
        yield store


@pytest.fixture
def begin(apart: Store, tmp_path: Path, folder: Path, script: Script, tokenizer: Tokenizer, start: Start):
    """Start a server with a fine-tuned model of the project `mine`; each call is a restart on the same store."""
    body = {
        "id": NAME,
        "object": FINE_TUNED,
        "status": "served",
        "job": "ftjob_x",
        "artifact": str(folder),
        "number": 1,
    }
    asyncio.run(Objects(apart).add(FINE_TUNED, "mine", body))
    keys = {name: create_key(apart, name, project=name, scopes=("*",))[1] for name in ("mine", "theirs", "third")}

    def go() -> dict[str, httpx.Client]:
        pool = EnginePool(lambda place: ScriptedEngine(place, script, tokenizer))

        @asynccontextmanager
        async def life(_app: Starlette) -> AsyncIterator[None]:
            await pool.load(NAME, folder, 1, owner="mine")
            yield

        app = create_app(pool, store=apart, workspace=tmp_path, lifespans=[serving(pool, folder), life])
        url = start(app).url
        return {
            name: httpx.Client(base_url=url, headers={"authorization": f"Bearer {key}"}, timeout=20)
            for name, key in keys.items()
        }

    return go


def answers(client: httpx.Client) -> int:
    asked = {"model": NAME, "messages": [{"role": "user", "content": "x"}]}
    return client.post("/v1/chat/completions", json=asked).status_code


def listed(client: httpx.Client) -> bool:
    return NAME in [row["id"] for row in client.get("/v1/models").json()["data"]]


def test_a_model_is_shared_and_taken_back(begin) -> None:
    who = begin()
    mine, theirs, third = who["mine"], who["theirs"], who["third"]
    assert (answers(mine), answers(theirs), listed(mine), listed(theirs)) == (200, 404, True, False)
    made = mine.post(PERMISSIONS, json={"project_ids": ["theirs", "theirs"]}).json()
    assert [row["project_id"] for row in made["data"]] == ["theirs"]
    assert made["data"][0]["object"] == "checkpoint.permission"
    assert (answers(theirs), listed(theirs)) == (200, True)
    assert (answers(third), listed(third)) == (404, False)
    id = made["data"][0]["id"]
    assert mine.delete(f"{PERMISSIONS}/{id}").json() == {"id": id, "object": "checkpoint.permission", "deleted": True}
    assert (answers(theirs), listed(theirs)) == (404, False)
    assert mine.delete(f"{PERMISSIONS}/{id}").status_code == 404


def test_giving_twice_is_giving_once(begin) -> None:
    """Two rows for one project would leave it in after one of them was deleted, or out while one is listed."""
    who = begin()
    mine, theirs = who["mine"], who["theirs"]
    first = mine.post(PERMISSIONS, json={"project_ids": ["theirs"]}).json()["data"]
    again = mine.post(PERMISSIONS, json={"project_ids": ["third", "theirs"]}).json()["data"]
    assert again[1] == first[0]
    assert len(mine.get(PERMISSIONS).json()["data"]) == 2
    assert [row["project_id"] for row in mine.get(f"{PERMISSIONS}?project_id=third").json()["data"]] == ["third"]
    mine.delete(f"{PERMISSIONS}/{first[0]['id']}")
    assert answers(theirs) == 404
    assert [row["project_id"] for row in mine.get(PERMISSIONS).json()["data"]] == ["third"]


def test_a_guest_may_use_but_not_give_list_or_delete(begin) -> None:
    who = begin()
    mine, theirs = who["mine"], who["theirs"]
    (row,) = mine.post(PERMISSIONS, json={"project_ids": ["theirs"]}).json()["data"]
    assert theirs.post(PERMISSIONS, json={"project_ids": ["third"]}).status_code == 404
    assert theirs.get(PERMISSIONS).status_code == 404
    assert theirs.delete(f"{PERMISSIONS}/{row['id']}").status_code == 404
    assert theirs.delete(f"/v1/models/{NAME}").status_code == 403
    assert (answers(mine), answers(theirs), answers(who["third"])) == (200, 200, 404)


def test_permissions_outlive_a_restart(begin) -> None:
    who = begin()
    who["mine"].post(PERMISSIONS, json={"project_ids": ["theirs"]})
    again = begin()
    assert (answers(again["theirs"]), answers(again["third"])) == (200, 404)


@pytest.mark.parametrize("body", [{}, {"project_ids": []}, {"project_ids": "theirs"}, {"project_ids": [1]}])
def test_permissions_that_cannot_be(body: dict[str, object], begin) -> None:
    mine = begin()["mine"]
    assert mine.post(PERMISSIONS, json=body).status_code == 400
    assert mine.post(PERMISSIONS.replace(NAME, "petit"), json={"project_ids": ["x"]}).status_code == 404


def test_a_checkpoint_sleeps_through_restarts_and_keeps_its_permissions(begin, apart: Store, folder: Path) -> None:
    """A model from on the way: not listed, there for its project, given and taken back like any other, deleted."""
    name = f"{NAME}:ckpt-step-4"
    body = {"id": name, "object": FINE_TUNED, "status": "asleep", "job": "ftjob_x", "artifact": str(folder)}
    asyncio.run(Objects(apart).add(FINE_TUNED, "mine", body | {"number": None}))
    place = f"/v1/fine_tuning/checkpoints/{name}/permissions"

    def status(client: httpx.Client) -> int:
        asked = {"model": name, "messages": [{"role": "user", "content": "x"}], "max_tokens": 2}
        return client.post("/v1/chat/completions", json=asked).status_code

    clients = begin()
    assert name not in [row["id"] for row in clients["mine"].get("/v1/models").json()["data"]]
    assert (status(clients["mine"]), status(clients["theirs"])) == (200, 404)
    assert clients["mine"].get(f"/v1/models/{name}").json()["id"] == name
    assert clients["theirs"].delete(f"/v1/models/{name}").status_code == 404
    given = clients["mine"].post(place, json={"project_ids": ["theirs"]}).json()["data"][0]["id"]
    assert status(clients["theirs"]) == 200
    clients = begin()  # again, on the same database
    assert (status(clients["theirs"]), status(clients["third"])) == (200, 404)
    assert clients["mine"].delete(f"{place}/{given}").status_code == 200
    assert status(clients["theirs"]) == 404
    assert clients["mine"].delete(f"/v1/models/{name}").json()["deleted"] is True
    clients = begin()
    assert status(clients["mine"]) == 404
