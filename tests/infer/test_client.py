"""The client and its worker process: streaming, cancelling, and surviving the worker's death."""

from __future__ import annotations

import asyncio
import os
import signal
import socket
import struct
import subprocess
import sys
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from causerie.core import CauserieError
from causerie.infer import Completion, EngineClient, EngineConfig, Event, Sampling
from causerie.infer.protocol import FrameBuffer, encode_frame
from causerie.model import Transformer, add_lora, load_model, lora_parameters, save_adapter, save_model

from .tiny import QWEN, VOCAB, naive_greedy, prompt_of, random_model

CONFIG = EngineConfig(threads=1, max_running=2, spare=False)


def with_client(folder: Path, body: Callable[[EngineClient], Awaitable[None]]) -> None:
    """Run a test's body with a started client."""

    async def main() -> None:
        client = EngineClient(folder, CONFIG)
        await client.start()
        try:
            await asyncio.wait_for(body(client), 200)
        finally:
            await client.stop()

    asyncio.run(main())


async def collect(events: AsyncIterator[Event]) -> Completion:
    seen = [event async for event in events]
    assert seen[-1].finish is not None
    assert all(event.finish is None for event in seen[:-1])
    return Completion([token for event in seen for token in event.ids], [], seen[-1].finish)


def test_the_front_door_and_the_client_load_no_torch() -> None:
    code = "import sys, causerie.infer; causerie.infer.EngineClient; assert 'torch' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], check=True)


def test_streams_cancels_and_refuses(folder: Path, qwen: Transformer) -> None:
    async def body(client: EngineClient) -> None:
        assert client.info["stop_ids"] == [3, 5]
        greedy = Sampling(max_tokens=6, temperature=0)
        wanted = [naive_greedy(qwen, prompt_of(9, seed=seed), 6) for seed in range(4)]
        streams = [collect(client.generate(prompt_of(9, seed=seed), greedy)) for seed in range(4)]
        assert [item.ids for item in await asyncio.gather(*streams)] == wanted

        with pytest.raises(CauserieError) as caught:
            await collect(client.generate([], greedy))
        assert caught.value.code == "CAU-3101"

        long = Sampling(max_tokens=40_000)
        stream = client.generate([1], long, request_id="mine")
        await anext(stream)
        with pytest.raises(CauserieError):
            await anext(client.generate([1], long, request_id="mine"))
        await client.cancel("mine")
        assert (await collect(stream)).finish == "cancelled"

        left = client.generate([1, 2], long)
        await anext(left)
        await left.aclose()
        assert (await collect(client.generate(prompt_of(9), greedy))).ids == wanted[0]
        assert client.restarts == 0

    with_client(folder, body)


def test_a_killed_worker_comes_back(folder: Path, qwen: Transformer) -> None:
    """Running requests end with an error, queued ones are served by the new worker, and so are new ones."""

    async def body(client: EngineClient) -> None:
        wanted = naive_greedy(qwen, prompt_of(9), 6)
        running = [client.generate([1, index], Sampling(max_tokens=40_000)) for index in range(2)]
        for stream in running:
            await anext(stream)
        os.kill(client.info["pid"], signal.SIGSTOP)  # so that the queue cannot empty before the kill
        queued = asyncio.create_task(collect(client.generate(prompt_of(9), Sampling(max_tokens=6, temperature=0))))
        await asyncio.sleep(0.05)
        os.kill(client.info["pid"], signal.SIGKILL)
        endings = [(await collect(stream)).finish for stream in running]
        assert endings == ["error", "error"]
        assert (await queued).ids == wanted
        assert client.restarts == 1
        assert (await collect(client.generate(prompt_of(9), Sampling(max_tokens=6, temperature=0)))).ids == wanted

    with_client(folder, body)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_for_the_whole_group_is_the_servers(folder: Path, qwen: Transformer, number: int) -> None:
    """Service managers signal every process of a service; the server lets answers end, so its worker must live."""

    async def body(client: EngineClient) -> None:
        pid = client.info["pid"]
        os.kill(pid, number)
        told = await collect(client.generate(prompt_of(9), Sampling(max_tokens=6, temperature=0)))
        assert told.ids == naive_greedy(qwen, prompt_of(9), 6)
        assert (client.restarts, client.info["pid"]) == (0, pid)

    with_client(folder, body)


def test_a_folder_without_a_model_says_so(tmp_path: Path) -> None:
    client = EngineClient(tmp_path, CONFIG)
    with pytest.raises(CauserieError) as caught:
        asyncio.run(client.start())
    assert caught.value.code == "CAU-3005"
    with pytest.raises(CauserieError) as caught:
        asyncio.run(collect(client.generate([1], Sampling())))
    assert caught.value.code == "CAU-3107"


FAKE = """
import argparse, socket, sys
parser = argparse.ArgumentParser()
for name in ("--model", "--fd", "--config"):
    parser.add_argument(name)
given = parser.parse_args()
from causerie.infer.protocol import FrameBuffer, encode_frame
connection, buffer = socket.socket(fileno=int(given.fd)), FrameBuffer()
connection.sendall(encode_frame({"type": "info", "protocol": 2, "info": {}}))
while data := connection.recv(1 << 16):
    for message in buffer.push(data):
        if message["type"] != "generate":
            continue
        name = message["id"]
        if name == "poison":
            connection.sendall(encode_frame({"type": "admitted", "ids": [name]}))
            sys.exit(1)
        if name == "nonsense":
            connection.sendall(REPLY)
        event = {"request_id": name, "ids": [7], "finish": "stop"}
        connection.sendall(encode_frame({"type": "events", "events": [event]}))
"""


def with_fake(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, body: Callable[[EngineClient], Awaitable[None]], reply: bytes = b""
) -> None:
    """Run a test's body with a client whose worker is a script that misbehaves on demand."""
    script = tmp_path / "fake.py"
    script.write_text(FAKE.replace("REPLY", repr(reply)))
    monkeypatch.setattr("causerie.infer.process.WORKER", (str(script),))
    with_client(tmp_path, body)


def test_a_request_that_kills_twice_is_given_up(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    async def body(client: EngineClient) -> None:
        assert (await collect(client.generate([1], Sampling(), request_id="poison"))).finish == "error"
        assert client.restarts >= 1
        with pytest.raises(CauserieError) as caught:
            await collect(client.generate([1], Sampling(), request_id="another name"))
        assert caught.value.code == "CAU-3109"
        assert (await collect(client.generate([2], Sampling()))).ids == [7]

    with_fake(tmp_path, monkeypatch, body)


@pytest.mark.parametrize(
    "reply",
    [struct.pack(">I", 2**31), struct.pack(">I", 5) + b"hello", encode_frame({"type": "events", "events": [3]})],
    ids=["too long", "no JSON", "no event"],
)
def test_a_worker_that_talks_nonsense_is_replaced(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, reply: bytes
) -> None:
    async def body(client: EngineClient) -> None:
        nonsense = asyncio.create_task(anext(client.generate([1], Sampling(), request_id="nonsense")))
        while not client.restarts:
            await asyncio.sleep(0.01)
        nonsense.cancel()
        assert (await collect(client.generate([1], Sampling()))).ids == [7]

    with_fake(tmp_path, monkeypatch, body, reply)


def test_a_worker_that_cannot_start_again_is_given_up(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    async def body(client: EngineClient) -> None:
        (tmp_path / "fake.py").write_text("raise SystemExit(3)")
        with pytest.raises(CauserieError) as caught:
            await collect(client.generate([1], Sampling(), request_id="poison"))
        assert caught.value.code == "CAU-3107"
        assert not client.running
        with pytest.raises(CauserieError):
            await collect(client.generate([1], Sampling()))

    with_fake(tmp_path, monkeypatch, body)


def test_a_worker_ends_with_its_parent(folder: Path) -> None:
    """It goes when the socket closes, even with work to do."""
    ours, theirs = socket.socketpair()
    with theirs:
        command = [sys.executable, "-m", "causerie.infer.worker", "--fd", str(theirs.fileno())]
        process = subprocess.Popen(command, pass_fds=[theirs.fileno()], stderr=subprocess.DEVNULL)
    with ours:
        ours.settimeout(200)
        ours.sendall(encode_frame({"type": "load", "model": str(folder)}))
        assert received(ours, 1)[0]["type"] == "info"
        ours.sendall(
            encode_frame({"type": "generate", "id": "c", "prompt_ids": [1], "sampling": {"max_tokens": 40_000}})
        )
        assert received(ours, 1)[0] == {"type": "admitted", "ids": ["c"]}
    assert process.wait(timeout=60) == 0


def received(connection: socket.socket, count: int) -> list[dict[str, Any]]:
    """At least `count` messages from a socket."""
    buffer, found = FrameBuffer(), []
    while len(found) < count:
        data = connection.recv(1 << 16)
        assert data, "the worker closed the socket"
        found += buffer.push(data)
    return found


def test_embeddings_adapters_and_statistics_cross_the_socket(folder: Path, qwen: Transformer, tmp_path: Path) -> None:
    base = load_model(folder)
    add_lora(base, 2, 4.0)
    for name, parameter in lora_parameters(base).items():
        if name.endswith("lora_B"):
            parameter.data.normal_(0, 0.5, generator=torch.Generator().manual_seed(1))
    save_adapter(base, tmp_path, folder)

    async def body(client: EngineClient) -> None:
        texts = [prompt_of(length, seed=length) for length in (3, 9, 20)]
        found = await client.embed(texts)
        with torch.no_grad():
            means = [qwen(torch.tensor([ids]))[0].mean(dim=0) for ids in texts]
        for vector, wanted in zip(found, means, strict=True):
            assert vector == pytest.approx((wanted / wanted.norm()).tolist(), abs=1e-5)
        with pytest.raises(CauserieError) as caught:
            await client.embed([[1], [VOCAB]])
        assert caught.value.code == "CAU-3101"

        plain, tuned = Sampling(max_tokens=6, temperature=0), Sampling(max_tokens=6, temperature=0, adapter="tuned")
        with pytest.raises(CauserieError) as caught:
            await collect(client.generate([1], tuned))
        assert caught.value.code == "CAU-3111"
        await client.load_adapter("tuned", tmp_path)
        assert client.info["adapters"] == ["tuned"]
        both = await asyncio.gather(*(collect(client.generate(prompt_of(9), how)) for how in (plain, tuned)))
        wanted_ids = naive_greedy(qwen, prompt_of(9), 6), naive_greedy(base.eval(), prompt_of(9), 6)
        assert tuple(item.ids for item in both) == wanted_ids

        os.kill(client.info["pid"], signal.SIGKILL)  # the new worker has the adapter too
        while client.restarts == 0:
            await asyncio.sleep(0.01)
        assert (await collect(client.generate(prompt_of(9), tuned))).ids == wanted_ids[1]
        await client.unload_adapter("tuned")
        with pytest.raises(CauserieError) as caught:
            await client.unload_adapter("tuned")
        assert caught.value.code == "CAU-3111"
        while client.stats["running"] or client.stats["waiting"]:
            await asyncio.sleep(0.01)
        assert client.stats["running"] == client.stats["waiting"] == 0
        assert client.stats["free_blocks"] == client.stats["n_blocks"]
        assert client.stats["decode_tokens"] > 0

    with_client(folder, body)


def test_weights_are_changed_through_the_socket(folder: Path, tmp_path: Path) -> None:
    other = random_model(replace(QWEN, max_seq_len=50_000), seed=5)
    save_model(other, tmp_path, None)

    async def body(client: EngineClient) -> None:
        greedy = Sampling(max_tokens=6, temperature=0)
        await collect(client.generate(prompt_of(9), greedy))
        await client.update_weights(tmp_path)
        assert (await collect(client.generate(prompt_of(9), greedy))).ids == naive_greedy(other, prompt_of(9), 6)

    with_client(folder, body)


def test_a_spare_process_takes_over(folder: Path, qwen: Transformer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("causerie.infer.client.SPARE_AFTER", 0.0)

    async def main() -> None:
        client = EngineClient(folder, EngineConfig(threads=1))
        await client.start()
        try:
            assert client._spare is not None
            spare = await client._spare
            os.kill(client.info["pid"], signal.SIGKILL)
            found = await collect(client.generate(prompt_of(9), Sampling(max_tokens=6, temperature=0)))
            assert found.ids == naive_greedy(qwen, prompt_of(9), 6)
            assert client.info["pid"] == spare.process.pid
        finally:
            await client.stop()

    asyncio.run(asyncio.wait_for(main(), 200))
