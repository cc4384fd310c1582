"""The audit chain shows every tampering: edits, deletions, reordering, and cutting off when a head was kept."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from causerie.core import CauserieError, sha256_json
from causerie.hub import list_audit, record_audit, verify_audit
from causerie.hub.audit import audited
from causerie.store import Store, open_store


def fill(store: Store, count: int = 6) -> str:
    for number in range(count):
        head = record_audit(store, "ada", "promote", f"home@{number}", {"loss": 0.1 * number, "note": "é"}).hash
    return head


def test_an_untouched_chain_is_intact(store: Store) -> None:
    assert verify_audit(store).ok
    head = fill(store)
    report = verify_audit(store)
    assert (report.rows, report.head, report.problems) == (6, head, ())
    fill(store, 2)
    assert verify_audit(store, head=head).ok
    assert [row.subject for row in list_audit(store, "home@1")] == ["home@1", "home@1"]


def test_the_digest_is_what_the_documentation_says(store: Store) -> None:
    first = record_audit(store, "ada", "promote", "home@1", {"x": 1})
    values = {"seq": 1, "actor": "ada", "action": "promote", "subject": "home@1", "detail": {"x": 1}}
    assert first.hash == sha256_json({**values, "created": first.created, "prev_hash": "0" * 64})


TAMPERINGS = {
    "UPDATE audit SET actor = 'eve' WHERE seq = 3": "row 3 was changed",
    "UPDATE audit SET detail = '{\"loss\": 0}' WHERE seq = 1": "row 1 was changed",
    "UPDATE audit SET created = created + 1 WHERE seq = 6": "row 6 was changed",
    "DELETE FROM audit WHERE seq = 3": "row 3 is missing",
    "DELETE FROM audit WHERE seq = 1": "row 1 is missing",
    "UPDATE audit SET seq = CASE seq WHEN 2 THEN -3 WHEN 3 THEN -2 END WHERE seq IN (2, 3); "
    "UPDATE audit SET seq = -seq WHERE seq < 0": "row 2 does not follow",
    "DELETE FROM audit WHERE seq = 3; UPDATE audit SET seq = seq - 1 WHERE seq > 3": "row 3 does not follow",
}


@pytest.mark.parametrize(("sql", "finding"), TAMPERINGS.items())
def test_tampering_is_found(workspace: Path, sql: str, finding: str) -> None:
    with open_store(workspace) as store:
        fill(store)
    with sqlite3.connect(workspace / "causerie.db") as connection:
        connection.executescript(sql)
    connection.close()
    with open_store(workspace) as store:
        report = verify_audit(store)
        assert not report.ok
        assert any(finding in problem for problem in report.problems), report.problems


def test_a_row_rewritten_with_its_digest_breaks_the_next(workspace: Path) -> None:
    with open_store(workspace) as store:
        fill(store)
        row = vars(list_audit(store)[2]) | {"actor": "eve"}
    digest = sha256_json({name: value for name, value in row.items() if name != "hash"})
    with sqlite3.connect(workspace / "causerie.db") as connection:
        connection.execute("UPDATE audit SET actor = 'eve', hash = ? WHERE seq = 3", (digest,))
    connection.close()
    with open_store(workspace) as store:
        assert verify_audit(store).problems == ("row 4 does not follow the row before it",)


def test_cutting_off_the_end_is_found_by_whoever_kept_a_head(workspace: Path) -> None:
    with open_store(workspace) as store:
        head = fill(store)
    with sqlite3.connect(workspace / "causerie.db") as connection:
        connection.execute("DELETE FROM audit WHERE seq > 4")
    connection.close()
    with open_store(workspace) as store:
        assert verify_audit(store).ok
        assert "cut off" in verify_audit(store, head=head).problems[0]


def test_an_append_is_tried_again_when_another_process_took_its_number(store: Store) -> None:
    tries: list[int] = []

    def work(connection: object) -> str:
        tries.append(1)
        if len(tries) < 3:
            raise CauserieError("CAU-1109", "taken")
        return "done"

    assert audited(store, work) == "done"
    with pytest.raises(CauserieError):
        record_audit(store, "a\0", "b", "c")


@pytest.mark.parametrize(
    "call", [lambda s: record_audit(s, "a\0", "x", "y"), lambda s: record_audit(s, "a", "x", "y", {"k": "\0"})]
)
def test_nul_is_refused(store: Store, call: Callable[[Store], Any]) -> None:
    with pytest.raises(CauserieError):
        call(store)
    assert list_audit(store) == []
