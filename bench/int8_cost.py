"""What 8-bit weights and activations cost: nats per token of held-out text, the same tokens in every number type.

python bench/int8_cost.py --model FOLDER [--tokens 8192]      # text: CAUSERIE_DATA/pretrain/en-000.jsonl.zst
"""

from __future__ import annotations

import argparse
import io
import json
import math
import os
import statistics
from pathlib import Path

os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")

LENGTH = 512


def texts(count: int, folder: Path) -> list[list[int]]:
    import zstandard

    from causerie.text import load_tokenizer

    tokenizer = load_tokenizer(folder)
    path = Path(os.environ.get("CAUSERIE_DATA", "../shared/data")) / "pretrain" / "en-000.jsonl.zst"
    found: list[list[int]] = []
    with path.open("rb") as file:
        for line in io.TextIOWrapper(zstandard.ZstdDecompressor().stream_reader(file), encoding="utf-8"):
            ids = [tokenizer.eot_id, *tokenizer.encode(json.loads(line)["text"][:8000])]
            if len(ids) >= LENGTH:
                found.append(ids[:LENGTH])
            if len(found) == count:
                break
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", type=Path, required=True)
    parser.add_argument("--tokens", type=int, default=8192)
    parser.add_argument("--quick", action="store_true", help="1,024 tokens")
    args = parser.parse_args()
    from causerie.infer import Engine, EngineConfig, Sampling, generate_batch

    prompts = texts((1024 if args.quick else args.tokens) // LENGTH, args.model)
    sampling = Sampling(max_tokens=0, prompt_logprobs=True)
    base: list[float] = []
    for dtype, quantize in (("float32", None), ("bfloat16", None), ("bfloat16", "int8-head"), ("bfloat16", "int8")):
        engine = Engine(args.model, EngineConfig(dtype=dtype, quantize=quantize, prefix_cache=False))
        done = generate_batch(engine, prompts, sampling)
        nll = [-score for item in done for score in (item.prompt_logprobs or [])[1:] if score is not None]
        base = base or nll
        change = [one - other for one, other in zip(nll, base, strict=True)]
        # tokens of a text hang together: the interval is over the texts' means
        means = [statistics.mean(change[i : i + LENGTH - 1]) for i in range(0, len(change), LENGTH - 1)]
        error = 1.96 * statistics.stdev(means) / math.sqrt(len(means)) if len(means) > 1 else math.nan
        print(
            f"{dtype:9} {quantize or '-':9} {statistics.mean(nll):.4f} nats over {len(nll)} tokens of {len(prompts)} texts,"
            f" {statistics.mean(change):+.4f} ± {error:.4f} against float32",
            flush=True,
        )


if __name__ == "__main__":
    main()
