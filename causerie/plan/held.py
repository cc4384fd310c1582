"""Bytes that one device of a layout holds while it trains.

Activations follow Korthikanti et al. (arXiv:2205.05198, sections 3 to 5): the tensors that the backward pass keeps, per
layer and micro-batch, in 16 bits with masks in 8. A stage keeps the micro-batches that are under way.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

from causerie.plan.blueprint import Blueprint
from causerie.plan.layout import Layout


@dataclass(frozen=True)
class Held:
    """Bytes on the fullest device."""

    weights: float
    gradients: float
    optimizer: float
    gathered: float
    """Whole weights of two layers, where they are sharded and gathered when used."""
    activations: float
    """What waits for the backward pass."""
    working: float
    """One layer's tensors while it is computed again."""
    logits: float

    @property
    def total(self) -> float:
        """All of it."""
        state = self.weights + self.gradients + self.optimizer + self.gathered
        return state + self.activations + self.working + self.logits


@dataclass(frozen=True)
class StageParams:
    """Parameters that one device computes with, before any sharding over data."""

    dense: float
    """All but routed experts."""
    expert: float
    """Routed experts."""
    layers: int
    """Layers of the stage."""
    tables: float
    """Of `dense`: embedding or output projection."""


def stage_params(plan: Blueprint, layout: Layout) -> StageParams:
    """Parameters of the fullest stage on one of its devices."""
    shape = plan.shape
    layers = math.ceil(shape.n_layer / layout.pipeline)
    table = shape.vocab_size * shape.n_embd / layout.tensor
    all_tables = table * (1 if shape.tie_embeddings else 2)
    tables = all_tables if layout.pipeline == 1 else table
    inside = (plan.n_params - plan.expert_params) / layout.tensor - all_tables
    dense = inside * layers / shape.n_layer + tables
    experts = min(layers, plan.expert_layers) / plan.expert_layers if plan.expert_layers else 0.0
    return StageParams(dense, plan.expert_params * experts / (layout.tensor * layout.expert), layers, tables)


def state_bytes(plan: Blueprint, layout: Layout) -> tuple[float, float, float]:
    """Bytes of weights, gradients and optimiser on one device.

    Mixed precision: weights 2, gradients 4, master weights and Adam's moments 12 bytes a parameter; with everything
    sharded the float32 weights are the master copy: 4 + 4 + 8.
    """
    stage = stage_params(plan, layout)
    spread = layout.data * layout.context
    shares = ((stage.dense, spread), (stage.expert, max(1, spread // layout.expert)))
    if layout.shard == "full":
        whole = sum(count / over for count, over in shares)
        return 4 * whole, 4 * whole, 8 * whole
    count = stage.dense + stage.expert
    over_data = sum(count / over for count, over in shares) if layout.shard == "optimizer" else count
    return 2 * count, 4 * count, 12 * over_data


def layer_bytes(plan: Blueprint, layout: Layout, *, recompute: str | None = None) -> float:
    """Bytes that one layer keeps of one micro-batch for its backward pass, on one device.

    For GPT-3's layer this is s·b·h·(10 + 24/t + 5·a·s/(h·t)), (34/t + 5·a·s/(h·t)) with sequence parallelism,
    34/t more with selective recomputation, and 2 or 2/t with full.
    """
    shape, mode, t = plan.shape, recompute or layout.recompute, layout.tensor
    tokens = layout.micro_batch * layout.seq_len / layout.context
    split = t if layout.sequence else 1
    if mode == "full":
        return 2 * shape.n_embd * tokens / split
    classic = layout.kernels == "classic"
    q, kv = shape.n_head * shape.head_dim, shape.n_kv_head * shape.head_dim
    whole = (8 + (2 if classic else 0)) * shape.n_embd
    shared = 2 * q + 4 * kv + 2 * q + _inner(plan)
    scores = 0.0
    if classic and mode == "none":
        scores = 5 * shape.n_head * plan.reach(layout.seq_len) / shape.n_layer
    elif not classic:
        scores = 4 * shape.n_head
    return tokens * (whole / split + (shared + scores) / t)


def _inner(plan: Blueprint) -> float:
    """Bytes a token keeps inside the MLP, mean over layers: 4 per inner width, 8 with a gate."""
    shape, experts = plan.shape, plan.experts
    dense = (8 if shape.row.gated else 4) * shape.ffn_dim
    if experts is None:
        return float(dense)
    routed = (8 if plan.gated else 4) * (experts.active * experts.dim + experts.shared_dim)
    copies = 2 * experts.active * shape.n_embd
    share = plan.expert_layers / shape.n_layer
    return (1 - share) * dense + share * (routed + copies)


def activation_bytes(plan: Blueprint, layout: Layout) -> float:
    """Bytes of activations that the first stage keeps with all its micro-batches under way."""
    layers = math.ceil(plan.shape.n_layer / layout.pipeline)
    waiting = min(layout.pipeline, layout.micro_batches)
    more = (layout.pipeline - 1) / layout.interleave if layout.interleave > 1 else 0.0
    return layer_bytes(plan, layout) * layers * (waiting + more)


def held_bytes(plan: Blueprint, layout: Layout) -> Held:
    """What the fullest device holds: the first stage's waiting micro-batches, or the last one's logits."""
    weights, gradients, optimizer = state_bytes(plan, layout)
    stage = stage_params(plan, layout)
    gathered = 0.0
    if layout.shard == "full":
        gathered = 2 * 2 * (stage.dense - stage.tables + stage.expert) / stage.layers + 2 * stage.tables
    working = layer_bytes(plan, layout, recompute="none") if layout.recompute == "full" else 0.0
    activations = activation_bytes(plan, layout)
    tokens = layout.micro_batch * layout.seq_len / layout.context
    logits = 6 * tokens * plan.shape.vocab_size / layout.tensor
    if layout.pipeline > 1:
        last = layer_bytes(plan, layout) * stage.layers * layout.interleave**0
        if last + logits > activations:
            activations = last
        else:
            logits = 0.0
    return Held(weights, gradients, optimizer, gathered, activations, working, logits)
