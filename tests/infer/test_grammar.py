"""Structured output: what comes out parses, bad grammars are errors, and the engine goes on."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest

from causerie.core import CauserieError
from causerie.infer import Engine, Grammar, Sampling, generate_batch
from causerie.infer.grammar import MAX_CACHED, Grammars
from causerie.model import Transformer
from causerie.text import Tokenizer, train_bpe

from .tiny import drain, prompt_of

pytest.importorskip("llguidance")

SCHEMA = {
    "type": "object",
    "properties": {
        "name": {"type": "string", "maxLength": 5, "pattern": "^[a-z]+$"},
        "size": {"type": "integer", "minimum": 0, "maximum": 99},
        "kind": {"enum": ["red", "blue"]},
    },
    "required": ["name", "size", "kind"],
    "additionalProperties": False,
}


@pytest.fixture(scope="module")
def tokenizer() -> Tokenizer:
    return train_bpe(["some words to learn: name, size, kind, red, blue"] * 4, 290)


@pytest.fixture(scope="module")
def tokenizer_folder(tokenizer: Tokenizer, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("tokenizer")
    tokenizer.save(folder)
    return folder


@pytest.fixture(scope="module")
def engine(tokenizer: Tokenizer, tokenizer_folder: Path) -> Engine:
    """A random model with a vocabulary larger than the tokenizer's."""
    from dataclasses import replace

    from .tiny import QWEN, random_model

    model = random_model(replace(QWEN, vocab_size=tokenizer.vocab_size + 37))
    return Engine(model, tokenizer=tokenizer_folder)


def answers(engine: Engine, grammar: Grammar, count: int = 8, **settings: object) -> list[tuple[list[int], str]]:
    items = [
        Sampling(max_tokens=120, temperature=1.5, seed=seed, grammar=grammar, **settings)  # type: ignore[arg-type]
        for seed in range(count)
    ]
    done = generate_batch(engine, [[1, 2, 3]] * count, items)
    return [(item.ids, item.finish) for item in done]


def test_every_answer_follows_the_schema(engine: Engine, tokenizer: Tokenizer) -> None:
    for ids, finish in answers(engine, Grammar.json_schema(SCHEMA)):
        assert finish == "stop"
        value = json.loads(tokenizer.decode(ids))
        assert set(value) == {"name", "size", "kind"}
        assert re.fullmatch("[a-z]{1,5}", value["name"])
        assert value["size"] in range(100)
        assert value["kind"] in ("red", "blue")


def test_regular_expressions_and_lark(engine: Engine, tokenizer: Tokenizer) -> None:
    for ids, finish in answers(engine, Grammar("regex", "(yes|no), [0-9]{2}")):
        assert finish == "stop"
        assert re.fullmatch("(yes|no), [0-9]{2}", tokenizer.decode(ids))
    for ids, _ in answers(engine, Grammar("lark", 'start: "a" ("b" | "c")+ "d"'), count=3):
        assert re.match("a[bc]", tokenizer.decode(ids))


def test_a_json_object_is_an_object(engine: Engine, tokenizer: Tokenizer) -> None:
    likely = tuple((tokenizer.encode(text)[0], 8.0) for text in ('"', "}"))
    ended = [ids for ids, finish in answers(engine, Grammar("json_object"), logit_bias=likely) if finish == "stop"]
    assert ended
    assert all(isinstance(json.loads(tokenizer.decode(ids)), dict) for ids in ended)


def test_stop_ids_end_only_where_the_grammar_may_end(engine: Engine, tokenizer: Tokenizer) -> None:
    stop = tokenizer.vocab_size + 3
    for ids, finish in answers(engine, Grammar("regex", "x{4,}"), stop_ids=(stop,), logit_bias=((stop, 100.0),)):
        assert finish == "stop"
        assert ids[-1] == stop
        assert tokenizer.decode(ids[:-1]) == "xxxx"


def test_free_neighbours_are_not_disturbed(engine: Engine) -> None:
    free = Sampling(max_tokens=20, seed=5)
    alone = generate_batch(engine, [prompt_of(7)], free)[0].ids
    bound = Sampling(max_tokens=20, seed=6, grammar=Grammar.json_schema(SCHEMA))
    together = generate_batch(engine, [prompt_of(7), prompt_of(7), [1]], [bound, free, bound])
    assert together[1].ids == alone


@pytest.mark.parametrize(
    "grammar",
    [
        Grammar("json_schema", "{"),
        Grammar("json_schema", "[" * 5000),
        Grammar("json_schema", '{"type": "nothing"}'),
        Grammar("json_schema", '{"type": "string", "pattern": "("}'),
        Grammar("json_schema", '{"$ref": "https://example.org/x"}'),
        Grammar("regex", "("),
        Grammar("lark", "start: nothing"),
        Grammar("lark", "x"),
    ],
    ids=lambda grammar: f"{grammar.kind} {grammar.value[:20]}",
)
def test_bad_grammars_are_errors_and_the_engine_goes_on(engine: Engine, grammar: Grammar) -> None:
    with pytest.raises(CauserieError) as caught:
        engine.add(str(grammar), [1], Sampling(grammar=grammar))
    assert caught.value.code == "CAU-3110"
    assert not engine.has_work
    assert len(generate_batch(engine, [[1]], Sampling(max_tokens=3))[0].ids) == 3


def test_a_monstrous_regular_expression_harms_only_its_request(engine: Engine) -> None:
    monster = Sampling(max_tokens=10, seed=1, grammar=Grammar("regex", "((a|b){1,1000}c?){1,1000}(d{1,1000}|e)+"))
    free = Sampling(max_tokens=10, seed=5)
    alone = generate_batch(engine, [prompt_of(7)], free)[0]
    found = generate_batch(engine, [[1], prompt_of(7)], [monster, free])
    assert found[0].finish in ("length", "stop", "error")
    assert found[1].ids == alone.ids


def test_without_a_tokenizer_it_is_refused(qwen: Transformer) -> None:
    engine = Engine(qwen)
    assert engine.info["grammars"] == []
    with pytest.raises(CauserieError) as caught:
        engine.add("x", [1], Sampling(grammar=Grammar("json_object")))
    assert caught.value.code == "CAU-3110"


def test_compiled_grammars_are_few(tokenizer: Tokenizer) -> None:
    grammars = Grammars(lambda: tokenizer, tokenizer.vocab_size)
    for index in range(MAX_CACHED + 5):
        grammars.start(Grammar("regex", f"x{index}"))
    grammars.start(Grammar("regex", "y" * 100_000))
    assert len(grammars._cache) <= MAX_CACHED
    assert grammars._bytes == sum(len(grammar.value) for grammar in grammars._cache)


def test_a_grammar_survives_preemption(tokenizer: Tokenizer, tokenizer_folder: Path) -> None:
    from dataclasses import replace

    from causerie.infer import EngineConfig

    from .tiny import QWEN, random_model

    model = random_model(replace(QWEN, vocab_size=tokenizer.vocab_size))
    config = EngineConfig(block_size=4, n_blocks=24, max_batch_tokens=16)
    engine = Engine(model, config, tokenizer=tokenizer_folder)
    for seed in range(4):
        engine.add(str(seed), [1, 2, 3], Sampling(max_tokens=80, seed=seed, grammar=Grammar.json_schema(SCHEMA)))
    done = drain(engine)
    assert engine.scheduler.preemptions > 0
    assert all(json.loads(tokenizer.decode(item.ids)) for item in done.values())
    assert engine.pool.n_free == 24
