"""Model folders in Hugging Face's layout: load and save, safetensors only."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any, Final

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file

from causerie.core import CauserieError, read_json, write_json
from causerie.model.hf_config import shape_from_hf, shape_to_hf
from causerie.model.shape import ModelShape
from causerie.model.transformer import Transformer

WEIGHTS: Final = "model.safetensors"
INDEX: Final = "model.safetensors.index.json"
TOKENIZER_FILES: Final = ("tokenizer.json", "tokenizer_config.json", "chat_template.jinja", "special_tokens_map.json")
NOTICE_FILES: Final = ("LICENSE", "LICENSE.txt", "NOTICE", "NOTICE.txt", "GEMMA_TERMS.html")
"""Files that a licence may ask to be passed on with everything derived from a model."""
ENDS: Final = ("<|im_end|>", "<end_of_turn>", "<|eot_id|>", "<|end|>", "<eos>", "<|endoftext|>")
"""Tokens that end a turn or a text in the formats in use; generation stops at those a tokenizer has."""
_PICKLES: Final = {".bin", ".pt", ".pth", ".ckpt", ".pkl", ".pickle"}


def tensor_shapes(shape: ModelShape) -> dict[str, tuple[int, ...]]:
    """Hugging Face tensor name → size, of every tensor that a model of this shape has."""
    with torch.device("meta"):
        state = Transformer(shape).state_dict()
    return {hf_name(name): tuple(tensor.shape) for name, tensor in state.items()}


def hf_name(name: str) -> str:
    """Our parameter name as Hugging Face writes it: `model.` before all but the output projection."""
    return name if name.startswith("lm_head.") else f"model.{name}"


def _own_name(name: str) -> str:
    return name.removeprefix("model.")


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
    if (folder / "adapter_config.json").is_file():
        return _load_adapter(folder, dtype, device, merge_adapters)
    if not (folder / "config.json").is_file():
        fix = "give a folder with a config.json or an adapter_config.json"
        raise CauserieError("CAU-3005", "neither a model nor an adapter is here", where=str(folder), fix=fix)
    check_folder(folder)
    config = read_json(folder / "config.json")
    shape = shape_from_hf(config, where=str(folder / "config.json"))
    state = _read_tensors(folder, shape, dtype, device)
    with torch.device("meta"):
        model = Transformer(shape)
    model.load_state_dict({_own_name(name): tensor for name, tensor in state.items()}, assign=True)
    return model


def base_folder(adapter: Path) -> Path:
    """Folder of the model that an adapter folder was made for.

    Raises:
        CauserieError: CAU-3005 when it is not there.
    """
    config = read_json(adapter / "adapter_config.json")
    name = config.get("base_model_name_or_path") if isinstance(config, dict) else None
    base = (adapter / str(name)).resolve() if name else adapter
    if not name or not (base / "config.json").is_file():
        fix = "put the base model at that path; base_model_name_or_path is absolute or relative to the adapter's folder"
        where = str(adapter / "adapter_config.json")
        raise CauserieError("CAU-3005", f"the adapter's base model is not at {base}", where=where, fix=fix)
    return base


def _load_adapter(folder: Path, dtype: torch.dtype, device: str, merge: bool) -> Transformer:
    from causerie.model.lora import load_adapter, merge_lora

    check_folder(folder)
    model = load_model(base_folder(folder), dtype=dtype, device=device)
    load_adapter(model, folder)
    if merge:
        merge_lora(model)
    return model


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
    wanted = tensor_shapes(shape)
    found: dict[str, torch.Tensor] = {}
    tied: torch.Tensor | None = None
    for path in _weight_files(folder):
        try:
            with safe_open(path, framework="pt", device=device) as file:
                for name in file.keys():  # noqa: SIM118 - not a dict
                    _check_tensor(name, tuple(file.get_slice(name).get_shape()), shape, wanted, path)
                    if name in wanted:
                        found[name] = file.get_tensor(name).to(dtype)
                    else:
                        tied = file.get_tensor(name).to(dtype)
        except (SafetensorError, OSError) as error:
            raise _wrong_tensors(f"not a readable safetensors file: {error}", path) from error
    missing = sorted(set(wanted) - set(found))
    if missing:
        raise _wrong_tensors(f"{len(missing)} tensors are missing, the first is {missing[0]}", folder)
    if tied is not None and not torch.equal(tied, found["model.embed_tokens.weight"]):
        raise _wrong_tensors("embeddings are tied by the config, yet lm_head.weight differs from them", folder)
    return found


def _check_tensor(
    name: str, size: tuple[int, ...], shape: ModelShape, wanted: dict[str, tuple[int, ...]], path: Path
) -> None:
    if name == "lm_head.weight" and shape.tie_embeddings:
        expected: tuple[int, ...] | None = (shape.vocab_size, shape.n_embd)
    else:
        expected = wanted.get(name)
    if expected is None:
        raise _wrong_tensors(f"the tensor {name} does not belong to a {shape.row.architecture}", path)
    if size != expected:
        raise _wrong_tensors(f"the tensor {name} is {size} where config.json means {expected}", path)


def _wrong_tensors(cause: str, where: Path) -> CauserieError:
    return CauserieError("CAU-3004", cause, where=str(where), fix="fetch or export the model again")


def save_model(
    model: Transformer, folder: Path, tokenizer_from: Path | None, *, dtype: torch.dtype | None = None
) -> None:
    """Write a Hugging Face folder: config.json, generation_config.json, model.safetensors, tokenizer, notices.

    Args:
        model: without adapters, or with merged ones.
        folder: an existing folder, such as an artifact's draft.
        tokenizer_from: folder whose tokenizer and notice files are copied; its special tokens become the config's ids.
        dtype: of the stored weights; None keeps the model's.

    Raises:
        CauserieError: CAU-3004 when adapters are not merged.
    """
    state = {hf_name(name): tensor.detach() for name, tensor in model.state_dict().items()}
    if extra := sorted(set(state) ^ set(tensor_shapes(model.shape))):
        fix = "merge the adapter first (merge_lora)"
        raise CauserieError("CAU-3004", f"not a plain model: {extra[0]}", where=str(folder), fix=fix)
    state = {name: tensor.to(device="cpu", dtype=dtype).contiguous() for name, tensor in state.items()}
    save_file(state, folder / WEIGHTS, metadata={"format": "pt"})
    stored = str(next(iter(state.values())).dtype).removeprefix("torch.")
    ids = _special_ids(tokenizer_from) if tokenizer_from else {}
    write_json(folder / "config.json", {**shape_to_hf(model.shape), **ids, "dtype": stored})
    write_json(folder / "generation_config.json", ids)
    shutil.copymode(folder / "config.json", folder / WEIGHTS)  # safetensors writes it readable by its owner alone
    if tokenizer_from:
        copy_companions(tokenizer_from, folder)


def copy_companions(source: Path, folder: Path) -> None:
    """Copy what goes along with weights from a model's folder: its tokenizer, and notices that must be handed on."""
    for name in (*TOKENIZER_FILES, *NOTICE_FILES):
        if (source / name).is_file() and source.resolve() != folder.resolve():
            shutil.copyfile(source / name, folder / name)


def _special_ids(folder: Path) -> dict[str, Any]:
    """bos, pad and all ending token ids, as config.json names them."""
    tokens = {entry["content"]: entry["id"] for entry in read_json(folder / "tokenizer.json").get("added_tokens", [])}
    config = read_json(folder / "tokenizer_config.json") if (folder / "tokenizer_config.json").is_file() else {}
    ids: dict[str, Any] = {}
    for role in ("bos", "pad"):
        if (token := _content(config.get(f"{role}_token"))) in tokens:
            ids[f"{role}_token_id"] = tokens[token]
    ends = [token for token in (_content(config.get("eos_token")), *ENDS) if token in tokens]
    if ends:
        ids["eos_token_id"] = list(dict.fromkeys(tokens[token] for token in ends))
    return ids


def _content(token: Any) -> str:
    """A special token's text: plain, or in the dict form that older tokenizers write."""
    return str(token.get("content", "")) if isinstance(token, dict) else str(token or "")
