"""Every answer leads back to weights, data and votes; rights travel with the weights; verification sees changes."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from sqlalchemy import update

from causerie.core import CauserieError, open_artifact
from causerie.feedback import Exposure, Signal, TrainingSetConfig, record_exposure, record_signal, training_set
from causerie.hub import (
    combine_licences,
    export_model,
    import_model,
    lineage,
    list_audit,
    model_card,
    register,
    render_lineage,
    resolve,
    rights_of,
    trace_answer,
    verify_version,
    write_card,
)
from causerie.store import Store, versions

from .conftest import Forge, write_weights


def roles(tree: object) -> dict[str, str]:
    return {node.role: node.kind for node in tree.walk() if node.role}  # type: ignore[attr-defined]


def test_the_tree_reaches_from_the_adapter_to_the_pages_and_the_votes(
    store: Store, workspace: Path, forge: Forge
) -> None:
    made = forge.chain()
    base = register(store, workspace, "home", made["model"], status="promoted")
    tuned = register(store, workspace, "home", made["adapter"], parents=[base.ref])
    tree = lineage(store, workspace, tuned.ref)
    assert (tree.kind, tree.refs) == ("adapter", ("home@2",))
    by_role = {node.role: node for node in tree.parents}
    assert set(by_role) == {"base", "preferences"}
    assert by_role["base"].refs == ("home@1",)
    assert by_role["preferences"].detail == {"people": 2, "pairs": 1, "signals": ["sig_a", "sig_b"]}
    assert tree.signal_ids() == ("sig_a", "sig_b")
    kinds = {node.kind for node in tree.walk()}
    assert kinds == {"adapter", "model", "preferences", "shards", "tokenizer", "corpus", "input"}
    corpora = [node for node in tree.walk() if node.kind == "corpus"]
    assert corpora[0].detail == {"documents_in": 100, "documents_kept": 40}
    assert [node.repeated for node in corpora].count(False) == 1
    text = render_lineage(tree)
    assert "base: model base" in text
    assert "signals 2" in text
    json.dumps(tree.as_dict())


def test_lineage_works_by_folder_without_a_store_and_outside_the_workspace(
    workspace: Path, forge: Forge, tmp_path: Path
) -> None:
    votes = forge.make("preferences", "votes", config={"signals": ["sig_z"]}, out=tmp_path / "votes")
    config = {"preferences": str(votes.path), "model": "x"}
    model = forge.make("model", "out", {"preferences": votes.key}, config=config, out=tmp_path / "model")
    tree = lineage(None, workspace, str(model.path))
    assert tree.signal_ids() == ("sig_z",)
    assert roles(tree) == {"preferences": "preferences"}


def test_an_answer_is_traced_to_the_votes_behind_it(store: Store, workspace: Path, forge: Forge) -> None:
    """A real vote makes a real training set; the model made from it answers; the answer leads back to the vote."""
    shown = Exposure(user="ada", model="home", prompt=({"role": "user", "content": "Why?"},), text="So.", consent=True)
    said = Signal(shown.id, "ada", "thumb", {"label": True})
    record_exposure(store, shown)
    record_signal(store, said)
    votes = training_set(TrainingSetConfig(), workspace, store)
    base = forge.make("model", "base")
    register(store, workspace, "home", base)
    tuned = register(
        store, workspace, "home", forge.make("adapter", "tuned", {"base": base.key, "preferences": votes.key})
    )
    answer = Exposure(
        user="bob",
        model="home",
        version=2,
        version_key=tuned.key,
        prompt=shown.prompt,
        text="Well.",
        sampling={"top_p": 0.9},
    )
    stray = Exposure(user="bob", model="far", version_key="e" * 64, prompt=shown.prompt, text="Hm.")
    record_exposure(store, answer, stray)
    trace = trace_answer(store, workspace, answer.id)
    assert (trace.model, trace.sampling) == ("home@2", {"top_p": 0.9})
    assert trace.lineage is not None
    assert trace.lineage.signal_ids() == (said.id,)
    assert [node.key for node in trace.lineage.parents if node.role == "base"] == [base.key]
    assert trace_answer(store, workspace, stray.id).lineage is None
    with pytest.raises(CauserieError) as caught:
        trace_answer(store, workspace, "exp_none")
    assert caught.value.code == "CAU-5006"


def test_notices_and_licences_travel_to_every_derivative(store: Store, workspace: Path, forge: Forge) -> None:
    made = forge.chain()
    register(store, workspace, "base", made["model"], licence="Gemma", notices=["Gemma terms of use apply."])
    tuned = register(store, workspace, "home", made["adapter"], parents=["base@1"], licence="Apache-2.0")
    assert tuned.licence == "Apache-2.0 AND Gemma"
    assert set(tuned.notices) == {"Base terms.", "Gemma terms of use apply."}
    forgetful = register(store, workspace, "orphan", made["adapter"])
    assert forgetful.notices == ("Base terms.",)
    assert "Gemma terms" in rights_of(tuned).text()
    assert combine_licences(["", "unknown"]) == "unknown"
    assert combine_licences(["MIT", "Apache-2.0 AND MIT", "unknown"]) == "MIT AND Apache-2.0"


def test_a_sound_version_verifies_and_every_change_is_named(store: Store, workspace: Path, forge: Forge) -> None:
    made = forge.chain()
    register(store, workspace, "home", made["model"])
    tuned = register(store, workspace, "home", made["adapter"])
    report = verify_version(store, workspace, tuned.ref)
    assert report.ok, report.problems
    assert report.files == 4

    weights = made["model"].path / "model.safetensors"
    before = weights.read_bytes()
    weights.write_bytes(before[:-1] + bytes([before[-1] ^ 1]))
    assert verify_version(store, workspace, tuned.ref).problems == (
        "base: model.safetensors was changed: its digest differs from the manifest's",
    )
    weights.write_bytes(before)

    folder = made["adapter"].path
    (folder / "extra.bin").write_bytes(b"x")
    (folder / "adapter_config.json").unlink()
    assert set(verify_version(store, workspace, tuned.ref).problems) == {
        "extra.bin is not in the manifest",
        "adapter_config.json is missing",
    }


def test_a_manifest_or_registry_changed_afterwards_is_found(store: Store, workspace: Path, forge: Forge) -> None:
    version = register(store, workspace, "home", forge.make("model", "a"))
    manifest = version.path(workspace) / "manifest.json"
    before = manifest.read_text()
    manifest.write_text(before.replace('"notices": []', '"notices": ["free for all"]'))
    assert verify_version(store, workspace, "home@1").problems == ("the manifest was changed since registration",)
    manifest.write_text(before)
    store.write(update(versions).values(key="0" * 64))
    assert (
        "the registry's key differs from the one in the audit log"
        in verify_version(store, workspace, "home@1").problems
    )
    with pytest.raises(CauserieError) as caught:
        resolve(store, workspace, "home@1")
    assert caught.value.code == "CAU-5004"


def test_the_card_tells_evaluation_lineage_votes_and_terms(store: Store, workspace: Path, forge: Forge) -> None:
    made = forge.chain()
    register(store, workspace, "home", made["model"], licence="Gemma", notices=["Terms."])
    card = {"summary": "A small one.", "evaluation": {"loss": 2.25, "note": "a|b"}, "limits": "Knows little."}
    tuned = register(store, workspace, "home", made["adapter"], parents=["home@1"], card=card)
    text = model_card(store, workspace, tuned.ref)
    assert text.startswith("---\nlicense:")
    for part in ("# home@2", "A small one.", "| loss | 2.25 |", "a\\|b", "base: model base", "2 recorded signals", "> Terms.", "Knows little."):  # fmt: skip
        assert part in text
    path = write_card(store, workspace, "home@2", evaluation={"loss": 1.5})
    assert "| loss | 1.5 |" in path.read_text()
    assert path == workspace / "cards" / "home@2.md"
    assert "No human feedback" in model_card(store, workspace, "home@1")


def test_a_folder_is_imported_and_a_version_exported(store: Store, workspace: Path, tmp_path: Path) -> None:
    plain = tmp_path / "plain"
    write_weights(plain)
    (plain / "evil.py").write_text("import os")
    (plain / "pytorch_model.bin").write_bytes(b"pickle")
    version = import_model(store, workspace, plain, "guest", licence="MIT", notices=["Thanks."], status="promoted")
    assert import_model(store, workspace, plain, "guest") == version
    folder = version.path(workspace)
    assert sorted(path.name for path in folder.iterdir()) == ["config.json", "manifest.json", "model.safetensors"]
    assert verify_version(store, workspace, "guest").ok
    out = export_model(store, workspace, "guest", tmp_path / "out", actor="ada")
    assert (out / "model.safetensors").read_bytes() == (plain / "model.safetensors").read_bytes()
    assert "Thanks." in (out / "NOTICE").read_text()
    assert "# guest@1" in (out / "README.md").read_text()
    assert list_audit(store)[-1].action == "export"
    with pytest.raises(CauserieError) as caught:
        export_model(store, workspace, "guest", tmp_path / "out")
    assert caught.value.code == "CAU-5004"
    assert import_model(store, workspace, open_artifact(folder).path, "other").key == version.key
