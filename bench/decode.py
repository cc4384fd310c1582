"""Tokens per second: our engine against transformers' generate, same random weights, greedy, same number of new tokens."""

from __future__ import annotations

import os
import statistics
import tempfile
import time
from pathlib import Path

os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")

import torch
from transformers import AutoModelForCausalLM

from causerie.infer import Engine, EngineConfig, Sampling, generate_batch
from causerie.model import init_model, save_model, shape_from_depth
from causerie.text import train_bpe

NEW, PROMPT, ROUNDS = 64, 32, 3


def prompts(batch: int, vocabulary: int) -> list[list[int]]:
    generator = torch.Generator().manual_seed(batch)
    return torch.randint(0, vocabulary, (batch, PROMPT), generator=generator).tolist()


def ours(folder: Path, batch: int, vocabulary: int) -> float:
    engine = Engine(folder, EngineConfig(dtype="float32", prefix_cache=False))
    started = time.perf_counter()
    done = generate_batch(engine, prompts(batch, vocabulary), Sampling(max_tokens=NEW, temperature=0.0))
    return sum(len(c.ids) for c in done) / (time.perf_counter() - started)


def theirs(model: torch.nn.Module, batch: int, vocabulary: int) -> float:
    ids = torch.tensor(prompts(batch, vocabulary))
    started = time.perf_counter()
    done = model.generate(  # type: ignore[operator]
        ids,
        attention_mask=torch.ones_like(ids),
        max_new_tokens=NEW,
        min_new_tokens=NEW,
        do_sample=False,
        pad_token_id=0,
    )
    return (done.shape[1] - PROMPT) * batch / (time.perf_counter() - started)


def main() -> None:
    shape = shape_from_depth(6, 4096)
    tokenizer = train_bpe(["a few words to make a vocabulary of bytes"] * 4, 300)
    with tempfile.TemporaryDirectory() as place:
        folder = Path(place)
        tokenizer.save(folder)
        save_model(init_model(shape, 0), folder, folder)
        peer = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32)
        print(f"{shape.n_params / 1e6:.1f}M parameters, prompt {PROMPT}, {NEW} new tokens, float32")
        for batch in (1, 8):
            pairs = [(ours(folder, batch, 300), theirs(peer, batch, 300)) for _ in range(ROUNDS)]
            ratio = statistics.median(mine / other for mine, other in pairs)
            mine, other = (statistics.median(column) for column in zip(*pairs, strict=True))
            print(
                f"batch {batch}: causerie {mine:,.0f} tokens/s, transformers {other:,.0f} tokens/s, ratio {ratio:.2f}"
            )


if __name__ == "__main__":
    main()
