"""Lists: whatever is asked for, walking through the pages gives every object once, in order, and none of another's."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import hypothesis.strategies as st
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule, run_state_machine_as_test

from causerie.serve.errors import ApiError
from causerie.serve.objects import Objects, Page, page_of
from causerie.serve.table import TABLE
from causerie.store import Store, new_id
from tests.postgresql import store_on


@pytest.fixture(scope="module", params=["sqlite", "postgresql"])
def kept(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Store]:
    """A store on each database."""
    place = tmp_path_factory.mktemp(str(request.param))
    with store_on(str(request.param), place) as opened:
        yield opened


def walk(objects: Objects, kind: str, page: Page, **options: Any) -> list[str]:
    """Ids of all pages from one on, following `last_id` as the clients do."""

    async def follow() -> list[str]:
        ids: list[str] = []
        after = page.after
        while True:
            found = await objects.page(kind, "mine", Page(after, page.before, page.limit, page.order), **options)
            ids += [body["id"] for body in found["data"]]
            assert len(found["data"]) <= page.limit
            assert (found["first_id"], found["last_id"]) == (
                (found["data"][0]["id"], found["data"][-1]["id"]) if found["data"] else (None, None)
            )
            if not found["has_more"]:
                return ids
            assert found["data"], "more is promised, and nothing came"
            after = found["last_id"]

    return asyncio.run(follow())


@settings(max_examples=8, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(count=st.integers(0, 17), limit=st.integers(1, 9), order=st.sampled_from(["asc", "desc"]), data=st.data())
def test_pages_are_a_partition(kept: Store, count: int, limit: int, order: Any, data: st.DataObject) -> None:
    objects, kind = Objects(kept), new_id("kind")
    bodies = [{"id": f"{kind}-{number}", "even": number % 2 == 0} for number in range(count)]
    asyncio.run(objects.add(kind, "mine", *bodies))
    asyncio.run(objects.add(kind, "theirs", {"id": f"{kind}-theirs"}))
    asyncio.run(objects.add(kind, "mine", {"id": f"{kind}-child"}, parent="somewhere else"))
    wanted = [body["id"] for body in bodies]
    rising = wanted if order == "asc" else wanted[::-1]
    assert walk(objects, kind, Page(limit=limit, order=order)) == rising
    if count:
        place = data.draw(st.integers(0, count - 1))
        assert walk(objects, kind, Page(after=rising[place], limit=limit, order=order)) == rising[place + 1 :]
        assert walk(objects, kind, Page(before=rising[place], limit=count, order=order)) == rising[:place]
    even = [id for id in rising if int(id.rpartition("-")[2]) % 2 == 0]
    assert walk(objects, kind, Page(limit=limit, order=order), keep=lambda body: body["even"]) == even


def test_objects_made_at_once_keep_their_order(kept: Store) -> None:
    """Also when the clock stands still: ranks only rise."""
    objects, kind = Objects(kept), new_id("kind")

    async def make() -> None:
        for number in range(30):
            await objects.add(kind, "mine", {"id": f"{kind}-{number}-a"}, {"id": f"{kind}-{number}-b"})

    asyncio.run(make())
    wanted = [f"{kind}-{number}-{letter}" for number in range(30) for letter in "ab"]
    assert walk(objects, kind, Page(limit=7, order="asc")) == wanted


def test_a_page_begun_before_others_were_added_shows_none_twice(kept: Store) -> None:
    """Newest first: what comes meanwhile is before the first page and moves nothing."""
    objects, kind = Objects(kept), new_id("kind")

    async def read() -> list[str]:
        await objects.add(kind, "mine", *({"id": f"{kind}-{number}"} for number in range(10)))
        first = await objects.page(kind, "mine", Page(limit=4))
        await objects.add(kind, "mine", *({"id": f"{kind}-{number}"} for number in range(10, 20)))
        rest = await objects.page(kind, "mine", Page(after=first["last_id"], limit=100))
        return [body["id"] for body in first["data"] + rest["data"]]

    assert asyncio.run(read()) == [f"{kind}-{number}" for number in range(9, -1, -1)]


def test_a_cursor_of_another_project_is_no_cursor(kept: Store) -> None:
    objects, kind = Objects(kept), new_id("kind")

    async def read() -> None:
        await objects.add(kind, "theirs", {"id": f"{kind}-x"})
        for page in (Page(after=f"{kind}-x"), Page(before=f"{kind}-x"), Page(after="nothing")):
            with pytest.raises(ApiError) as caught:
                await objects.page(kind, "mine", page)
            assert caught.value.status == 404

    asyncio.run(read())


class Request:
    """As much of a request as a page is read from."""

    def __init__(self, **query: str) -> None:
        self.query_params = query


@given(st.text(max_size=12))
def test_any_limit_is_a_page_or_a_refusal(text: str) -> None:
    asked: Any = Request(limit=text)
    if text.isascii() and text.isdigit() and len(text) < 10 and int(text) <= 100:
        assert page_of(asked).limit == int(text)
        return
    with pytest.raises(ApiError) as caught:
        page_of(asked)
    assert (caught.value.status, caught.value.param) == (400, "limit")


@pytest.mark.parametrize(
    ("word", "order"), [("asc", "asc"), ("ascending", "asc"), ("desc", "desc"), ("descending", "desc")]
)
def test_both_spellings_of_an_order(word: str, order: str) -> None:
    assert page_of(Request(order=word)).order == order  # type: ignore[arg-type]


LISTS = [
    route.path
    for route in TABLE
    if route.method == "GET" and not route.path.endswith("}") and "{" not in route.path and "usage" not in route.path
]


WHOLE = {"models", "organization/costs", "organization/prices", "organization/invoice", "organization/scopes"}
"""Lists without pages: OpenAI's models, buckets of time, and what is ours and short."""


@pytest.mark.parametrize("path", [path for path in LISTS if path not in WHOLE])
def test_every_list_has_the_same_manners(path: str, http: httpx.Client) -> None:
    """OpenAI's list object, the same refusals of a limit or a cursor that is none."""
    found = http.get(f"/v1/{path}?limit=2").json()
    assert found["object"] == "list"
    assert {"data", "has_more", "first_id", "last_id"} <= found.keys()
    assert len(found["data"]) <= 2
    for query in ("limit=-1", "limit=x", "limit=" + "9" * 40):
        refused = http.get(f"/v1/{path}?{query}")
        assert refused.status_code == 400, (path, query)
        assert refused.json()["error"]["param"] == "limit"
    for query in ("after=no-such-thing", "after=" + "x" * 5_000, "after=%00"):
        assert http.get(f"/v1/{path}?{query}").status_code in (200, 400, 404), (path, query)


class ObjectsMachine(RuleBasedStateMachine):
    """Objects added, changed and dropped by two projects; the model is a dictionary."""

    store: Store

    def __init__(self) -> None:
        super().__init__()
        self.objects = Objects(self.store)
        self.kind = new_id("kind")
        self.known: dict[str, dict[str, dict[str, Any]]] = {"mine": {}, "theirs": {}}

    @rule(owner=st.sampled_from(["mine", "theirs"]), value=st.integers(0, 5))
    def add(self, owner: str, value: int) -> None:
        """A new object."""
        body = {"id": new_id("x"), "value": value, "status": "open" if value else "done"}
        asyncio.run(self.objects.add(self.kind, owner, body))
        self.known[owner][body["id"]] = body

    def _some(self, data: st.DataObject) -> tuple[str, str] | None:
        every = [(owner, id) for owner, bodies in self.known.items() for id in bodies]
        return data.draw(st.sampled_from(every)) if every else None

    @rule(data=st.data(), value=st.integers(6, 9))
    def change(self, data: st.DataObject, value: int) -> None:
        """Its owner changes it; the other cannot."""
        if (found := self._some(data)) is None:
            return
        owner, id = found
        body = asyncio.run(self.objects.set(self.kind, owner, id, value=value))
        self.known[owner][id] = self.known[owner][id] | {"value": value}
        assert body == self.known[owner][id]
        stranger = "theirs" if owner == "mine" else "mine"
        for attempt in (
            self.objects.set(self.kind, stranger, id, value=0),
            self.objects.get(self.kind, stranger, id),
            self.objects.drop(self.kind, stranger, id),
            self.objects.get(self.kind, owner, id, parent="elsewhere"),
        ):
            with pytest.raises(ApiError):
                asyncio.run(attempt)

    @rule(data=st.data())
    def drop(self, data: st.DataObject) -> None:
        """Its owner deletes it, once."""
        if (found := self._some(data)) is None:
            return
        owner, id = found
        asyncio.run(self.objects.drop(self.kind, owner, id))
        del self.known[owner][id]
        with pytest.raises(ApiError):
            asyncio.run(self.objects.drop(self.kind, owner, id))

    @rule(data=st.data())
    def a_change_that_fails_changes_nothing(self, data: st.DataObject) -> None:
        """Whatever is raised within comes out, and the object stays."""
        if (found := self._some(data)) is None:
            return

        def fail(body: dict[str, Any]) -> dict[str, Any]:
            body["value"] = "spoilt"
            raise LookupError

        with pytest.raises(LookupError):
            asyncio.run(self.objects.change(self.kind, *found, fail))

    @invariant()
    def what_is_kept_is_what_is_known(self) -> None:
        """Lists, and the workers' view across owners."""
        for owner, bodies in self.known.items():
            assert asyncio.run(self.objects.all(self.kind, owner)) == list(bodies.values())
        still = [body for bodies in self.known.values() for body in bodies.values() if body["status"] == "open"]
        found = asyncio.run(self.objects.unfinished(self.kind, ["open"]))
        assert sorted(body["id"] for _, _, body in found) == sorted(body["id"] for body in still)


def test_objects_as_a_state_machine(kept: Store) -> None:
    class Machine(ObjectsMachine):
        store = kept

    run_state_machine_as_test(Machine, settings=settings(max_examples=4, stateful_step_count=10, deadline=None))  # type: ignore[no-untyped-call]


def test_the_same_id_twice_is_a_conflict(kept: Store, tmp_path: Path) -> None:
    from causerie.core import CauserieError

    objects, kind = Objects(kept), new_id("kind")
    asyncio.run(objects.add(kind, "mine", {"id": "x"}))
    with pytest.raises(CauserieError) as caught:
        asyncio.run(objects.add(kind, "theirs", {"id": "x"}))
    assert caught.value.code == "CAU-1109"
