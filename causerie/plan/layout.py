"""How a model is spread over devices, and which spreads are impossible."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final, Literal

from causerie.core import CauserieError
from causerie.plan.blueprint import Blueprint
from causerie.plan.hardware import Hardware

Recompute = Literal["none", "selective", "full"]
Shard = Literal["none", "optimizer", "full"]
Precision = Literal["bf16", "fp8"]

COUNTS: Final = (
    "data", "tensor", "pipeline", "context", "expert", "micro_batch", "interleave", "global_batch", "seq_len",
)  # fmt: skip


@dataclass(frozen=True)
class Layout:
    """A spread over `data` × `tensor` × `pipeline` × `context` devices.

    Neighbours in this order share a node first: tensor, context, data, pipeline. Experts are spread over the data
    dimension (expert parallelism inside data parallelism, as Megatron and DeepSeek do).
    """

    global_batch: int
    """Sequences in an update."""
    seq_len: int
    """Tokens in a sequence."""
    data: int = 1
    """Replicas that see different sequences."""
    tensor: int = 1
    """Devices that share each matrix (Megatron)."""
    pipeline: int = 1
    """Stages that hold different layers (1F1B)."""
    context: int = 1
    """Devices that share a sequence (ring attention)."""
    expert: int = 1
    """Devices that hold different experts; divides `data`."""
    micro_batch: int = 1
    """Sequences that a device works on at once."""
    interleave: int = 1
    """Chunks of layers that a stage holds (interleaved 1F1B)."""
    recompute: Recompute = "selective"
    """What is computed again in the backward pass: nothing, attention's core, or whole layers."""
    sequence: bool = True
    """Sequence parallelism: norms and residuals are spread over the tensor dimension too."""
    shard: Shard = "optimizer"
    """What is spread over data: nothing, the optimiser (ZeRO-1), or all state (ZeRO-3, FSDP)."""
    kernels: Literal["fused", "classic"] = "fused"
    """"fused": flash attention, no dropout; "classic": GPT-3's time, scores in memory and dropout."""
    precision: Precision = "bf16"
    """Of the products of matrices inside the layers."""

    @property
    def devices(self) -> int:
        """Devices in all."""
        return self.data * self.tensor * self.pipeline * self.context

    @property
    def micro_batches(self) -> int:
        """Micro-batches that a pipeline takes per update."""
        return self.global_batch // (self.data * self.micro_batch)

    @property
    def tokens(self) -> int:
        """Tokens in an update."""
        return self.global_batch * self.seq_len

    def words(self) -> str:
        """The spread in short."""
        sizes = (("data", self.data), ("tensor", self.tensor), ("pipeline", self.pipeline), ("context", self.context))
        text = " x ".join(f"{name} {size}" for name, size in sizes if size > 1) or "one device"
        extra = [f"expert {self.expert}"] if self.expert > 1 else []
        extra += [f"{self.interleave} chunks a stage"] if self.interleave > 1 else []
        extra += [f"micro-batch {self.micro_batch}", f"recompute {self.recompute}", f"shard {self.shard}"]
        return f"{text}; {', '.join(extra)}"


def check_layout(plan: Blueprint, layout: Layout, machine: Hardware | None = None) -> None:
    """Refuse a layout that cannot be run.

    Raises:
        CauserieError: CAU-4306 naming the field, its value and the fix. Memory is not checked here (see `held_bytes`).
    """
    shape = plan.shape
    for name in COUNTS:
        value = getattr(layout, name)
        if not isinstance(value, int) or isinstance(value, bool) or value < 1:
            raise _no(name, value, "give an integer of at least 1")
    if layout.seq_len > (1 << 28):
        raise _no("seq_len", layout.seq_len, "give at most 2^28 tokens")
    if shape.n_head % layout.tensor:
        raise _no("tensor", layout.tensor, f"it must divide the {shape.n_head} heads")
    if shape.n_kv_head % layout.tensor and layout.tensor % shape.n_kv_head:
        raise _no("tensor", layout.tensor, f"it must divide, or be a multiple of, the {shape.n_kv_head} key heads")
    if shape.ffn_dim % layout.tensor:
        raise _no("tensor", layout.tensor, f"it must divide the MLP's {shape.ffn_dim}")
    if layout.pipeline * layout.interleave > shape.n_layer:
        raise _no("pipeline", layout.pipeline, f"there are only {shape.n_layer} layers (chunks: {layout.interleave})")
    if layout.interleave > 1 and (layout.pipeline == 1 or shape.n_layer % (layout.pipeline * layout.interleave)):
        raise _no("interleave", layout.interleave, f"pipeline x interleave must divide the {shape.n_layer} layers")
    if layout.global_batch % (layout.data * layout.micro_batch):
        fix = f"it must be a multiple of data x micro_batch = {layout.data * layout.micro_batch}"
        raise _no("global_batch", layout.global_batch, fix)
    if layout.interleave > 1 and layout.micro_batches % layout.pipeline:
        raise _no("global_batch", layout.global_batch, "interleaving needs micro-batches in multiples of pipeline")
    if layout.seq_len % layout.context:
        raise _no("context", layout.context, f"it must divide the {layout.seq_len} tokens of a sequence")
    if layout.expert > 1 and (plan.experts is None or plan.experts.count % layout.expert):
        there = f"{plan.experts.count} experts" if plan.experts else "model without experts"
        raise _no("expert", layout.expert, f"it must divide the {there}" if plan.experts else f"a {there} needs 1")
    if layout.data % layout.expert:
        raise _no("expert", layout.expert, f"it must divide data = {layout.data}")
    for name, known in (
        ("recompute", ("none", "selective", "full")),
        ("shard", ("none", "optimizer", "full")),
        ("kernels", ("fused", "classic")),
        ("precision", ("bf16", "fp8")),
    ):
        if getattr(layout, name) not in known:
            raise _no(name, getattr(layout, name), f"choose from {', '.join(known)}")
    if machine and layout.precision == "fp8" and machine.name.startswith(("a100", "arm", "two")):
        raise _no("precision", "fp8", f"{machine.name} has no fp8 products: use bf16")


def _no(field: str, value: object, fix: str) -> CauserieError:
    return CauserieError("CAU-4306", f"{field} cannot be {value!r} in this layout", where=field, fix=fix)
