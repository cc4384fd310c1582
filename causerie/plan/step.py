"""How long an update takes: products of matrices, memory traffic, messages, bubble.

A product (m, k) x (k, n) takes 2mkn FLOPs at `efficiency` of the peak, and its operands cross the memory once; element
by element work is memory traffic; collectives move ring bytes over the link that joins their group; a pipeline (1F1B)
waits (stages - 1) / chunks micro-batches. One constant per hardware generation is fitted; all else is counted.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Final

from causerie.plan.blueprint import Blueprint
from causerie.plan.count import training_flops
from causerie.plan.hardware import Hardware
from causerie.plan.held import stage_params
from causerie.plan.layout import Layout, check_layout

FLASH: Final = 0.5
"""Flash attention's share of what large products reach: 335 of about 690 TFLOP/s on H100 (arXiv:2307.08691)."""
HOP: Final = 3e-6
"""Seconds that a message takes from node to node round a ring."""
LOSS_BYTES: Final = 28
"""Bytes that cross the memory for each logit: to float32, softmax, loss, and back."""
KERNELS: Final = {"classic": (20, 40), "fused": (16, 32)}
"""Kernels that a layer starts, forward and backward."""


@dataclass(frozen=True)
class Step:
    """Seconds of one update, where they go, and what they amount to."""

    seconds: float
    matrices: float
    """Products of matrices, recomputation included."""
    attention: float
    """Attention's core."""
    elementwise: float
    """Norms, activations, residuals, and starting kernels."""
    tensor_comm: float
    context_comm: float
    expert_comm: float
    pipeline_comm: float
    data_comm: float
    """What of the gradients' and weights' messages is not hidden behind work."""
    bubble: float
    optimizer: float
    tokens_per_second_per_device: float
    mfu: float
    """Model FLOPs over peak; see `count.CONVENTION`."""


@dataclass(frozen=True)
class _Pass:
    """Seconds of one layer and micro-batch in one direction."""

    matrices: float
    attention: float
    elementwise: float
    tensor: float
    context: float
    expert: float

    def plus(self, other: _Pass, times: float = 1.0) -> _Pass:
        return _Pass(*(a + times * b for a, b in zip(self.values(), other.values(), strict=True)))

    def values(self) -> tuple[float, ...]:
        return (self.matrices, self.attention, self.elementwise, self.tensor, self.context, self.expert)

    @property
    def seconds(self) -> float:
        return sum(self.values())


def step_time(plan: Blueprint, layout: Layout, machine: Hardware) -> Step:
    """Time of one update.

    Raises:
        CauserieError: CAU-4306 when the layout is impossible.
    """
    check_layout(plan, layout, machine)
    work = _Work(plan, layout, machine)
    forward, backward, again = work.forward(), work.backward(), work.again()
    layer = forward.plus(backward).plus(again)
    layers = plan.shape.n_layer / layout.pipeline
    fullest = math.ceil(layers)
    count, head = layout.micro_batches, work.head()
    hop = work.hop()
    each = fullest * layer.seconds + head + hop
    bubble = (layout.pipeline - 1) / layout.interleave * (layers * layer.seconds + hop)
    hidden = fullest * (forward.seconds, backward.seconds + again.seconds)[1]
    data = work.data_comm(count, count * fullest * forward.seconds, count * hidden)
    optimizer = work.optimizer()
    seconds = count * each + bubble + data + optimizer
    parts = [count * fullest * value for value in layer.values()]
    rate = layout.tokens / seconds / layout.devices
    return Step(
        seconds=seconds, matrices=parts[0] + count * head, attention=parts[1], elementwise=parts[2],
        tensor_comm=parts[3], context_comm=parts[4], expert_comm=parts[5], pipeline_comm=count * hop,
        data_comm=data, bubble=bubble, optimizer=optimizer, tokens_per_second_per_device=rate,
        mfu=rate * training_flops(plan, layout.seq_len) / machine.peak,
    )  # fmt: skip


def group_bandwidth(machine: Hardware, size: int, stride: int) -> float:
    """Bytes per second of a ring of `size` devices, `stride` apart; `stride` rings share a node's network."""
    if size * stride <= machine.node:
        return machine.link * machine.link_share
    rings = min(stride, machine.node)
    across = machine.network * machine.network_share * machine.node / rings
    return min(machine.link * machine.link_share, across)


@dataclass(frozen=True)
class _Work:
    """Times of the pieces of a layer on one device."""

    plan: Blueprint
    layout: Layout
    machine: Hardware

    @property
    def tokens(self) -> float:
        return self.layout.micro_batch * self.layout.seq_len / self.layout.context

    @property
    def memory(self) -> float:
        return self.machine.bandwidth * self.machine.memory_share

    def product(self, m: float, k: float, n: float, count: float = 1.0, *, inside: bool = True) -> float:
        """Seconds of `count` products (m, k) x (k, n)."""
        faster = 2.0 if inside and self.layout.precision == "fp8" else 1.0
        flops = 2 * m * k * n / (self.machine.peak * self.machine.efficiency * faster)
        return count * (flops + 2 * (m * k + k * n + m * n) / self.memory)

    def matrices(self) -> float:
        """Forward products of a layer, mean over dense and expert layers."""
        shape, plan, t, tokens = self.plan.shape, self.plan, self.layout.tensor, self.tokens
        h, q, kv = shape.n_embd, shape.n_head * shape.head_dim, shape.n_kv_head * shape.head_dim
        attention = self.product(tokens, h, (q + 2 * kv) / t) + self.product(tokens, q / t, h)
        if plan.attention_params:
            attention = self.product(tokens, h, plan.attention_params / h / t)
        up = 2 if shape.row.gated else 1
        dense = self.product(tokens, h, up * shape.ffn_dim / t) + self.product(tokens, shape.ffn_dim / t, h)
        if plan.experts is None:
            return attention + dense
        experts, up = plan.experts, 2 if plan.gated else 1
        mine = experts.count / self.layout.expert
        rows = tokens * experts.active / mine
        routed = self.product(rows, h, up * experts.dim / t, mine) + self.product(rows, experts.dim / t, h, mine)
        routed += self.product(tokens, h, experts.count, inside=False)
        if experts.shared_dim:
            routed += self.product(tokens, h, up * experts.shared_dim / t)
            routed += self.product(tokens, experts.shared_dim / t, h)
        share = plan.expert_layers / shape.n_layer
        return attention + (1 - share) * dense + share * routed

    def core(self, *, backward: bool) -> float:
        """Attention's core: scores, softmax, weighted values."""
        shape, layout = self.plan.shape, self.layout
        rows, reach = layout.seq_len / layout.context, self.plan.reach(layout.seq_len) / shape.n_layer
        heads = layout.micro_batch * shape.n_head / layout.tensor
        if layout.kernels == "classic":
            scores = self.product(rows, shape.head_dim, reach, heads, inside=False)
            values = self.product(rows, reach, shape.head_dim, heads, inside=False)
            traffic = heads * rows * reach / self.memory
            return (2 * (scores + values) + 11 * traffic) if backward else (scores + values + 9 * traffic)
        half = 0.5 if shape.row.causal else 1.0
        flops = half * 4 * heads * rows * reach * shape.head_dim
        return (2.5 if backward else 1.0) * flops / (self.machine.peak * self.machine.efficiency * FLASH)

    def elementwise(self, kernels: int) -> float:
        """Forward memory traffic of norms, residuals, activation and rotation, and the start of kernels."""
        shape, layout, t = self.plan.shape, self.layout, self.layout.tensor
        split = t if layout.sequence else 1
        whole = (8 + (14 if layout.kernels == "classic" else 12)) * shape.n_embd
        inner = self.plan.shape.ffn_dim
        if experts := self.plan.experts:
            inner = experts.active * experts.dim + experts.shared_dim
            whole += 4 * experts.active * shape.n_embd
        shared = (6 if shape.row.gated else 4) * inner
        if shape.row.rotary:
            shared += 4 * (shape.n_head + shape.n_kv_head) * shape.head_dim
        traffic = self.tokens * (whole / split + shared / t) / self.memory
        return traffic + kernels * self.machine.launch

    def tensor_comm(self) -> float:
        """Two all-reduces (or gathers and scatters) of the residual stream."""
        t = self.layout.tensor
        if t == 1:
            return 0.0
        ring = 2 * (t - 1) / t * 2 * self.tokens * self.plan.shape.n_embd
        return 2 * (ring / group_bandwidth(self.machine, t, 1) + self.machine.latency)

    def context_comm(self, core: float) -> float:
        """Keys and values round the ring, as far as attention does not hide them."""
        c = self.layout.context
        if c == 1:
            return 0.0
        sent = 2 * self.plan.cached_values / min(self.layout.tensor, self.plan.shape.n_kv_head) * self.tokens * (c - 1)
        speed = group_bandwidth(self.machine, c, self.layout.tensor)
        return max(0.0, sent / speed - core) + (c - 1) * self.machine.latency

    def expert_comm(self) -> float:
        """Tokens to their experts and back: two all-to-alls in each layer with experts."""
        plan, layout = self.plan, self.layout
        if plan.experts is None or layout.expert == 1:
            return 0.0
        sent = 2 * self.tokens * plan.experts.active * plan.shape.n_embd / layout.tensor
        stride = layout.tensor * layout.context
        fast = min(layout.expert, max(1, self.machine.node // stride))
        near, away = (fast - 1) / layout.expert, (layout.expert - fast) / layout.expert
        machine = self.machine
        seconds = sent * near / (machine.link * machine.link_share)
        seconds += sent * away / (machine.network * machine.network_share)
        return 2 * (seconds + machine.latency) * plan.expert_layers / plan.shape.n_layer

    def forward(self) -> _Pass:
        core = self.core(backward=False)
        kernels = KERNELS[self.layout.kernels][0]
        return _Pass(
            self.matrices(), core, self.elementwise(kernels), self.tensor_comm(), self.context_comm(core),
            self.expert_comm(),
        )  # fmt: skip

    def backward(self) -> _Pass:
        core = self.core(backward=True)
        start = KERNELS[self.layout.kernels]
        elementwise = 1.5 * (self.elementwise(0)) + start[1] * self.machine.launch
        context = 2 * self.context_comm(core / 2)
        return _Pass(2 * self.matrices(), core, elementwise, self.tensor_comm(), context, self.expert_comm())

    def again(self) -> _Pass:
        if self.layout.recompute == "full":
            return self.forward()
        core = self.core(backward=False) if self.layout.recompute == "selective" else 0.0
        if self.layout.kernels == "fused":
            core = 0.0  # flash attention computes its scores again inside the backward pass anyway
        return _Pass(0.0, core, 0.0, 0.0, 0.0, 0.0)

    def head(self) -> float:
        """Output projection and loss, forward and backward, of one micro-batch: the last stage does it."""
        vocab = self.plan.shape.vocab_size / self.layout.tensor
        product = self.product(self.tokens, self.plan.shape.n_embd, vocab, 3, inside=False)
        return product + LOSS_BYTES * self.tokens * vocab / self.memory

    def hop(self) -> float:
        """Messages between stages of one micro-batch, there and back."""
        layout, machine = self.layout, self.machine
        if layout.pipeline == 1:
            return 0.0
        inside = layout.devices <= machine.node
        speed = machine.link * machine.link_share if inside else machine.network * machine.network_share
        sent = 2 * self.tokens * self.plan.shape.n_embd / layout.tensor
        return 2 * layout.interleave * (sent / speed + machine.latency)

    def data_comm(self, count: int, forward: float, backward: float) -> float:
        """Seconds of messages over the data dimension that work does not hide.

        Sharded state is gathered in each pass of each micro-batch and gradients scattered after it; otherwise gradients
        are reduced once, behind the backward pass of the last micro-batch.
        """
        layout, machine = self.layout, self.machine
        group = layout.data * layout.context
        if group == 1:
            return 0.0
        stage = stage_params(self.plan, layout)
        speed = group_bandwidth(machine, group, layout.tensor)
        whole = (stage.dense + stage.expert) * (group - 1) / group / speed
        hops = HOP * group * layout.tensor / machine.node
        if layout.shard == "full":
            gather = (2 * whole + stage.layers * hops) * count
            exposed = max(0.0, gather - forward) + max(0.0, 2 * gather - backward)
            return exposed + count * 2 * (2 * whole / stage.layers + machine.latency)
        last = backward / count
        return max(0.0, 2 * whole + hops - last) + 2 * whole + hops

    def optimizer(self) -> float:
        """The update itself: master weights, moments, gradients and weights cross the memory."""
        stage = stage_params(self.plan, self.layout)
        spread = 1 if self.layout.shard == "none" else self.layout.data * self.layout.context
        return 30 * (stage.dense + stage.expert) / spread / self.memory
