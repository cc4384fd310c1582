"""Adapters in peft's format: `adapter_config.json` and `adapter_model.safetensors`, saved and loaded."""

from __future__ import annotations

import math
import re
from pathlib import Path
from typing import Any, Final

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor, nn

from causerie.core import CauserieError, read_json, write_json
from causerie.model.companions import copy_companions
from causerie.model.hf_names import NAMES, hf_module
from causerie.model.lora import LoraConfig, attach_lora, bad_adapter, lora_config, lora_parameters
from causerie.model.tensor_files import save_tensors
from causerie.model.transformer import Transformer

ADAPTER_CONFIG: Final = "adapter_config.json"
ADAPTER_WEIGHTS: Final = "adapter_model.safetensors"
_PREFIX: Final = "base_model.model."
_UNSUPPORTED: Final = (
    "use_dora",
    "rank_pattern",
    "alpha_pattern",
    "modules_to_save",
    "layers_to_transform",
    "lora_bias",
)
_OTHER_BASE: Final = "use the base it was made for"


def base_folder(adapter: Path) -> Path:
    """Folder of the model that an adapter folder was made for.

    Raises:
        CauserieError: CAU-3005 when it is not there.
    """
    config = read_json(adapter / ADAPTER_CONFIG)
    name = config.get("base_model_name_or_path") if isinstance(config, dict) else None
    base = (adapter / str(name)).resolve() if name else adapter
    if not name or not (base / "config.json").is_file():
        fix = "put the base model at that path; base_model_name_or_path is absolute or relative to the adapter's folder"
        where = str(adapter / ADAPTER_CONFIG)
        raise CauserieError("CAU-3005", f"the adapter's base model is not at {base}", where=where, fix=fix)
    return base


def save_adapter(
    model: Transformer, folder: Path, base_path: Path | str, *, tokenizer_from: Path | None = None
) -> None:
    """Write a folder that peft loads: `adapter_config.json`, `adapter_model.safetensors`, tokenizer files.

    Args:
        model: with an adapter that is not merged.
        folder: an existing folder, such as an artifact's draft.
        base_path: the base model's folder as it is written down: absolute, or relative to the adapter's final folder.
        tokenizer_from: folder whose tokenizer files are copied.

    Raises:
        CauserieError: CAU-3008 when the model has no adapter.
    """
    config = lora_config(model)
    if config is None:
        raise bad_adapter("the model has no adapter", str(folder), "add one with add_lora")
    tensors = {_peft_name(model, name): p.detach().cpu().contiguous() for name, p in lora_parameters(model).items()}
    save_tensors(tensors, folder / ADAPTER_WEIGHTS, metadata={"format": "pt"})
    write_json(folder / ADAPTER_CONFIG, _peft_config(model, config, str(base_path)))
    if tokenizer_from:
        copy_companions(tokenizer_from, folder)


def load_adapter(model: Transformer, folder: Path) -> None:
    """Add a saved adapter to its base model in place, ready to run or to train further; the base is frozen.

    Raises:
        CauserieError: CAU-3008 when the adapter is of a kind that is not supported or does not fit the model.
    """
    config = read_config(folder)
    attach_lora(model, _targeted(model, config.targets, str(folder / ADAPTER_CONFIG)), config)
    wanted = {_peft_name(model, name): p for name, p in lora_parameters(model).items()}
    tensors = _read_tensors(folder / ADAPTER_WEIGHTS)
    if set(tensors) != set(wanted):
        odd = sorted(set(tensors) ^ set(wanted))[0]
        raise bad_adapter(f"it does not fit the model: {odd}", str(folder / ADAPTER_WEIGHTS), _OTHER_BASE)
    with torch.no_grad():
        for name, parameter in wanted.items():
            if tensors[name].shape != parameter.shape:
                cause = f"{name} is {tuple(tensors[name].shape)} where the model needs {tuple(parameter.shape)}"
                raise bad_adapter(cause, str(folder / ADAPTER_WEIGHTS), _OTHER_BASE)
            parameter.copy_(tensors[name])


def _linear_modules(model: Transformer) -> dict[str, str]:
    """Our name → Hugging Face's, of every linear layer."""
    names = [name for name, layer in model.named_modules() if isinstance(layer, nn.Linear)]
    return {name: hf_module(model.shape.family, name) for name in names}


def _targeted(model: Transformer, targets: tuple[str, ...], where: str) -> list[str]:
    """Our names of the linear layers that peft's `target_modules` mean: those called so, or ending in `.` and it."""
    modules = _linear_modules(model)
    for target in targets:
        if not any(f".{theirs}".endswith(f".{target}") for theirs in modules.values()):
            raise bad_adapter(f"the model has no linear layer called {target!r}", where, _OTHER_BASE)
    return [ours for ours, theirs in modules.items() if f".{theirs}".endswith(tuple(f".{t}" for t in targets))]


def _target_modules(model: Transformer) -> list[str]:
    """The shortest names by which peft finds exactly the layers that have an adapter."""
    modules = _linear_modules(model)
    adapted = {modules[name.rpartition(".")[0]] for name in lora_parameters(model)}
    others = set(modules.values()) - adapted
    found = set()
    for theirs in adapted:
        inner = re.sub(rf"^{re.escape(NAMES[model.shape.family].layers)}\.\d+\.", "", theirs)
        parts = inner.split(".")
        endings = [".".join(parts[start:]) for start in range(len(parts) - 1, -1, -1)] + [theirs]
        found.add(next(end for end in endings if not any(f".{other}".endswith(f".{end}") for other in others)))
    return sorted(found)


def read_config(folder: Path) -> LoraConfig:
    """The adapter's configuration.

    Raises:
        CauserieError: CAU-3008 when it is not a plain LoRA adapter.
    """
    where = str(folder / ADAPTER_CONFIG)
    config = read_json(folder / ADAPTER_CONFIG)
    fix = "only plain LoRA adapters of the linear layers are supported"
    if not isinstance(config, dict) or config.get("peft_type") != "LORA":
        raise bad_adapter("not a LoRA adapter", where, fix)
    odd = [name for name in _UNSUPPORTED if config.get(name)]
    if config.get("bias", "none") != "none":
        odd.append("bias")
    targets: Any = config.get("target_modules")
    rank: Any = config.get("r")
    alpha: Any = config.get("lora_alpha")
    if not (isinstance(targets, list) and all(isinstance(t, str) for t in targets)):
        odd.append("target_modules")
    if not (isinstance(rank, int) and rank > 0 and isinstance(alpha, int | float) and math.isfinite(alpha)):
        odd.append("r, lora_alpha")
    if odd:
        raise bad_adapter(f"it sets {odd[0]} in a way that is not supported", where, fix)
    return LoraConfig(rank, alpha, tuple(sorted(targets)), bool(config.get("use_rslora")))


def _peft_config(model: Transformer, config: LoraConfig, base_path: str) -> dict[str, Any]:
    return {
        "peft_type": "LORA",
        "task_type": "CAUSAL_LM" if model.shape.row.causal else None,
        "base_model_name_or_path": base_path,
        "r": config.rank,
        "lora_alpha": config.alpha,
        "target_modules": _target_modules(model),
        "use_rslora": config.rank_stabilised,
        "lora_dropout": 0.0,
        "bias": "none",
        "fan_in_fan_out": bool(NAMES[model.shape.family].turned),
        "inference_mode": True,
    }


def _peft_name(model: Transformer, name: str) -> str:
    module, _, kind = name.rpartition(".")
    return f"{_PREFIX}{hf_module(model.shape.family, module)}.{kind}.weight"


def _read_tensors(path: Path) -> dict[str, Tensor]:
    try:
        with safe_open(path, framework="pt") as file:
            return {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 - not a dict
    except (SafetensorError, OSError) as error:
        raise bad_adapter(f"not a readable safetensors file: {error}", str(path), "fetch the adapter again") from error
