"""The engine: requests in, tokens out, one step at a time. It knows tensors and no HTTP.

    engine = Engine(folder, EngineConfig())
    engine.add("a", prompt_ids, Sampling(max_tokens=20))
    while engine.has_work:
        for event in engine.step(): ...

A step is three calls: `schedule` chooses the work, `run` computes it and samples, `postprocess`
turns the result into events.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from causerie.core import CauserieError, read_json
from causerie.infer.attend import KeyValueCache, plan_attend
from causerie.infer.blocks import BlockPool
from causerie.infer.config import EngineConfig
from causerie.infer.int8 import quantize_model
from causerie.infer.protocol import Event, Finish, Sampling
from causerie.infer.sampler import Choice, Row, sample
from causerie.infer.scheduler import Batch, Scheduler, Sequence, Work
from causerie.model import ModelShape, Transformer, base_folder, load_model

SMALL_MODEL = 50_000_000
"""Parameters up to which float32 is the automatic type: such a model is bound by operators, not by memory."""


class Engine:
    """One model and its block cache, serving many requests at once. Not thread-safe.

    Args:
        model: a model or adapter folder, or a model in memory (shared, not copied: after training it, call
            `forget_prefixes`).
        config: see `EngineConfig`.
        on_admit: called within each step, before the computing, with the ids of requests that left the queue.

    Raises:
        CauserieError: CAU-3103 when the cache cannot hold one block; CAU-300x when the folder cannot be loaded.
    """

    def __init__(
        self,
        model: Path | Transformer,
        config: EngineConfig | None = None,
        *,
        on_admit: Callable[[list[str]], None] | None = None,
    ) -> None:
        self.config = config = config or EngineConfig()
        self.stop_ids: tuple[int, ...] = ()
        if isinstance(model, Transformer):
            if config.quantize:
                raise CauserieError(
                    "CAU-3108", "a model in memory is not quantized", where="quantize", fix="give a folder"
                )
        else:
            folder = Path(model)
            self.stop_ids = folder_stop_ids(folder)
            model = load_model(folder, dtype=_dtype(config, folder), device=config.device)
        self.model = model.eval()
        self._head: Callable[[Tensor], Tensor] = model.logits
        if config.quantize:
            self._head = quantize_model(model, layers=config.quantize == "int8")
        self.shape: ModelShape = model.shape
        self.max_seq_len = min(config.max_seq_len or self.shape.max_seq_len, self.shape.max_seq_len)
        weight = model.embed_tokens.weight
        self.device, self.dtype = weight.device, weight.dtype
        self.n_blocks = _n_blocks(config, self.shape, self.dtype, self.max_seq_len)
        self.pool = BlockPool(self.n_blocks)
        self.scheduler = Scheduler(
            self.pool,
            block_size=config.block_size,
            max_running=config.max_running,
            max_batch_tokens=config.max_batch_tokens,
            prefix_cache=config.prefix_cache,
        )
        shape = self.shape
        size = (shape.n_layer, self.n_blocks, config.block_size, shape.n_kv_head, shape.head_dim)
        self.cache = KeyValueCache(*size, self.dtype, self.device)
        self._windows = tuple(shape.window(layer) or None for layer in range(shape.n_layer))
        self._on_admit = on_admit
        self._sequences: dict[str, Sequence] = {}
        self._ended: list[Event] = []
        self._stops: dict[str, frozenset[int]] = {}
        self.stats: dict[str, int] = {"steps": 0, "prefill_tokens": 0, "decode_tokens": 0, "cached_tokens": 0}

    @property
    def has_work(self) -> bool:
        """Whether a step would do anything."""
        return bool(self._sequences or self._ended)

    @property
    def info(self) -> dict[str, Any]:
        """What this engine is: sizes, types, limits; plain JSON."""
        return {
            "family": self.shape.family,
            "n_params": self.shape.n_params,
            "vocab_size": self.shape.vocab_size,
            "max_seq_len": self.max_seq_len,
            "dtype": str(self.dtype).removeprefix("torch."),
            "quantize": self.config.quantize,
            "block_size": self.config.block_size,
            "n_blocks": self.n_blocks,
            "max_running": self.config.max_running,
            "stop_ids": list(self.stop_ids),
        }

    def add(self, request_id: str, prompt_ids: list[int], sampling: Sampling, *, salt: str = "") -> None:
        """Queue a request.

        Args:
            request_id: the caller's name for it; free again once the request has finished.
            prompt_ids: the whole prompt; at least one id.
            sampling: `max_tokens` is cut to what the model's length leaves.
            salt: prompts share cached blocks only with prompts of the same salt; give one per tenant.

        Raises:
            CauserieError: CAU-3101 for a prompt that cannot be served, CAU-3104 for an id in use.
        """
        if request_id in self._sequences:
            raise CauserieError(
                "CAU-3104", f"request {request_id!r} is already here", fix="give each request its own id"
            )
        self._check_prompt(prompt_ids)
        seed = int.from_bytes(os.urandom(8), "little") if sampling.seed is None else sampling.seed
        sequence = Sequence(request_id, list(prompt_ids), len(prompt_ids), sampling, seed, salt)
        self._sequences[request_id] = sequence
        self._stops[request_id] = frozenset(sampling.stop_ids)
        self.scheduler.add(sequence)

    def cancel(self, request_id: str) -> None:
        """End a request: its blocks are free at once, the next step tells its last event. Unknown ids are ignored."""
        sequence = self._sequences.get(request_id)
        if sequence is not None:
            self._ended.append(self._finish(sequence, [], [], "cancelled"))

    def step(self) -> list[Event]:
        """Advance every running request and say what came of it."""
        batch = self.schedule()
        choice = self.run(batch) if batch.work else Choice([], [])
        return self.postprocess(batch, choice)

    def schedule(self) -> Batch:
        """First call of a step: choose its work."""
        batch = self.scheduler.schedule()
        if batch.admitted and self._on_admit:
            self._on_admit(batch.admitted)
        return batch

    @torch.inference_mode()
    def run(self, batch: Batch) -> Choice:
        """Second call of a step: compute all planned tokens in one pass, and sample where a sequence's next is due."""
        work = batch.ordered()
        attend = plan_attend(
            self.cache, work, self._windows, share=self.shape.n_head // self.shape.n_kv_head, scale=self.shape.scale
        )
        ids = [token for item in work for token in item.sequence.tokens[item.start : item.start + item.count]]
        positions = [place for item in work for place in range(item.start, item.start + item.count)]
        tensors = torch.tensor([ids, positions], device=self.device)
        hidden = self.model(tensors[:1], positions=tensors[1:], attend=attend)[0]
        rows, last = [], -1
        for item in work:
            last += item.count
            if item.samples:
                rows.append(last)
        if not rows:
            return Choice([], [])
        if len(rows) < len(ids):
            hidden = hidden[rows]
        return sample(self._head(hidden).float(), [_row(item) for item in work if item.samples])

    def postprocess(self, batch: Batch, choice: Choice) -> list[Event]:
        """Third call of a step: note what is computed, append what was sampled, finish what is finished."""
        events, self._ended = self._ended, []
        self.stats["steps"] += 1
        place = 0
        for item in batch.ordered():
            sequence, samples = item.sequence, item.samples
            sequence.n_computed += item.count
            self.stats["prefill_tokens" if item.start < sequence.n_prompt else "decode_tokens"] += item.count
            if sequence.request_id in batch.admitted:
                self.stats["cached_tokens"] += item.start
            if samples:
                events.append(self._append(sequence, choice.ids[place], choice.log_probs[place]))
                place += 1
        return events

    def forget_prefixes(self) -> None:
        """Forget all reusable prefixes; needed after the model's weights were changed in place."""
        self.pool.forget_all()

    def _check_prompt(self, ids: list[int]) -> None:
        room = min(self.max_seq_len, self.n_blocks * self.config.block_size)
        fix = f"give 1 to {room - 1} token ids below {self.shape.vocab_size}"
        if not ids:
            raise CauserieError("CAU-3101", "the prompt is empty", fix=fix)
        if len(ids) >= room:
            raise CauserieError("CAU-3101", f"the prompt has {len(ids)} tokens; {room} is the model's length", fix=fix)
        if min(ids) < 0 or max(ids) >= self.shape.vocab_size:
            raise CauserieError("CAU-3101", "the prompt holds an id outside the vocabulary", fix=fix)

    def _append(self, sequence: Sequence, token: int, log_prob: float | None) -> Event:
        sequence.tokens.append(token)
        sampling = sequence.sampling
        if sampling.frequency_penalty or sampling.presence_penalty:
            sequence.counts[token] += 1
        log_probs = [] if log_prob is None else [log_prob]
        room = min(self.max_seq_len, self.n_blocks * self.config.block_size)
        if token in self._stops[sequence.request_id]:
            return self._finish(sequence, [token], log_probs, "stop")
        if sequence.n_completion >= sampling.max_tokens or len(sequence.tokens) >= room:
            return self._finish(sequence, [token], log_probs, "length")
        return _event(sequence, [token], log_probs, None)

    def _finish(self, sequence: Sequence, ids: list[int], log_probs: list[float], finish: Finish) -> Event:
        self.scheduler.remove(sequence)
        del self._sequences[sequence.request_id], self._stops[sequence.request_id]
        return _event(sequence, ids, log_probs, finish)


def _event(sequence: Sequence, ids: list[int], log_probs: list[float], finish: Finish | None) -> Event:
    cached = max(sequence.cached_tokens, 0)
    return Event(sequence.request_id, ids, log_probs, finish, sequence.n_prompt, sequence.n_completion, cached)


def _row(work: Work) -> Row:
    sequence = work.sequence
    return Row(sequence.sampling, sequence.seed, len(sequence.tokens), sequence.counts)


def folder_stop_ids(folder: Path) -> tuple[int, ...]:
    """Ids that end a completion according to a model folder's `generation_config.json`; empty when it says none."""
    for place in (folder, *([base_folder(folder)] if (folder / "adapter_config.json").is_file() else [])):
        if (place / "generation_config.json").is_file():
            value = read_json(place / "generation_config.json").get("eos_token_id")
            return tuple(value) if isinstance(value, list) else () if value is None else (int(value),)
    return ()


def _dtype(config: EngineConfig, folder: Path) -> torch.dtype:
    if config.dtype != "auto":
        return torch.float32 if config.dtype == "float32" else torch.bfloat16
    from causerie.model import shape_from_hf

    place = base_folder(folder) if (folder / "adapter_config.json").is_file() else folder
    if not (place / "config.json").is_file():
        return torch.float32  # load_model says what is missing
    large = shape_from_hf(read_json(place / "config.json")).n_params > SMALL_MODEL
    return torch.bfloat16 if large and _bfloat16_is_fast(config.device) else torch.float32


def _bfloat16_is_fast(device: str) -> bool:
    if not device.startswith("cpu"):
        return True
    return bool(torch.cpu._is_avx512_bf16_supported())


def _n_blocks(config: EngineConfig, shape: ModelShape, dtype: torch.dtype, max_seq_len: int) -> int:
    block_bytes = shape.kv_bytes_per_token(dtype.itemsize) * config.block_size
    useful = config.max_running * -(-max_seq_len // config.block_size)
    count = config.n_blocks or min(config.cache_mb * 2**20 // block_bytes, useful)
    if count < 1:
        raise CauserieError(
            "CAU-3103",
            f"a block of {config.block_size} tokens takes {block_bytes / 2**20:.1f} MiB, cache_mb is {config.cache_mb}",
            where="cache_mb",
            fix="give the cache more memory",
        )
    return count
