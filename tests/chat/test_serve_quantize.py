"""`causerie serve --quantize`: what is asked for reaches every engine."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from causerie.chat import server
from causerie.chat.config import ServeConfig
from causerie.infer import EngineConfig


@pytest.mark.parametrize(("asked", "meant"), [("none", None), ("int8-head", "int8-head"), ("int8", "int8")])
def test_eight_bits_are_handed_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, asked: Any, meant: str | None
) -> None:
    seen: list[EngineConfig] = []
    real = server.EnginePool

    def pool(**given: Any) -> Any:
        seen.append(given["config"])
        return real(**given)

    monkeypatch.setattr(server, "EnginePool", pool)
    monkeypatch.setattr(server, "models_to_serve", lambda *_: [])
    monkeypatch.setattr(server, "run_server", lambda *_, **__: None)
    server.serve_page(ServeConfig(quantize=asked, threads=2, cache_mb=64), tmp_path)
    assert [(item.quantize, item.threads, item.cache_mb) for item in seen] == [(meant, 2, 64)]
