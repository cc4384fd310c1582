"""Model folders in Hugging Face's layout: load and save, safetensors only."""

from __future__ import annotations

import re
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import torch
from safetensors import SafetensorError, safe_open

from causerie.core import CauserieError, read_json, say, write_json
from causerie.model.adapters import ADAPTER_CONFIG, base_folder, load_adapter, read_config
from causerie.model.companions import copy_companions, special_ids
from causerie.model.fold import fold_extras
from causerie.model.hf_config import shape_from_hf, shape_to_hf
from causerie.model.hf_names import NAMES, hf_name, is_turned, is_unused, tied_name, todays_name
from causerie.model.lora import lora_parameters, merge_lora
from causerie.model.shape import ModelShape
from causerie.model.tensor_files import save_tensors
from causerie.model.transformer import Transformer

WEIGHTS: Final = "model.safetensors"
INDEX: Final = "model.safetensors.index.json"
SHARD_BYTES: Final = 5_000_000_000
"""Bytes after which weights go on in another file, as transformers does."""
_PICKLES: Final = {".bin", ".pt", ".pth", ".ckpt", ".pkl", ".pickle"}


@dataclass(frozen=True)
class StoredTensor:
    """A tensor as a folder of some family holds it: our parameter's name, its size there, whether it is transposed."""

    ours: str
    size: tuple[int, ...]
    turned: bool


def stored_tensors(shape: ModelShape) -> dict[str, StoredTensor]:
    """Hugging Face tensor name → what it is, of every tensor that a model of this shape has."""
    with torch.device("meta"):
        state = Transformer(shape).state_dict()
    found = {}
    for name, tensor in state.items():
        turned = is_turned(shape.family, name)
        found[hf_name(shape.family, name)] = StoredTensor(
            name, tuple(tensor.t().shape if turned else tensor.shape), turned
        )
    return found


def check_folder(folder: Path) -> None:
    """Refuse a folder that holds code or pickles.

    Raises:
        CauserieError: CAU-3003 naming the file.
    """
    for path in sorted(folder.iterdir()):
        what = "Python code" if path.suffix == ".py" else "a pickle" if path.suffix in _PICKLES else ""
        if what:
            fix = "delete it if the safetensors files beside it are all you need; only they are ever read"
            raise CauserieError("CAU-3003", f"the folder holds {what}: {path.name}", where=str(path), fix=fix)


def load_model(
    folder: Path, *, dtype: torch.dtype = torch.float32, device: str = "cpu", merge_adapters: bool = True
) -> Transformer:
    """Load a model folder, or an adapter folder with its base.

    Args:
        folder: Hugging Face model folder, or peft adapter folder whose base path is absolute or relative to it.
        dtype: of all weights.
        device: where they go.
        merge_adapters: fold an adapter into the base; False keeps it apart, to train it further.

    Raises:
        CauserieError: CAU-3002 to CAU-3005, see `ERRORS`.
    """
    folder = Path(folder)
    if (folder / ADAPTER_CONFIG).is_file():
        check_folder(folder)
        model = load_model(base_folder(folder), dtype=dtype, device=device)
        load_adapter(model, folder)
        if merge_adapters:
            merge_lora(model)
        return model
    if not (folder / "config.json").is_file():
        fix = "give a folder with a config.json or an adapter_config.json"
        raise CauserieError("CAU-3005", "neither a model nor an adapter is here", where=str(folder), fix=fix)
    check_folder(folder)
    config = read_json(folder / "config.json")
    shape = shape_from_hf(config, where=str(folder / "config.json"))
    state = _read_tensors(folder, shape, dtype, device)
    with torch.device("meta"):
        model = Transformer(shape)
    model.load_state_dict(state, assign=True)
    return model


def check_model(folder: Path) -> ModelShape:
    """Whether `load_model` would take a folder, from its config and the headers of its weight files alone.

    Returns:
        The shape; of an adapter folder its base's.

    Raises:
        CauserieError: CAU-3002 to CAU-3005 and CAU-3008, see `ERRORS`.
    """
    check_folder(folder)
    if (folder / ADAPTER_CONFIG).is_file():
        read_config(folder)
        return check_model(base_folder(folder))
    if not (folder / "config.json").is_file():
        fix = "give a folder with a config.json or an adapter_config.json"
        raise CauserieError("CAU-3005", "neither a model nor an adapter is here", where=str(folder), fix=fix)
    shape = shape_from_hf(read_json(folder / "config.json"), where=str(folder / "config.json"))
    wanted = stored_tensors(shape)
    missing = set(wanted)
    for path in _weight_files(folder):
        for stored, size in _header(path).items():
            name = todays_name(shape.family, stored)
            if name in wanted or not is_unused(shape.family, name):
                _check_tensor(name, size, shape, wanted, path)
                missing.discard(name)
    if missing:
        raise _wrong_tensors(f"{len(missing)} tensors are missing, the first is {min(missing)}", folder)
    return shape


def _header(path: Path) -> dict[str, tuple[int, ...]]:
    try:
        with safe_open(path, framework="pt") as file:
            return {name: tuple(file.get_slice(name).get_shape()) for name in file.keys()}  # noqa: SIM118 - not a dict
    except (SafetensorError, OSError) as error:
        raise _wrong_tensors(f"not a readable safetensors file: {error}", path) from error


def _weight_files(folder: Path) -> list[Path]:
    """The safetensors files of a folder: one, or those named in the index."""
    if (folder / WEIGHTS).is_file():
        return [folder / WEIGHTS]
    if not (folder / INDEX).is_file():
        raise _wrong_tensors(f"there is no {WEIGHTS}", folder)
    index = read_json(folder / INDEX)
    names = index.get("weight_map") if isinstance(index, dict) else None
    if not isinstance(names, dict) or not all(isinstance(name, str) for name in names.values()):
        raise _wrong_tensors("the index has no weight_map", folder / INDEX)
    files = [folder / name for name in sorted(set(names.values()))]
    for file in files:
        if file.parent != folder or file.suffix != ".safetensors" or not file.is_file():
            raise _wrong_tensors(f"the index names {file.name!r}, which is not a weight file here", folder / INDEX)
    return files


def _read_tensors(folder: Path, shape: ModelShape, dtype: torch.dtype, device: str) -> dict[str, torch.Tensor]:
    """Our state dict out of a folder's files; every tensor there is used, equal to one that is, or counted."""
    wanted, found = stored_tensors(shape), dict[str, torch.Tensor]()
    second: dict[str, torch.Tensor] = {}
    unused: list[str] = []
    for path in _weight_files(folder):
        try:
            with safe_open(path, framework="pt", device=device) as file:
                for stored in file.keys():  # noqa: SIM118 - not a dict
                    name = todays_name(shape.family, stored)
                    if name not in wanted and is_unused(shape.family, name):
                        unused.append(stored)
                        continue
                    _check_tensor(name, tuple(file.get_slice(stored).get_shape()), shape, wanted, path)
                    place = found if name in wanted else second
                    place[name] = file.get_tensor(stored).to(dtype)
        except (SafetensorError, OSError) as error:
            raise _wrong_tensors(f"not a readable safetensors file: {error}", path) from error
    missing = sorted(set(wanted) - set(found))
    if missing:
        raise _wrong_tensors(f"{len(missing)} tensors are missing, the first is {missing[0]}", folder)
    for name, tensor in second.items():
        first = _twin(shape, name)
        if not torch.equal(tensor, found[first]):
            cause = f"by the config {name} is the same as {first}, yet it differs"
            raise _wrong_tensors(cause, folder)
    if unused:
        say(f"{folder.name}: {len(unused)} tensors are not used by a {shape.row.architecture}, such as {unused[0]}")
    return {wanted[name].ours: t.t().contiguous() if wanted[name].turned else t for name, t in found.items()}


def _twin(shape: ModelShape, name: str) -> str:
    """The tensor that `name` repeats; empty when it repeats none."""
    if name == tied_name(shape):
        return hf_name(shape.family, "embed_tokens.weight")
    return NAMES[shape.family].aliases.get(name, "")


def _check_tensor(
    name: str, size: tuple[int, ...], shape: ModelShape, wanted: dict[str, StoredTensor], path: Path
) -> None:
    expected = wanted.get(name) or wanted.get(_twin(shape, name))
    if expected is None:
        raise _wrong_tensors(f"the tensor {name} does not belong to a {shape.row.architecture}", path)
    if size != expected.size:
        raise _wrong_tensors(f"the tensor {name} is {size} where config.json means {expected.size}", path)


def _wrong_tensors(cause: str, where: Path) -> CauserieError:
    return CauserieError("CAU-3004", cause, where=str(where), fix="fetch or export the model again")


def save_model(
    model: Transformer,
    folder: Path,
    tokenizer_from: Path | None,
    *,
    dtype: torch.dtype | None = None,
    shard_bytes: int = SHARD_BYTES,
) -> None:
    """Write a Hugging Face folder: config.json, generation_config.json, model.safetensors, tokenizer, notices.

    Parts that only training has are folded into a copy of the weights first (`fold_extras`).

    Args:
        model: without adapters, or with merged ones.
        folder: an existing folder, such as an artifact's draft.
        tokenizer_from: folder whose tokenizer and notice files are copied; its special tokens become the config's ids.
        dtype: of the stored weights; None keeps the model's.
        shard_bytes: weights larger than this are written as several files and an index.

    Raises:
        CauserieError: CAU-3004 when adapters are not merged; CAU-3010 when the family's config cannot say the shape.
    """
    if adapted := sorted(lora_parameters(model)):
        fix = "merge the adapter first (merge_lora)"
        raise CauserieError("CAU-3004", f"not a plain model: {adapted[0]}", where=str(folder), fix=fix)
    config = shape_to_hf((model := fold_extras(model)).shape)
    state = {}
    for name, tensor in model.state_dict().items():
        tensor = tensor.detach().to(device="cpu", dtype=dtype)
        turned = is_turned(model.shape.family, name)
        state[hf_name(model.shape.family, name)] = (tensor.t() if turned else tensor).contiguous()
    _write_weights(state, folder, shard_bytes)
    stored = str(next(iter(state.values())).dtype).removeprefix("torch.")
    ids = special_ids(tokenizer_from) if tokenizer_from else {}
    write_json(folder / "config.json", {**config, **ids, "dtype": stored})
    write_json(folder / "generation_config.json", ids)
    for path in folder.glob("model*.safetensors"):
        shutil.copymode(folder / "config.json", path)  # safetensors writes it readable by its owner alone
    if tokenizer_from:
        copy_companions(tokenizer_from, folder)


def _write_weights(state: dict[str, torch.Tensor], folder: Path, shard_bytes: int) -> None:
    shards: list[dict[str, torch.Tensor]] = [{}]
    size = 0
    for name, tensor in state.items():
        if shards[-1] and size + tensor.nbytes > shard_bytes:
            shards.append({})
            size = 0
        shards[-1][name] = tensor
        size += tensor.nbytes
    for old in (*folder.glob("model*.safetensors"), folder / INDEX):
        if old.name == INDEX or re.fullmatch(r"model(-\d{5}-of-\d{5})?\.safetensors", old.name):
            old.unlink(missing_ok=True)
    if len(shards) == 1:
        save_tensors(state, folder / WEIGHTS, metadata={"format": "pt"})
        return
    places: dict[str, str] = {}
    for number, shard in enumerate(shards, 1):
        file = f"model-{number:05}-of-{len(shards):05}.safetensors"
        save_tensors(shard, folder / file, metadata={"format": "pt"})
        places |= dict.fromkeys(shard, file)
    total = sum(tensor.nbytes for tensor in state.values())
    index: dict[str, Any] = {"metadata": {"total_size": total}, "weight_map": places}
    write_json(folder / INDEX, index)
