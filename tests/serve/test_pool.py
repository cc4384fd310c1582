"""The pool: names and versions, swaps that drop no stream, and the generator that the chat room uses."""

from __future__ import annotations

import asyncio
from contextlib import aclosing
from pathlib import Path
from typing import Any

import pytest

from causerie.core import CauserieError, write_artifact
from causerie.serve import AnswerParams, ChatDelta, EnginePool, Gate, Meter, chat_stream
from causerie.store import Store
from causerie.text import Tokenizer
from tests.serve.conftest import ANSWER, Script, ScriptedEngine

QUESTION = [{"role": "user", "content": "Ça va ?"}]


@pytest.fixture
def newer(tokenizer: Tokenizer, home: Path) -> Path:
    """The folder of a later version."""
    with write_artifact(home, "model", "petit", "cd" * 32) as draft:
        tokenizer.save(draft.path)
    assert draft.artifact is not None
    return draft.artifact.path


async def collect(pool: EnginePool, model: str = "petit", params: AnswerParams | None = None) -> list[ChatDelta]:
    async with aclosing(chat_stream(pool, model, QUESTION, params or AnswerParams())) as stream:
        return [delta async for delta in stream]


def test_deltas_carry_text_ids_logprobs_version_and_usage(pool: EnginePool, folder: Path, tokenizer: Tokenizer) -> None:
    async def run() -> list[ChatDelta]:
        await pool.load("petit", folder, 3)
        return await collect(pool)

    deltas = asyncio.run(run())
    assert "".join(delta.text for delta in deltas) == ANSWER
    ids = [id for delta in deltas for id in delta.ids]
    assert ids == [*tokenizer.encode(ANSWER), tokenizer.special["<|im_end|>"]]
    assert len([value for delta in deltas for value in delta.logprobs]) == len(ids)
    assert {(delta.version.label, delta.version.key, delta.version.chat_format) for delta in deltas} == {
        ("petit@3", "ab" * 32, "chatml")
    }
    assert [delta.finish for delta in deltas][-2:] == [None, "stop"]
    assert deltas[-1].usage is not None
    assert deltas[-1].usage.completion_tokens == len(ids)


def test_a_swap_lets_streams_end_on_the_old_version(
    pool: EnginePool, folder: Path, newer: Path, script: Script
) -> None:
    script.delay = 0.005

    async def run() -> None:
        old = await pool.load("petit", folder, 3)
        async with aclosing(chat_stream(pool, "petit", QUESTION, AnswerParams())) as stream:
            first = await anext(stream)
            new = await pool.swap("petit", newer, 4)
            assert pool.get("petit") is pool.get("petit@4") is new
            assert old.engine.running
            fresh = await collect(pool)
            rest = [delta async for delta in stream]
        text = first.text + "".join(delta.text for delta in rest)
        assert (text, rest[-1].version.label, rest[-1].finish) == (ANSWER, "petit@3", "stop")
        assert {delta.version.label for delta in fresh} == {"petit@4"}
        await asyncio.sleep(0.05)
        assert not old.engine.running
        assert new.engine.running
        await pool.close()
        assert not new.engine.running

    asyncio.run(run())


def test_a_version_that_cannot_start_leaves_the_old_one(pool: EnginePool, folder: Path, tmp_path: Path) -> None:
    async def run() -> None:
        old = await pool.load("petit", folder, 3)
        with pytest.raises(CauserieError, match="no such file"):
            await pool.swap("petit", tmp_path, 4)
        assert pool.get("petit") is old
        assert old.engine.running
        assert not old.retired

    asyncio.run(run())


def test_two_versions_can_be_served_side_by_side(pool: EnginePool, folder: Path, newer: Path) -> None:
    async def run() -> None:
        await pool.load("petit", folder, 3)
        await pool.load("petit@4", newer, 4)
        assert [name for name, _ in pool.models()] == ["petit", "petit@4"]
        assert (await collect(pool, "petit@4"))[0].version.label == "petit@4"
        assert (await collect(pool, "petit@3"))[0].version.label == "petit@3"
        await pool.unload("petit@4")
        for gone in ("petit@4", "autre", ""):
            with pytest.raises(CauserieError) as caught:
                pool.get(gone)
            assert caught.value.code == "CAU-6003"

    asyncio.run(run())


def test_unloading_waits_for_the_last_answer(pool: EnginePool, folder: Path, script: Script) -> None:
    script.delay = 0.002

    async def run() -> None:
        served = await pool.load("petit", folder)
        assert served.version.label == "petit"
        answering = asyncio.create_task(collect(pool))
        await asyncio.sleep(0.01)
        await pool.unload("petit")
        assert "".join(delta.text for delta in await answering) == ANSWER
        assert not served.engine.running

    asyncio.run(run())


def test_closing_the_generator_stops_the_engine_and_frees_the_gate(
    pool: EnginePool, folder: Path, script: Script
) -> None:
    script.endless = True

    async def run() -> None:
        served = await pool.load("petit", folder)
        stream = chat_stream(pool, "petit", QUESTION, AnswerParams())
        await anext(stream)
        assert (script.live, served.active, pool.gate.answers) == (1, 1, 1)
        await stream.aclose()
        assert (script.live, served.active, pool.gate.answers) == (0, 0, 0)
        task = asyncio.create_task(collect(pool))
        await asyncio.sleep(0.01)
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
        assert (script.live, served.active, pool.gate.answers) == (0, 0, 0)

    asyncio.run(run())


def test_stop_strings_and_length_end_an_answer(pool: EnginePool, folder: Path) -> None:
    async def run() -> tuple[list[ChatDelta], list[ChatDelta]]:
        await pool.load("petit", folder)
        stopped = await collect(pool, params=AnswerParams(stop=("été", "zz")))
        return stopped, await collect(pool, params=AnswerParams(max_tokens=2))

    stopped, short = asyncio.run(run())
    assert "".join(delta.text for delta in stopped) == "Bonjour ! L'"
    assert stopped[-1].finish == "stop"
    assert stopped[-1].usage is not None
    assert short[-1].finish == "length"


def test_the_meter_counts_what_the_page_draws(pool: EnginePool, folder: Path, script: Script) -> None:
    meter = Meter(None, "/api/chat", "key_1")

    async def run() -> None:
        await pool.load("petit", folder)
        async with aclosing(chat_stream(pool, "petit", QUESTION, AnswerParams(), meter)) as stream:
            async for _ in stream:
                pass

    asyncio.run(run())
    assert meter.prompt_tokens == len(script.asked[0][0])
    assert meter.finish == "stop"
    assert script.asked[0][2] == "key_1"


def test_a_model_without_chat_format_completes_but_does_not_chat(
    pool: EnginePool, tokenizer: Tokenizer, tmp_path: Path
) -> None:
    special = [token for token in tokenizer.definition["added_tokens"] if "im_" not in token["content"]]
    config = {"eos_token": "<|endoftext|>", "pad_token": "<|pad|>"}
    Tokenizer({**tokenizer.definition, "added_tokens": special}, config).save(tmp_path)

    async def run() -> None:
        served = await pool.load("base", tmp_path)
        assert served.version.chat_format is None
        with pytest.raises(CauserieError) as caught:
            await collect(pool, "base")
        assert caught.value.code == "CAU-6005"

    asyncio.run(run())


def test_models_asleep_are_loaded_when_asked_for_and_few_stay_awake(pool: EnginePool, folder: Path) -> None:
    names = [f"ft:ckpt-step-{n}" for n in range(4)]

    async def run() -> None:
        await pool.load("petit", folder, 3)
        for name in names:
            pool.offer(name, folder, "mine")
        assert [name for name, _ in pool.models()] == ["petit"]
        for name in names:
            async with pool.lease(name, "mine") as served:
                assert served.version.label == name
        assert [name for name, _ in pool.models()] == ["petit", *names[-2:]]
        async with pool.lease(names[2], "mine"), pool.lease(names[0], "mine"):  # 3 was asked for the longest ago
            assert {name for name, _ in pool.models()} == {"petit", names[0], names[2]}
        await pool.close()

    asyncio.run(run())


def test_two_who_ask_at_once_wake_a_model_once(pool: EnginePool, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    loads: list[str] = []
    load = pool.load

    async def slow(name: str, *arguments: Any, **named: Any) -> Any:
        loads.append(name)
        await asyncio.sleep(0.02)
        return await load(name, *arguments, **named)

    monkeypatch.setattr(pool, "load", slow)

    async def ask() -> None:
        async with pool.lease("ft:ckpt-step-1", "mine"):
            await asyncio.sleep(0)

    async def run() -> None:
        pool.offer("ft:ckpt-step-1", folder, "mine")
        await asyncio.gather(*(ask() for _ in range(5)))
        assert loads == ["ft:ckpt-step-1"]
        await pool.unload("ft:ckpt-step-1")
        with pytest.raises(CauserieError) as gone:
            await ask()
        assert gone.value.code == "CAU-6003"

    asyncio.run(run())


def test_a_model_asleep_is_seen_by_its_project_and_by_those_it_is_shared_with(pool: EnginePool, folder: Path) -> None:
    async def reaches(owner: str) -> bool:
        try:
            async with pool.lease("ft:ckpt-step-1", owner):
                return True
        except CauserieError:
            return False

    async def run() -> None:
        pool.offer("ft:ckpt-step-1", folder, "mine")
        assert not await reaches("theirs")
        assert pool.models() == []  # a stranger's question loads nothing
        pool.share("ft:ckpt-step-1", ["theirs"])
        assert await reaches("theirs")
        pool.unshare("ft:ckpt-step-1", "theirs")
        assert not await reaches("theirs")
        assert await reaches("mine")
        assert pool.folder_of("ft:ckpt-step-1", "mine") == folder
        with pytest.raises(CauserieError):
            pool.folder_of("ft:ckpt-step-1", "theirs")
        await pool.close()

    asyncio.run(run())


def test_a_busy_model_that_goes_back_to_sleep_ends_its_answer_first(
    pool: EnginePool, folder: Path, script: Script
) -> None:
    script.delay = 0.01

    async def run() -> None:
        for n in range(4):
            pool.offer(f"ckpt-{n}", folder, "page")
        async with pool.lease("ckpt-0"):
            pass
        async with aclosing(chat_stream(pool, "ckpt-0", QUESTION, AnswerParams())) as stream:
            text = (await anext(stream)).text
            for n in (1, 2, 3):
                async with pool.lease(f"ckpt-{n}"):
                    pass
            assert "ckpt-0" not in dict(pool.models())
            text += "".join([delta.text async for delta in stream])
        assert text == ANSWER
        await pool.close()

    asyncio.run(run())


def test_people_at_the_page_share_the_engine_fairly(
    folder: Path, script: Script, tokenizer: Tokenizer, store: Store
) -> None:
    """One who asks ten things at once delays another's one question by the turn under way, no more."""
    script.delay = 0.002
    ended: list[str] = []

    async def run() -> None:
        pool = EnginePool(lambda place: ScriptedEngine(place, script, tokenizer), gate=Gate(max_running=1))
        await pool.load("petit", folder, 3)

        async def ask(person: str) -> None:
            meter = Meter(store, "/api/chat", person)
            async with aclosing(chat_stream(pool, "petit", QUESTION, AnswerParams(), meter)) as stream:
                async for _ in stream:
                    pass
            ended.append(person)

        busy = [asyncio.create_task(ask("u_busy")) for _ in range(10)]
        await asyncio.sleep(0.01)
        await ask("u_other")
        await asyncio.gather(*busy)
        await pool.close()

    asyncio.run(run())
    assert ended.index("u_other") <= 2
    assert ended.count("u_busy") == 10
