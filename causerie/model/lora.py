"""Low-rank adapters in peft's format: added to linear layers, trained, saved, loaded, merged (arXiv:2106.09685)."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import torch
import torch.nn.functional as F
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor, nn

from causerie.core import CauserieError, read_json, seed_for, write_json
from causerie.model.hf import copy_companions, hf_name
from causerie.model.transformer import Transformer

ATTENTION_AND_MLP: Final = ("q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj")
"""Every linear layer inside the blocks."""
CONFIG: Final = "adapter_config.json"
WEIGHTS: Final = "adapter_model.safetensors"
_PREFIX: Final = "base_model.model."
_UNSUPPORTED: Final = (
    "use_dora",
    "rank_pattern",
    "alpha_pattern",
    "modules_to_save",
    "layers_to_transform",
    "lora_bias",
)


class LoraLinear(nn.Linear):
    """A linear layer with a frozen weight W plus a trained low-rank term: x Wᵀ + scale · (x Aᵀ) Bᵀ.

    Attributes:
        lora_A: (rank, in) float32. lora_B: (out, rank) float32, zero at first, so the layer starts as it was.
        scale: factor on the low-rank term; products run in the dtype of `x`.
    """

    def __init__(self, linear: nn.Linear, rank: int, scale: float, generator: torch.Generator | None) -> None:
        with torch.device("meta"):  # no weights of its own: the layer's are taken over
            super().__init__(linear.in_features, linear.out_features, bias=False)
        self.weight = linear.weight
        self.bias = linear.bias
        self.requires_grad_(False)
        self.scale = scale
        bound = 1 / math.sqrt(linear.in_features)
        start = torch.empty(rank, linear.in_features).uniform_(-bound, bound, generator=generator)
        self.lora_A = nn.Parameter(start.to(linear.weight.device))
        self.lora_B = nn.Parameter(torch.zeros(linear.out_features, rank, device=linear.weight.device))

    def forward(self, x: Tensor) -> Tensor:
        """(..., in) → (..., out)."""
        narrow = F.linear(x, self.lora_A.to(x.dtype)) * self.scale
        return F.linear(x, self.weight, self.bias) + F.linear(narrow, self.lora_B.to(x.dtype))

    def merged(self) -> nn.Linear:
        """A plain layer with the low-rank term added to the weight (in float32, then rounded to its dtype)."""
        with torch.device("meta"):
            linear = nn.Linear(self.in_features, self.out_features, bias=False)
        with torch.no_grad():
            weight = self.weight.float() + self.scale * (self.lora_B.float() @ self.lora_A.float())
        linear.weight = nn.Parameter(weight.to(self.weight.dtype))
        linear.bias = self.bias
        return linear


@dataclass(frozen=True)
class LoraConfig:
    """What `adapter_config.json` says, as far as it matters here."""

    rank: int
    alpha: float
    targets: tuple[str, ...]
    rank_stabilised: bool = False

    @property
    def scale(self) -> float:
        """Factor on the low-rank term: alpha/rank, or alpha/sqrt(rank) when rank-stabilised (arXiv:2312.03732)."""
        return self.alpha / (math.sqrt(self.rank) if self.rank_stabilised else self.rank)


def add_lora(
    model: Transformer, rank: int, alpha: float, targets: Sequence[str] = ATTENTION_AND_MLP, *, seed: int = 0
) -> None:
    """Add an adapter in place and freeze everything else; the output stays the same bit for bit until it is trained.

    Args:
        model: a model without an adapter.
        rank: rank of every low-rank term.
        alpha: the term is scaled by alpha/rank.
        targets: last parts of the names of the linear layers that get one.
        seed: of the random A matrices; B is zero.

    Raises:
        CauserieError: CAU-3008 when the rank is impossible, a target matches nothing, or there is an adapter already.
    """
    if rank < 1:
        raise _bad_adapter(f"the rank {rank} is below 1", "lora rank", "give a rank such as 16")
    if lora_parameters(model):
        raise _bad_adapter("the model has an adapter already", "add_lora", "merge it or train it further")
    found = [(name, layer) for name, layer in model.named_modules() if isinstance(layer, nn.Linear)]
    found = [(name, layer) for name, layer in found if name.rpartition(".")[2] in targets]
    missing = set(targets) - {name.rpartition(".")[2] for name, _ in found}
    if missing:
        known = ", ".join(ATTENTION_AND_MLP)
        raise _bad_adapter(f"no linear layer is called {sorted(missing)[0]!r}", "lora targets", f"choose from {known}")
    model.requires_grad_(False)
    config = LoraConfig(rank, alpha, tuple(targets))
    for name, layer in found:
        generator = torch.Generator().manual_seed(seed_for(seed, "lora", name))
        _replace(model, name, LoraLinear(layer, rank, config.scale, generator))
    _remember(model, config)


def lora_parameters(model: Transformer) -> dict[str, nn.Parameter]:
    """The adapter's parameters by their names in the model; empty when there is no adapter."""
    return {name: p for name, p in model.named_parameters() if name.endswith((".lora_A", ".lora_B"))}


def merge_lora(model: Transformer) -> None:
    """Fold the adapter into the weights in place: a plain model again, whose parameters can all be trained."""
    for name, layer in list(model.named_modules()):
        if isinstance(layer, LoraLinear):
            _replace(model, name, layer.merged())
    _remember(model, None)
    model.requires_grad_(True)


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
        raise _bad_adapter("the model has no adapter", str(folder), "add one with add_lora")
    tensors = {_peft_name(name): p.detach().cpu().contiguous() for name, p in lora_parameters(model).items()}
    save_file(tensors, folder / WEIGHTS, metadata={"format": "pt"})
    write_json(folder / CONFIG, _peft_config(config, str(base_path)))
    if tokenizer_from:
        copy_companions(tokenizer_from, folder)


def load_adapter(model: Transformer, folder: Path) -> None:
    """Add a saved adapter to its base model in place, ready to run or to train further; the base is frozen.

    Raises:
        CauserieError: CAU-3008 when the adapter is of a kind that is not supported or does not fit the model.
    """
    config = read_config(folder)
    add_lora(model, config.rank, config.alpha, config.targets)
    wanted = {_peft_name(name): p for name, p in lora_parameters(model).items()}
    tensors = _read_tensors(folder / WEIGHTS)
    if set(tensors) != set(wanted):
        odd = sorted(set(tensors) ^ set(wanted))[0]
        raise _bad_adapter(f"it does not fit the model: {odd}", str(folder / WEIGHTS), "use the base it was made for")
    with torch.no_grad():
        for name, parameter in wanted.items():
            if tensors[name].shape != parameter.shape:
                cause = f"{name} is {tuple(tensors[name].shape)} where the model needs {tuple(parameter.shape)}"
                raise _bad_adapter(cause, str(folder / WEIGHTS), "use the base it was made for")
            parameter.copy_(tensors[name])
    for layer in model.modules():
        if isinstance(layer, LoraLinear):
            layer.scale = config.scale
    _remember(model, config)


def read_config(folder: Path) -> LoraConfig:
    """The adapter's configuration.

    Raises:
        CauserieError: CAU-3008 when it is not a plain LoRA adapter.
    """
    where = str(folder / CONFIG)
    config = read_json(folder / CONFIG)
    fix = "only plain LoRA adapters of the linear layers are supported"
    if not isinstance(config, dict) or config.get("peft_type") != "LORA":
        raise _bad_adapter("not a LoRA adapter", where, fix)
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
        raise _bad_adapter(f"it sets {odd[0]} in a way that is not supported", where, fix)
    return LoraConfig(rank, alpha, tuple(sorted(t.rpartition(".")[2] for t in targets)), bool(config.get("use_rslora")))


def _remember(model: Transformer, config: LoraConfig | None) -> None:
    object.__setattr__(model, "lora_config", config)


def lora_config(model: Transformer) -> LoraConfig | None:
    """What the model's adapter was made with; None when there is none."""
    found = getattr(model, "lora_config", None)
    return found if isinstance(found, LoraConfig) else None


def _peft_config(config: LoraConfig, base_path: str) -> dict[str, Any]:
    return {
        "peft_type": "LORA",
        "task_type": "CAUSAL_LM",
        "base_model_name_or_path": base_path,
        "r": config.rank,
        "lora_alpha": config.alpha,
        "target_modules": sorted(config.targets),
        "use_rslora": config.rank_stabilised,
        "lora_dropout": 0.0,
        "bias": "none",
        "fan_in_fan_out": False,
        "inference_mode": True,
    }


def _peft_name(name: str) -> str:
    return f"{_PREFIX}{hf_name(name)}.weight"


def _read_tensors(path: Path) -> dict[str, Tensor]:
    try:
        with safe_open(path, framework="pt") as file:
            return {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 - not a dict
    except (SafetensorError, OSError) as error:
        raise _bad_adapter(f"not a readable safetensors file: {error}", str(path), "fetch the adapter again") from error


def _replace(model: Transformer, name: str, layer: nn.Module) -> None:
    parent, _, last = name.rpartition(".")
    setattr(model.get_submodule(parent), last, layer)


def _bad_adapter(cause: str, where: str, fix: str) -> CauserieError:
    return CauserieError("CAU-3008", cause, where=where, fix=fix)
