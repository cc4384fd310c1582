"""Versions: numbering, promotion, rollback, refusal, and what each name stands for."""

from __future__ import annotations

import tempfile
import threading
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from causerie.core import CauserieError
from causerie.hub import (
    get_version,
    list_audit,
    list_versions,
    promote,
    refuse,
    register,
    resolve,
    retire,
    rollback,
    set_card,
    verify_audit,
    version_by_key,
)
from causerie.hub.errors import ERRORS
from causerie.store import Store, open_store

from .conftest import Forge, write_weights


def code_of(call: Any) -> CauserieError:
    with pytest.raises(CauserieError) as caught:
        call()
    return caught.value


def test_versions_are_numbered_and_the_same_artifact_is_registered_once(
    store: Store, workspace: Path, forge: Forge
) -> None:
    one, two = forge.make("model", "a"), forge.make("model", "bb")
    first = register(store, workspace, "home", one, licence="MIT")
    second = register(store, workspace, "home", two, parents=["home@1"], licence="Apache-2.0", notices=["N"])
    assert (first.ref, second.ref, second.parents) == ("home@1", "home@2", ("home@1",))
    assert second.licence == "Apache-2.0 AND MIT"
    assert register(store, workspace, "home", one) == first
    assert [version.ref for version in list_versions(store)] == ["home@1", "home@2"]
    assert first.artifact == f"model/a-{one.key[:8]}"
    assert first.path(workspace) == one.path
    assert version_by_key(store, two.key) == second
    assert version_by_key(store, "0" * 64) is None


def test_promotion_retires_the_one_before_and_rollback_brings_it_back(
    store: Store, workspace: Path, forge: Forge
) -> None:
    for name in ("a", "bb", "ccc"):
        register(store, workspace, "home", forge.make("model", name), status="promoted")
    assert [version.status for version in list_versions(store, "home")] == ["retired", "retired", "promoted"]
    assert rollback(store, "home", reason="worse").ref == "home@2"
    assert rollback(store, "home").ref == "home@1"
    assert [version.status for version in list_versions(store, "home")] == ["promoted", "refused", "refused"]
    assert code_of(lambda: rollback(store, "home")).code == "CAU-5005"
    assert code_of(lambda: promote(store, "home@3")).code == "CAU-5003"
    actions = [(row.action, row.subject) for row in list_audit(store)]
    assert actions.count(("rollback", "home@3")) == 1
    assert actions[-1] == ("promote", "home@1")
    assert verify_audit(store).ok


def test_the_promoted_version_cannot_leave_and_a_retired_one_is_passed_over(
    store: Store, workspace: Path, forge: Forge
) -> None:
    for name in ("a", "bb", "ccc"):
        register(store, workspace, "home", forge.make("model", name), status="promoted")
    assert code_of(lambda: retire(store, "home@3")).code == "CAU-5003"
    assert code_of(lambda: refuse(store, "home@3")).code == "CAU-5003"
    assert retire(store, "home@2").status == "retired"
    assert rollback(store, "home").ref == "home@1"
    assert promote(store, "home@2").status == "promoted"
    assert promote(store, "home@2").ref == get_version(store, "home").ref == "home@2"


def test_bad_registrations_are_refused(store: Store, workspace: Path, forge: Forge) -> None:
    model, corpus = forge.make("model", "a"), forge.make("corpus", "web")
    bad: list[Any] = [
        lambda: register(store, workspace, "Home!", model),
        lambda: register(store, workspace, "home@3", model),
        lambda: register(store, workspace, "home", corpus),
        lambda: register(store, workspace, "home", model, parents=["ghost@1"]),
        lambda: register(store, workspace, "home", model, parents=["home"]),
        lambda: register(store, workspace, "home", model, status="wonderful"),  # type: ignore[arg-type]
    ]
    assert {code_of(call).code for call in bad} == {"CAU-5002"}
    assert list_versions(store) == []
    assert list_audit(store) == []


def test_a_card_grows(store: Store, workspace: Path, forge: Forge) -> None:
    register(store, workspace, "home", forge.make("model", "a"), card={"summary": "small"})
    assert set_card(store, "home@1", {"evaluation": {"loss": 2.5}}).card == {
        "summary": "small",
        "evaluation": {"loss": 2.5},
    }
    assert get_version(store, "home@1").card["evaluation"] == {"loss": 2.5}


def test_several_threads_get_different_numbers(store: Store, workspace: Path, forge: Forge) -> None:
    artifacts = [forge.make("model", "m" * (number + 1)) for number in range(8)]
    threads = [threading.Thread(target=register, args=(store, workspace, "home", item)) for item in artifacts]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert [version.number for version in list_versions(store, "home")] == list(range(1, 9))
    assert verify_audit(store).ok


def test_two_stores_on_one_database_agree(workspace: Path, forge: Forge) -> None:
    with open_store(workspace) as one, open_store(workspace) as two:
        register(one, workspace, "home", forge.make("model", "a"), status="promoted")
        register(two, workspace, "home", forge.make("model", "bb"), status="promoted")
        assert get_version(one, "home").ref == "home@2"
        assert verify_audit(one).ok


def test_every_form_of_reference_resolves(store: Store, workspace: Path, forge: Forge, tmp_path: Path) -> None:
    one, two = forge.make("model", "a"), forge.make("adapter", "bb")
    register(store, workspace, "home", one, status="promoted")
    register(store, workspace, "home", two)
    assert resolve(store, workspace, "home").path == one.path
    found = resolve(store, workspace, "home@2")
    assert (found.path, found.key, found.kind, found.name) == (two.path, two.key, "adapter", "home@2")
    by_folder = resolve(store, workspace, str(two.path))
    assert by_folder.version is not None
    assert by_folder.name == "home@2"
    plain = tmp_path / "plain"
    write_weights(plain)
    outside = resolve(store, workspace, str(plain))
    assert (outside.kind, outside.name, outside.version) == ("model", "plain", None)
    assert resolve(None, workspace, str(plain)).key == outside.key
    write_weights(plain, seed=1)
    assert resolve(None, workspace, str(plain)).key != outside.key


def test_unknown_names_are_answered_with_what_is_near(
    store: Store, workspace: Path, forge: Forge, tmp_path: Path
) -> None:
    model = forge.make("model", "assistant")
    register(store, workspace, "home", model)
    assert "home@1" in code_of(lambda: resolve(store, workspace, "home@7")).fix
    assert "no version of 'home' is promoted" in code_of(lambda: resolve(store, workspace, "home")).cause
    assert "home" in code_of(lambda: resolve(store, workspace, "hmoe")).fix
    assert str(model.path) in code_of(lambda: resolve(store, workspace, str(workspace / "model" / "assistant"))).fix
    assert "models list" in code_of(lambda: resolve(store, workspace, "zzzzzzzz")).fix
    for call in (lambda: promote(store, "home"), lambda: promote(store, "ghost@1"), lambda: rollback(store, "ghost")):
        assert code_of(call).code == "CAU-5001"
    empty = tmp_path / "empty"
    empty.mkdir()
    (empty / "pytorch_model.bin").write_bytes(b"pickle")
    (empty / "config.json").write_text("{}")
    assert code_of(lambda: resolve(store, workspace, str(empty))).code == "CAU-5004"
    assert code_of(lambda: resolve(store, workspace, str(forge.make("corpus", "web").path))).code == "CAU-5004"


def test_codes_are_in_the_rooms_range() -> None:
    assert all(code.startswith("CAU-50") for code in ERRORS)


class RegistryMachine(RuleBasedStateMachine):
    """Random promotions, refusals, retirements and rollbacks against a plain model of the rules."""

    folder: Path
    forge: Forge

    def __init__(self) -> None:
        super().__init__()
        self.store = open_store(Path(tempfile.mkdtemp(dir=self.folder)))
        self.history: list[int] = []
        self.status: dict[int, str] = {}

    def teardown(self) -> None:
        self.store.close()

    @rule()
    def add(self) -> None:
        number = len(self.status) + 1
        artifact = self.forge.make("model", "m" * number)
        assert register(self.store, self.folder, "home", artifact).number == number
        self.status[number] = "candidate"

    @precondition(lambda self: self.status)
    @rule(data=st.data())
    def promote_one(self, data: st.DataObject) -> None:
        number = data.draw(st.sampled_from(sorted(self.status)))
        if self.status[number] == "refused":
            assert code_of(lambda: promote(self.store, f"home@{number}")).code == "CAU-5003"
        else:
            promote(self.store, f"home@{number}")
            self._promoted(number)

    @precondition(lambda self: self.status)
    @rule(data=st.data(), leave=st.sampled_from([retire, refuse]))
    def leave(self, data: st.DataObject, leave: Any) -> None:
        number = data.draw(st.sampled_from(sorted(self.status)))
        if self.status[number] == "promoted":
            assert code_of(lambda: leave(self.store, f"home@{number}")).code == "CAU-5003"
        else:
            self.status[number] = leave(self.store, f"home@{number}").status
            self.history = [item for item in self.history if item != number]

    @precondition(lambda self: self.history)
    @rule()
    def go_back(self) -> None:
        if len(self.history) == 1:
            assert code_of(lambda: rollback(self.store, "home")).code == "CAU-5005"
        else:
            expected = self.history[-2]
            assert rollback(self.store, "home").number == expected
            self.status[self.history.pop()] = "refused"
            self.status[expected] = "promoted"

    @invariant()
    def agrees(self) -> None:
        versions = list_versions(self.store, "home")
        assert {version.number: version.status for version in versions} == self.status
        assert sum(version.status == "promoted" for version in versions) <= 1
        assert verify_audit(self.store).ok

    def _promoted(self, number: int) -> None:
        if self.status[number] == "promoted":
            return
        if self.history:
            self.status[self.history[-1]] = "retired"
        self.history = [item for item in self.history if item != number] + [number]
        self.status[number] = "promoted"


def test_registry_rules_hold_in_any_order(tmp_path_factory: pytest.TempPathFactory) -> None:
    RegistryMachine.folder = tmp_path_factory.mktemp("registry")
    RegistryMachine.forge = Forge(RegistryMachine.folder)
    machine = RegistryMachine.TestCase
    machine.settings = settings(
        max_examples=12, stateful_step_count=12, deadline=None, suppress_health_check=list(HealthCheck)
    )
    machine().runTest()
