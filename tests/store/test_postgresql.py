"""The same promises on PostgreSQL, where a server is given: CAUSERIE_TEST_POSTGRESQL=postgresql+psycopg://…/empty_db."""

from __future__ import annotations

import os
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext
from sqlalchemy import func, insert, select

from causerie.core import CauserieError
from causerie.store import metadata, new_id, open_store, users

URL = os.environ.get("CAUSERIE_TEST_POSTGRESQL", "")

pytestmark = pytest.mark.skipif(not URL, reason="no PostgreSQL server given in CAUSERIE_TEST_POSTGRESQL")


def test_stores_opened_at_once_migrate_once_and_write_together(workspace: Path) -> None:
    with ThreadPoolExecutor(4) as pool:
        stores = list(pool.map(lambda _: open_store(workspace, URL), range(4)))
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
        assert "***" in stores[0].where or ":" not in URL.split("//")[1].split("@")[0]
    finally:
        for store in stores:
            store.close()
