"""Part of `bench/loop.py`: whole rounds of the product with a tiny model that really learns, under simulated users.

A two-layer model is taught to answer sums in four ways (right or wrong, brief or wordy); users like right and brief
answers and err in one vote of ten. 500 choices between its own answers are recorded, `improve` trains and judges a
candidate (Y6: the time from the events to the promoted version), and another round ends in a canary with live votes.
"""

from __future__ import annotations

import random
import re
import time
from pathlib import Path
from typing import Any

from causerie.core import CauserieError, write_artifact, write_jsonl
from causerie.feedback import Exposure, Signal, record_exposure, record_signal
from causerie.hub import get_version, register
from causerie.infer import Engine, EngineConfig, Sampling, generate_batch
from causerie.loop import ImproveConfig, improve, review_canary, running_canary
from causerie.model import ModelShape, init_model, save_model
from causerie.store import Store, open_store
from causerie.text import load_chat_format, load_tokenizer, train_bpe
from causerie.train import SftConfig, sft

ASK = ("What is {a} plus {b}?", "{a} + {b} = ?", "Add {a} and {b}.", "Tell me the sum of {a} and {b}.")
APART = "How much are {a} and {b} together?"
"""A wording that is taught and never voted on: the guard asks so."""
NOISE = 0.1
NAME = "sums"


def question(rng: random.Random) -> tuple[str, int]:
    """A question and its right answer."""
    a, b = rng.randrange(0, 8), rng.randrange(0, 8)
    return rng.choice(ASK).format(a=a, b=b), a + b


def utility(answer: str, right: int) -> float:
    """Right and brief is best."""
    numbers = re.findall(r"\d+", answer)
    return (bool(numbers) and int(numbers[-1]) == right) - 0.3 * (len(answer.split()) > 1) - (not answer.strip())


def lesson(rng: random.Random) -> dict[str, object]:
    """A demonstration: right in six of ten, brief in half."""
    asked, right = question(rng)
    if rng.random() < 0.15:
        asked = APART.format(a=right // 2, b=right - right // 2)
    value = right if rng.random() < 0.6 else rng.randrange(0, 15)
    answer = str(value) if rng.random() < 0.5 else f"I think that the answer is {value}"
    return {"messages": [{"role": "user", "content": asked}, {"role": "assistant", "content": answer}]}


def base_model(workspace: Path, seed: int) -> Path:
    """A tiny model that answers sums in all four ways; returns its folder."""
    rng = random.Random(seed)
    rows = [lesson(rng) for _ in range(4000)]
    write_jsonl(workspace / "lessons.jsonl", rows)
    sums = [(a, b) for a in range(8) for b in range(8)]
    write_jsonl(workspace / "guard.jsonl", [
        {"messages": [{"role": "user", "content": APART.format(a=a, b=b)}, {"role": "assistant", "content": str(a + b)}]}
        for a, b in sums[::2]])  # fmt: skip
    texts = [message["content"] for row in rows for message in row["messages"]]  # type: ignore[attr-defined]
    tokenizer = train_bpe(texts, 300)
    shape = ModelShape(
        family="qwen3", n_layer=2, n_embd=96, n_head=4, n_kv_head=2, head_dim=24, ffn_dim=256,
        vocab_size=tokenizer.vocab_size, max_seq_len=64,
    )  # fmt: skip
    with write_artifact(workspace, "model", "blank", f"{seed:064x}") as draft:
        tokenizer.save(draft.path)
        save_model(init_model(shape, seed), draft.path, draft.path)
    assert draft.artifact is not None
    taught = sft(
        SftConfig(model=draft.artifact.path, data=(workspace / "lessons.jsonl",), name=NAME, steps=500, seq_len=64,
                  batch_size=16, lr=2e-3, compile="off", seed=seed),
        workspace,
    )  # fmt: skip
    with open_store(workspace) as store:
        register(store, workspace, NAME, taught, status="promoted")
    return taught.path


class Speaker:
    """Samples a version's answers."""

    def __init__(self, folder: Path) -> None:
        self.tokenizer, self.chat = load_tokenizer(folder), load_chat_format(folder)
        self.engine = Engine(folder, EngineConfig(threads=1))

    def answers(self, asked: list[str], seed: int) -> list[tuple[str, tuple[int, ...]]]:
        """One sampled answer for each question: its text and token ids."""
        prompts = [self.chat.prompt([{"role": "user", "content": one}]) for one in asked]
        settings = [
            Sampling(max_tokens=24, temperature=1.0, stop_ids=self.chat.stop_ids, seed=seed + i)
            for i in range(len(asked))
        ]
        done = generate_batch(self.engine, prompts, settings)
        return [(self.tokenizer.decode(c.ids).strip(), tuple(c.ids)) for c in done]


def vote(store: Store, asked: str, right: int, told: list[tuple[int, str]], rng: random.Random, user: str) -> None:
    """Show two answers `(version, text)` side by side and record the simulated user's choice."""
    group, shown = f"grp_{rng.getrandbits(60)}", []
    for position, (number, text) in enumerate(told):
        version = get_version(store, f"{NAME}@{number}")
        shown.append(Exposure(user=user, model=NAME, version=number, version_key=version.key, consent=True, text=text,
                              prompt=({"role": "user", "content": asked},), group_id=group, position=position))  # fmt: skip
    record_exposure(store, *shown)
    gap = utility(shown[0].text, right) - utility(shown[1].text, right)
    gap = -gap if rng.random() < NOISE else gap
    first = 0 if gap >= 0 else 1
    value = {"outcome": "chosen" if gap else "tie", "others": [shown[1 - first].id]}
    record_signal(store, Signal(shown[first].id, user, "choice", value))


def collect(store: Store, speakers: dict[int, Speaker], events: int, rng: random.Random) -> None:
    """Record `events` choices between two sampled answers (of one version, or of two)."""
    numbers = list(speakers)
    sums = [question(rng) for _ in range(events)]
    asked = [one for one, _ in sums]
    sides = [speakers[number].answers(asked, rng.randrange(2**30)) for number in (numbers[0], numbers[-1])]
    for index, (one, right) in enumerate(sums):
        told = [(numbers[0], sides[0][index][0]), (numbers[-1], sides[1][index][0])]
        rng.shuffle(told)
        vote(store, one, right, told, rng, f"user{index % 40}")


def mean_utility(speaker: Speaker, seed: int) -> float:
    """What users think of 400 sampled answers."""
    rng = random.Random(seed)
    sums = [question(rng) for _ in range(400)]
    said = speaker.answers([one for one, _ in sums], seed)
    return sum(utility(text, right) for (text, _), (_, right) in zip(said, sums, strict=True)) / len(said)


def real_rounds(folder: Path, rounds: int, method: Any = "auto", **more: Any) -> None:
    """Run and print: Y6 first, then a canary for each round; `more` changes the settings of the rounds."""
    for seed in range(rounds):
        workspace, rng = folder / str(seed), random.Random(seed)
        workspace.mkdir(parents=True)
        first = base_model(workspace, seed)
        with open_store(workspace) as store:
            speakers = {1: Speaker(first)}
            collect(store, speakers, 500, rng)
            settings = {"epochs": 2.0, "lr": 2e-4, "length_factor": 12.0, "guard_max_tokens": 24, "canary": 0.0, **more}
            config = ImproveConfig(
                model=NAME, seed=seed, method=method, guard=workspace / "guard.jsonl", **settings
            )  # fmt: skip
            start = time.perf_counter()
            done = improve(config, workspace, store)
            took = time.perf_counter() - start
            print(
                f"\nround {seed}: 500 events to verdict in {took:.1f} s ({done.method}; {done.votes_used}): {done.why}",
                flush=True,
            )
            print_gate(done.gate)
            before, after = (mean_utility(Speaker(path), 99) for path in (first, Path(done.candidate_path)))
            print(f"users' mean utility: {before:.3f} before, {after:.3f} of the candidate", flush=True)
            if not done.promoted:
                continue
            speakers = {2: Speaker(get_version(store, NAME).path(workspace))}
            _canary_round(store, workspace, config, speakers, rng)


def print_gate(rows: list[dict[str, Any]]) -> None:
    """The gate's table, as the page shows it."""
    figure = "{:>9.3f}".format
    for row in rows:
        ends = " to ".join("  -" if row[end] is None else f"{row[end]:+.3f}" for end in ("low", "high"))
        limits = " to ".join("" if row[end] is None else f"{row[end]:+.3f}" for end in ("floor", "ceiling"))
        judged = "passed" if row["passed"] else "FAILED"
        print(
            f"  {row['meaning'][:58]:<58}{figure(row['incumbent'])}{figure(row['candidate'])}  {ends:>20}  {limits:>18}  "
            + (judged if row["promise"] or limits != " to " else "shown")
        )


def _canary_round(
    store: Store, workspace: Path, config: ImproveConfig, speakers: dict[int, Speaker], rng: random.Random
) -> None:
    """A second round from new votes, ending in a canary that live votes decide."""
    from dataclasses import replace

    collect(store, speakers, 300, rng)
    try:
        again = improve(replace(config, canary=0.5), workspace, store)
    except CauserieError as error:
        print(f"second round: {error}")
        return
    print(f"second round: {again.why}", flush=True)
    trial = running_canary(store, NAME)
    if trial is None:
        return
    number = int(trial.candidate.rpartition("@")[2])
    speakers[number] = Speaker(get_version(store, trial.candidate).path(workspace))
    looks = 0
    while trial.status == "running" and looks < 40:
        collect(store, speakers, 25, rng)
        trial = review_canary(store, trial)
        looks += 1
    print(
        f"canary after {looks * 25} live votes: {trial.status}; {trial.why}; {get_version(store, NAME).ref} serves",
        flush=True,
    )
