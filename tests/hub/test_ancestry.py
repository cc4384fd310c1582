"""Ancestry of any shape: everything that a model was made from is in its tree, its notices and its audit."""

from __future__ import annotations

import json
import multiprocessing
from collections import Counter
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from causerie.core import Artifact
from causerie.hub import (
    lineage,
    list_versions,
    promote,
    record_audit,
    register,
    render_lineage,
    rollback,
    verify_audit,
    verify_version,
)
from causerie.hub.terms import inherited_notices
from causerie.store import Store, open_store

from .conftest import Forge

SHAPES = st.lists(st.sets(st.integers(0, 7), max_size=3), min_size=1, max_size=8)
"""For each artifact in turn the numbers of those that it is made from (larger ones than its own are left out)."""


def grow(workspace: Path, shape: list[set[int]]) -> tuple[list[Artifact], list[set[int]]]:
    """Artifacts of that ancestry, the last one a model; and all ancestors of each."""
    forge, made, above = Forge(workspace), list[Artifact](), list[set[int]]()
    for number, wanted in enumerate(shape):
        parents = sorted(one for one in wanted if one < number)
        kind = "model" if number == len(shape) - 1 else "corpus"
        inputs = {f"part{one}": made[one].key for one in parents}
        made.append(forge.make(kind, f"a{number}", inputs, notices=[f"notice {number}", "shared notice"]))
        above.append(set(parents).union(*(above[one] for one in parents)))
    return made, above


@settings(max_examples=25, deadline=None)
@given(shape=SHAPES)
def test_the_tree_holds_every_ancestor_once_and_hands_on_its_notices(
    tmp_path_factory: pytest.TempPathFactory, shape: list[set[int]]
) -> None:
    workspace = tmp_path_factory.mktemp("w")
    made, above = grow(workspace, shape)
    tree = lineage(None, workspace, str(made[-1].path))
    whole = Counter(node.key for node in tree.walk() if not node.repeated)
    assert whole == Counter([made[-1].key, *(made[number].key for number in above[-1])])
    for node in tree.walk():
        if not node.repeated:
            artifact = next(one for one in made if one.key == node.key)
            assert {parent.key for parent in node.parents} == set(artifact.manifest.inputs.values())
    assert set(inherited_notices(workspace, made[-1])) == (
        {f"notice {number}" for number in above[-1]} | ({"shared notice"} if above[-1] else set())
    )
    assert len(render_lineage(tree).strip().split("\n")) == sum(1 for _ in tree.walk())
    json.dumps(tree.as_dict())


def test_manifests_that_name_each_other_do_not_lead_in_circles(workspace: Path, forge: Forge) -> None:
    first = forge.make("model", "first")
    second = forge.make("model", "second", {"base": first.key})
    manifest = json.loads((first.path / "manifest.json").read_text())
    (first.path / "manifest.json").write_text(json.dumps({**manifest, "inputs": {"base": second.key}}))
    tree = lineage(None, workspace, str(second.path))
    assert [node.name for node in tree.walk()] == ["second", "first", "second"]
    assert [node.repeated for node in tree.walk()] == [False, False, True]
    assert inherited_notices(workspace, second) == ()


def test_a_registered_model_carries_the_terms_of_everything_above_it(store: Store, workspace: Path) -> None:
    made, above = grow(workspace, [set(), {0}, {1}, {0, 2}])
    version = register(store, workspace, "last", made[-1], licence="MIT")
    assert set(version.notices) == {*(f"notice {number}" for number in above[-1]), "notice 3", "shared notice"}
    assert verify_version(store, workspace, version.ref).problems == ()


def _append(workspace: str, name: int) -> None:
    with open_store(Path(workspace)) as store:
        for number in range(8):
            record_audit(store, f"process {name}", "test", f"{name}/{number}", {"n": number})


def test_processes_that_append_at_once_make_one_unbroken_chain(workspace: Path) -> None:
    with open_store(workspace):
        pass
    context = multiprocessing.get_context("spawn")
    crew = [context.Process(target=_append, args=(str(workspace), name)) for name in range(3)]
    for process in crew:
        process.start()
    for process in crew:
        process.join()
    assert [process.exitcode for process in crew] == [0, 0, 0]
    with open_store(workspace) as store:
        report = verify_audit(store)
        assert (report.rows, report.ok) == (24, True)
        assert list_versions(store) == []


def test_promotions_have_an_order_when_the_clock_stands_still(
    store: Store, workspace: Path, forge: Forge, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("causerie.hub.registry.now", lambda: 1_000.0)
    for number in range(3):
        register(store, workspace, "m", forge.make("model", f"m{'x' * number}"), status="promoted")
    times = [version.promoted for version in list_versions(store, "m")]
    assert times == sorted(set(times))
    promote(store, "m@1")
    assert rollback(store, "m").ref == "m@3"  # the one promoted before, not the one with the next number
