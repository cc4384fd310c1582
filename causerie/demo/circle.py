"""`causerie demo`: every room once, in the order of the circle. Each stage's result is an artifact, so a demo that was
stopped goes on where it was, and a second run only serves."""

from __future__ import annotations

import os
import socket
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NoReturn

from causerie.core import Artifact, CauserieError, plain, say, write_json
from causerie.data import DataBuildConfig, PackConfig, build, pack
from causerie.demo.config import ASSETS, SCALES, DemoConfig, Scale
from causerie.demo.export import export_version
from causerie.demo.timeline import Timeline
from causerie.feedback import FeedbackImportConfig, feedback_stats, import_feedback
from causerie.hub import Version, list_versions, register, resolve
from causerie.infer import Engine, EngineConfig, Sampling, generate_batch
from causerie.loop import GUARD_FILE, ImproveConfig, improve
from causerie.starter import StarterConfig, register_starter
from causerie.store import Store, open_store
from causerie.text import TokenizerConfig, load_chat_format, load_tokenizer, train_tokenizer
from causerie.train import PretrainConfig, SftConfig, pretrain, sft

NAME = "demo"
SUMMARY = "demo.json"
QUESTIONS = ("What is the capital of France?", "Quelle est la capitale de l'Italie ?", "Hello!", "Bonjour !")
"""What the demo asks before and after, to show words and not only figures."""


@dataclass(frozen=True)
class Circle:
    """Where a demo works and how much it does."""

    config: DemoConfig
    workspace: Path
    scale: Scale
    timeline: Timeline


def run_demo(config: DemoConfig, workspace: Path) -> dict[str, Any]:
    """Turn the circle once; returns the summary that `--json` prints, and writes it to `<workspace>/demo.json`.

    Raises:
        CauserieError: CAU-7101 when the demo's own files are missing; what the rooms raise.
    """
    for name in ("pages.warc.gz", "instructions.jsonl", "choices.jsonl"):
        if not (ASSETS / name).is_file():
            raise CauserieError("CAU-7101", f"{name} is missing", where=str(ASSETS), fix="install the package again")
    circle = Circle(config, workspace, SCALES[config.size], Timeline())
    say(f"The whole circle on this machine, offline. Everything it makes is kept in {workspace}.")
    corpus = _pages(circle)
    tokenizer, shards = _tokens(circle, corpus)
    base = _pretraining(circle, tokenizer, shards)
    mannered = _manners(circle, base)
    with open_store(workspace) as store:
        _feedback(circle, store)
        result = _improvement(circle, store, mannered)
        exported = _export(circle, store)
        served = [*_starter(circle, store), NAME]  # the page begins with the first
        says = _answers(workspace, store)
    summary = circle.timeline.summary() | {
        "verdict": result,
        "says": says,
        "export_path": str(exported),
        "served": served,
    }
    summary |= {"workspace": str(workspace), "size": config.size}
    del summary["improvement"]  # the same as the verdict
    write_json(workspace / SUMMARY, summary)
    _tell(circle, summary)
    return summary


def serve_demo(config: DemoConfig, workspace: Path, served: Sequence[str]) -> NoReturn:
    """The server takes this process's place, and so begins without the memory that the trainings took."""
    address = ["--host", config.host, "--port", str(free_port(config.host, config.port))]
    command = [sys.executable, "-m", "causerie", "serve", *served, *address, "--workspace", str(workspace)]
    sys.stdout.flush()
    sys.stderr.flush()
    os.execv(sys.executable, command)  # noqa: S606 - our own command


def free_port(host: str, first: int) -> int:
    """The first port from `first` on that nobody listens on; `first` itself when the next twenty are taken too."""
    for port in range(first, min(first + 20, 65_536)) if first else ():
        with socket.socket() as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                probe.bind((host, port))
            except OSError:
                continue
            return port
    return first


def _pages(circle: Circle) -> Artifact:
    with circle.timeline.stage("pages", "a web archive becomes a clean corpus") as stage:
        corpus = build(
            DataBuildConfig(
                sources=(str(ASSETS / "pages.warc.gz"),),
                name=NAME,
                sample=circle.scale.sample,
                decontaminate=(GUARD_FILE, ASSETS / "choices.jsonl"),
            ),
            circle.workspace,
        )
        metrics = corpus.manifest.metrics
        stage.figures = {**metrics, "path": str(corpus.path)}
        dropped = ", ".join(f"{rule} {count}" for rule, count in metrics["dropped"].items() if count)
        stage.lines.append(f"{metrics['documents_in']} pages in, {metrics['documents_kept']} kept; dropped: {dropped}")
        stage.lines.append(f"report: {corpus.path / 'report.html'}")
    return corpus


def _tokens(circle: Circle, corpus: Artifact) -> tuple[Artifact, Artifact]:
    with circle.timeline.stage("tokens", "a byte-level BPE of our own, and packed shards") as stage:
        size = circle.scale.vocab_size
        tokenizer = train_tokenizer(
            TokenizerConfig(sources=(str(corpus.path),), vocab_size=size, name=NAME), circle.workspace
        )
        shards = pack(PackConfig(corpus=corpus.path, tokenizer=tokenizer.path, name=NAME), circle.workspace)
        metrics = shards.manifest.metrics
        paths = {"tokenizer_path": str(tokenizer.path), "shards_path": str(shards.path)}
        stage.figures = {"vocab_size": size, **metrics, **paths}
        stage.lines.append(
            f"vocabulary {size}; {metrics['train_tokens']:,} tokens to learn, {metrics['val_tokens']:,} to check"
        )
    return tokenizer, shards


def _pretraining(circle: Circle, tokenizer: Artifact, shards: Artifact) -> Artifact:
    with circle.timeline.stage("pretraining", "a small Qwen3-shaped model from random weights") as stage:
        scale = circle.scale
        model = pretrain(
            PretrainConfig(
                shards=shards.path,
                tokenizer=tokenizer.path,
                name=f"{NAME}-base",
                depth=scale.depth,
                seq_len=scale.seq_len,
                batch_size=scale.batch_size,
                tokens=scale.pretrain_tokens,
                compile=scale.compile,
                seed=circle.config.seed,
            ),
            circle.workspace,
        )
        metrics = model.manifest.metrics
        stage.figures = {**metrics, "path": str(model.path)}
        before, after = metrics["val_bits_per_byte_before"], metrics["val_bits_per_byte_after"]
        stage.lines.append(f"bits per byte on unseen pages: {before:.3f} before, {after:.3f} after")
        stage.lines.append(f"curve: {model.path / 'loss.svg'}")
        stage.lines.append("Minutes of pretraining teach the form of language, not facts.")
    return model


def _manners(circle: Circle, base: Artifact) -> Artifact:
    with circle.timeline.stage("manners", "supervised fine-tuning: questions, answers, and when to stop") as stage:
        model = sft(
            SftConfig(
                model=base.path,
                data=(ASSETS / "instructions.jsonl",),
                heldout=GUARD_FILE,
                name=f"{NAME}-sft",
                steps=circle.scale.sft_steps,
                seq_len=circle.scale.seq_len,
                batch_size=circle.scale.batch_size,
                compile="off",
                seed=circle.config.seed,
            ),
            circle.workspace,
        )
        metrics = model.manifest.metrics
        stage.figures = {**metrics, "path": str(model.path)}
        before, after = metrics["answer_loss_before"], metrics["answer_loss_after"]
        stage.lines.append(f"loss on held-out answers: {before:.3f} before, {after:.3f} after (nats per token)")
    return model


def _feedback(circle: Circle, store: Store) -> None:
    with circle.timeline.stage("feedback", "human choices, through the store that the page writes to") as stage:
        imported = import_feedback(
            FeedbackImportConfig(
                sources=(ASSETS / "choices.jsonl",),
                source="hh-rlhf-helpful",
                licence="MIT",
                lang="en",
                limit=circle.scale.choices,
            ),
            circle.workspace,
            store,
        )
        stats = feedback_stats(store)
        counts = {name: getattr(imported, name) for name in ("rows", "signals_new", "duplicates", "bad")}
        stage.figures = {**counts, "stats": plain(stats)}
        stage.lines.append(
            f"{imported.rows} choices read: {imported.signals_new} new, {imported.duplicates} known, "
            f"{imported.bad} unusable"
        )


def _improvement(circle: Circle, store: Store, mannered: Artifact) -> dict[str, Any]:
    with circle.timeline.stage("improvement", "a candidate learns from the choices, the gate decides") as stage:
        first = register(
            store, circle.workspace, NAME, mannered, licence="CC-BY-SA-3.0", status="promoted", actor="demo"
        )
        done = [v for v in list_versions(store, NAME) if first.ref in v.parents and "verdict" in v.card]
        if done:
            stage.figures = _recorded(done[0], resolve(store, circle.workspace, NAME).name)
            stage.lines.append(f"there is a candidate already: {stage.figures['why']}")
            return stage.figures
        result = improve(
            ImproveConfig(
                model=NAME,
                guard_rows=circle.scale.guard_rows,
                guard_prompts=circle.scale.guard_prompts,
                seed=circle.config.seed,
            ),
            circle.workspace,
            store,
        )
        for row in result.gate:
            stage.lines.append(_gate_line(row))
        stage.figures = plain(result)
    return stage.figures


def _recorded(candidate: Version, serving: str) -> dict[str, Any]:
    """The verdict of an earlier round, from the candidate's card."""
    card = candidate.card
    told = {name: card[name] for name in ("gate", "votes", "method", "run")}
    promoted = candidate.promoted is not None
    return {**told, "promoted": promoted, "why": card["verdict"], "version": serving, "candidate": candidate.ref}


def _gate_line(row: dict[str, Any]) -> str:
    mark = "ok " if row["passed"] else "NO "
    low, high = (f"{row[end]:+.3f}" if row[end] is not None else "?" for end in ("low", "high"))
    return f"{mark} {row['meaning']}: {row['incumbent']:.3f} → {row['candidate']:.3f} [{low}, {high}]"


def _export(circle: Circle, store: Store) -> Path:
    with circle.timeline.stage("export", "a Hugging Face folder that others load") as stage:
        source = resolve(store, circle.workspace, NAME)
        folder = circle.workspace / "export" / NAME
        checked = export_version(store, circle.workspace, NAME, folder)
        stage.figures = {"from": source.name, **checked}
        stage.lines.append(f"{folder}: {checked['said']}")
    return folder


def _starter(circle: Circle, store: Store) -> list[str]:
    if not circle.config.starter or os.environ.get("STARTER") == "0" or circle.config.size == "tiny":
        return []
    with circle.timeline.stage("starter", "a pretrained base worth talking to, with our adapter") as stage:
        try:
            name = register_starter(StarterConfig(), circle.workspace, store).name
        except CauserieError as error:
            stage.lines.append(f"left out: {error.cause}. {error.fix}")
            return []
        version = resolve(store, circle.workspace, name).version
        licence = version.licence if version else "see the model's card"
        stage.figures = {"name": name, "licence": licence}
        stage.lines.append(f"{name}: not ours and not open source; its terms: {licence} (causerie models show {name})")
        return [name]


def _answers(workspace: Path, store: Store) -> dict[str, dict[str, str]]:
    """What the first and the present version say to a few questions, greedily."""
    said: dict[str, dict[str, str]] = {}
    refs = sorted({f"{NAME}@1", resolve(store, workspace, NAME).name})
    for ref in refs:
        folder = resolve(store, workspace, ref).path
        chat, tokenizer = load_chat_format(folder), load_tokenizer(folder)
        prompts = [chat.prompt([{"role": "user", "content": question}]) for question in QUESTIONS]
        sampling = Sampling(max_tokens=48, temperature=0.0, stop_ids=chat.stop_ids)
        done = generate_batch(Engine(folder, EngineConfig()), prompts, sampling)
        said[ref] = {q: tokenizer.decode(c.ids).strip() for q, c in zip(QUESTIONS, done, strict=True)}
    return said


def _tell(circle: Circle, summary: dict[str, Any]) -> None:
    total = summary["seconds_total"]
    say(f"\nThe circle is closed: {total:.0f} s in all. {summary['verdict']['why']}")
    for ref, answers in summary["says"].items():
        say(f"{ref} says:")
        for question, answer in answers.items():
            say(f"   {question}  →  {answer!r}")
    say(f"summary: {circle.workspace / SUMMARY}")
