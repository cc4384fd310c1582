"""Models in and out under bad conditions: nothing half done, nothing silently ignored; terms combine as sets do."""

from __future__ import annotations

import errno
import json
import shutil
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors import safe_open

from causerie.core import CauserieError, open_artifact, read_manifest
from causerie.hub import (
    combine_licences,
    export_model,
    folder_kind,
    get_version,
    import_model,
    lineage,
    list_audit,
    list_versions,
    resolve,
    verify_version,
    weights_key,
    write_card,
)
from causerie.hub.terms import UNKNOWN, combine_notices
from causerie.store import Store

from .conftest import Forge, write_weights

LICENCES = st.sampled_from(["MIT", "Apache-2.0", "CC-BY-SA-4.0", "Gemma Terms of Use", UNKNOWN, ""])


def code_of(call: Any) -> str:
    with pytest.raises(CauserieError) as caught:
        call()
    assert caught.value.cause
    assert caught.value.where
    assert caught.value.fix
    return caught.value.code


@given(st.lists(LICENCES), st.lists(LICENCES), st.lists(LICENCES))
@settings(deadline=None)
def test_licences_combine_as_sets_do(a: list[str], b: list[str], c: list[str]) -> None:
    together = combine_licences([*a, *b])
    assert combine_licences([together]) == together
    assert combine_licences([combine_licences(a), combine_licences([*b, *c])]) == combine_licences(
        [combine_licences([*a, *b]), *c]
    )
    named = {licence for licence in (*a, *b) if licence not in ("", UNKNOWN)}
    assert set(together.split(" AND ")) == (named or {UNKNOWN})


@given(st.lists(st.text(max_size=4)), st.lists(st.text(max_size=4)))
@settings(deadline=None)
def test_no_notice_is_lost_or_told_twice(a: list[str], b: list[str]) -> None:
    told = combine_notices(a, b)
    assert len(set(told)) == len(told)
    assert set(told) == {notice for notice in (*a, *b) if notice.strip()}


def test_what_comes_in_goes_out_byte_for_byte(store: Store, workspace: Path, tmp_path: Path) -> None:
    source = tmp_path / "source"
    write_weights(source, seed=3)
    (source / "chat_template.jinja").write_text("{{ messages }} é")
    (source / "modeling_evil.py").write_text("raise SystemExit")
    import_model(store, workspace, source, "home", licence="MIT", notices=["Keep this."], status="promoted")
    out = export_model(store, workspace, "home", tmp_path / "deep" / "out")
    copied = {"config.json", "model.safetensors", "chat_template.jinja"}
    assert {path.name for path in out.iterdir()} == copied | {"README.md", "NOTICE"}
    for name in copied:
        assert (out / name).read_bytes() == (source / name).read_bytes()
    assert "Keep this." in (out / "NOTICE").read_text()
    with safe_open(out / "model.safetensors", "np") as weights:
        assert weights.get_tensor("w").shape == (4, 4)
    assert [row.action for row in list_audit(store)] == ["register", "promote", "export"]


def test_a_new_template_is_a_new_model(store: Store, workspace: Path, tmp_path: Path) -> None:
    write_weights(tmp_path / "m")
    keys = set()
    for name, text in (
        ("chat_template.jinja", "a"),
        ("chat_template.jinja", "b"),
        ("vocab.txt", "c"),
        ("x.model", "d"),
    ):
        (tmp_path / "m" / name).write_text(text)
        keys.add(weights_key(tmp_path / "m"))
        version = import_model(store, workspace, tmp_path / "m", "home")
        assert (version.path(workspace) / name).read_text() == text
    (tmp_path / "m" / "notes.md").write_text("not part of the model")
    assert len(keys) == len(list_versions(store)) == 4
    assert weights_key(tmp_path / "m") in keys


@pytest.mark.parametrize("name", ["Bad Name", "../x", "", "ä", "a" * 65, ".hidden", "name@3"])
def test_a_bad_name_is_refused_before_anything_is_copied(
    store: Store, workspace: Path, tmp_path: Path, name: str
) -> None:
    write_weights(tmp_path / "m")
    assert code_of(lambda: import_model(store, workspace, tmp_path / "m", name)) == "CAU-5002"
    assert not (workspace / "model").exists()


def test_another_licence_for_what_is_registered_is_refused(store: Store, workspace: Path, tmp_path: Path) -> None:
    write_weights(tmp_path / "m")
    first = import_model(store, workspace, tmp_path / "m", "home", licence="MIT")
    assert import_model(store, workspace, tmp_path / "m", "home") == first
    assert import_model(store, workspace, tmp_path / "m", "home", licence="MIT") == first
    assert code_of(lambda: import_model(store, workspace, tmp_path / "m", "home", licence="GPL-3.0")) == "CAU-5003"
    assert import_model(store, workspace, tmp_path / "m", "other", licence="GPL-3.0").licence == "GPL-3.0"


@pytest.mark.parametrize("fails", [1, 2, 3])
def test_a_disk_that_fills_up_while_exporting_leaves_nothing(
    store: Store, workspace: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, fails: int
) -> None:
    write_weights(tmp_path / "m")
    (tmp_path / "m" / "tokenizer.json").write_text("{}")
    import_model(store, workspace, tmp_path / "m", "home", status="promoted")
    real, calls = shutil.copyfile, []

    def copy(source: Path, target: Path) -> Path:
        calls.append(source)
        if len(calls) == fails:
            raise OSError(errno.ENOSPC, "No space left on device", str(source))
        return real(source, target)

    with monkeypatch.context() as patched:
        patched.setattr(shutil, "copyfile", copy)
        with pytest.raises(CauserieError) as caught:
            export_model(store, workspace, "home", tmp_path / "out")
    assert (caught.value.code, caught.value.where) == ("CAU-1007", str(tmp_path / "out"))
    assert sorted(path.name for path in tmp_path.iterdir()) == ["m", workspace.name]
    assert export_model(store, workspace, "home", tmp_path / "out").is_dir()


def test_a_disk_that_fills_up_while_importing_names_the_workspace(
    store: Store, workspace: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_weights(tmp_path / "m")

    def full(source: Path, _target: Path) -> None:
        raise OSError(errno.ENOSPC, "No space left on device", str(source))

    with monkeypatch.context() as patched:
        patched.setattr(shutil, "copyfile", full)
        with pytest.raises(CauserieError) as caught:
            import_model(store, workspace, tmp_path / "m", "home")
    assert caught.value.code == "CAU-1007"
    assert str(workspace) in caught.value.where
    assert list((workspace / "model").iterdir()) == []
    assert list_versions(store) == []


def test_an_export_never_mixes_with_what_is_there(store: Store, workspace: Path, forge: Forge, tmp_path: Path) -> None:
    write_weights(tmp_path / "m")
    import_model(store, workspace, tmp_path / "m", "home", status="promoted")
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "diary.txt").write_text("mine")
    for out in (tmp_path / "full", tmp_path / "full" / "diary.txt"):
        assert code_of(lambda out=out: export_model(store, workspace, "home", out)) == "CAU-5004"
    assert (tmp_path / "full" / "diary.txt").read_text() == "mine"
    (tmp_path / "empty").mkdir()
    assert export_model(store, workspace, "home", tmp_path / "empty") == tmp_path / "empty"


def test_a_damaged_version_does_not_go_out(store: Store, workspace: Path, tmp_path: Path) -> None:
    write_weights(tmp_path / "m")
    version = import_model(store, workspace, tmp_path / "m", "home", status="promoted")
    weights = version.path(workspace) / "model.safetensors"
    content = bytearray(weights.read_bytes())
    content[-1] ^= 1
    weights.write_bytes(content)
    assert code_of(lambda: export_model(store, workspace, "home", tmp_path / "out")) == "CAU-1002"
    assert not (tmp_path / "out").exists()
    assert not verify_version(store, workspace, "home").ok


@pytest.mark.parametrize(
    ("files", "kind"),
    [
        (("config.json", "model-00001-of-00002.safetensors"), "model"),
        (("adapter_config.json", "adapter_model.safetensors"), "adapter"),
        (("config.json", "pytorch_model.bin"), ""),
        (("adapter_config.json",), ""),
        ((), ""),
    ],
)
def test_a_folder_is_known_by_its_files(tmp_path: Path, files: tuple[str, ...], kind: str) -> None:
    for name in files:
        (tmp_path / name).touch()
    if kind:
        assert folder_kind(tmp_path) == kind
    else:
        assert code_of(lambda: folder_kind(tmp_path)) == "CAU-5004"


def test_a_corpus_is_no_model_whatever_files_it_has(forge: Forge, store: Store, workspace: Path) -> None:
    corpus = forge.make("corpus", "web")
    write_weights(corpus.path)
    assert code_of(lambda: folder_kind(corpus.path)) == "CAU-5004"
    assert code_of(lambda: resolve(store, workspace, str(corpus.path))) == "CAU-5004"
    assert code_of(lambda: resolve(store, workspace, "")) == "CAU-5001"


def test_an_artifact_is_registered_where_it_lies(store: Store, workspace: Path, forge: Forge, tmp_path: Path) -> None:
    outside = forge.make("model", "mine", out=tmp_path / "elsewhere")
    version = import_model(store, workspace, outside.path, "home", status="promoted")
    assert version.path(workspace) == outside.path
    assert resolve(store, workspace, "home").key == outside.key == get_version(store, "home@1").key
    assert lineage(store, workspace, "home").path == str(outside.path)
    manifest = json.loads((outside.path / "manifest.json").read_text())
    (outside.path / "manifest.json").write_text(json.dumps({**manifest, "key": "0" * 64}))
    assert read_manifest(outside.path).key != version.key
    assert code_of(lambda: resolve(store, workspace, "home")) == "CAU-5004"


def test_the_card_is_markdown_that_hugging_face_reads(
    store: Store, workspace: Path, forge: Forge, tmp_path: Path
) -> None:
    """The block at its head is YAML: parsed by PyYAML, which we did not write, it gives the values back."""
    yaml = pytest.importorskip("yaml")
    artifact = forge.make("model", "m", notices=["Line one\nline two: `x` | y"])
    awkward = 'Licence: "quoted" # not a comment'
    import_model(store, workspace, artifact.path, "home", licence=awkward, status="promoted")
    card = write_card(store, workspace, "home", evaluation={"a|b": 0.123456789, "n": "x\ny"}).read_text()
    _, head, body = card.split("---\n", 2)
    fields = yaml.safe_load(head)
    assert (fields["license_name"], fields["library_name"]) == (awkward, "transformers")
    assert "| a\\|b | 0.123457 |" in body
    assert "| n | x y |" in body
    assert "> Line one\n> line two" in body
    assert open_artifact(artifact.path).key in card
