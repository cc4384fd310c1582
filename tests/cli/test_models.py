"""`causerie models import|export`: foreign folders come in checked, versions go out as folders and GGUF files."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch

from causerie.cli.app import main
from causerie.model import add_lora, init_model, load_gguf, load_model, save_adapter, save_model, shape_from_depth
from causerie.text import load_tokenizer, train_bpe
from tests.model.references import saved_reference


def run(*arguments: str, workspace: Path, capsys: pytest.CaptureFixture[str]) -> tuple[int, str, str]:
    """Exit status, stdout and stderr of a command run in this process."""
    with pytest.raises(SystemExit) as caught:
        main([*arguments, "--workspace", str(workspace), "--json"])
    out, err = capsys.readouterr()
    return int(caught.value.code or 0), out, err


def last(out: str) -> dict[str, Any]:
    return dict(json.loads(out.splitlines()[-1]))


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A model of our series with its tokenizer."""
    place = tmp_path / "mine"
    place.mkdir()
    tokenizer = train_bpe(["a cat and a dog and a mouse, l'eau et le feu"] * 8, 320)
    tokenizer.save(place)
    save_model(init_model(shape_from_depth(2, tokenizer.vocab_size), 0), place, place)
    return place


def test_in_and_out_again(folder: Path, tmp_path: Path, workspace: Path, capsys: pytest.CaptureFixture[str]) -> None:
    status, out, _ = run("models", "import", str(folder), "--licence", "Apache-2.0", workspace=workspace, capsys=capsys)
    assert (status, last(out)["name"]) == (0, "mine")
    status, out, _ = run("models", "export", "mine", str(tmp_path / "out"), workspace=workspace, capsys=capsys)
    assert status == 0
    assert last(out)["argmax_equal"] is True
    weights = "model.safetensors"
    assert (tmp_path / "out" / weights).read_bytes() == (folder / weights).read_bytes()
    assert (tmp_path / "out" / "generation_config.json").is_file()
    assert "chat_template" in (tmp_path / "out" / "tokenizer_config.json").read_text()


@pytest.mark.parametrize("kind", ["f32", "f16", "q8_0"])
def test_out_as_gguf(
    kind: str, folder: Path, tmp_path: Path, workspace: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run("models", "import", str(folder), workspace=workspace, capsys=capsys)
    asked = ("models", "export", "mine", str(tmp_path / "out"), "--format", "gguf", "--dtype", kind)
    status, out, _ = run(*asked, workspace=workspace, capsys=capsys)
    told = last(out)
    assert status == 0
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == ["NOTICE", "README.md", f"mine-{kind}.gguf"]
    assert Path(told["path"]).stat().st_size == told["bytes"]
    assert load_gguf(Path(told["path"])).shape == load_model(folder).shape
    status, _, err = run(*asked, workspace=workspace, capsys=capsys)
    assert (status, "CAU-5004" in err) == (2, True)


def test_an_adapter_goes_out_merged(
    folder: Path, tmp_path: Path, workspace: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    model = load_model(folder)
    add_lora(model, 2, 4.0)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if name.endswith("lora_B"):
                parameter.fill_(0.1)
    adapter = tmp_path / "adapter"
    adapter.mkdir()
    save_adapter(model, adapter, folder, tokenizer_from=folder)
    status, _, err = run("models", "import", str(adapter), workspace=workspace, capsys=capsys)
    assert status == 0, err
    status, out, err = run(
        "models", "export", "adapter", str(tmp_path / "out"), "--format", "gguf", "--dtype", "f32",
        workspace=workspace, capsys=capsys,
    )  # fmt: skip
    assert status == 0, err
    merged, written = load_model(adapter).state_dict(), load_gguf(Path(last(out)["path"])).state_dict()
    assert all(torch.equal(tensor, written[name]) for name, tensor in merged.items())


def test_foreign_models_come_in(tmp_path: Path, workspace: Path, capsys: pytest.CaptureFixture[str]) -> None:
    theirs = saved_reference("modernbert", tmp_path / "encoder")
    status, out, err = run("models", "import", str(tmp_path / "encoder"), workspace=workspace, capsys=capsys)
    assert status == 0, err
    model = load_model(workspace / "model" / Path(last(out)["artifact"]).name)
    ids = torch.arange(5, 15)[None]
    with torch.no_grad():
        assert (model.logits(model(ids)) - theirs(ids).logits).abs().max() <= 1e-4
    asked = ("models", "export", "encoder", str(tmp_path / "out"), "--format", "gguf")
    status, _, err = run(*asked, workspace=workspace, capsys=capsys)
    assert (status, "CAU-3010" in err, (tmp_path / "out").exists()) == (2, True, False)


def break_config(folder: Path) -> None:
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps({**config, "architectures": ["MambaForCausalLM"]}))


def break_weights(folder: Path) -> None:
    (folder / "model.safetensors").write_bytes((folder / "model.safetensors").read_bytes()[:-50])


@pytest.mark.parametrize(
    ("harm", "code"),
    [
        (break_config, "CAU-3002"),
        (break_weights, "CAU-3004"),
        (lambda folder: (folder / "modeling_x.py").write_text("print()"), "CAU-3003"),
        (lambda folder: (folder / "model.safetensors").unlink(), "CAU-"),
    ],
    ids=["unknown family", "truncated", "code", "no weights"],
)
def test_what_cannot_run_does_not_come_in(
    harm: Any, code: str, folder: Path, workspace: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    harm(folder)
    status, out, err = run("models", "import", str(folder), workspace=workspace, capsys=capsys)
    assert (status, code in err) == (2, True), err
    status, out, _ = run("models", "list", workspace=workspace, capsys=capsys)
    assert last(out)["versions"] == []


def test_the_exported_tokenizer_is_ours(folder: Path) -> None:
    assert load_tokenizer(folder).decode(load_tokenizer(folder).encode("l'eau")) == "l'eau"
