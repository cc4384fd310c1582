"""Usage and costs over any rows, windows and groups: what the pages tell adds up to what the rows say."""

from __future__ import annotations

import asyncio
from collections import defaultdict
from collections.abc import Iterator
from decimal import Decimal
from typing import Any

import httpx
import hypothesis.strategies as st
import pytest
from hypothesis import HealthCheck, given, settings
from sqlalchemy import delete, insert

from causerie.serve.objects import Objects
from causerie.serve.prices import ALL, PRICE, price_at
from causerie.store import Store, new_id, usage
from tests.serve.conftest import Running

ORG = "/v1/organization"
BEGIN = 1_700_000_000
WIDTHS = {"1m": 60, "1h": 3_600, "1d": 86_400}
MODELS = ("petit@1", "petit@2", "grand@1", "sans-prix")
PRICES = (
    {"id": "p1", "model": "petit", "from": 0, "currency": "eur", "input": 1.0, "output": 2.0},
    {"id": "p2", "model": "petit", "from": BEGIN + 5_000, "currency": "eur", "input": 3.0, "output": 5.0},
    {"id": "p3", "model": "petit@2", "from": BEGIN + 9_000, "currency": "eur", "input": 0.5, "output": 0.5},
    {"id": "p4", "model": "grand", "from": 0, "currency": "usd", "input": 10.0, "output": 10.0, "cached_input": 1.0},
)

rows_of_usage = st.lists(
    st.fixed_dictionaries(
        {
            "time": st.integers(0, 20_000).map(lambda offset: BEGIN + offset + 0.25),
            "model": st.sampled_from(MODELS),
            "project": st.sampled_from(["p", "q"]),
            "prompt_tokens": st.integers(0, 1_000),
            "completion_tokens": st.integers(0, 1_000),
            "route": st.sampled_from(["v1/completions", "v1/chat/completions", "batch /v1/chat/completions"]),
        }
    ),
    max_size=25,
)


@pytest.fixture(scope="module")
def book(server: Running, store: Store) -> Iterator[Store]:
    """The store, with prices."""
    objects = Objects(store)
    for price in PRICES:
        asyncio.run(objects.add(PRICE, "", dict(price)))
    yield store
    for price in PRICES:
        asyncio.run(objects.drop(PRICE, "", str(price["id"])))


def fill(store: Store, rows: list[dict[str, Any]]) -> None:
    """Let the database hold these rows of usage and no others."""
    rest = {"key_id": None, "latency": 0.1, "ttft": None, "status": 200, "price": None, "cached_tokens": 0}
    full = [{name: value for name, value in rest.items() if name in usage.c} | row for row in rows]
    for row in full:
        row["request_id"] = new_id("req")
    store.write(delete(usage), *([(insert(usage), full)] if full else []))


def pages(http: httpx.Client, path: str, **query: Any) -> list[dict[str, Any]]:
    """Every bucket of every page."""
    found: list[dict[str, Any]] = []
    page: str | None = None
    while True:
        answer = http.get(f"{ORG}/{path}", params=query | ({"page": page} if page else {}))
        assert answer.status_code == 200, answer.text
        body = answer.json()
        found += body["data"]
        page = body["next_page"]
        assert body["has_more"] is (page is not None)
        if page is None:
            return found


def cost(row: dict[str, Any]) -> tuple[str, Decimal]:
    """What a row costs, reckoned exactly: of the exact name, else of all versions, the newest in force."""
    for name in (row["model"], row["model"].rpartition("@")[0]):
        known = [price for price in PRICES if price["model"] == name and price["from"] <= row["time"]]
        if known:
            price = max(known, key=lambda each: each["from"])
            total = row["prompt_tokens"] * Decimal(str(price["input"]))
            total += row["completion_tokens"] * Decimal(str(price["output"]))
            return str(price["currency"]), total / 10**6
    return "usd", Decimal(0)


everything = settings(max_examples=12, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])


@everything
@given(rows=rows_of_usage, width=st.sampled_from(["1h", "1d"]), limit=st.integers(1, 24), start=st.integers(0, 9_000))
def test_buckets_are_a_partition_of_the_rows(
    rows: list[dict[str, Any]], width: str, limit: int, start: int, book: Store, http: httpx.Client
) -> None:
    fill(book, rows)
    limit = min(limit, {"1h": 24, "1d": 7}[width])
    end = BEGIN + 20_001
    asked = {"start_time": BEGIN + start, "end_time": end, "bucket_width": width, "limit": limit}
    groups = ["model", "project_id", "batch"]
    buckets = pages(http, "usage/completions", **asked, **{"group_by[]": groups})
    first = (BEGIN + start) - (BEGIN + start) % WIDTHS[width]
    starts = [bucket["start_time"] for bucket in buckets]
    assert starts == list(range(first, end, WIDTHS[width]))
    told: dict[Any, list[int]] = {}
    for bucket in buckets:
        for row in bucket["results"]:
            key = (bucket["start_time"], row["model"], row["project_id"], row["batch"])
            assert key not in told, "a group is told once in a bucket"
            told[key] = [row["num_model_requests"], row["input_tokens"], row["output_tokens"]]
    wanted: dict[Any, list[int]] = defaultdict(lambda: [0, 0, 0])
    for row in rows:
        if first <= row["time"] < end:
            moment = int(row["time"]) - int(row["time"]) % WIDTHS[width]
            sums = wanted[moment, row["model"], row["project"], row["route"].startswith("batch ")]
            for place, value in enumerate((1, row["prompt_tokens"], row["completion_tokens"])):
                sums[place] += value
    assert told == wanted


@everything
@given(rows=rows_of_usage)
def test_costs_are_by_the_price_in_force_and_each_currency_by_itself(
    rows: list[dict[str, Any]], book: Store, http: httpx.Client
) -> None:
    fill(book, rows)
    asked = {"start_time": BEGIN, "end_time": BEGIN + 20_001, "bucket_width": "1d"}
    wanted: dict[str, Decimal] = defaultdict(Decimal)
    for row in rows:
        currency, value = cost(row)
        wanted[currency] += value
    told: dict[str, float] = defaultdict(float)
    for bucket in pages(http, "costs", **asked):
        currencies = [result["amount"]["currency"] for result in bucket["results"]]
        assert len(currencies) == len(set(currencies))
        for result in bucket["results"]:
            told[result["amount"]["currency"]] += result["amount"]["value"]
    for currency in ("eur", "usd"):
        assert told[currency] == pytest.approx(float(wanted[currency]), abs=1e-12)


@everything
@given(rows=rows_of_usage, models=st.sets(st.sampled_from(MODELS), min_size=1))
def test_a_filter_leaves_what_it_names(
    rows: list[dict[str, Any]], models: set[str], book: Store, http: httpx.Client
) -> None:
    fill(book, rows)
    asked = {"start_time": BEGIN, "end_time": BEGIN + 20_001, "models[]": sorted(models), "project_ids[]": ["p"]}
    told = sum(row["num_model_requests"] for b in pages(http, "usage/completions", **asked) for row in b["results"])
    assert told == sum(row["model"] in models and row["project"] == "p" for row in rows)


prices = st.lists(
    st.fixed_dictionaries(
        {
            "model": st.sampled_from(["petit", "petit@2", "grand", ALL]),
            "from": st.integers(0, 9),
            "input": st.integers(),
        }
    ),
    max_size=12,
).map(lambda found: sorted(found, key=lambda price: price["from"]))


@given(prices, st.sampled_from(["petit@1", "petit@2", "grand", "autre@9"]), st.integers(-1, 10))
def test_the_nearest_name_wins_then_the_newest(known: list[dict[str, Any]], model: str, moment: int) -> None:
    found = price_at(known, model, moment)
    names = [model, model.partition("@")[0], ALL]
    standing = [price for price in known if price["from"] <= moment and price["model"] in names]
    if not standing:
        assert found is None
        return
    assert found is not None
    best = min(names.index(price["model"]) for price in standing)
    assert found["model"] == names[best]
    assert found["from"] == max(price["from"] for price in standing if price["model"] == names[best])
