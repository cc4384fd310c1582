"""The model as the engine computes with it: loaded, made lean, its caches, its graphs, its adapters, its new weights.

The engine above knows requests; here are only ids, positions and tensors.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from collections.abc import Sequence as Many
from contextlib import nullcontext
from copy import deepcopy
from pathlib import Path
from typing import Final, cast

import torch
from torch import Tensor

from causerie.core import CauserieError
from causerie.infer.adapters import Lanes
from causerie.infer.attend import KeyValueCache, plan_attend
from causerie.infer.config import EngineConfig
from causerie.infer.cuda import CapturedDecode, paged_attention, plan_paged
from causerie.infer.int8 import Int8Linear, check_int8
from causerie.infer.lean import LeanModel
from causerie.infer.loading import count_blocks, from_state, load_for
from causerie.infer.packed import linear
from causerie.infer.scheduler import Work
from causerie.infer.threads import StepThreads
from causerie.model import Attend, ModelShape, Transformer, lora_parameters, merge_lora

FEW_ROWS: Final = 16
SMALL_PRODUCT: Final = 2_000_000
"""Up to so many rows, and weights of a layer's product on average, 8-bit layers may be quicker by one thread: it can be
done before a second one is awake. (A whole step of Gemma 3 270M: `docs/log.md`.)"""


class ModelRunner:
    """A model and its key-value cache. Not thread-safe.

    Args:
        model: a folder, or a model in memory (shared, not copied: no adapters by request, no quantization).
        config: see `EngineConfig`.

    Raises:
        CauserieError: CAU-3103 when the cache cannot hold one block, CAU-3108 for a model or setting that cannot be
            served, CAU-300x when the folder cannot be loaded.
    """

    def __init__(self, model: Path | Transformer, config: EngineConfig) -> None:
        self.config = config
        self.lanes = Lanes()
        self.shared = isinstance(model, Transformer)
        if isinstance(model, Transformer):
            if config.quantize:
                raise _in_memory("a model in memory is not quantized", "quantize")
        else:
            model = load_for(model, config)
        self.shape: ModelShape = model.shape
        if not getattr(self.shape.row, "causal", True):
            raise CauserieError("CAU-3108", f"{self.shape.family} is an encoder: it generates nothing", where="model")
        weight = model.embed_tokens.weight
        self.device, self.dtype = weight.device, weight.dtype
        self._windows = tuple(self.shape.window(layer) or None for layer in range(self.shape.n_layer))
        body = self.shape.n_params - self.shape.vocab_size * self.shape.n_embd
        self._threads = StepThreads()
        self._small = config.quantize == "int8" and body <= 4 * self.shape.n_layer * SMALL_PRODUCT
        self.model: Transformer | LeanModel
        self.head: Callable[[Tensor], Tensor]
        """From hidden states to logits."""
        self._install(model)
        self.max_seq_len = min(config.max_seq_len or self.shape.max_seq_len, self.shape.max_seq_len)
        self.n_blocks = count_blocks(config, self.shape, self.dtype, self.max_seq_len)
        self.room = min(self.max_seq_len, self.n_blocks * config.block_size)
        """Tokens of one sequence, at most."""
        shape = self.shape
        spare = int(self.device.type == "cuda")  # a block for the padding rows of captured steps
        size = (shape.n_layer, self.n_blocks + spare, config.block_size, shape.n_kv_head, shape.head_dim)
        self.cache = KeyValueCache(*size, self.dtype, self.device)
        self._captured = self._capture()

    def hidden(self, work: Many[Work], rows: list[int] | None = None) -> Tensor:
        """Hidden states after the final norm of a step's N tokens, (N, D), or of some `rows` of them, (n, D).

        Afterwards the keys and values of all tokens are in the cache.
        """
        count = sum(item.count for item in work)
        if rows is not None and len(rows) == count:
            rows = None
        self.lanes.plan([(item.sequence.adapter, item.count) for item in work], rows)
        hidden = self._hidden(work)
        return hidden if rows is None or len(hidden) == len(rows) else hidden[rows]

    def _hidden(self, work: Many[Work]) -> Tensor:
        ids = [token for item in work for token in item.sequence.tokens[item.start : item.start + item.count]]
        positions = [place for item in work for place in range(item.start, item.start + item.count)]
        inputs = torch.tensor([ids, positions], device=self.device)
        if self._captured is not None and not self.lanes.rows and self._captured.fits(work):
            return self._captured(work, inputs)
        attend: Attend
        if self._captured is not None:
            attend = plan_paged(self.cache, work, self._windows, self.shape.scale, self._captured.kernel)
        else:
            attend = plan_attend(self.cache, work, self._windows, scale=self.shape.scale)
        few = self._small and len(ids) == len(work) <= FEW_ROWS  # prompts always have all threads
        with self._threads.step(len(ids)) if few else nullcontext():
            return cast(Tensor, self.model(inputs[:1], positions=inputs[1:], attend=attend)[0])

    def update(self, source: Path | Transformer | Mapping[str, Tensor]) -> None:
        """Take other weights of the same shape; see `Engine.update_weights`.

        Raises:
            CauserieError: CAU-3108 when the shape is another one; the old weights stay.
        """
        if isinstance(source, Path):
            source = load_for(source, self.config)
        if isinstance(source, Transformer):
            if source.shape != self.shape:
                raise CauserieError("CAU-3108", "the new weights are of another model", where="weights")
            if lora_parameters(source):
                source = deepcopy(source)
                merge_lora(source)
            if self.shared:
                self._install(source)
                source = {}
            else:
                source = source.state_dict()
        if source:
            self.shared = False
            self._install(from_state(self.shape, source, self.dtype, self.device))
        self._captured = self._capture()

    def load_adapter(self, name: str, folder: Path) -> None:
        """Load a LoRA adapter; kept in the type of the computing between products. Errors as `Engine.load_adapter`."""
        if self.shared:
            raise _in_memory("a model in memory takes no adapters", "adapter")
        dtype = torch.float32 if self.config.quantize == "int8" else self.dtype
        self.lanes.load(name, Path(folder), self.shape, dtype, self.device)

    def _install(self, model: Transformer) -> None:
        """Take a model: as it is when it is shared, lean when it is the engine's own."""
        if self.shared:
            self.model, self.head = model.eval(), model.logits
            return
        if self.config.quantize:
            check_int8(self.device)
            self.head = Int8Linear(model.head_weight, model.head_bias)
        else:
            self.head = linear(model.head_weight, model.head_bias, wide=True)
        self.model = LeanModel(model, self.lanes, int8=self.config.quantize == "int8")

    def _capture(self) -> CapturedDecode | None:
        """Graphs for decode steps, where device and torch allow it."""
        if self.device.type != "cuda" or paged_attention() is None:
            return None
        most_blocks = -(-self.room // self.config.block_size)
        return CapturedDecode(self.model, self.cache, self._windows, self.shape.scale, most_blocks)


def _in_memory(cause: str, where: str) -> CauserieError:
    return CauserieError("CAU-3108", cause, where=where, fix="give a folder")
