"""The official client against a server on a loopback port."""

from __future__ import annotations

import openai
import pytest

from tests.serve.conftest import ANSWER, Running, Script

QUESTION = [{"role": "user", "content": "Ça va ?"}]


def test_models_are_listed_and_found_by_name_and_version(client: openai.OpenAI) -> None:
    (model,) = client.models.list().data
    assert (model.id, model.object, model.owned_by) == ("petit", "model", "causerie")
    assert model.causerie == {"version": 3, "key": "ab" * 32, "chat_format": "chatml", "max_seq_len": 256}
    assert client.models.retrieve("petit@3").id == "petit@3"
    for name in ("petit@2", "autre", "petit@3@3"):
        with pytest.raises(openai.NotFoundError) as caught:
            client.models.retrieve(name)
        assert caught.value.code == "model_not_found"


def test_a_conversation_is_answered(client: openai.OpenAI, script: Script) -> None:
    answer = client.chat.completions.create(model="petit", messages=QUESTION)
    choice = answer.choices[0]
    assert (choice.message.role, choice.message.content, choice.finish_reason) == ("assistant", ANSWER, "stop")
    assert answer.model == "petit@3"
    assert answer.system_fingerprint == "fp_" + "ab" * 6
    prompt, sampling, _ = script.asked[0]
    assert answer.usage.prompt_tokens == len(prompt)
    assert answer.usage.total_tokens == len(prompt) + answer.usage.completion_tokens
    assert sampling.max_tokens == 256 - len(prompt)
    assert (sampling.temperature, sampling.top_p, sampling.seed, sampling.logprobs) == (1.0, 1.0, None, False)


def test_the_prompt_is_the_chat_formats(client: openai.OpenAI, script: Script, tokenizer: object) -> None:
    from causerie.text import chat_format

    parts = [{"type": "text", "text": "Ça "}, {"type": "text", "text": "va ?"}]
    messages = [{"role": "developer", "content": "Sois bref."}, {"role": "user", "content": parts}]
    client.chat.completions.create(model="petit", messages=messages)
    expected = [{"role": "system", "content": "Sois bref."}, *QUESTION]
    assert script.asked[0][0] == chat_format(tokenizer).prompt(expected)


def test_a_stream_joins_to_the_answer_and_ends_with_usage(client: openai.OpenAI) -> None:
    options = {"include_usage": True}
    chunks = list(client.chat.completions.create(model="petit", messages=QUESTION, stream=True, stream_options=options))
    assert len({chunk.id for chunk in chunks}) == 1
    deltas = [chunk.choices[0].delta for chunk in chunks[:-1]]
    assert deltas[0].role == "assistant"
    assert "".join(delta.content or "" for delta in deltas) == ANSWER
    assert any("🙂" in (delta.content or "") for delta in deltas)
    assert [chunk.choices[0].finish_reason for chunk in chunks[:-1]] == [None] * (len(chunks) - 2) + ["stop"]
    assert all(chunk.usage is None for chunk in chunks[:-1])
    assert chunks[-1].choices == []
    assert chunks[-1].usage.completion_tokens > 0


def test_a_stream_without_the_option_tells_no_usage(client: openai.OpenAI) -> None:
    chunks = list(client.chat.completions.create(model="petit", messages=QUESTION, stream=True))
    assert all(chunk.usage is None and chunk.choices for chunk in chunks)


@pytest.mark.parametrize("stream", [False, True])
def test_stop_strings_end_the_answer(stream: bool, client: openai.OpenAI) -> None:
    got = client.chat.completions.create(model="petit", messages=QUESTION, stop=["voil", "zzz"], stream=stream)
    if stream:
        chunks = list(got)
        text = "".join(chunk.choices[0].delta.content or "" for chunk in chunks)
        assert chunks[-1].choices[0].finish_reason == "stop"
    else:
        text = got.choices[0].message.content
        assert got.choices[0].finish_reason == "stop"
    assert text == ANSWER[: ANSWER.index("voil")]


@pytest.mark.parametrize("field", ["max_tokens", "max_completion_tokens"])
def test_the_length_is_bounded(field: str, client: openai.OpenAI) -> None:
    answer = client.chat.completions.create(model="petit", messages=QUESTION, **{field: 3})
    assert answer.choices[0].finish_reason == "length"
    assert answer.usage.completion_tokens == 3
    assert ANSWER.startswith(answer.choices[0].message.content)


def test_several_choices_get_seeds_of_their_own(client: openai.OpenAI, script: Script) -> None:
    answer = client.chat.completions.create(model="petit", messages=QUESTION, n=3, seed=7)
    assert [choice.index for choice in answer.choices] == [0, 1, 2]
    assert {choice.message.content for choice in answer.choices} == {ANSWER}
    seeds = [sampling.seed for _, sampling, _ in script.asked]
    assert 7 in seeds
    assert len(set(seeds)) == 3
    prompt = len(script.asked[0][0])
    assert answer.usage.prompt_tokens == prompt
    assert answer.usage.completion_tokens % 3 == 0
    script.asked.clear()
    client.chat.completions.create(model="petit", messages=QUESTION, n=3, seed=7)
    assert sorted(sampling.seed for _, sampling, _ in script.asked) == sorted(seeds)


def test_a_stream_of_several_choices(client: openai.OpenAI) -> None:
    texts = {0: "", 1: ""}
    for chunk in client.chat.completions.create(model="petit", messages=QUESTION, n=2, stream=True):
        texts[chunk.choices[0].index] += chunk.choices[0].delta.content or ""
    assert texts == {0: ANSWER, 1: ANSWER}


@pytest.mark.parametrize("stream", [False, True])
def test_log_probabilities_cover_the_text(stream: bool, client: openai.OpenAI) -> None:
    got = client.chat.completions.create(model="petit", messages=QUESTION, logprobs=True, stream=stream)
    parts = [chunk.choices[0].logprobs for chunk in got] if stream else [got.choices[0].logprobs]
    rows = [row for part in parts if part for row in part.content]
    assert b"".join(bytes(row.bytes) for row in rows).decode() == ANSWER
    assert [row.logprob for row in rows] == [-(n + 1) / 100 for n in range(len(rows))]


def test_settings_reach_the_engine(client: openai.OpenAI, script: Script) -> None:
    client.chat.completions.create(
        model="petit",
        messages=QUESTION,
        temperature=0,
        top_p=0.5,
        seed=-(2**63),
        frequency_penalty=-2,
        presence_penalty=1.5,
        logit_bias={"5": -100, "7": 3},
        extra_body={"top_k": 40, "min_p": 0.1},
    )
    sampling = script.asked[0][1]
    assert (sampling.temperature, sampling.top_p, sampling.top_k, sampling.min_p) == (0, 0.5, 40, 0.1)
    assert (sampling.seed, sampling.frequency_penalty, sampling.presence_penalty) == (-(2**63), -2, 1.5)
    assert sampling.logit_bias == ((5, -100.0), (7, 3.0))


def test_a_text_is_continued(client: openai.OpenAI, script: Script, tokenizer: object) -> None:
    got = client.completions.create(model="petit", prompt="Quelle", max_tokens=4, logprobs=0, echo=False)
    assert got.choices[0].finish_reason == "length"
    assert ANSWER.startswith(got.choices[0].text)
    assert "".join(got.choices[0].logprobs.tokens) == got.choices[0].text
    assert got.choices[0].logprobs.text_offset[0] == 0
    assert script.asked[0][0] == [tokenizer.eot_id, *tokenizer.encode("Quelle")]
    assert script.asked[0][1].stop_ids


def test_several_prompts_each_get_n_choices(client: openai.OpenAI) -> None:
    got = client.completions.create(model="petit", prompt=["The", "Quelle"], n=2, max_tokens=2, echo=True)
    assert [choice.text[:3] for choice in got.choices] == ["The", "The", "Que", "Que"]
    assert got.usage.completion_tokens == 8


def test_token_ids_are_continued_as_they_are(client: openai.OpenAI, script: Script) -> None:
    client.completions.create(model="petit", prompt=[65, 66], max_tokens=1)
    client.completions.create(model="petit", prompt=[[65], [66]], max_tokens=1)
    assert [ids for ids, _, _ in script.asked] == [[65, 66], [65], [66]]
    with pytest.raises(openai.BadRequestError, match="not a token id"):
        client.completions.create(model="petit", prompt=[10**6])


def test_a_streamed_text_joins(client: openai.OpenAI) -> None:
    options = {"include_usage": True}
    chunks = list(
        client.completions.create(
            model="petit", prompt="x", stream=True, echo=True, max_tokens=99, stream_options=options
        )
    )
    assert "".join(chunk.choices[0].text for chunk in chunks[:-1]) == "x" + ANSWER
    assert chunks[-2].choices[0].finish_reason == "stop"
    assert chunks[-1].usage.prompt_tokens == 2


def test_azure_clients_use_deployments_and_their_key_header(server: Running) -> None:
    azure = openai.AzureOpenAI(azure_endpoint=server.url, api_key="x", api_version="2024-10-21", max_retries=0)
    with azure:
        assert azure.chat.completions.create(model="petit", messages=QUESTION).choices[0].message.content == ANSWER
        assert azure.completions.create(model="petit", prompt="x", max_tokens=1).choices[0].text == "Bo"
        assert [model.id for model in azure.models.list()] == ["petit"]
        with pytest.raises(openai.NotFoundError):
            azure.chat.completions.create(model="autre", messages=QUESTION)
    with openai.OpenAI(base_url=f"{server.url}/openai/v1", api_key="x", max_retries=0) as client:
        assert client.chat.completions.create(model="petit", messages=QUESTION).choices[0].message.content == ANSWER


@pytest.mark.parametrize("stream", [False, True])
def test_an_engines_failure_is_told(stream: bool, client: openai.OpenAI, script: Script) -> None:
    script.fail_after = 2
    with pytest.raises(openai.APIError) as caught:
        list(client.chat.completions.create(model="petit", messages=QUESTION, stream=stream))
    assert caught.value.code == "CAU-6004"


def test_a_prompt_that_leaves_no_room_is_refused(client: openai.OpenAI) -> None:
    for stream in (False, True):
        with pytest.raises(openai.BadRequestError) as caught:
            client.chat.completions.create(
                model="petit", messages=[{"role": "user", "content": "mot " * 300}], stream=stream
            )
        assert caught.value.code == "context_length_exceeded"
        assert "takes 1 to 255" in caught.value.message
