"""WARC → filtered, deduplicated JSONL: ours beside a datatrove pipeline with the same steps on the same real pages.

Documents per CPU second, wall time, peak memory of the largest process, and the quality of the extracted text on the
gold segments, of the documents that both keep. Repeat with

    .venv/bin/python bench/curation.py --peer-python ENV_WITH_DATATROVE/bin/python [--quick]
"""

from __future__ import annotations

import argparse
import contextlib
import ctypes
import gzip
import json
import os
import resource
import shutil
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from causerie.core import data_pack
from causerie.data import corpus_documents

HERE = Path(__file__).parent


@dataclass
class Ran:
    wall: float
    cpu: float
    peak_mb: float
    documents: dict[str, str]


def run(command: list[str]) -> tuple[float, float, float]:
    """Wall and CPU seconds of a process and all it started, and the peak memory of the largest of them, MB."""
    ctypes.CDLL(None).prctl(36, 1, 0, 0, 0)  # PR_SET_CHILD_SUBREAPER: processes left behind are counted here too
    env = {**os.environ, "OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"}
    before, begun = resource.getrusage(resource.RUSAGE_CHILDREN), time.monotonic()
    done = subprocess.run(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, env=env, check=False)
    wall = time.monotonic() - begun
    if done.returncode:
        sys.exit(f"{' '.join(command[:3])} failed:\n{done.stderr.decode(errors='replace')[-3000:]}")
    with contextlib.suppress(ChildProcessError):
        while True:
            os.waitpid(-1, 0)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    cpu = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    return wall, cpu, after.ru_maxrss / 1e3


def ours(source: Path, work: Path, workers: int) -> Ran:
    command = [sys.executable, "-m", "causerie", "data", "build", str(source / "*.warc.gz")]
    command += ["--workspace", str(work), "--out", str(work / "corpus"), "--workers", str(workers)]
    used = run([*command, "--boilerplate-pages", "0"])
    return Ran(*used, {row["url"]: row["text"] for row in corpus_documents(work / "corpus")})


def theirs(peer: str, source: Path, work: Path, workers: int) -> Ran:
    used = run([peer, str(HERE / "curation_peer.py"), str(source), str(work), str(workers)])
    kept = {}
    for path in sorted((work / "final").glob("*.jsonl.gz")):
        with gzip.open(path, "rt", encoding="utf-8") as lines:
            rows = [json.loads(line) for line in lines]
        kept |= {row["metadata"]["url"]: row["text"] for row in rows}
    return Ran(*used, kept)


def quality(ran: Ran, gold: dict[str, Any], urls: set[str]) -> str:
    hit = missed = wrong = 0
    for url in urls:
        text = ran.documents[url]
        hit += sum(segment in text for segment in gold[url]["with"])
        missed += sum(segment not in text for segment in gold[url]["with"])
        wrong += sum(segment in text for segment in gold[url]["without"])
    precision, recall = hit / max(hit + wrong, 1), hit / max(hit + missed, 1)
    return f"F {2 * precision * recall / max(precision + recall, 1e-9):.3f} (P {precision:.3f} R {recall:.3f})"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--peer-python", default=os.environ.get("DATATROVE_PYTHON", ""))
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--quick", action="store_true", help="one file instead of three")
    options = parser.parse_args()
    pack = data_pack()
    if pack is None:
        print("left out: the data pack is not here (CAUSERIE_DATA)")
        sys.exit(0)
    with tempfile.TemporaryDirectory() as folder:
        source = Path(folder) / "warc"
        source.mkdir()
        files = sorted((pack / "warc" / "pages").glob("*.warc.gz"))[: 1 if options.quick else None]
        gold: dict[str, Any] = {}
        for file in files:
            shutil.copy(file, source)
            read = json.loads(Path(str(file).replace(".warc.gz", ".gold.json")).read_text(encoding="utf-8"))
            gold |= read if isinstance(read, dict) else {row["url"]: row for row in read}
        print(f"{len(gold)} real pages in {len(files)} WARC files, {options.workers} workers each")
        results = {"causerie": ours(source, Path(folder) / "ours", options.workers)}
        if options.peer_python:
            results["datatrove"] = theirs(options.peer_python, source, Path(folder) / "theirs", options.workers)
        else:
            print("datatrove left out: name an environment that has it with --peer-python")
        both = set.intersection(*(set(ran.documents) for ran in results.values())) & set(gold)
        for name, ran in results.items():
            speed = len(gold) / ran.cpu
            print(
                f"{name:10} {speed:6.1f} pages per CPU second ({ran.cpu:.1f} s), wall {ran.wall:.1f} s, peak "
                f"{ran.peak_mb:.0f} MB, kept {len(ran.documents)}, on the {len(both)} that all keep "
                f"{quality(ran, gold, both)}"
            )
        if len(results) == 2:
            ratio = results["datatrove"].cpu / results["causerie"].cpu
            wall = results["datatrove"].wall / results["causerie"].wall
            print(f"ratio: {ratio:.2f}x the documents per CPU second, {wall:.2f}x by wall time")


if __name__ == "__main__":
    main()
