"""What a run is made from, and what has changed since its checkpoint."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

NOT_COMPARED: Final = frozenset(
    {"name", "out", "resume", "allow_changed", "report_to", "checkpoint_every", "keep_checkpoints", "export"}
    | {"steps", "minutes", "tokens", "epochs", "eval_every", "prompts", "compile", "micro_batch", "replay_every"}
    | {"max_bad_steps", "device", "eval_tokens", "snapshots"}
)
"""Settings that may differ between a checkpoint and the run that goes on from it: its length, places, and measuring."""


def identity(config: Mapping[str, Any], inputs: Mapping[str, str]) -> dict[str, Any]:
    """What is stored with a checkpoint to recognise its run: settings, and the keys of data, tokenizer and model."""
    places = {name: value for name, value in config.items() if name not in NOT_COMPARED and name not in inputs}
    return {"settings": dict(places), "inputs": dict(inputs)}


def differences(before: Mapping[str, Any], now: Mapping[str, Any]) -> list[str]:
    """What differs, in words: `data: 0a1b2c3d → 4e5f6071`, `batch_size: 16 → 8`."""
    found = []
    for part in ("inputs", "settings"):
        old, new = before.get(part, {}), now.get(part, {})
        changed = [name for name in sorted(old.keys() | new.keys()) if old.get(name) != new.get(name)]
        found += [f"{name}: {_short(old.get(name))} → {_short(new.get(name))}" for name in changed]
    return found


def _short(value: Any) -> str:
    text = str(value)
    return text[:8] if len(text) == 64 else text
