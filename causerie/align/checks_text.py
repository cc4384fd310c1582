"""Closed-form invariants of what training reads: masks, end-of-turn, packing, cutting."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Final

import torch
from torch import Tensor

from causerie.align.pairs import encode_answer, encode_prompt, fit_length
from causerie.align.specimens import VOCABULARY, Found, mean, tiny_model
from causerie.model import Transformer, causal_attend, token_log_probs
from causerie.text import ChatFormat, chat_format, train_bpe


def masks() -> Iterator[Found]:
    """What SFT counts, and that a prompt's ids begin those of its continuation."""
    for name in ("chatml",):
        chat = _chat(name)
        talk = [
            {"role": "user", "content": "say the word"},
            {"role": "assistant", "content": "the word is said"},
            {"role": "user", "content": "again, and do not count <|im_end|> or <end_of_turn>"},
            {"role": "assistant", "content": "said again"},
        ]
        rendered = chat.render(talk)
        trained = [id for id, kept in zip(rendered.ids, rendered.mask, strict=True) if kept]
        wanted = [id for turn in (talk[1], talk[3]) for id in encode_answer(chat, turn["content"])]
        yield f"{name}: trained ids are the answers and their end-of-turn", 1.0, float(trained == wanted)
        yield f"{name}: end-of-turn is counted once per answer", 2.0, float(trained.count(chat.end_id))
        ends = rendered.ids.count(chat.end_id)
        yield f"{name}: special tokens inside a text are plain text", 4.0, float(ends)
        prompt = encode_prompt(chat, talk[:-1])
        begins = tuple(rendered.ids[: len(prompt)]) == prompt
        yield f"{name}: a prompt's ids begin those of prompt and answer", 1.0, float(begins)
        own = (*prompt, *encode_answer(chat, "said again"))
        yield f"{name}: prompt and answer are encoded as rendered", 1.0, float(tuple(rendered.ids[: len(own)]) == own)


def packing() -> Iterator[Found]:
    """Several documents in one row, against each alone."""
    model, documents = tiny_model(1), _documents()
    together, apart = _packed(model, documents), [_alone(model, document) for document in documents]
    yield "packing: log-probabilities equal documents alone", 0.0, mean((together - torch.cat(apart)).abs())
    blind = _packed(model, documents, separate=False)
    yield "packing: without document ids they would differ", 1.0, float((blind - together).abs().max() > 1e-3)
    yield "packing: gradient from one document to the other", 0.0, _leak(model, documents)


def cutting() -> Iterator[Found]:
    """Long rows lose tokens without losing an answer."""
    prompt, answers = tuple(range(1, 40)), (tuple(range(1, 60)), (7, 8))
    kept, completions = fit_length(prompt, answers, 32)
    yield "cut: no completion is emptied", 2.0, float(min(map(len, completions)))
    yield "cut: prompt and longest answer fill the room", 32.0, float(len(kept) + max(map(len, completions)))
    yield "cut: what is left of the prompt is its end", 39.0, float(kept[-1])


def _chat(name: str) -> ChatFormat:
    tokenizer = train_bpe(["say the word again and do not count", "user assistant model system said is"] * 3, 300)
    return chat_format(tokenizer, name)  # type: ignore[arg-type]


def _documents() -> list[list[int]]:
    generator = torch.Generator().manual_seed(11)
    return [torch.randint(1, VOCABULARY, (n,), generator=generator).tolist() for n in (7, 4, 9)]


def _packed(model: Transformer, documents: Sequence[Sequence[int]], *, separate: bool = True) -> Tensor:
    ids = torch.tensor([[token for document in documents for token in document]])
    owner = torch.tensor([[i for i, document in enumerate(documents) for _ in document]])
    positions = torch.tensor([[at for document in documents for at in range(len(document))]])
    mask = (positions > 0).long()
    if not separate:
        return token_log_probs(model, ids, mask)[mask.bool()]
    attend = causal_attend(model.shape, owner)
    return token_log_probs(model, ids, mask, positions=positions, attend=attend)[mask.bool()]


def _alone(model: Transformer, document: Sequence[int]) -> Tensor:
    ids = torch.tensor([list(document)])
    return token_log_probs(model, ids, torch.ones_like(ids))[0, 1:]


def _leak(model: Transformer, documents: Sequence[Sequence[int]]) -> float:
    """Largest gradient of the last document's log-probability with respect to the first one's embeddings."""
    seen: list[Tensor] = []

    def keep(_module: object, _inputs: object, output: Tensor) -> Tensor:
        seen.append(output.detach().requires_grad_())
        return seen[0]

    handle = model.embed_tokens.register_forward_hook(keep)
    try:
        torch.autograd.backward(_packed(model, documents)[-(len(documents[-1]) - 1) :].sum())
    finally:
        handle.remove()
    model.zero_grad(set_to_none=True)
    assert seen[0].grad is not None
    return float(seen[0].grad[0, : len(documents[0])].abs().max())


FAMILIES: Final[Sequence[Callable[[], Iterator[Found]]]] = (masks, packing, cutting)
"""Groups of checks, in the order in which they run."""
