"""Rows of an embedding whose gradient a compiler leaves alone.

torch's compiler adds the rows of a gradient up by atomic additions of single numbers: four times as slow as torch's own
kernel, and in an order that differs from run to run, so that a compiled run would not repeat to the bit. Here both
directions are operators that it calls and does not see through.
"""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn


def rows_of(table: nn.Embedding, ids: Tensor) -> Tensor:
    """`table(ids)`: (...) integers → (..., D)."""
    if torch.compiler.is_compiling() and ids.device.type == "cpu" and type(table.weight) is nn.Parameter:
        made: Tensor = _Rows.apply(ids, table.weight)
        return made
    return table(ids)


class _Rows(torch.autograd.Function):
    """Rows of a table, with torch's own gradient."""

    @staticmethod
    def forward(ctx: Any, ids: Tensor, weight: Tensor) -> Tensor:
        ctx.save_for_backward(ids)
        ctx.rows = weight.shape[0]
        return F.embedding(ids, weight)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[None, Tensor]:
        (ids,) = ctx.saved_tensors
        return None, _kept_sums(grads[0], ids, ctx.rows)


@torch.library.custom_op("causerie::rows_added", mutates_args=())
def _kept_sums(grad: Tensor, ids: Tensor, rows: int) -> Tensor:
    """Gradient (rows, D) of a table from that of the rows taken, added up in the order of the ids."""
    made: Tensor = torch.ops.aten.embedding_dense_backward.default(grad, ids, rows, -1, False)
    return made


@_kept_sums.register_fake
def _(grad: Tensor, ids: Tensor, rows: int) -> Tensor:
    return grad.new_empty(rows, grad.shape[-1])
