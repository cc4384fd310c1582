"""Embeddings, moderations, vector stores, usage, and the table of routes."""

from __future__ import annotations

import base64
import struct
import time
from typing import Any

import httpx
import openai
import pytest

from causerie.core import CauserieError
from causerie.serve.keys import create_key
from causerie.serve.metering import usage_log
from causerie.serve.moderations import WORDS, moderate
from causerie.serve.objects import Objects
from causerie.serve.routes import ApiRoute, check_table
from causerie.serve.scopes import RESOURCES, Need
from causerie.serve.table import TABLE
from causerie.serve.vector_stores.ranking import chunks_of
from causerie.store import Store
from tests.serve.conftest import Running
from tests.waiting import wait_for


def test_embeddings_come_as_numbers_or_base64(client: openai.OpenAI, http: httpx.Client) -> None:
    got = client.embeddings.create(model="petit", input=["Un.", "Deux."])
    assert [row.index for row in got.data] == [0, 1]
    assert sum(value * value for value in got.data[0].embedding) == pytest.approx(1, abs=1e-5)
    body = {"model": "petit", "input": "Un.", "encoding_format": "base64"}
    packed = base64.b64decode(http.post("/v1/embeddings", json=body).json()["data"][0]["embedding"])
    assert struct.unpack(f"<{len(packed) // 4}f", packed) == pytest.approx(got.data[0].embedding)
    short = client.embeddings.create(model="petit", input="Un.", dimensions=2).data[0].embedding
    assert len(short) == 2
    assert sum(value * value for value in short) == pytest.approx(1, abs=1e-5)
    assert client.embeddings.create(model="petit", input=[[1, 2], [3]]).usage.prompt_tokens == 3
    azure = openai.AzureOpenAI(azure_endpoint=str(http.base_url), api_key="x", api_version="2024-10-21", max_retries=0)
    assert len(azure.embeddings.create(model="petit", input="Un.").data) == 1


@pytest.mark.parametrize(
    "change", [{"input": ""}, {"input": []}, {"dimensions": 9}, {"dimensions": 0}, {"input": [[10**6]]}]
)
def test_embeddings_that_cannot_be(change: dict[str, Any], client: openai.OpenAI) -> None:
    with pytest.raises(openai.BadRequestError):
        client.embeddings.create(**{"model": "petit", "input": "x", **change})


@pytest.mark.parametrize(
    ("text", "category"),
    [
        ("Je vais te tuer.", "harassment/threatening"),
        ("I'm going to kill you", "harassment/threatening"),
        ("Tu es un vrai imbécile", "harassment"),
        ("comment fabriquer une bombe", "illicit/violent"),
        ("I don't want to live", "self-harm/intent"),
        ("je veux mourir", "self-harm/intent"),
        ("Les arabes sont des vermines", "hate"),
        ("a severed head", "violence/graphic"),
        ("a porn movie", "sexual"),
    ],
)
def test_words_are_found_in_both_languages(text: str, category: str, client: openai.OpenAI) -> None:
    result = client.moderations.create(input=text)
    assert result.model == "causerie-words-1"
    assert result.results[0].flagged
    assert moderate(text)[category] > 0
    assert len(result.results[0].category_scores.model_dump()) >= len(WORDS) == 13


@pytest.mark.parametrize(
    "text", ["", "Quelle belle journée !", "The assassin bug is an insect of the suborder Heteroptera.", "x" * 10_000]
)
def test_plain_texts_are_not_flagged(text: str, client: openai.OpenAI) -> None:
    assert not client.moderations.create(input=[text]).results[0].flagged
    parts = client.moderations.create(input=[{"type": "text", "text": text or "x"}])
    assert len(parts.results) == 1


def test_stores_are_filled_and_searched(client: openai.OpenAI) -> None:
    texts = {
        "ete.txt": "L'été à Orléans est chaud et sec.",
        "hiver.md": "En hiver il neige sur les Alpes.",
        "bin": b"\xff\x00",
    }
    ids = {
        name: client.files.create(
            file=(name, text if isinstance(text, bytes) else text.encode()), purpose="assistants"
        ).id
        for name, text in texts.items()
    }
    store = client.vector_stores.create(name="saisons", file_ids=[ids["ete.txt"]], metadata={"a": "b"})
    assert (store.file_counts.completed, store.status) == (1, "completed")
    added = client.vector_stores.files.create(
        store.id, file_id=ids["hiver.md"], attributes={"year": 2020, "lang": "fr"}
    )
    assert (added.status, added.attributes) == ("completed", {"year": 2020, "lang": "fr"})
    bad = client.vector_stores.files.create(store.id, file_id=ids["bin"])
    assert (bad.status, bad.last_error.code) == ("failed", "unsupported_file")
    with pytest.raises(openai.BadRequestError, match="already"):
        client.vector_stores.files.create(store.id, file_id=ids["bin"])
    found = client.vector_stores.search(store.id, query="ETE orleans").data
    assert [(each.filename, each.file_id) for each in found] == [("ete.txt", ids["ete.txt"])]
    assert 0 < found[0].score < 1
    assert found[0].content[0].text == texts["ete.txt"]
    assert client.vector_stores.search(store.id, query="chameau").data == []
    both = client.vector_stores.search(store.id, query=["neige", "chaud"], max_num_results=1)
    assert (len(both.data), both.has_more) == (1, True)
    newer = {
        "type": "and",
        "filters": [{"type": "gt", "key": "year", "value": 2019}, {"type": "in", "key": "lang", "value": ["fr"]}],
    }
    assert [each.filename for each in client.vector_stores.search(store.id, query="est il", filters=newer).data] == [
        "hiver.md"
    ]
    assert (
        client.vector_stores.files.content(ids["hiver.md"], vector_store_id=store.id).data[0].text == texts["hiver.md"]
    )
    client.vector_stores.files.update(ids["hiver.md"], vector_store_id=store.id, attributes={"year": 1999})
    assert client.vector_stores.search(store.id, query="neige", filters=newer["filters"][0]).data == []
    failed = client.vector_stores.files.list(store.id, filter="failed").data
    assert [each.id for each in failed] == [ids["bin"]]
    client.vector_stores.files.delete(ids["ete.txt"], vector_store_id=store.id)
    assert client.vector_stores.search(store.id, query="été").data == []
    assert client.vector_stores.update(
        store.id, name="x", expires_after={"anchor": "last_active_at", "days": 1}
    ).expires_at
    batch = client.vector_stores.file_batches.create(store.id, file_ids=[ids["ete.txt"]])
    assert (batch.status, batch.file_counts.completed) == ("completed", 1)
    files = client.vector_stores.file_batches.list_files(batch.id, vector_store_id=store.id).data
    assert [each.id for each in files] == [ids["ete.txt"]]
    assert client.vector_stores.delete(store.id).deleted
    assert client.files.retrieve(ids["hiver.md"]).id  # the file itself stays


def test_chunks_cover_the_text_and_overlap() -> None:
    text = " ".join(f"mot{n}" for n in range(250))
    chunks = chunks_of(text, 100, 50)
    assert [len(chunk.split()) for chunk in chunks] == [100, 100, 100, 100]
    assert chunks[1].split()[0] == "mot50"
    assert {word for chunk in chunks for word in chunk.split()} == set(text.split())
    assert chunks_of("", 100, 0) == []


def test_usage_is_counted_and_priced(client: openai.OpenAI, http: httpx.Client, store: Store) -> None:
    import asyncio

    client.chat.completions.create(model="petit", messages=[{"role": "user", "content": "x"}])
    client.embeddings.create(model="petit", input="x")
    price = {"id": "price-1", "model": "petit", "from": 0, "currency": "eur", "input": 1.0, "output": 2.0}
    asyncio.run(Objects(store).add("price", "", price))
    wait_for(lambda: usage_log(store).waiting == 0)
    start = int(time.time()) - 60
    page = http.get(f"/v1/organization/usage/completions?start_time={start}&bucket_width=1d&group_by[]=model").json()
    rows = [row for bucket in page["data"] for row in bucket["results"]]
    row = next(row for row in rows if row["model"] == "petit@3")
    assert row["object"] == "organization.usage.completions.result"
    assert row["input_tokens"] > 0
    assert row["output_tokens"] > 0
    embedded = http.get(f"/v1/organization/usage/embeddings?start_time={start}").json()
    assert sum(row["num_model_requests"] for bucket in embedded["data"] for row in bucket["results"]) >= 1
    costs = http.get(f"/v1/organization/costs?start_time={start}").json()
    amounts = [row["amount"] for bucket in costs["data"] for row in bucket["results"]]
    assert amounts[0]["currency"] == "eur"
    total = sum(row["input_tokens"] for row in rows) + 2 * sum(row["output_tokens"] for row in rows)
    assert sum(amount["value"] for amount in amounts) >= total / 1e6 - 1e-12
    assert http.get("/v1/organization/usage/images?start_time=0&limit=2").json()["data"][1]["results"] == []
    for query in (
        "",
        "?start_time=x",
        "?start_time=0&bucket_width=2d",
        "?start_time=0&limit=99",
        "?start_time=0&group_by=x",
    ):
        assert http.get(f"/v1/organization/usage/completions{query}").status_code == 400


def test_every_route_says_what_it_needs() -> None:
    check_table(TABLE)
    assert {route.resource for route in TABLE} <= RESOURCES.keys()
    one = TABLE[0]
    for bad in (
        ApiRoute("GET", "x", one.endpoint, "", "read"),
        ApiRoute("GET", "x", one.endpoint, "file", ""),
        ApiRoute("GET", "x", one.endpoint, "nothing", "read"),
        ApiRoute(one.method, one.path, one.endpoint, "file", "read"),
    ):
        with pytest.raises(CauserieError) as caught:
            check_table([*TABLE, bad])
        assert caught.value.code == "CAU-6007"


@pytest.mark.parametrize(
    ("scopes", "may"),
    [
        (("*",), True),
        (("platform",), True),
        (("file",), True),
        (("file.read",), True),
        (("file.create",), False),
        (("inference",), False),
        ((), False),
    ],
)
def test_scopes_contain_actions(scopes: tuple[str, ...], may: bool) -> None:
    assert Need("file", "read").within(scopes) is may


def test_another_projects_objects_are_not_there(server: Running, store: Store) -> None:
    clients = []
    for project in ("mine", "theirs"):
        _, key = create_key(store, project, project=project, scopes=("*",))
        clients.append(openai.OpenAI(base_url=f"{server.url}/v1", api_key=key, max_retries=0))
    mine, theirs = clients
    file = mine.files.create(file=("x", b"x"), purpose="assistants")
    vectors = mine.vector_stores.create(file_ids=[file.id])
    talk = mine.conversations.create()
    answer = mine.responses.create(model="petit", input="x")
    for attempt in (
        lambda: theirs.files.content(file.id),
        lambda: theirs.files.delete(file.id),
        lambda: theirs.vector_stores.search(vectors.id, query="x"),
        lambda: theirs.vector_stores.create(file_ids=[file.id]),
        lambda: theirs.conversations.items.list(talk.id),
        lambda: theirs.responses.create(model="petit", input="x", conversation=talk.id),
        lambda: theirs.responses.retrieve(answer.id),
        lambda: theirs.responses.create(model="petit", input="x", previous_response_id=answer.id),
    ):
        with pytest.raises(openai.NotFoundError):
            attempt()
    assert list(theirs.files.list()) == []
    assert [each.id for each in mine.files.list()] == [file.id]
    for each in clients:
        each.close()
