"""nano-vllm's benchmark shape: 256 random prompts, 100 to 1024 tokens in and out, beside transformers' paged generate.

    python bench/gpu_infer.py              # on a GPU: random weights of Qwen3-0.6B's shape, bfloat16
    python bench/gpu_infer.py --quick      # anywhere: a tiny model, to see that it runs; its figures mean nothing

Prints the tokens/s of both and their ratio, and on a GPU the time of a decode step at batch 1 to 256 against the time
that reading the weights and the cache takes at the bandwidth of a copy measured in the same run.
Not yet run on a GPU.
"""

from __future__ import annotations

import argparse
import logging
import random
import tempfile
import time
from pathlib import Path

import torch

from causerie.infer import Engine, EngineConfig, Sampling, generate_batch
from causerie.model import ModelShape, init_model, save_model

QWEN3_06B = ModelShape(
    family="qwen3",
    n_layer=28,
    n_embd=1024,
    n_head=16,
    n_kv_head=8,
    head_dim=128,
    ffn_dim=3072,
    vocab_size=151_936,
    rope_theta=1_000_000.0,
    max_seq_len=40_960,
)
TINY = ModelShape(
    family="qwen3",
    n_layer=2,
    n_embd=64,
    n_head=4,
    n_kv_head=2,
    head_dim=16,
    ffn_dim=128,
    vocab_size=500,
    max_seq_len=512,
)


def workload(count: int, low: int, high: int, vocabulary: int) -> tuple[list[list[int]], list[int]]:
    draw = random.Random(0)
    prompts = [[draw.randrange(vocabulary) for _ in range(draw.randint(low, high))] for _ in range(count)]
    return prompts, [draw.randint(low, high) for _ in range(count)]


def ours(engine: Engine, prompts: list[list[int]], new: list[int]) -> float:
    settings = [Sampling(max_tokens=count, temperature=0.6, seed=index) for index, count in enumerate(new)]
    started = time.perf_counter()
    done = generate_batch(engine, prompts, settings)
    return sum(len(item.ids) for item in done) / (time.perf_counter() - started)


def theirs(folder: Path, device: str, dtype: torch.dtype, prompts: list[list[int]], new: list[int]) -> float:
    from transformers import AutoModelForCausalLM, ContinuousBatchingConfig, GenerationConfig
    from transformers import logging as noise

    noise.set_verbosity_error()
    logging.disable(logging.WARNING)
    model = AutoModelForCausalLM.from_pretrained(folder, dtype=dtype).to(device).eval()
    total, spent = 0, 0.0
    # its generate_batch takes one length for all: groups of equal lengths would be unfair, so all run to the mean
    mean = sum(new) // len(new)
    settings = GenerationConfig(max_new_tokens=mean, do_sample=True, temperature=0.6, eos_token_id=-1, pad_token_id=0)
    batching = None
    if device == "cpu":  # by itself it takes all of the machine's memory
        blocks = sum(-(-(len(prompt) + mean) // 32) + 1 for prompt in prompts)
        batching = ContinuousBatchingConfig(page_size=32, num_blocks=blocks + 16, max_batch_tokens=512)
    for warm in (True, False):
        started = time.perf_counter()
        done = model.generate_batch(
            prompts[:4] if warm else prompts,
            generation_config=settings,
            continuous_batching_config=batching,
            progress_bar=False,
            warmup=device != "cpu",
        )
        spent = time.perf_counter() - started
        total = sum(len(item.generated_tokens) for item in done.values())
    return total / spent


def copy_bandwidth() -> float:
    """Bytes per second read and written by a copy of 4 GB."""
    source = torch.empty(2**31, dtype=torch.uint8, device="cuda")
    target = torch.empty_like(source)
    for _ in range(3):
        target.copy_(source)
    torch.cuda.synchronize()
    started = time.perf_counter()
    for _ in range(10):
        target.copy_(source)
    torch.cuda.synchronize()
    return 10 * 2 * 2**31 / (time.perf_counter() - started)


def step_times(engine: Engine, shape: ModelShape, bandwidth: float, context: int = 512) -> None:
    for batch in (1, 2, 4, 8, 16, 32, 64, 128, 256):
        prompts, _ = workload(batch, context, context, shape.vocab_size)
        for index, prompt in enumerate(prompts):
            engine.add(str(index), prompt, Sampling(max_tokens=80, temperature=0.0))
        while any(item.n_pending > 1 for item in engine.scheduler.running) or engine.scheduler.waiting:
            engine.step()
        for _ in range(5):
            engine.step()
        torch.cuda.synchronize()
        started = time.perf_counter()
        for _ in range(40):
            engine.step()
        torch.cuda.synchronize()
        spent = (time.perf_counter() - started) / 40
        needed = (shape.weight_bytes(2) + batch * context * shape.kv_bytes_per_token(2)) / bandwidth
        print(
            f"batch {batch}: {spent * 1e3:.2f} ms a step, bandwidth alone {needed * 1e3:.2f} ms, {needed / spent:.0%}"
        )
        for index in range(batch):
            engine.cancel(str(index))
        engine.step()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true")
    args = parser.parse_args()
    device = "cuda" if torch.cuda.is_available() else "cpu"
    quick = args.quick or device == "cpu"
    shape = TINY if quick else QWEN3_06B
    dtype = torch.float32 if device == "cpu" else torch.bfloat16
    count, low, high = (8, 8, 32) if quick else (256, 100, 1024)
    prompts, new = workload(count, low, high, shape.vocab_size)
    with tempfile.TemporaryDirectory() as place:
        folder = Path(place)
        save_model(init_model(shape, 0), folder, None)
        config = EngineConfig(
            dtype="float32" if device == "cpu" else "bfloat16",
            device=device,
            block_size=256 if device == "cuda" else 16,
            cache_mb=512 if device == "cpu" else 65_536,
            max_running=256,
            max_batch_tokens=512 if quick else 16_384,
            prefix_cache=False,
        )
        engine = Engine(folder, config)
        ours(engine, prompts[:4], [4] * 4)
        mine = ours(engine, prompts, new)
        other = theirs(folder, device, dtype, prompts, new)
        print(f"{device}: causerie {mine:,.0f} tokens/s, transformers {other:,.0f} tokens/s, ratio {mine / other:.2f}")
        if device == "cuda":
            bandwidth = copy_bandwidth()
            print(f"a copy moves {bandwidth / 1e12:.2f} TB/s")
            step_times(engine, shape, bandwidth)
        elif quick:
            print("a tiny model on a processor: this shows that the bench runs, nothing more")


if __name__ == "__main__":
    main()
