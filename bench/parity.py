"""Logits of every family against transformers and llama.cpp, as a table; and of a real model.

    python bench/parity.py                                     # small random configs of every family, transformers
    python bench/parity.py --llama-python VENV/bin/python      # and exported as GGUF, in llama.cpp (llama-cpp-python)
    python bench/parity.py --model FOLDER --llama-python ...   # a real model folder: tokens, logits, greedy text

The largest difference of float32 logits and the share of equal choices are printed. llama.cpp's cache is kept in
float32 here, so that only its kernels differ; its GELU reads a table in half precision.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[1]))

import numpy as np
import torch

from causerie.core import CauserieError
from causerie.model import (
    NAMED_SHAPES,
    Transformer,
    load_gguf,
    load_model,
    plain_attend,
    save_gguf,
    save_model,
)
from causerie.text import load_tokenizer
from tests.model.references import REFERENCES, saved_reference, tokens

LLAMA = """
import json, sys
import numpy as np
from llama_cpp import Llama
job = json.loads(sys.stdin.read())
llm = Llama(job["path"], n_ctx=512, logits_all=True, verbose=False, n_threads=1, n_threads_batch=1, type_k=0, type_v=0)
texts = [llm.tokenize(text.encode(), add_bos=False, special=False) for text in job["texts"]]
llm.eval(job["ids"])
np.save(job["out"], np.array(llm.scores[: len(job["ids"])]))
greedy = []
for prompt in job["prompts"]:
    llm.reset()
    made = []
    for token in llm.generate(prompt, temp=0.0, top_k=1, repeat_penalty=1.0):
        made.append(int(token))
        if len(made) == job["count"]:
            break
    greedy.append(made)
print(json.dumps({"texts": texts, "greedy": greedy}))
"""
TEXTS = (
    "The capital of France is Paris. La capitale de l'Italie est Rome.",
    "It doesn't cost 1,234.56 € — qu'est-ce que c'est ?\n\n    indented   text\n",
    "Œuvres complètes: «déjà vu», naïve façade, 2026-11-22, 日本語, 👍🏽.",
)
PROMPTS = ("Once upon a time", "La France est un pays", "To make bread, you need")


def llama(python: str, job: dict[str, Any]) -> tuple[torch.Tensor, dict[str, Any]]:
    """llama.cpp's logits of `job["ids"]`, and what it made of texts and prompts."""
    with tempfile.TemporaryDirectory() as folder:
        job = {"texts": [], "prompts": [], "count": 0, **job, "out": f"{folder}/logits.npy"}
        done = subprocess.run([python, "-c", LLAMA], input=json.dumps(job), capture_output=True, text=True, timeout=900)
        if done.returncode:
            raise SystemExit(f"llama.cpp failed: {done.stderr[-800:]}")
        return torch.from_numpy(np.load(job["out"])), json.loads(done.stdout.splitlines()[-1])


def logits(model: Transformer, ids: torch.Tensor, **how: Any) -> torch.Tensor:
    with torch.no_grad():
        return model.logits(model(ids, **how))


def row(ours: torch.Tensor, theirs: torch.Tensor) -> str:
    same = (ours.argmax(-1) == theirs.argmax(-1)).float().mean().item()
    return f"{(ours - theirs).abs().max().item():9.1e} {same:5.0%}"


def against_transformers() -> None:
    """Both directions, padded, and packed."""
    import transformers

    transformers.utils.logging.disable_progress_bar()
    print(f"{'config':15} {'parameters':>10}  {'HF → ours':>15} {'ours → HF':>15} {'padded':>15} {'packed':>15}")
    for name in REFERENCES:
        with tempfile.TemporaryDirectory() as folder:
            theirs = saved_reference(name, Path(folder) / "hf")
            ours = load_model(Path(folder) / "hf")
            ids = tokens(2, 40)
            (Path(folder) / "ours").mkdir()
            save_model(ours, Path(folder) / "ours", None)
            again = type(theirs).from_pretrained(Path(folder) / "ours")
            mask = torch.ones_like(ids)
            mask[0, 30:] = 0
            documents, places = torch.arange(40)[None] // 13, torch.arange(40)[None] % 13
            with torch.no_grad():
                plain, back = theirs(ids).logits, again(ids).logits
                padded = theirs(ids, attention_mask=mask).logits
                apart = torch.cat([theirs(part).logits for part in ids[:1].split(13, dim=1)], dim=1)
            cells = [row(logits(ours, ids), plain), row(logits(ours, ids), back)]
            seen = mask.bool()
            cells.append(row(logits(ours, ids, attend=plain_attend(ours.shape, mask))[seen], padded[seen]))
            packed = logits(ours, ids[:1], positions=places, attend=plain_attend(ours.shape, documents))
            cells.append(row(packed, apart))
        print(f"{name:15} {ours.shape.n_params:10,}  " + " ".join(cells))


def against_llama(python: str) -> None:
    """Every decoder that llama.cpp has, exported in three types."""
    print(f"\n{'config in llama.cpp':20} {'f32':>15} {'f16':>15} {'q8_0':>15}   (against our float32)")
    for name in REFERENCES:
        with tempfile.TemporaryDirectory() as folder:
            saved_reference(name, Path(folder))
            model, ids, cells, said = load_model(Path(folder)), tokens(1, 24), [], ""
            for kind in ("f32", "f16", "q8_0"):
                try:
                    said = save_gguf(model, Path(folder) / "x.gguf", None, dtype=kind)
                except CauserieError as error:
                    said = error.cause
                    break
                length = load_gguf(Path(folder) / "x.gguf").shape.max_seq_len
                ids = ids[:, :length]
                theirs, _ = llama(python, {"path": f"{folder}/x.gguf", "ids": ids[0].tolist()})
                cells.append(row(logits(model, ids)[0], theirs))
        print(f"{name:20} " + " ".join(cells), said)


def real_model(folder: Path, python: str | None) -> None:
    """A real model: token ids, logits and greedy continuations in transformers and llama.cpp."""
    import transformers

    tokenizer, model = load_tokenizer(folder), load_model(folder)
    begin = (
        (json.loads((folder / "config.json").read_text()).get("bos_token_id"),)
        if (folder / "config.json").is_file()
        else (None,)
    )
    begin = [one for one in begin if one is not None]
    ids = torch.tensor([[*begin, *tokenizer.encode(" ".join(TEXTS[:2]))]])
    prompts = [[*begin, *tokenizer.encode(text)] for text in PROMPTS]
    mine, made = logits(model, ids)[0], [greedy(model, prompt, 24) for prompt in prompts]
    print(f"{folder.name}: {model.shape.family}, {model.shape.n_params:,} parameters, {ids.shape[1]} tokens scored")
    theirs = transformers.AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32)
    with torch.no_grad():
        print("transformers   ", row(mine, theirs(ids).logits[0]))
        longer = [
            theirs.generate(torch.tensor([p]), max_new_tokens=24, do_sample=False, eos_token_id=None)[0]
            for p in prompts
        ]
    print("   greedy tokens equal:", [a == b[len(p) :].tolist() for a, b, p in zip(made, longer, prompts, strict=True)])
    for kind in ("f32", "f16", "q8_0") if python else ():
        with tempfile.TemporaryDirectory() as place:
            said = save_gguf(model, Path(place) / "x.gguf", folder, dtype=kind)
            job = {"path": f"{place}/x.gguf", "ids": ids[0].tolist(), "texts": TEXTS, "prompts": prompts, "count": 24}
            scores, told = llama(str(python), job)
        print(f"llama.cpp {kind:5}", row(mine, scores), said)
        print("   greedy tokens equal:", [f"{agree(a, b)}/24" for a, b in zip(made, told["greedy"], strict=True)])
        print(
            "   texts tokenised alike:",
            [a == tokenizer.encode(text) for a, text in zip(told["texts"], TEXTS, strict=True)],
        )


def agree(ours: list[int], theirs: list[int]) -> int:
    """Tokens that agree from the start."""
    return next((at for at, (a, b) in enumerate(zip(ours, theirs, strict=True)) if a != b), len(ours))


def greedy(model: Transformer, prompt: list[int], count: int) -> list[int]:
    ids = list(prompt)
    for _ in range(count):
        ids.append(int(logits(model, torch.tensor([ids]))[0, -1].argmax()))
    return ids[len(prompt) :]


def named() -> None:
    """Every named shape on the meta device."""
    print(f"\n{'named shape':18} {'parameters':>18} {'published':>10} {'built on meta':>14}")
    for name, one in NAMED_SHAPES.items():
        with torch.device("meta"):
            built = sum(p.numel() for p in Transformer(one.shape).parameters())
        print(
            f"{name:18} {one.shape.n_params:18,} {one.published_params:10.3g} {'same' if built == one.shape.n_params else built:>14}"
        )


def main() -> None:
    """Print the tables."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--llama-python", default=os.environ.get("CAUSERIE_LLAMA_PYTHON"))
    parser.add_argument("--model", type=Path)
    parser.add_argument("--quick", action="store_true", help="the transformers table alone")
    args = parser.parse_args()
    if args.model:
        real_model(args.model, args.llama_python)
        return
    against_transformers()
    if args.quick:
        return
    named()
    if args.llama_python:
        against_llama(args.llama_python)
    else:
        print("\nllama.cpp was left out: give --llama-python, a Python that has llama-cpp-python")


if __name__ == "__main__":
    main()
