"""Vector stores: filters, deletion, what fails leaves nothing, embeddings fused with words."""

from __future__ import annotations

import asyncio
import time
from typing import Any

import httpx
import openai
import pytest

from causerie.serve import EnginePool
from causerie.serve.metering import usage_log
from causerie.serve.objects import Objects
from causerie.serve.vector_stores.ranking import Chunk, Index, fused
from causerie.serve.vector_stores.shapes import SearchRequest
from causerie.serve.vector_stores.storing import packed, unpacked
from causerie.store import Store, usage
from tests.waiting import wait_for

TEXTS = {
    "a": ("Le chat dort au soleil.", {"year": 2018, "lang": "fr", "draft": True}),
    "b": ("Le chat mange du poisson.", {"year": 2021, "lang": "fr", "draft": False}),
    "c": ("The cat sleeps; le chat.", {"year": 2024, "lang": "en"}),
}


@pytest.fixture
def filled(client: openai.OpenAI) -> tuple[str, dict[str, str]]:
    """A store with three files, and their ids."""
    store = client.vector_stores.create(name="chats")
    ids = {}
    for name, (text, attributes) in TEXTS.items():
        ids[name] = client.files.create(file=(f"{name}.txt", text.encode()), purpose="assistants").id
        client.vector_stores.files.create(store.id, file_id=ids[name], attributes=attributes)
    return store.id, ids


def one(type: str, key: str, value: Any) -> dict[str, Any]:
    return {"type": type, "key": key, "value": value}


@pytest.mark.parametrize(
    ("filters", "names"),
    [
        (one("eq", "lang", "fr"), "ab"),
        (one("ne", "lang", "fr"), "c"),
        (one("gt", "year", 2018), "bc"),
        (one("gte", "year", 2018), "abc"),
        (one("lt", "year", 2021), "a"),
        (one("lte", "year", 2021.0), "ab"),
        (one("in", "lang", ["en", "de"]), "c"),
        (one("nin", "lang", ["en", "de"]), "ab"),
        (one("eq", "draft", True), "a"),
        (one("ne", "draft", True), "bc"),
        (one("gt", "lang", "en"), "ab"),
        (one("gt", "year", "2000"), ""),
        (one("eq", "nothing", 1), ""),
        ({"type": "or", "filters": [one("eq", "lang", "en"), one("eq", "draft", True)]}, "ac"),
        (
            {"type": "and", "filters": [one("eq", "lang", "fr"), {"type": "or", "filters": [one("gt", "year", 2020)]}]},
            "b",
        ),
    ],
)
def test_filters_choose_files(
    filters: Any, names: str, filled: tuple[str, dict[str, str]], client: openai.OpenAI
) -> None:
    found = client.vector_stores.search(filled[0], query="chat", filters=filters).data
    assert sorted(each.filename[0] for each in found) == list(names)


def nested(depth: int) -> dict[str, Any]:
    found = one("eq", "a", 1)
    for _ in range(depth):
        found = {"type": "and", "filters": [found]}
    return found


@pytest.mark.parametrize(
    "filters",
    [{"type": "eq", "key": "a"}, one("like", "a", "b"), {"type": "and", "filters": []}, nested(9), nested(60)],
)
def test_filters_that_cannot_be(filters: Any, filled: tuple[str, dict[str, str]], http: httpx.Client) -> None:
    answer = http.post(f"/v1/vector_stores/{filled[0]}/search", json={"query": "x", "filters": filters})
    assert answer.status_code == 400
    assert SearchRequest(query="x", filters=nested(7))  # type: ignore[arg-type]


def test_scores_are_ordered_and_cut(filled: tuple[str, dict[str, str]], client: openai.OpenAI) -> None:
    found = client.vector_stores.search(filled[0], query="chat poisson").data
    scores = [each.score for each in found]
    assert scores == sorted(scores, reverse=True)
    assert found[0].filename == "b.txt"
    options = {"score_threshold": (scores[0] + scores[1]) / 2}
    assert len(client.vector_stores.search(filled[0], query="chat poisson", ranking_options=options).data) == 1
    assert len(client.vector_stores.search(filled[0], query="chat", max_num_results=2).data) == 2


def test_what_is_deleted_is_not_found(filled: tuple[str, dict[str, str]], client: openai.OpenAI) -> None:
    id, ids = filled
    client.vector_stores.files.delete(ids["b"], vector_store_id=id)
    assert client.vector_stores.search(id, query="poisson").data == []
    assert client.vector_stores.retrieve(id).file_counts.total == 2
    with pytest.raises(openai.NotFoundError):
        client.vector_stores.files.content(ids["b"], vector_store_id=id)
    client.vector_stores.files.create(id, file_id=ids["b"])
    assert len(client.vector_stores.search(id, query="poisson").data) == 1
    client.vector_stores.delete(id)
    for attempt in (
        lambda: client.vector_stores.search(id, query="chat"),
        lambda: client.vector_stores.files.list(id),
        lambda: client.vector_stores.files.retrieve(ids["a"], vector_store_id=id),
        lambda: client.vector_stores.delete(id),
    ):
        with pytest.raises(openai.NotFoundError):
            attempt()


def test_what_fails_leaves_nothing(filled: tuple[str, dict[str, str]], client: openai.OpenAI) -> None:
    id, ids = filled
    before = {each.id for each in client.vector_stores.list(limit=100)}
    with pytest.raises(openai.NotFoundError):
        client.vector_stores.create(file_ids=[ids["a"], "file_none"])
    with pytest.raises(openai.NotFoundError):
        client.vector_stores.create(extra_body={"embedding_model": "nobody"})
    assert {each.id for each in client.vector_stores.list(limit=100)} == before
    new = client.files.create(file=("d.txt", b"Un chien."), purpose="assistants").id
    with pytest.raises(openai.BadRequestError, match="already"):
        client.vector_stores.file_batches.create(id, file_ids=[new, ids["a"]])
    assert new not in [each.id for each in client.vector_stores.files.list(id)]
    assert client.vector_stores.retrieve(id).file_counts.total == 3


def test_a_search_puts_the_expiry_off(filled: tuple[str, dict[str, str]], client: openai.OpenAI, store: Store) -> None:
    id = filled[0]
    client.vector_stores.update(id, expires_after={"anchor": "last_active_at", "days": 1})
    long_ago = int(time.time()) - 3600
    asyncio.run(Objects(store).set("vector_store", "default", id, last_active_at=long_ago))
    assert client.vector_stores.retrieve(id).expires_at == long_ago + 86_400
    client.vector_stores.search(id, query="chat")
    assert client.vector_stores.retrieve(id).expires_at > time.time() + 86_300
    asyncio.run(Objects(store).set("vector_store", "default", id, last_active_at=long_ago - 86_400))
    assert client.vector_stores.retrieve(id).status == "expired"
    with pytest.raises(openai.BadRequestError, match="expired"):
        client.vector_stores.search(id, query="chat")
    assert client.vector_stores.update(id, expires_after=None).expires_at is None
    assert len(client.vector_stores.search(id, query="chat").data) == 3


def test_words_and_embeddings_are_fused(
    client: openai.OpenAI, http: httpx.Client, store: Store, shared_pool: EnginePool
) -> None:
    plain = client.vector_stores.create()
    assert plain.model_extra["ranking"] == "bm25"
    ids = [client.files.create(file=(f"{n}.txt", t[0].encode()), purpose="assistants").id for n, t in TEXTS.items()]
    both = client.vector_stores.create(file_ids=ids, extra_body={"embedding_model": "petit"})
    assert both.model_extra["ranking"] == "bm25+embeddings"
    path = f"/v1/vector_stores/{both.id}/search"
    answer = http.post(path, json={"query": "Le chat mange du poisson."})
    found = answer.json()
    assert answer.headers["x-causerie-ranking"] == "bm25+embeddings"
    assert found["data"][0]["filename"] == "b.txt"
    assert found["data"][0]["score"] == pytest.approx(1)
    unknown = http.post(path, json={"query": "zzz"}).json()["data"]
    assert len(unknown) == 3  # no word is shared: the embeddings alone rank them
    assert all(row["score"] <= 0.5 for row in unknown)
    served = shared_pool._served.pop("petit")
    try:
        alone = http.post(path, json={"query": "poisson"})
    finally:
        shared_pool._served["petit"] = served
    assert (alone.headers["x-causerie-ranking"], len(alone.json()["data"])) == ("bm25", 1)
    wait_for(lambda: usage_log(store).waiting == 0)
    rows = [row for row in store.read(usage.select()) if row.route == "vector_stores embeddings"]
    assert len(rows) >= 3
    assert all(row.prompt_tokens > 0 and row.model == "petit@3" for row in rows)


def test_the_fusion_is_reciprocal_rank() -> None:
    first, second, third = (Chunk("f", text) for text in "xyz")
    scores = {chunk.text: score for score, chunk in fused([first, second], [first, third])}
    assert scores == pytest.approx({"x": 1.0, "y": 61 / 62 / 2, "z": 61 / 62 / 2})
    assert fused([], []) == []
    assert fused([first, second], [second])[0][1].text == "y"


def test_the_nearest_are_by_cosine() -> None:
    chunks = [Chunk("f", "x", (1.0, 0.0)), Chunk("f", "y", (0.6, 0.8)), Chunk("f", "z"), Chunk("f", "w", (1.0,))]
    assert [chunk.text for chunk in Index(chunks).near((0.0, 1.0))] == ["y", "x"]
    assert [chunk.text for chunk in Index(chunks).near((1.0, 0.0), 1)] == ["x"]
    assert unpacked(packed([0.5, -2.0])) == (0.5, -2.0)
