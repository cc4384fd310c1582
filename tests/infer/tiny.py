"""Tiny random models and prompts for the tests of the engine."""

from __future__ import annotations

import torch

from causerie.infer import Completion, Engine, Event
from causerie.model import ModelShape, Transformer, init_model

VOCAB = 97
QWEN = ModelShape(
    family="qwen3",
    n_layer=2,
    n_embd=32,
    n_head=4,
    n_kv_head=2,
    head_dim=8,
    ffn_dim=48,
    vocab_size=VOCAB,
    max_seq_len=256,
)
GEMMA = ModelShape(
    family="gemma3",
    n_layer=3,
    n_embd=32,
    n_head=4,
    n_kv_head=1,
    head_dim=8,
    ffn_dim=48,
    vocab_size=VOCAB,
    max_seq_len=256,
    sliding_window=11,
    local_layers=(True, True, False),
    rope_local_theta=1000.0,
    query_scale=0.3,
)


def random_model(shape: ModelShape, seed: int = 0) -> Transformer:
    """A model with every weight random; a fresh one leaves out attention, its output projections being zero."""
    model = init_model(shape, seed)
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name, weight in model.named_parameters():
            if weight.ndim == 2:
                scale = 0.5 if "embed" in name else 2 * weight.shape[1] ** -0.5
                weight.normal_(0, scale, generator=generator)
    return model.eval()


def prompt_of(length: int, seed: int = 0) -> list[int]:
    """A random prompt."""
    return torch.randint(0, VOCAB, (length,), generator=torch.Generator().manual_seed(seed)).tolist()


def naive_greedy(model: Transformer, prompt: list[int], count: int) -> list[int]:
    """Greedy continuation by computing the whole sequence anew for every token."""
    ids = list(prompt)
    with torch.inference_mode():
        for _ in range(count):
            ids.append(int(model.logits(model(torch.tensor([ids]))[0, -1]).argmax()))
    return ids[len(prompt) :]


def drain(engine: Engine) -> dict[str, Completion]:
    """Step until there is no work; completions by request id."""
    events: dict[str, list[Event]] = {}
    done = {}
    while engine.has_work:
        for event in engine.step():
            events.setdefault(event.request_id, []).append(event)
            if event.finish:
                mine = events[event.request_id]
                ids = [token for item in mine for token in item.ids]
                log_probs = [value for item in mine for value in item.logprobs]
                done[event.request_id] = Completion(ids, log_probs, event.finish, event.prompt_tokens)
    return done
