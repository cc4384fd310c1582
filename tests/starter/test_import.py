"""The import on a tiny stand-in of the packages, and once on the real ones where they are installed."""

from __future__ import annotations

import errno
import importlib.metadata
import importlib.util
import json
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from causerie.core import CauserieError, list_artifacts, open_artifact, sha256_file
from causerie.hub import resolve
from causerie.model import add_lora, chunked_loss, load_model, save_adapter
from causerie.starter import NOTICE, StarterConfig, add_starter_adapter, import_starter, kept_ids, register_starter
from causerie.starter import gemma as gemma_module
from causerie.starter import package as package_module
from causerie.starter import registration as registration_module
from causerie.starter import vocabulary as vocabulary_module
from causerie.store import open_store
from causerie.text import load_chat_format, load_tokenizer
from tests.model.test_gguf import GEMMA, write

MODULE = package_module.MODULE
WORDS = ["▁", "t", "h", "e", "a", "n", "d", "\n", "th", "the", "▁the", "an", "and", "▁and"]
SPECIAL = ["<pad>", "<eos>", "<bos>", "<unk>", "<start_of_turn>", "<end_of_turn>"]
TOKENS = [*SPECIAL, *(f"<0x{byte:02X}>" for byte in range(256)), *WORDS, "z", "ze", "zed"]
TYPES = [*[3] * len(SPECIAL), *[6] * 256, *[1] * (len(TOKENS) - len(SPECIAL) - 256)]


@pytest.fixture
def packages(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """Stand-ins for the packages: same module, same file names, a tiny Gemma 3 in two parts."""
    folder = tmp_path / "site" / MODULE
    (folder / "data").mkdir(parents=True)
    whole = tmp_path / "whole.gguf"
    write_gemma(whole)
    data = whole.read_bytes()
    (folder / "data" / "0").write_bytes(data[: len(data) // 2])
    (folder / "data" / "1").write_bytes(data[len(data) // 2 :])
    (folder / "data" / package_module.TERMS_FILE).write_text("<html>terms</html>")
    lines = ("from pathlib import Path", "def chunk_paths():", "    here = Path(__file__).parent / 'data'")
    (folder / "__init__.py").write_text("\n".join((*lines, "    return [here / '0', here / '1']", "")))
    monkeypatch.syspath_prepend(str(folder.parent))
    monkeypatch.delitem(sys.modules, MODULE, raising=False)
    monkeypatch.setattr(importlib.metadata, "version", lambda name: "1.0.0")
    for module in (package_module, gemma_module):
        monkeypatch.setattr(module, "SHA256", sha256_file(whole))
    yield folder
    sys.modules.pop(MODULE, None)


def write_gemma(path: Path) -> None:
    shape = GEMMA.__class__(**{**vars(GEMMA), "vocab_size": len(TOKENS)})
    scores = [-float(number) for number in range(len(TOKENS))]
    write(path, shape, tokens=(TOKENS, scores, TYPES))


@pytest.fixture
def cut(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """A cut that drops a word."""
    keep = [number for number, token in enumerate(TOKENS) if token not in ("ze", "zed")]
    monkeypatch.setattr(gemma_module, "kept_ids", lambda name: keep if name == "en-fr" else None)
    return keep


def test_full_import_makes_a_model_with_notices(packages: Path, workspace: Path) -> None:
    artifact = import_starter(StarterConfig(vocabulary="full"), workspace)
    assert open_artifact(artifact.path, verify="digest").manifest.kind == "model"
    assert any("Gemma Terms of Use" in notice for notice in artifact.manifest.notices)
    assert "Gemma is provided under" in (artifact.path / "NOTICE.txt").read_text()
    assert (artifact.path / package_module.TERMS_FILE).read_text() == "<html>terms</html>"
    config = json.loads((artifact.path / "config.json").read_text())
    assert config["architectures"] == ["Gemma3ForCausalLM"]
    assert config["eos_token_id"] == [TOKENS.index("<end_of_turn>"), TOKENS.index("<eos>")]
    assert load_chat_format(artifact.path).name == "gemma"
    assert not list(workspace.glob(".starter-*"))


def test_cut_keeps_rows_and_tokens_together(packages: Path, cut: list[int], workspace: Path) -> None:
    full = import_starter(StarterConfig(vocabulary="full"), workspace)
    small = import_starter(StarterConfig(), workspace)
    whole, part = load_model(full.path), load_model(small.path)
    assert torch.equal(part.embed_tokens.weight, whole.embed_tokens.weight[cut])
    old, new = load_tokenizer(full.path), load_tokenizer(small.path)
    text = "the and the\nthe"
    assert [cut[number] for number in new.encode(text)] == old.encode(text)
    assert new.decode(new.encode(" zed")) == " zed"
    assert len(new.encode(" zed")) > len(old.encode(" zed"))
    ids = torch.tensor([new.encode(text)])
    with torch.no_grad():
        torch.testing.assert_close(part(ids), whole(torch.tensor([old.encode(text)])))


def test_second_import_does_not_run_again(packages: Path, workspace: Path) -> None:
    first = import_starter(StarterConfig(vocabulary="full"), workspace)
    (packages / "data" / "0").unlink()
    assert import_starter(StarterConfig(vocabulary="full"), workspace).key == first.key
    exact = workspace / "elsewhere"
    with pytest.raises(CauserieError, match="CAU-4402"):
        import_starter(StarterConfig(vocabulary="full", out=exact), workspace)
    assert not exact.exists()


def shipped(folder: Path, base: Path, seed: int = 1) -> Path:
    folder.mkdir()
    model = load_model(base)
    add_lora(model, 2, 4.0, seed=seed)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if name.endswith("lora_B"):
                parameter.fill_(0.02)
    save_adapter(model, folder, "elsewhere")
    (folder / "README.md").write_text("card")
    (folder / "manifest.json").write_text(json.dumps({"metrics": {"loss": 2.0}}))
    return folder


@pytest.mark.parametrize("exact", [False, True])
def test_adapter_artifact_runs_on_its_base(exact: bool, packages: Path, workspace: Path, tmp_path: Path) -> None:
    config = StarterConfig(vocabulary="full", adapter=False, out=tmp_path / "here" / "base" if exact else None)
    base = import_starter(config, workspace)
    source = shipped(tmp_path / "shipped", base.path)
    adapter = add_starter_adapter(config, workspace, base, source)
    assert adapter is not None
    assert adapter.path.name.startswith("base-chat" if exact else "gemma-3-270m-chat-")
    assert open_artifact(adapter.path, verify="digest").manifest.inputs["base"] == base.key
    assert adapter.manifest.metrics == {"loss": 2.0}
    assert adapter.manifest.notices == base.manifest.notices
    assert {"README.md", "NOTICE.txt", "tokenizer.json"} <= {path.name for path in adapter.path.iterdir()}
    ids = torch.arange(9)[None]
    plain, tuned, apart = (
        load_model(base.path),
        load_model(adapter.path),
        load_model(adapter.path, merge_adapters=False),
    )
    with torch.no_grad():
        assert not torch.allclose(plain(ids), tuned(ids))
        torch.testing.assert_close(apart(ids), tuned(ids), rtol=0, atol=1e-4)
    again = add_starter_adapter(config, workspace, base, source)
    assert again is not None
    assert again.key == adapter.key
    if not exact:
        assert len(list_artifacts(workspace, "adapter")) == 1


def test_registered_under_its_terms(
    packages: Path, workspace: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = StarterConfig(vocabulary="full")
    source = shipped(tmp_path / "shipped", import_starter(replace(config, adapter=False), workspace).path)
    add = registration_module.add_starter_adapter
    monkeypatch.setattr(registration_module, "add_starter_adapter", lambda *given: add(*given, source))
    with open_store(workspace) as store:
        for _ in range(2):
            version = register_starter(config, workspace, store)
        assert resolve(store, workspace, "starter").version == version
    assert version.ref == "starter@2"
    assert version.kind == "adapter"
    assert version.parents == ("starter@1",)
    assert "Gemma Terms of Use" in version.licence
    assert NOTICE in version.notices


def test_damaged_assets(packages: Path, workspace: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    config = StarterConfig(vocabulary="full")
    base = import_starter(config, workspace)
    with pytest.raises(CauserieError, match="CAU-4403"):
        add_starter_adapter(config, workspace, base, tmp_path)
    monkeypatch.setattr(vocabulary_module, "FULL_SIZE", 8)
    with pytest.raises(CauserieError, match="CAU-4403"):
        kept_ids("en-fr")


@pytest.mark.parametrize("held", ["photo.jpg", "manifest.json"])
def test_what_stands_at_out_is_left_alone(held: str, packages: Path, workspace: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    out.mkdir()
    (out / held).write_text('{"kind": "corpus", "name": "c", "key": "k", "created": "now"}')
    with pytest.raises(CauserieError) as caught:
        import_starter(StarterConfig(vocabulary="full", out=out), workspace)
    assert (caught.value.code, caught.value.where) == ("CAU-1009", str(out))
    assert [path.name for path in out.iterdir()] == [held]


def test_the_shipped_adapter_does_not_replace_other_things(packages: Path, workspace: Path, tmp_path: Path) -> None:
    config = StarterConfig(vocabulary="full", out=tmp_path / "base")
    base = import_starter(replace(config, adapter=False), workspace)
    shipped = tmp_path / "shipped"
    shipped.mkdir()
    for name in ("adapter_config.json", "adapter_model.safetensors"):
        (shipped / name).write_text("{}")
    (tmp_path / "base-chat").mkdir()
    (tmp_path / "base-chat" / "letter.txt").write_text("mine")
    with pytest.raises(CauserieError) as caught:
        add_starter_adapter(config, workspace, base, shipped)
    assert caught.value.code == "CAU-1009"
    assert (tmp_path / "base-chat" / "letter.txt").read_text() == "mine"


@pytest.mark.parametrize("name", ["../gemma", "", "a/b"])
def test_a_name_that_leads_elsewhere_is_refused(name: str, packages: Path, workspace: Path) -> None:
    with pytest.raises(CauserieError) as caught:
        import_starter(StarterConfig(vocabulary="full", name=name), workspace)
    assert caught.value.code == "CAU-1011"
    assert list(workspace.iterdir()) == []


def test_a_disk_that_fills_up_leaves_nothing_in_or_beside_the_workspace(
    packages: Path, workspace: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: object, **__: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    before = {path.name for path in workspace.parent.iterdir()}
    with monkeypatch.context() as patched, pytest.raises(CauserieError) as caught:
        patched.setattr(gemma_module, "save_model", full)
        import_starter(StarterConfig(vocabulary="full"), workspace)
    assert caught.value.code == "CAU-1007"
    assert {path.name for path in workspace.parent.iterdir()} == before
    assert [path for path in workspace.rglob("*") if path.is_file()] == []
    assert import_starter(StarterConfig(vocabulary="full"), workspace).path.is_dir()


def test_a_workspace_that_is_a_file_is_told(packages: Path, tmp_path: Path) -> None:
    (tmp_path / "w").write_text("a file")
    with pytest.raises(CauserieError) as caught:
        import_starter(StarterConfig(vocabulary="full"), tmp_path / "w")
    assert (caught.value.code, caught.value.where) == ("CAU-1007", str(tmp_path / "w"))


def test_missing_package(workspace: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(CauserieError, match=r"CAU-4401[\s\S]*pip install 'causerie\[starter\]'"):
        import_starter(StarterConfig(vocabulary="full"), workspace)
    assert list(workspace.glob("model/*")) == []


def test_wrong_version_and_content(packages: Path, workspace: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (packages / "data" / "1").write_bytes(b"other")
    with pytest.raises(CauserieError, match="SHA-256"):
        import_starter(StarterConfig(vocabulary="full"), workspace)
    monkeypatch.setattr(importlib.metadata, "version", lambda name: "1.0.1")
    with pytest.raises(CauserieError, match="CAU-4402"):
        import_starter(StarterConfig(vocabulary="full"), workspace)


def test_shipped_cut_is_sane() -> None:
    keep = kept_ids("en-fr")
    assert keep is not None
    assert 48_000 <= len(keep) <= 100_000
    assert keep == sorted(set(keep))
    assert set(range(4)) <= set(keep)
    assert kept_ids("full") is None


@pytest.mark.slow
@pytest.mark.skipif(not package_module.starter_available(), reason="the starter's packages are not installed")
def test_real_packages(workspace: Path) -> None:
    """Slow (about ten seconds): converts the real 268M-parameter model."""
    artifact = import_starter(StarterConfig(adapter=False), workspace)
    tokenizer, model = load_tokenizer(artifact.path), load_model(artifact.path, dtype=torch.bfloat16)
    text = "La tour Eiffel se trouve à Paris, en France. The Eiffel Tower is in Paris, the capital of France."
    ids = torch.tensor([[tokenizer.eot_id, *tokenizer.encode(text)]])
    assert tokenizer.decode(ids[0].tolist()) == text
    with torch.no_grad():
        hidden = model(ids)
        nll = chunked_loss(model, hidden[0, :-1], ids[0, 1:]).mean()
        next_words = tokenizer.decode([int(model.logits(hidden[0, -2]).argmax())])
    assert nll < 2.5
    assert next_words == "."
