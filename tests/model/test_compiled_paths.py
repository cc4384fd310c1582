"""What a compiler is given instead of the plain formulas, run as written or traced, against torch's own functions."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from causerie.model import Transformer, add_extras, init_model, summed_loss
from causerie.model.dense_attention import _kept_mask, added_mask, causal_mask, dense_attention
from causerie.model.lookup import _kept_sums, rows_of
from causerie.model.loss import SUMMED_CHUNK, _softmax_step
from causerie.model.products import (
    Linear,
    _kept_times,
    fastest_product,
    joint_product,
    onednn_is_faster,
    transposed_product,
)
from tests.train.tiny import SHAPE

HEADS = [(4, 4), (4, 2), (6, 1)]


@pytest.fixture
def traced(monkeypatch: pytest.MonkeyPatch) -> None:
    """Code that asks whether a compiler looks on hears yes, and runs as written all the same."""
    monkeypatch.setattr(torch.compiler, "is_compiling", lambda: True)


def heads_of(counts: tuple[int, int], length: int, size: int = 8, spread: float = 1.0) -> list[Tensor]:
    """Queries, keys and values with gradients."""
    dice = torch.Generator().manual_seed(sum(counts))
    made = (spread * torch.randn(2, n, length, size, generator=dice) for n in (counts[0], counts[1], counts[1]))
    return [part.requires_grad_() for part in made]


def gradients(call: Callable[..., Tensor], *inputs: Tensor) -> list[Tensor]:
    """The result and the gradients of a weighted sum of it."""
    for one in inputs:
        one.grad = None
    out = call(*inputs)
    (out * torch.linspace(-1, 1, out.numel()).view(out.shape)).sum().backward()
    return [out.detach(), *(one.grad.clone() for one in inputs if one.grad is not None)]


@pytest.mark.usefixtures("traced")
@pytest.mark.parametrize("counts", HEADS)
@pytest.mark.parametrize("kind", ["causal", "both ways", "documents"])
@pytest.mark.parametrize("block", [3, 4, 1000])
def test_attention_for_a_compiler_is_torchs(
    counts: tuple[int, int], kind: str, block: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("causerie.model.dense_attention.BLOCK", block)
    documents = torch.tensor([[0, 0, 0, 1, 1, 2, 2, 2, 2, 3], [0, 1, 1, 1, 1, 1, 1, 1, 2, 2]])
    seen = ((documents[:, :, None] == documents[:, None]) & torch.ones(10, 10, dtype=torch.bool).tril())[:, None]
    mask = seen if kind == "documents" else None
    inputs = heads_of(counts, 10)
    mine = gradients(lambda q, k, v: dense_attention(q, k, v, mask, kind != "both ways", 0.3), *inputs)
    theirs = gradients(
        lambda q, k, v: F.scaled_dot_product_attention(
            q, k, v, mask, is_causal=kind == "causal", scale=0.3, enable_gqa=True
        ),
        *inputs,
    )
    for ours, reference in zip(mine, theirs, strict=True):
        torch.testing.assert_close(ours, reference, atol=2e-6, rtol=1e-4)


@pytest.mark.usefixtures("traced")
def test_hidden_scores_however_large_leave_no_trace() -> None:
    q, k, v = heads_of((2, 2), 6, spread=30.0)
    with torch.no_grad():
        k[:, :, 3:] *= 100  # what the first three tokens may not see would outweigh all that they do
    out, *grads = gradients(lambda q, k, v: dense_attention(q, k, v, None, True, 1.0), q, k, v)
    assert all(bool(part.isfinite().all()) for part in (out, *grads))
    alone = dense_attention(q[:, :, :3], k[:, :, :3], v[:, :, :3], None, True, 1.0)
    torch.testing.assert_close(out[:, :, :3], alone)


@pytest.mark.usefixtures("traced")
def test_no_gradient_crosses_documents_of_a_traced_row() -> None:
    documents = torch.tensor([[0] * 4 + [1] * 6] * 2)
    mask = ((documents[:, :, None] == documents[:, None]) & causal_mask(torch.zeros(1, 1, 10, 1))[0])[:, None]
    q, k, v = heads_of((4, 2), 10)
    dense_attention(q, k, v, mask, True, 0.3)[:, :, 4:].square().sum().backward()
    for part in (q, k, v):
        assert part.grad is not None
        assert int(part.grad[:, :, :4].count_nonzero()) == 0
        assert int(part.grad[:, :, 4:].count_nonzero()) > 0


@pytest.mark.parametrize(
    ("operator", "inputs"),
    [
        (_kept_mask, (torch.ones(2, 1, 5, 5, dtype=torch.bool).tril(),)),
        (_kept_sums, (torch.randn(2, 3, 4), torch.tensor([[0, 1, 1], [6, 0, 1]]), 7)),
        pytest.param(_kept_times, (torch.randn(5, 3), torch.randn(4, 3), None), id="times"),
        pytest.param(_kept_times, (torch.randn(5, 3), torch.randn(3, 4).T, torch.randn(4)), id="times, turned"),
    ],
)
def test_the_operators_keep_what_a_compiler_is_promised(operator: object, inputs: tuple[object, ...]) -> None:
    torch.library.opcheck(operator, inputs)


def test_the_kept_mask_is_the_added_one() -> None:
    mask = torch.rand(2, 1, 6, 6, generator=torch.Generator().manual_seed(0)) < 0.5
    torch.testing.assert_close(_kept_mask(mask).float(), added_mask(mask, torch.zeros(1, 1, 6, 1)))


@pytest.mark.usefixtures("traced")
def test_rows_of_a_table_and_their_gradient_are_torchs() -> None:
    table = nn.Embedding(11, 5)
    ids = torch.randint(0, 11, (3, 40), generator=torch.Generator().manual_seed(0))
    mine, theirs = (
        gradients(call, table.weight) for call in (lambda _: rows_of(table, ids), lambda w: F.embedding(ids, w))
    )
    for ours, reference in zip(mine, theirs, strict=True):
        assert torch.equal(ours, reference)


@pytest.mark.parametrize("bias", [False, True])
def test_products_of_a_compiled_layer_are_the_plain_ones(bias: bool, traced: None) -> None:
    layer, plain = Linear(6, 4, bias=bias), nn.Linear(6, 4, bias=bias)
    plain.load_state_dict(layer.state_dict())
    x = torch.randn(2, 9, 6, generator=torch.Generator().manual_seed(0)).requires_grad_()
    mine, theirs = (gradients(lambda x, *_, run=run: run(x), x, *run.parameters()) for run in (layer, plain))
    for ours, reference in zip(mine, theirs, strict=True):
        torch.testing.assert_close(ours, reference)


@pytest.mark.parametrize("narrow", [False, True])
def test_joint_products_of_a_compiled_layer_are_each_ones(narrow: bool, traced: None) -> None:
    layers = [Linear(6, width, bias=False) for width in (4, 2, 3)]
    x = torch.randn(2, 9, 6, generator=torch.Generator().manual_seed(0)).requires_grad_()
    weights = [layer.weight for layer in layers]
    with torch.autocast("cpu", torch.bfloat16, enabled=narrow):
        mine = gradients(lambda x, *_: torch.cat(joint_product(x, *layers), -1), x, *weights)
        theirs = gradients(lambda x, *w: torch.cat([F.linear(x, one) for one in w], -1), x, *weights)
    for ours, reference in zip(mine, theirs, strict=True):
        torch.testing.assert_close(ours.float(), reference.float(), atol=0.05 if narrow else 1e-5, rtol=1e-5)


def test_a_layer_that_is_no_plain_one_is_not_joined(traced: None) -> None:
    plain, biased = Linear(6, 4, bias=False), Linear(6, 4)
    x = torch.randn(3, 6, requires_grad=True)
    for ours, layer in zip(joint_product(x, plain, biased), (plain, biased), strict=True):
        torch.testing.assert_close(ours, layer(x))


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16])
def test_products_without_gradients(dtype: torch.dtype) -> None:
    dice = torch.Generator().manual_seed(0)
    a, b, c = (torch.randn(*shape, generator=dice).to(dtype) for shape in ((7, 5), (5, 4), (7, 3)))
    tolerance = {"atol": 0.05, "rtol": 0.02} if dtype == torch.bfloat16 else {"atol": 1e-5, "rtol": 1e-5}
    torch.testing.assert_close(fastest_product(a, b), a @ b, **tolerance)
    torch.testing.assert_close(transposed_product(a, c), a.T @ c, **tolerance)


def test_the_choice_of_the_library_can_be_taken_away(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("causerie.model.products._by_processor", lambda: False)
    assert not onednn_is_faster()
    layer, x = Linear(6, 4), torch.randn(3, 6, requires_grad=True)
    monkeypatch.setattr("causerie.model.products.Product.apply", lambda *_: pytest.fail("oneDNN was asked"))
    assert layer(x).shape == (3, 4)


@pytest.mark.parametrize("spread", [1.0, 30.0, 300.0])
def test_a_chunks_exponentials_make_the_gradient_of_cross_entropy(spread: float) -> None:
    dice = torch.Generator().manual_seed(0)
    logits = (spread * torch.randn(6, 50, generator=dice)).requires_grad_()
    targets = torch.randint(0, 50, (6,), generator=dice)
    nll = F.cross_entropy(logits, targets, reduction="none")
    nll.sum().backward()
    for here in (logits.detach().clone(), None):  # in place of the logits, and beside them
        made = logits.detach().clone() if here is None else here
        out = torch.empty_like(made) if here is None else made
        losses, factors = _softmax_step(made, targets, out)
        torch.testing.assert_close(losses, nll.detach())
        torch.testing.assert_close(out * factors, logits.grad, atol=1e-6, rtol=1e-4)


def test_a_certain_target_keeps_its_gradient_in_bf16() -> None:
    logits = torch.zeros(1, 9)
    logits[0, 4] = 12.0  # p = 0.99995: 1 - p has no digit in bf16 beside 1
    narrow = logits.bfloat16()
    losses, factors = _softmax_step(narrow, torch.tensor([4]), narrow)
    missing = 1 - torch.softmax(logits.double(), -1)[0, 4]
    assert float(-(narrow.float() * factors)[0, 4]) == pytest.approx(float(missing), rel=0.01)
    assert float(losses) == pytest.approx(float(missing), rel=0.01)


@pytest.mark.parametrize(("bf16", "extras"), [(False, False), (False, True), (True, False)])
def test_a_whole_model_traces_to_one_graph_with_the_same_gradients(bf16: bool, extras: bool) -> None:
    found = []
    for backend in (None, "aot_eager"):
        torch.compiler.reset()
        model = init_model(SHAPE, 3)
        if extras:
            add_extras(model, embed_norm=True, residual_scales=True, qk_gain=1.15)
        for name, weight in model.named_parameters():
            if name.endswith(
                ("o_proj.weight", "down_proj.weight")
            ):  # they start at zero, and others' gradients with them
                nn.init.normal_(weight, 0, 0.1, generator=torch.Generator().manual_seed(1))
        run: Transformer | Callable[..., Tensor] = model
        if backend:
            run = torch.compile(model, backend=backend, fullgraph=True)
        ids = torch.randint(0, SHAPE.vocab_size, (2, 12), generator=torch.Generator().manual_seed(0))
        with torch.autocast("cpu", torch.bfloat16, enabled=bf16):
            loss = summed_loss(model, run(ids).flatten(0, 1), ids.flatten())
        loss.backward()
        found.append([loss.detach(), *(p.grad for p in model.parameters())])
    for traced, plain in zip(*reversed(found), strict=True):
        miss = float((traced - plain).norm() / plain.norm())
        assert miss < (0.05 if bf16 else 1e-5)


def test_attention_for_a_compiler_is_as_exact_in_bf16_as_the_written_one(monkeypatch: pytest.MonkeyPatch) -> None:
    wide = heads_of((4, 2), 200, size=32)
    exact = gradients(lambda q, k, v: dense_attention(q, k, v, None, True, 0.18), *wide)
    misses = {}
    for compiled in (False, True):
        monkeypatch.setattr(torch.compiler, "is_compiling", lambda compiled=compiled: compiled)
        narrow = [part.detach().bfloat16().requires_grad_() for part in wide]
        found = gradients(lambda q, k, v: dense_attention(q, k, v, None, True, 0.18).float(), *narrow)
        misses[compiled] = [
            float((a.double() - b.double()).norm() / b.norm()) for a, b in zip(found, exact, strict=True)
        ]
    assert max(misses[False]) < 0.02
    for mine, plain in zip(misses[True], misses[False], strict=True):
        assert mine < 1.3 * plain + 1e-4


@pytest.mark.parametrize("rows", [2, 5, 100])
def test_tokens_that_count_nothing_leave_no_gradient(rows: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("causerie.model.loss.FEWEST_ROWS", rows)
    monkeypatch.setitem(SUMMED_CHUNK, "cpu", 1)
    model = init_model(SHAPE, 0).double()
    dice = torch.Generator().manual_seed(0)
    hidden = torch.randn(23, SHAPE.n_embd, dtype=torch.float64, generator=dice).requires_grad_()
    targets = torch.randint(0, SHAPE.vocab_size, (23,), generator=dice)
    factors = torch.rand(23, dtype=torch.float64, generator=dice) * (torch.arange(23) % 3 > 0)
    head = model.head_weight
    mine = gradients(lambda h, _: summed_loss(model, h, targets, factors), hidden, head)
    theirs = gradients(
        lambda h, w: (F.cross_entropy(F.linear(h, w), targets, reduction="none") * factors).sum(), hidden, head
    )
    for ours, reference in zip(mine, theirs, strict=True):
        torch.testing.assert_close(ours, reference)
    assert int(mine[1][::3].count_nonzero()) == 0
