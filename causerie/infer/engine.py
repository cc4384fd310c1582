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
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from causerie.core import CauserieError
from causerie.infer.blocks import BlockPool
from causerie.infer.config import EngineConfig
from causerie.infer.grammar import Grammars
from causerie.infer.loading import folder_stop_ids, tokenizer_folder
from causerie.infer.outcome import allowed_ids, event_of, generates
from causerie.infer.prompts import read_prompts, reads_prompt
from causerie.infer.request import Event, Finish, Pooling, Sampling
from causerie.infer.runner import ModelRunner
from causerie.infer.sampler import Choice, Row, sample
from causerie.infer.scheduler import Batch, Scheduler, Sequence
from causerie.model import ModelShape, Transformer
from causerie.text import load_tokenizer


class Engine:
    """One model and its block cache, serving many requests at once. Not thread-safe.

    Args:
        model: a model or adapter folder, or a model in memory (shared, not copied: after training it, call
            `forget_prefixes`; it takes no adapters by request and no quantization).
        config: see `EngineConfig`.
        tokenizer: folder of the tokenizer that grammars speak of; a model folder's own by default.
        on_admit: called within each step, before the computing, with the ids of requests that left the queue.

    Raises:
        CauserieError: CAU-3103 when the cache cannot hold one block; CAU-300x when the folder cannot be loaded.
    """

    def __init__(
        self,
        model: Path | Transformer,
        config: EngineConfig | None = None,
        *,
        tokenizer: Path | None = None,
        on_admit: Callable[[list[str]], None] | None = None,
    ) -> None:
        self.config = config = config or EngineConfig()
        self.stop_ids: tuple[int, ...] = ()
        if not isinstance(model, Transformer):
            model = Path(model)
            self.stop_ids = folder_stop_ids(model)
            tokenizer = tokenizer or tokenizer_folder(model)
        self.runner = runner = ModelRunner(model, config)
        self.shape: ModelShape = runner.shape
        self.n_blocks, self.room = runner.n_blocks, runner.room
        self.pool = BlockPool(self.n_blocks)
        self.scheduler = Scheduler(
            self.pool,
            block_size=config.block_size,
            max_running=config.max_running,
            max_batch_tokens=config.max_batch_tokens,
            prefix_cache=config.prefix_cache,
        )
        self.grammars = Grammars(
            None if tokenizer is None else lambda: load_tokenizer(tokenizer), self.shape.vocab_size
        )
        self._on_admit = on_admit
        self._sequences: dict[str, Sequence] = {}
        self._ended: list[Event] = []
        names = ("steps", "prefill_tokens", "decode_tokens", "cached_tokens", "embedded_tokens")
        self._counts = dict.fromkeys(names, 0)

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
            "n_embd": self.shape.n_embd,
            "vocab_size": self.shape.vocab_size,
            "max_seq_len": self.runner.max_seq_len,
            "dtype": str(self.runner.dtype).removeprefix("torch."),
            "quantize": self.config.quantize,
            "block_size": self.config.block_size,
            "n_blocks": self.n_blocks,
            "max_running": self.config.max_running,
            "stop_ids": list(self.stop_ids),
            "adapters": sorted(self.runner.lanes.adapters),
            "grammars": list(self.grammars.kinds),
        }

    @property
    def stats(self) -> dict[str, int]:
        """Counts since the start, and how full the engine is now."""
        scheduler = self.scheduler
        return {
            **self._counts,
            "running": len(scheduler.running),
            "waiting": len(scheduler.waiting),
            "n_blocks": self.n_blocks,
            "free_blocks": self.pool.n_free,
            "preemptions": scheduler.preemptions,
        }

    def add(
        self, request_id: str, prompt_ids: list[int], sampling: Sampling, *, salt: str = "", priority: int = 0
    ) -> None:
        """Queue a request.

        Args:
            request_id: the caller's name for it; free again once the request has finished.
            prompt_ids: the whole prompt; at least one id.
            sampling: `max_tokens` is cut to what the model's length leaves.
            salt: prompts share cached blocks only with prompts of the same salt; give one per tenant.
            priority: requests of a higher one leave the queue first.

        Raises:
            CauserieError: CAU-3101 for a prompt that cannot be served, CAU-3104 for an id in use, CAU-3110 for a
                grammar that cannot be used, CAU-3111 for an unknown adapter.
        """
        self._check_prompt(request_id, prompt_ids, self.room)
        seed = int.from_bytes(os.urandom(8), "little") if sampling.seed is None else sampling.seed
        sequence = Sequence(request_id, list(prompt_ids), len(prompt_ids), sampling, seed, salt, priority=priority)
        sequence.adapter = self.runner.lanes.find(sampling.adapter)
        sequence.stops = frozenset(sampling.stop_ids)
        if sampling.grammar is not None:
            sequence.matcher = self.grammars.start(sampling.grammar)
            sequence.stops |= {self.grammars.eos_id}
        self._queue(sequence)

    def add_embedding(
        self,
        request_id: str,
        ids: list[int],
        pooling: Pooling = "mean",
        *,
        adapter: str | None = None,
        salt: str = "",
        priority: int = 0,
    ) -> None:
        """Queue a text to be embedded: its only event carries the vector.

        Args:
            request_id, salt, priority: as in `add`.
            ids: the whole text.
            pooling: the mean of the hidden states after the final norm, or the last one; then normed to length 1.
            adapter: as in `Sampling`.

        Raises:
            CauserieError: CAU-3101, CAU-3104, CAU-3111 as in `add`.
        """
        self._check_prompt(request_id, ids, self.room + 1)
        sequence = Sequence(request_id, list(ids), len(ids), Sampling(), 0, salt, priority=priority, pooling=pooling)
        sequence.adapter = self.runner.lanes.find(adapter)
        self._queue(sequence)

    def _queue(self, sequence: Sequence) -> None:
        self._sequences[sequence.request_id] = sequence
        self.scheduler.add(sequence)

    def cancel(self, request_id: str) -> None:
        """End a request: its blocks are free at once, the next step tells its last event. Unknown ids are ignored."""
        sequence = self._sequences.get(request_id)
        if sequence is not None:
            self._ended.append(self._finish(sequence, "cancelled"))

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
        due, last = [], -1
        for item in work:
            last += item.count
            if item.samples and generates(item.sequence):
                due.append((last, item.sequence))
        rows = [row for row, _ in due]
        if any(reads_prompt(item) for item in work):
            hidden = self.runner.hidden(work)
            read_prompts(work, hidden, self.runner.head)
            hidden = hidden[rows]
        else:
            hidden = self.runner.hidden(work, rows)
        if not due:
            return Choice([], [])
        return sample(self.runner.head(hidden).float(), [self._row(sequence) for _, sequence in due])

    def postprocess(self, batch: Batch, choice: Choice) -> list[Event]:
        """Third call of a step: note what is computed, append what was sampled, finish what is finished."""
        events, self._ended = self._ended, []
        counts = self._counts
        counts["steps"] += 1
        place = 0
        for item in batch.ordered():
            sequence, samples = item.sequence, item.samples
            sequence.n_computed += item.count
            kind = "embedded" if sequence.pooling else "prefill" if item.start < sequence.n_prompt else "decode"
            counts[f"{kind}_tokens"] += item.count
            if sequence.request_id in batch.admitted:
                counts["cached_tokens"] += item.start
            if samples and not generates(sequence):
                events.append(self._finish(sequence, "stop" if sequence.pooling else "length"))
            elif samples:
                events.append(self._append(sequence, choice, place))
                place += 1
        return events

    def forget_prefixes(self) -> None:
        """Forget all reusable prefixes; needed after the model's weights were changed in place."""
        self.pool.forget_all()

    def update_weights(self, source: Path | Transformer | Mapping[str, Tensor]) -> None:
        """Go on with new weights of the same shape, e.g. between the rollouts of reinforcement learning.

        Running requests keep their tokens and are computed anew from them; all prefixes are forgotten.

        Args:
            source: a folder, a model (an adapter in it is merged in a copy; the model itself stays as it is), or a
                state dict.

        Raises:
            CauserieError: CAU-3108 when the shape is another one; the engine then goes on with the old weights.
        """
        self.runner.update(source)
        self.scheduler.preempt_all()
        self.forget_prefixes()

    def load_adapter(self, name: str, folder: Path) -> None:
        """Load a LoRA adapter that requests may name; kept in the type of the computing between products.

        Raises:
            CauserieError: CAU-3111 when the name is in use, CAU-3008 when the adapter does not fit, CAU-3108 for an
                engine with a model in memory.
        """
        self.runner.load_adapter(name, folder)

    def unload_adapter(self, name: str) -> None:
        """Forget an adapter; running requests keep it to their end.

        Raises:
            CauserieError: CAU-3111 when there is none of that name.
        """
        self.runner.lanes.unload(name)

    def _check_prompt(self, request_id: str, ids: list[int], room: int) -> None:
        if request_id in self._sequences:
            cause = f"request {request_id!r} is already here"
            raise CauserieError("CAU-3104", cause, fix="give each request its own id")
        fix = f"give 1 to {room - 1} token ids below {self.shape.vocab_size}"
        if not ids:
            raise CauserieError("CAU-3101", "the prompt is empty", fix=fix)
        if len(ids) >= room:
            cause = f"the prompt has {len(ids)} tokens; {self.room} is the model's length"
            raise CauserieError("CAU-3101", cause, fix=fix)
        if min(ids) < 0 or max(ids) >= self.shape.vocab_size:
            raise CauserieError("CAU-3101", "the prompt holds an id outside the vocabulary", fix=fix)

    def _row(self, sequence: Sequence) -> Row:
        sampling = sequence.sampling
        allowed: Tensor | None = None
        barred: tuple[int, ...] = ()
        if sequence.matcher is not None:
            allowed = allowed_ids(sequence, self.shape.vocab_size, self.runner.device)
        elif sequence.n_completion < sampling.min_tokens:
            barred = tuple(sampling.stop_ids)
        return Row(sampling, sequence.seed, len(sequence.tokens), sequence.counts, sequence.tokens, allowed, barred)

    def _append(self, sequence: Sequence, choice: Choice, place: int) -> Event:
        token, log_prob = choice.ids[place], choice.log_probs[place]
        sampling, matcher = sequence.sampling, sequence.matcher
        sequence.tokens.append(token)
        if sampling.frequency_penalty or sampling.presence_penalty:
            sequence.counts[token] += 1
        told: dict[str, Any] = {"ids": [token], "logprobs": [] if log_prob is None else [log_prob]}
        if sampling.top_logprobs and log_prob is not None:
            told["top_logprobs"] = [choice.top[place]]
        if token in sequence.stops:
            return self._finish(sequence, "stop", **told)
        if matcher is not None:
            if not matcher.accept(token):
                return self._finish(sequence, "error", **told)
            if matcher.done:
                return self._finish(sequence, "stop", **told)
        if sequence.n_completion >= sampling.max_tokens or len(sequence.tokens) >= self.room:
            return self._finish(sequence, "length", **told)
        return event_of(sequence, None, **told)

    def _finish(self, sequence: Sequence, finish: Finish, **told: Any) -> Event:
        self.scheduler.remove(sequence)
        del self._sequences[sequence.request_id]
        if sequence.pooling and finish == "stop":
            assert sequence.pooled is not None
            told["embedding"] = torch.nn.functional.normalize(sequence.pooled, dim=0).tolist()
        return event_of(sequence, finish, **told)
