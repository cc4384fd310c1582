"""A model over several processes: PyTorch's FSDP2, with tensor parallelism inside a group for the big shapes."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import FSDPModule, MixedPrecisionPolicy, fully_shard
from torch.distributed.tensor import DTensor, distribute_tensor
from torch.distributed.tensor.parallel import ColwiseParallel, RowwiseParallel, parallelize_module

from causerie.core import CauserieError
from causerie.model import ModelShape, Transformer, empty_like
from causerie.train.world import World


def shard_model(model: Transformer, world: World, tensor_parallel: int = 1) -> None:
    """Shard the parameters in place: over all processes, or in groups of `tensor_parallel` that split each product.

    FSDP2 averages gradients over the processes that have different rows (`World.data_size`).

    Raises:
        CauserieError: CAU-4006 when the processes or the heads do not divide by `tensor_parallel`.
    """
    if world.size % tensor_parallel:
        raise _undivided(f"{world.size} processes", tensor_parallel)
    sizes, names = (world.size // tensor_parallel, tensor_parallel), ("data", "tensor")
    mesh = init_device_mesh(world.device.type, sizes, mesh_dim_names=names)
    if tensor_parallel > 1:
        plan = tensor_plan(model.shape, tensor_parallel)
        for block in model.layers:
            parallelize_module(block, mesh["tensor"], plan)
    policy = MixedPrecisionPolicy(reduce_dtype=torch.float32)
    for block in model.layers:
        fully_shard(block, mesh=mesh["data"], mp_policy=policy)
    fully_shard(model, mesh=mesh["data"], mp_policy=policy)


def tensor_plan(shape: ModelShape, ways: int) -> dict[str, Any]:
    """Which projections of a block are split by columns and which by rows, for groups of `ways` processes.

    Raises:
        CauserieError: CAU-4006 when the heads or the MLP do not divide, or the family fuses its projections.
    """
    for name in ("n_head", "n_kv_head", "ffn_dim"):
        if getattr(shape, name) % ways:
            raise _undivided(f"{name} {getattr(shape, name)}", ways)
    if shape.row.fused_qkv or shape.row.fused_gate_up:
        cause = f"family {shape.family} keeps several projections in one matrix"
        raise CauserieError("CAU-4006", cause, where="tensor_parallel", fix="use --tensor-parallel 1")
    columns = ("self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj", "mlp.gate_proj", "mlp.up_proj")
    plan: dict[str, Any] = {name: ColwiseParallel() for name in columns}
    return plan | {name: RowwiseParallel() for name in ("self_attn.o_proj", "mlp.down_proj")}


def whole(value: Tensor) -> Tensor:
    """A tensor in full on every process; sharded ones are gathered (every process must ask)."""
    return value.full_tensor() if isinstance(value, DTensor) else value


def gathered(model: Transformer) -> Transformer:
    """The model itself, or a plain copy of a sharded one (every process must ask)."""
    if not isinstance(model, FSDPModule):
        return model
    model.reshard()
    plain = empty_like(model)
    plain.load_state_dict({name: whole(value).cpu() for name, value in model.state_dict().items()})
    return plain


def placed_like(value: Tensor, pattern: Tensor) -> Tensor:
    """A full tensor, equal on every process, in the placement of `pattern`: this process keeps its own part."""
    if not isinstance(pattern, DTensor):
        return value
    value = value.to(pattern.device)
    return distribute_tensor(value, pattern.device_mesh, pattern.placements, src_data_rank=None)


def _undivided(what: str, ways: int) -> CauserieError:
    fix = "choose a --tensor-parallel that divides it"
    return CauserieError("CAU-4006", f"{what} do not divide by {ways}", where="tensor_parallel", fix=fix)
