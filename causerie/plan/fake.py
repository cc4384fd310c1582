"""The torch part of a dry run: one rank's stage, its tensor plan, FSDP2, a 1F1B update, all with fake tensors."""

from __future__ import annotations

import weakref
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, Final, cast

import torch
import torch.distributed as dist
import torch.nn.functional as F
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.distributed.device_mesh import DeviceMesh, init_device_mesh
from torch.distributed.fsdp import MixedPrecisionPolicy, fully_shard
from torch.distributed.tensor import Replicate, Shard
from torch.distributed.tensor.parallel import (
    ColwiseParallel,
    PrepareModuleInput,
    RowwiseParallel,
    parallelize_module,
)
from torch.testing._internal.distributed.fake_pg import FakeStore
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.checkpoint import checkpoint

from causerie.model import ModelShape, Transformer
from causerie.plan.config import DryrunConfig

KINDS: Final = {
    "all_gather": "all_gather",
    "_allgather_base_": "all_gather",
    "allgather": "all_gather",
    "reduce_scatter": "reduce_scatter",
    "_reduce_scatter_base_": "reduce_scatter",
    "all_reduce": "all_reduce",
    "allreduce": "all_reduce",
    "send": "send",
    "recv_": "receive",
}


class Stage(nn.Module):
    """The layers of one pipeline stage; the first embeds tokens, the last makes scores and their loss."""

    def __init__(self, shape: ModelShape, layers: int, *, first: bool, last: bool) -> None:
        super().__init__()
        from dataclasses import replace

        model = Transformer(replace(shape, n_layer=layers, tie_embeddings=False, local_layers=(), sliding_window=0))
        self.layers = model.layers
        self.embed_tokens = model.embed_tokens if first else None
        self.norm = model.norm if last else None
        self.lm_head = model.lm_head if last else None

    def forward(self, x: Tensor, turn: tuple[Tensor, Tensor]) -> Tensor:
        """Token ids or the previous stage's output, (B, T) or (B, T, D); returns hidden states, or the summed loss."""
        if self.embed_tokens is not None:
            x = self.embed_tokens(x)
        for block in self.layers:
            x = cast(Tensor, checkpoint(block, x, turn, _attend, use_reentrant=False))
        if self.norm is None or self.lm_head is None:
            return x
        return self.lm_head(self.norm(x)).float().logsumexp(-1).sum()


def _attend(layer: int, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    return F.scaled_dot_product_attention(q, k, v, is_causal=True, enable_gqa=q.shape[1] != k.shape[1])


class Counter(TorchDispatchMode):
    """Counts collectives by kind and group size, and live bytes by storage."""

    def __init__(self, groups: dict[int, str]) -> None:
        super().__init__()
        self.groups = groups
        self.messages: dict[str, dict[str, int]] = {}
        self.live: dict[int, int] = {}
        self.peak = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = func(*args, **(kwargs or {}))
        name = func.name().split("::")[-1].split(".")[0]
        if func.namespace in ("c10d", "_c10d_functional", "fsdp") and name in KINDS:
            self._message(KINDS[name], args, result)
        self._track(result)
        return result

    def _message(self, kind: str, args: Any, result: Any) -> None:
        tensors = [item for item in _flat((args, result)) if isinstance(item, Tensor)]
        size = max(item.numel() * item.element_size() for item in tensors)
        where = {"send": "pipeline", "receive": "pipeline", "all_reduce": "tensor"}.get(kind, "data")
        row = self.messages.setdefault(f"{kind} {where}", {"count": 0, "bytes": 0})
        row["count"] += 1
        row["bytes"] += size

    def _track(self, result: Any) -> None:
        for item in _flat(result):
            if isinstance(item, Tensor) and type(item).__name__ != "DTensor":
                storage = item.untyped_storage()
                key = storage._cdata
                if key not in self.live:
                    self.live[key] = storage.nbytes()
                    weakref.finalize(storage, self.live.pop, key, None)
        self.peak = max(self.peak, sum(self.live.values()))


def _flat(value: Any) -> Iterator[Any]:
    if isinstance(value, tuple | list):
        for item in value:
            yield from _flat(item)
    else:
        yield value


@contextmanager
def fake_world(size: int, rank: int) -> Iterator[None]:
    """A process group of `size` ranks of which only this one is there.

    Raises:
        RuntimeError: when a process group is open already in this process.
    """
    if dist.is_initialized():
        raise RuntimeError("a process group is open: make dry runs in a process of their own")
    dist.init_process_group("fake", rank=rank, world_size=size, store=FakeStore())
    try:
        yield
    finally:
        dist.destroy_process_group()


def count_rank(shape: ModelShape, config: DryrunConfig, layers: int) -> dict[str, Any]:
    """Run one update of the first rank of a stage; what it held and sent."""
    inner = config.data * config.tensor
    with fake_world(inner * config.pipeline, config.stage * inner):
        mesh = init_device_mesh("cpu", (config.pipeline, config.data, config.tensor), mesh_dim_names=("pp", "dp", "tp"))
        first, last = config.stage == 0, config.stage == config.pipeline - 1
        with torch.device("meta"):
            stage = Stage(shape, layers, first=first, last=last)
        parameters = sum(weight.numel() for weight in stage.parameters())
        if config.tensor > 1:
            _spread(stage, mesh["tp"])
        _shard(stage, mesh["dp"], gather_again=config.pipeline == 1)
        neighbours = (config.stage - 1) * inner, (config.stage + 1) * inner
        with FakeTensorMode(allow_non_fake_inputs=True), torch.device("cpu"):
            stage.to_empty(device="cpu")
            return {"parameters": parameters, **_update(stage, shape, config, neighbours, first=first, last=last)}


def _spread(stage: Stage, mesh: DeviceMesh) -> None:
    """Megatron's plan: columns of q, k, v, gate, up; rows of o, down; the vocabulary of embedding and head."""
    for block in stage.layers:
        plan: dict[str, Any] = {
            "self_attn": PrepareModuleInput(
                input_layouts=(Replicate(), None, None), desired_input_layouts=(Replicate(), None, None)
            ),
            "mlp": PrepareModuleInput(input_layouts=(Replicate(),), desired_input_layouts=(Replicate(),)),
        }
        plan |= {f"self_attn.{name}": ColwiseParallel() for name in ("q_proj", "k_proj", "v_proj")}
        plan |= {f"mlp.{name}": ColwiseParallel() for name in ("gate_proj", "up_proj")}
        plan |= {name: RowwiseParallel() for name in ("self_attn.o_proj", "mlp.down_proj")}
        parallelize_module(block, mesh, plan)
    if stage.embed_tokens is not None:
        parallelize_module(stage, mesh, {"embed_tokens": RowwiseParallel(input_layouts=Replicate())})
    if stage.lm_head is not None:
        parallelize_module(stage, mesh, {"lm_head": ColwiseParallel(output_layouts=Shard(-1))})


def _shard(stage: Stage, mesh: DeviceMesh, *, gather_again: bool) -> None:
    """FSDP2 by block; in a pipeline the weights stay gathered between the passes, as torchtitan does."""
    policy = MixedPrecisionPolicy(param_dtype=torch.bfloat16, reduce_dtype=torch.float32)
    for block in stage.layers:
        fully_shard(block, mesh=mesh, mp_policy=policy, reshard_after_forward=gather_again)
    fully_shard(stage, mesh=mesh, mp_policy=policy)


def _update(
    stage: Stage, shape: ModelShape, config: DryrunConfig, neighbours: tuple[int, int], *, first: bool, last: bool
) -> dict[str, Any]:
    """1F1B of one update: warm-up forwards, then a forward and a backward in turn, then the backwards left."""
    optimizer = torch.optim.AdamW(stage.parameters(), lr=1e-3, fused=False, foreach=False)
    size = (config.micro_batch, config.seq_len)
    wide = (*size, shape.n_embd)
    turn = (torch.empty(1, 1, config.seq_len, shape.head_dim), torch.empty(1, 1, config.seq_len, shape.head_dim))
    counter = Counter({})
    waiting: list[tuple[Tensor, Tensor]] = []

    def forward() -> None:
        if first:
            x = torch.zeros(size, dtype=torch.long)
        else:
            x = torch.empty(wide, dtype=torch.bfloat16)
            dist.recv(x, neighbours[0])
            x.requires_grad_()
        y = stage(x, turn)
        if not last:
            dist.send(y.detach().to(torch.bfloat16), neighbours[1])
        waiting.append((x, y))

    def backward() -> None:
        x, y = waiting.pop(0)
        gradient = None
        if not last:
            gradient = torch.empty(wide, dtype=torch.bfloat16)
            dist.recv(gradient, neighbours[1])
            gradient = gradient.to(y.dtype)
        torch.autograd.backward(y, gradient)
        if not first and x.grad is not None:
            dist.send(x.grad, neighbours[0])

    warm = min(config.pipeline - config.stage - 1, config.micro_batches)
    with counter:
        for number in range(config.micro_batches):
            forward()
            if number >= warm:
                backward()
        while waiting:
            backward()
        optimizer.step()
    state = sum(_local_bytes(weight) + _local_bytes(weight.grad) for weight in stage.parameters())
    for held in optimizer.state.values():
        state += sum(_local_bytes(value) for key, value in held.items() if key != "step")
    return {"state_bytes": state, "messages": counter.messages, "peak_bytes": counter.peak}


def _local_bytes(tensor: Any) -> int:
    local = tensor.to_local() if hasattr(tensor, "to_local") else tensor
    return int(local.numel() * local.element_size())
