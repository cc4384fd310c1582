"""Put a trained adapter of the starter into the package: half the bytes (bfloat16), its manifest, card and terms beside it.

python scripts/ship_adapter.py workspace/adapter/starter-... [--card CARD.md]
"""

from __future__ import annotations

import argparse
import json
import shutil
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file

ROOT = Path(__file__).resolve().parent.parent
TARGET = ROOT / "causerie" / "starter" / "assets" / "adapter"
BASE_NAME = "google/gemma-3-270m"


def without_folders(value: object) -> object:
    """Paths as file names: where things lay on the machine that trained is nobody's business."""
    if isinstance(value, list):
        return [without_folders(item) for item in value]
    return value.rsplit("/", 1)[-1] if isinstance(value, str) else value


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("adapter", type=Path)
    parser.add_argument("--card", type=Path)
    options = parser.parse_args()
    shutil.rmtree(TARGET, ignore_errors=True)
    TARGET.mkdir(parents=True)
    weights = load_file(options.adapter / "adapter_model.safetensors")
    halved = {name: tensor.to(torch.bfloat16).contiguous() for name, tensor in weights.items()}
    save_file(halved, TARGET / "adapter_model.safetensors", metadata={"format": "pt"})
    config = json.loads((options.adapter / "adapter_config.json").read_text(encoding="utf-8"))
    config["base_model_name_or_path"] = BASE_NAME
    (TARGET / "adapter_config.json").write_text(json.dumps(config, indent=2) + "\n", encoding="utf-8")
    made = json.loads((options.adapter / "manifest.json").read_text(encoding="utf-8"))
    kept = {name: made[name] for name in ("kind", "name", "key", "created", "inputs", "metrics", "versions")}
    kept["config"] = {name: without_folders(value) for name, value in made["config"].items()}
    (TARGET / "manifest.json").write_text(json.dumps(kept, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
    for name in ("NOTICE.txt", "GEMMA_TERMS.html"):
        if (options.adapter / name).is_file():
            shutil.copyfile(options.adapter / name, TARGET / name)
    for path in TARGET.iterdir():
        path.chmod(0o644)
    if options.card:
        shutil.copyfile(options.card, TARGET / "README.md")
    print(f"{TARGET}: {sum(p.stat().st_size for p in TARGET.iterdir()):,} bytes")


if __name__ == "__main__":
    main()
