"""The same promises on a real PostgreSQL server, and the API over it."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from alembic import command
from alembic.autogenerate import compare_metadata
from alembic.config import Config
from alembic.migration import MigrationContext
from sqlalchemy import create_engine, func, insert, select, text

import causerie.store
from causerie.core import CauserieError
from causerie.hub import record_audit, verify_audit
from causerie.serve import Limits, create_key, revoke_key
from causerie.serve.keys import find_key
from causerie.store import RowLog, Store, metadata, new_id, now, open_store, usage, users
from tests.postgresql import cluster


@pytest.fixture(scope="module")
def url() -> Iterator[str]:
    """An empty database."""
    with cluster() as found:
        yield found


@pytest.fixture(scope="module")
def store(url: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Store]:
    """A store on it."""
    with open_store(tmp_path_factory.mktemp("unused"), url) as store:
        yield store


def test_stores_opened_at_once_migrate_once_and_write_together(workspace: Path, url: str) -> None:
    with ThreadPoolExecutor(4) as pool:
        stores = list(pool.map(lambda _: open_store(workspace, url), range(4)))
    try:
        with stores[0].engine.connect() as connection:
            assert compare_metadata(MigrationContext.configure(connection), metadata) == []
        mark = new_id("round")
        rows = [{"id": f"{mark}-{number}", "pseudonym": mark, "role": "user", "created": 0.5} for number in range(50)]
        assert stores[0].add(users, rows[:30]) == 30
        assert stores[1].add(users, rows) == 20
        with pytest.raises(CauserieError) as caught:
            stores[2].write(insert(users).values(**rows[0]))
        assert caught.value.code == "CAU-1109"
        count = select(func.count()).select_from(users).where(users.c.pseudonym == mark)
        assert stores[3].read(count)[0][0] == 50
        assert not (workspace / "causerie.db").exists()
    finally:
        for each in stores:
            each.close()


def test_every_migration_goes_back_and_forth(url: str) -> None:
    engine = create_engine(url)
    folder = Path(causerie.store.__file__).parent / "migrations"
    with engine.begin() as connection:
        connection.execute(text("CREATE SCHEMA aside"))
        connection.execute(text("SET search_path TO aside"))
        config = Config()
        config.set_main_option("script_location", str(folder))
        config.attributes["connection"] = connection
        command.upgrade(config, "head")
        for _ in range(len(list((folder / "versions").glob("0*.py"))) - 1):
            command.downgrade(config, "-1")
        command.upgrade(config, "head")
        assert compare_metadata(MigrationContext.configure(connection), metadata) == []
        connection.execute(text("DROP SCHEMA aside CASCADE"))
    engine.dispose()


def test_a_failing_write_takes_none_of_its_company_along(store: Store) -> None:
    mark = new_id("company")
    row = {"id": mark, "pseudonym": mark, "role": "user", "created": 0.5}
    futures = [store.submit(insert(users).values(**row | {"id": f"{mark}-{n}"})) for n in (1, 2, 2, 3)]
    failures = [future.exception(20) for future in futures]
    assert [failure is None for failure in failures] == [True, True, False, True]
    assert len(store.read(select(users).where(users.c.pseudonym == mark))) == 3


def test_no_text_with_nul_comes_as_far_as_the_server(store: Store) -> None:
    with pytest.raises(CauserieError):
        store.write(insert(users).values(id="a\0b", pseudonym="p", role="user", created=0.5))
    assert store.failing is None or store.failing.code.startswith("CAU-11")
    assert store.read(select(users).where(users.c.id == "a")) == []


def test_keys_quotas_usage_and_the_audit_chain(store: Store) -> None:
    limits = Limits(tokens_per_day=1000)
    key_id, key = create_key(store, "k", project="p", expires=now() + 60, limits=limits)
    found = find_key(store, key)
    assert found is not None
    assert (found.key_id, found.limits, found.spent) == (key_id, limits, (0, 0))
    log = RowLog(store, usage)
    for number in range(3):
        row = {"request_id": f"{key_id}-{number}", "time": now(), "key_id": key_id, "route": "r", "status": 200}
        log.add(row | {"prompt_tokens": 2**40, "completion_tokens": 1})
    while log.waiting:
        store.write(select(func.now()))
    found = find_key(store, key)
    assert found is not None
    assert found.spent[0] == 3 * (2**40 + 1)
    assert revoke_key(store, key_id)
    assert find_key(store, key) is None
    with ThreadPoolExecutor(4) as pool:
        list(pool.map(lambda n: record_audit(store, "a", "b", str(n)), range(12)))
    report = verify_audit(store)
    assert (report.ok, report.rows) == (True, 12)


def test_a_server_that_went_away_is_said_and_found_again(url: str, tmp_path: Path) -> None:
    with open_store(tmp_path, url) as store:
        with store.engine.connect() as killer:
            sql = "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE pid <> pg_backend_pid()"
            killer.execute(text(sql))
            killer.rollback()
        row = {"id": new_id("u"), "pseudonym": "p", "role": "user", "created": 0.5}
        assert store.write(insert(users).values(**row)) == 1
        assert store.first(select(users).where(users.c.id == row["id"])) is not None
