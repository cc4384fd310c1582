"""What training leaves behind: where an adapter says that its base is."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from causerie.core import Draft
from causerie.model import add_lora, load_model
from causerie.train import save_trained

from .tiny import model_folder


@pytest.mark.parametrize(
    ("base", "final", "told"),
    [
        ("work/model/chat-12345678", "work/adapter/better-87654321", "../../model/chat-12345678"),
        ("elsewhere/chat", "work/adapter/better-87654321", None),
        ("work/model/chat-12345678", "elsewhere/better", None),
    ],
)
def test_the_base_is_named_relative_to_the_adapter_inside_the_workspace_only(
    base: str, final: str, told: str | None, tmp_path: Path
) -> None:
    folder, written = tmp_path / base, tmp_path / "draft"
    written.mkdir()
    model_folder(folder)
    model = load_model(folder)
    add_lora(model, 2, 4.0)
    save_trained(model, Draft(written), tmp_path / final, folder, tmp_path / "work")
    named = json.loads((written / "adapter_config.json").read_text())["base_model_name_or_path"]
    assert named == (told or str(folder))
