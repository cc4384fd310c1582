"""Manifests: any change of a field's kind is found, every file is listed, and nothing leads out of the folder."""

from __future__ import annotations

import hashlib
import json
import shutil
import string
from dataclasses import asdict
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from causerie.core import (
    CauserieError,
    existing_artifact,
    find_artifact,
    open_artifact,
    open_run,
    read_manifest,
    workspace_path,
    write_artifact,
)
from causerie.core.workspace import NAME_BYTES, folder_name

KEY = "c" * 64
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=6,
)


def whole(folder: Path) -> dict[str, object]:
    with write_artifact(folder, "corpus", "c", KEY, inputs={"a": "b"}, exact=True) as draft:
        (draft.path / "sub").mkdir()
        (draft.path / "sub" / "manifest.json").write_text("{}")
        (draft.path / "data.bin").write_bytes(b"12345")
        draft.metrics["n"] = 1
    value: dict[str, object] = json.loads((folder / "manifest.json").read_text())
    return value


def test_every_file_but_the_manifest_itself_is_listed_with_its_digest(tmp_path: Path) -> None:
    whole(tmp_path / "c")
    entries = {entry.path: entry for entry in read_manifest(tmp_path / "c").files}
    assert set(entries) == {"data.bin", "sub/manifest.json"}
    assert entries["data.bin"].sha256 == hashlib.sha256(b"12345").hexdigest()
    assert entries["data.bin"].bytes == 5
    (tmp_path / "c" / "sub" / "manifest.json").write_text("[]")
    with pytest.raises(CauserieError, match="digest"):
        open_artifact(tmp_path / "c", verify="digest")


@given(
    field=st.sampled_from(("kind", "name", "key", "created", "inputs", "config", "files", "metrics", "seeds")),
    value=JSON,
)
@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_any_json_in_a_field_is_read_or_refused(tmp_path: Path, field: str, value: object) -> None:
    folder = tmp_path / "m"
    folder.mkdir(exist_ok=True)
    good = {"kind": "corpus", "name": "c", "key": KEY, "created": "now"}
    (folder / "manifest.json").write_text(json.dumps({**good, field: value}))
    code, read = "", {}
    try:
        read = asdict(open_artifact(folder).manifest)
    except CauserieError as error:
        code = error.code
    if code:
        assert code in ("CAU-1002", "CAU-1003")  # never a TypeError or KeyError
    else:
        assert read[field] == (tuple(value) if field == "files" else value)  # type: ignore[arg-type]


@pytest.mark.parametrize("path", ["../x", "/etc/passwd", "a/../../x"])
def test_no_file_of_an_artifact_lies_outside(tmp_path: Path, path: str) -> None:
    value = whole(tmp_path / "c")
    value["files"] = [{"path": path, "bytes": 1, "sha256": "0" * 64}]
    (tmp_path / "c" / "manifest.json").write_text(json.dumps(value))
    with pytest.raises(CauserieError, match="out of the folder") as caught:
        open_artifact(tmp_path / "c")
    assert caught.value.code == "CAU-1003"


def test_another_kind_and_a_file_in_its_place_are_told_apart(tmp_path: Path) -> None:
    whole(tmp_path / "c")
    assert open_artifact(tmp_path / "c", kind="corpus").key == KEY
    for folder, kind, code in (("c", "shards", "CAU-1010"), ("c/data.bin", "", "CAU-1001"), ("x", "", "CAU-1001")):
        with pytest.raises(CauserieError) as caught:
            open_artifact(tmp_path / folder, kind=kind)
        assert (caught.value.code, bool(caught.value.where), bool(caught.value.fix)) == (code, True, True)


def test_what_an_artifact_is_made_from_is_not_overwritten_by_it(tmp_path: Path) -> None:
    whole(tmp_path / "c")
    made = {"corpus": KEY}
    with pytest.raises(CauserieError, match="made from") as early:
        existing_artifact(tmp_path / "c", tmp_path, "corpus", "c", "d" * 64, made)
    with (
        pytest.raises(CauserieError, match="made from") as late,
        write_artifact(tmp_path / "c", "corpus", "c", "d" * 64, inputs=made, exact=True),
    ):
        pass
    assert early.value.code == late.value.code == "CAU-1009"
    assert (tmp_path / "c" / "data.bin").read_bytes() == b"12345"
    with write_artifact(tmp_path / "c", "corpus", "c", "d" * 64, inputs={"corpus": "e" * 64}, exact=True):
        pass  # another one gives way
    assert read_manifest(tmp_path / "c").key == "d" * 64


GOOD = st.text(alphabet=string.ascii_letters + string.digits + "éàü -_.", min_size=1, max_size=40)


@given(name=GOOD)
@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_a_name_that_is_taken_is_a_folder_in_its_place(tmp_path: Path, name: str) -> None:
    if not name.strip() or name[0] in ".-":
        with pytest.raises(CauserieError, match="cannot be the name"):
            folder_name(name)
        return
    with write_artifact(tmp_path, "kind", name, KEY) as draft:
        (draft.path / "x").touch()
    found = find_artifact(tmp_path, "kind", name, KEY)
    assert found is not None
    assert found.path.parent == tmp_path / "kind"
    shutil.rmtree(found.path)


BAD = [
    "",
    " ",
    ".",
    "..",
    "../x",
    "a/b",
    "/abs",
    ".hidden",
    "-flag",
    "a\nb",
    "a\0b",
    "a\udce9",
    "é" * (NAME_BYTES // 2 + 1),
]


@pytest.mark.parametrize("name", BAD, ids=ascii)
def test_other_names_are_refused_before_anything_is_written(workspace: Path, name: str) -> None:
    calls = (
        lambda: write_artifact(workspace, "kind", name, KEY).__enter__(),
        lambda: open_run(workspace, "kind", name, KEY, {}).__enter__(),
        lambda: existing_artifact(None, workspace, "kind", name, KEY),
    )
    for call in calls:
        with pytest.raises(CauserieError) as caught:
            call()
        assert caught.value.code == "CAU-1011"
    assert list(workspace.parent.rglob("*")) == [workspace]


def test_a_workspace_comes_from_the_argument_then_the_environment(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("CAUSERIE_WORKSPACE", raising=False)
    assert workspace_path() == tmp_path / "workspace"
    monkeypatch.setenv("CAUSERIE_WORKSPACE", "from-environment")
    assert workspace_path() == tmp_path / "from-environment"
    assert workspace_path(Path("given")) == tmp_path / "given"
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    assert workspace_path(Path("~/w")) == tmp_path / "home" / "w"
    for bad in ("~nobody-of-this-name/w", "caf\udce9"):
        with pytest.raises(CauserieError) as caught:
            workspace_path(Path(bad))
        assert caught.value.code == "CAU-1011"
