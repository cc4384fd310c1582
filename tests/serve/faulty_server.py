"""A server in a process of its own, to be killed: `python -m tests.serve.faulty_server HOME DELAY [ANSWERS]` prints its
URL and key. DELAY is the scripted engine's seconds for a token, ANSWERS how many answers may be in hand."""

from __future__ import annotations

import json
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

from starlette.applications import Starlette

from causerie.core import write_artifact
from causerie.serve import EnginePool, Gate, create_app, create_key, run_server
from causerie.store import open_store
from causerie.text import train_bpe
from tests.serve.conftest import ANSWER, Script, ScriptedEngine


def main(home: Path, delay: float, answers: int = 64) -> None:
    """Serve until killed."""
    tokenizer = train_bpe([ANSWER, "Quelle belle journée !"] * 3, 320)
    script = Script(endless=delay > 0, delay=delay, max_seq_len=100_000)
    pool = EnginePool(
        lambda folder: ScriptedEngine(folder, script, tokenizer),
        gate=Gate(max_answers=answers, max_tokens=10**8, max_running=8),
    )
    with write_artifact(home, "model", "petit", "ab" * 32) as draft:
        tokenizer.save(draft.path)
    artifact = draft.artifact
    assert artifact is not None

    @asynccontextmanager
    async def loading(_app: Starlette) -> AsyncIterator[None]:
        await pool.load("petit", artifact.path, 1)
        yield

    with open_store(home) as store:
        _, key = create_key(store, "faults", scopes=("*",))
        app = create_app(pool, store=store, keys_required=True, lifespans=[loading], workspace=home)
        run_server(app, "127.0.0.1", 0, on_ready=lambda url: print(json.dumps([url, key]), flush=True))


if __name__ == "__main__":
    main(Path(sys.argv[1]), float(sys.argv[2]), *map(int, sys.argv[3:]))
