"""Export: copy a model's folder for others, and prove that transformers gives the same answers when it is installed."""

from __future__ import annotations

import importlib.util
import shutil
from pathlib import Path
from typing import Any, Literal

from causerie.core import CauserieError
from causerie.hub import export_model, resolve
from causerie.model import NOTICE_FILES, check_gguf, check_model, load_model, save_gguf, save_model
from causerie.store import Store
from causerie.text import load_tokenizer

TOLERANCE = 1e-3
"""Largest difference of float32 logits that is taken for rounding."""
EXPORTED = {"config.json", "README.md", "NOTICE"}
"""Files that every export holds."""
SUFFIXES = {".json", ".safetensors", ".jinja", ".txt", ".svg", ".png"}
"""What else an export may hold: weights, tokenizer, notices and the training curve."""
SAMPLE = "The capital of France is Paris. La capitale de l'Italie est Rome."


def export_version(store: Store, workspace: Path, ref: str, target: Path) -> dict[str, Any]:
    """Write a version as a plain Hugging Face folder, with its card and terms; an adapter is merged into its base.

    Returns:
        `path`, `said` (a sentence), and with transformers installed `max_logit_difference` and `argmax_equal`.

    Raises:
        CauserieError: CAU-7103 when the folder is there and no export of ours; CAU-7102 when transformers' logits
            differ from ours.
    """
    source = resolve(store, workspace, ref)
    make_room(target)
    export_model(store, workspace, ref, target)
    if source.kind == "adapter":
        for name in ("adapter_config.json", "adapter_model.safetensors"):
            (target / name).unlink(missing_ok=True)
        save_model(load_model(source.path), target, source.path)
    return {"path": str(target), **_checked(target)}


def export_gguf(
    store: Store, workspace: Path, ref: str, target: Path, *, dtype: Literal["f32", "f16", "q8_0"] = "f16"
) -> dict[str, Any]:
    """Write a version as a GGUF file for llama.cpp, in a folder with its card and terms.

    Returns:
        `path` (the file), `bytes`, and `said`: what llama.cpp will do otherwise than we, empty for nothing.

    Raises:
        CauserieError: CAU-5004 when the folder is not empty; CAU-3010 when llama.cpp has no such model.
    """
    source = resolve(store, workspace, ref).path
    check_gguf(check_model(source))
    export_model(store, workspace, ref, target)
    file = target / f"{ref.replace('@', '-').replace('/', '-')}-{dtype}.gguf"
    said = save_gguf(load_model(source), file, source, dtype=dtype, name=ref)
    for path in [path for path in target.iterdir() if path.name not in {*NOTICE_FILES, "README.md", file.name}]:
        path.unlink() if path.is_file() else shutil.rmtree(path)
    return {"path": str(file), "bytes": file.stat().st_size, "said": said}


def make_room(target: Path) -> None:
    """Remove an earlier export from `target`; anything else that stands there is left alone.

    Raises:
        CauserieError: CAU-7103 when `target` holds something that no export of ours holds.
    """
    if not target.exists():
        return
    held = {path.name for path in target.iterdir()} if target.is_dir() else {target.name}
    others = [name for name in held - EXPORTED - {*NOTICE_FILES} if Path(name).suffix not in SUFFIXES]
    if held and (others or not held >= EXPORTED or "manifest.json" in held):
        cause = "the folder holds something that is no earlier export"
        raise CauserieError("CAU-7103", cause, where=str(target), fix="choose a new folder for --out")
    shutil.rmtree(target)


def _checked(target: Path) -> dict[str, Any]:
    if importlib.util.find_spec("transformers") is None:
        return {"said": "written; transformers is not installed, so it was not checked there"}
    return check_in_transformers(target)


def check_in_transformers(folder: Path) -> dict[str, Any]:
    """Load the folder in transformers and compare logits and token ids with ours.

    Raises:
        CauserieError: CAU-7102 when they differ.
    """
    import torch
    from transformers import AutoModelForCausalLM, AutoModelForMaskedLM, AutoTokenizer
    from transformers.utils import logging

    logging.disable_progress_bar()
    ids = load_tokenizer(folder).encode(SAMPLE)
    theirs_ids = AutoTokenizer.from_pretrained(folder).encode(SAMPLE, add_special_tokens=False)
    tokens = torch.tensor([ids])
    ours = load_model(folder)
    with torch.inference_mode():
        mine = ours.logits(ours(tokens))
        auto = AutoModelForCausalLM if ours.shape.row.causal else AutoModelForMaskedLM
        theirs = auto.from_pretrained(folder, dtype=torch.float32)(tokens).logits
    difference = float((mine - theirs).abs().max())
    equal = bool((mine.argmax(-1) == theirs.argmax(-1)).all())
    if theirs_ids != ids or difference > TOLERANCE or not equal:
        raise CauserieError(
            "CAU-7102",
            f"transformers differs: logits by {difference:.2g}, same tokens: {theirs_ids == ids}",
            where=str(folder),
            fix="report it with the folder's config.json",
        )
    said = f"transformers loads it and agrees (largest logit difference {difference:.1g})"
    return {"said": said, "max_logit_difference": difference, "argmax_equal": equal}
