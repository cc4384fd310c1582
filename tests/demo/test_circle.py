"""The whole circle at 0.2 million parameters, as a newcomer runs it: one command, then what it left behind."""

from __future__ import annotations

import json
import subprocess
import sys
import urllib.request
from pathlib import Path

import pytest

from causerie.core import open_artifact, read_events
from causerie.hub import get_version, lineage, list_versions, resolve, verify_audit, verify_version
from causerie.store import open_store

from .conftest import Circle, address_told, copied, run_demo

pytestmark = [pytest.mark.slow, pytest.mark.timeout(900)]
"""Slow: it is every stage of the project once, about a minute and a half on two cores."""


def test_nothing_is_lost_between_pages_and_corpus(circle: Circle) -> None:
    _, summary, _ = circle
    pages = summary["pages"]
    assert pages["documents_in"] == pages["documents_kept"] + sum(pages["dropped"].values())
    assert pages["documents_kept"] > 50
    assert {"en", "fr"} <= set(pages["by_language"])
    assert Path(pages["path"], "report.html").stat().st_size > 2000


def test_every_stage_taught_something(circle: Circle) -> None:
    _, summary, _ = circle
    pretraining, manners = summary["pretraining"], summary["manners"]
    assert pretraining["val_bits_per_byte_after"] < 0.9 * pretraining["val_bits_per_byte_before"]
    assert manners["answer_loss_after"] < manners["answer_loss_before"]
    assert Path(pretraining["path"], "loss.svg").read_text(encoding="utf-8").lstrip().startswith("<?xml")


def test_the_gate_gave_a_verdict_in_words_with_intervals(circle: Circle) -> None:
    _, summary, told = circle
    verdict = summary["verdict"]
    assert verdict["why"].startswith(("promoted: ", "refused: "))
    assert verdict["why"] in told
    metrics = {row["metric"] for row in verdict["gate"]}
    assert {"margin_per_token", "nats_per_token", "ended", "answer_tokens"} <= metrics
    assert all(row["low"] <= row["difference"] <= row["high"] for row in verdict["gate"])
    assert verdict["version"] == ("demo@2" if verdict["promoted"] else "demo@1")


def test_versions_trace_back_to_votes_pages_and_parents(circle: Circle) -> None:
    workspace, summary, _ = circle
    with open_store(workspace) as store:
        assert [version.ref for version in list_versions(store, "demo")] in (["demo@1", "demo@2"], ["demo@2", "demo@1"])
        candidate = get_version(store, "demo@2")
        assert candidate.parents == ("demo@1",)
        tree = lineage(store, workspace, "demo@2")
        kinds = {node.kind for node in tree.walk()}
        assert {"model", "preferences", "shards", "tokenizer", "corpus"} <= kinds
        assert len(tree.signal_ids()) == summary["verdict"]["votes"]["signals"]
        assert verify_version(store, workspace, "demo@2").ok
        assert verify_audit(store).ok


def test_the_run_can_be_read_afterwards(circle: Circle) -> None:
    workspace, summary, _ = circle
    events = read_events(workspace / "runs" / summary["verdict"]["run"])
    kinds = [event["event"] for event in events]
    assert kinds.index("stage") < kinds.index("step") < kinds.index("gate") < kinds.index("verdict")


def test_the_export_is_what_transformers_loads(circle: Circle) -> None:
    _, summary, _ = circle
    transformers = pytest.importorskip("transformers", reason="the export is checked with transformers")
    folder = summary["export_path"]
    assert summary["export"]["argmax_equal"]
    assert summary["export"]["max_logit_difference"] < 1e-3
    model = transformers.AutoModelForCausalLM.from_pretrained(folder)
    tokenizer = transformers.AutoTokenizer.from_pretrained(folder)
    assert type(model).__name__ == "Qwen3ForCausalLM"
    messages = [{"role": "user", "content": "What is the capital of France?"}]
    ids = tokenizer.apply_chat_template(messages, add_generation_prompt=True, return_tensors="pt", return_dict=True)
    done = model.generate(**ids, max_new_tokens=48, do_sample=False)
    text = tokenizer.decode(done[0, ids["input_ids"].shape[1] :], skip_special_tokens=True).strip()
    assert text == summary["says"][summary["verdict"]["version"]]["What is the capital of France?"]


def test_a_second_run_does_nothing_again(circle: Circle) -> None:
    workspace, first, _ = circle
    before = {path: path.stat().st_mtime_ns for path in workspace.glob("*/*/manifest.json")}
    second, _, _ = run_demo(workspace)
    assert {path: path.stat().st_mtime_ns for path in workspace.glob("*/*/manifest.json")} == before
    assert second["pretraining"]["path"] == first["pretraining"]["path"]
    assert second["verdict"]["why"] == first["verdict"]["why"]


def test_the_server_is_no_heir_of_the_trainings(finished: Path, tmp_path_factory: pytest.TempPathFactory) -> None:
    """The page is served by the same process number, and by a program that has not even loaded torch."""
    workspace = copied(finished, tmp_path_factory)
    told, shown = workspace.parent / "demo.log", workspace.parent / "demo.json"
    command = [sys.executable, "-m", "causerie", "demo", "--size", "tiny", "--port", "0", "--json"]
    with (
        told.open("wb") as log,
        shown.open("wb") as answer,
        subprocess.Popen([*command, "--workspace", str(workspace)], stderr=log, stdout=answer) as process,
    ):
        try:
            url = address_told(told, process)
            with urllib.request.urlopen(f"{url}/health", timeout=60) as health:
                assert health.status == 200
            assert "libtorch" not in Path(f"/proc/{process.pid}/maps").read_text()
            assert json.loads(shown.read_text().splitlines()[-1])["served"][-1] == "demo"
        finally:
            process.terminate()
            status = process.wait(60)
    assert status == 0, told.read_text()


def test_artifacts_are_whole(circle: Circle) -> None:
    workspace, _, _ = circle
    manifests = list(workspace.glob("*/*/manifest.json"))
    assert len(manifests) >= 7
    for manifest in manifests:
        open_artifact(manifest.parent, verify="digest")
    assert not [path for path in workspace.rglob(".*") if path.name.endswith((".part", ".old"))]
    with open_store(workspace) as store:
        assert resolve(store, workspace, "demo").path.is_dir()
