"""`causerie eval`: run suites on a model, compare it with another, keep every item's values."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

from causerie.core import (
    CauserieError,
    Run,
    artifact_key,
    code_digest,
    content_key,
    data_pack,
    existing_artifact,
    open_run,
    place_for,
    read_json,
    say,
    write_artifact,
    write_json,
    write_jsonl,
)
from causerie.evals import (
    answer_loss,
    bits_per_byte,
    choice,
    ending,
    ifeval,
    last_word,
    over_refusal,
    preference,
    sycophancy,
    votes,
)
from causerie.evals.config import SUITES, EvalConfig
from causerie.evals.report import EvalReport, figures_of, item_rows, report_from_dict, suite_from_dict, suite_to_dict
from causerie.evals.results import SuiteResult, compare
from causerie.evals.subject import Subject

SETTINGS = ("limit", "limits", "max_length", "max_tokens", "temperature", "seed")
"""Fields that change what is measured, beside model and data."""
CODE = ("causerie.evals", "causerie.infer", "causerie.model", "causerie.text")


def evaluate(config: EvalConfig, workspace: Path) -> EvalReport:
    """Measure a model, and its differences to another when `config.against` is given.

    The artifact (kind "evaluation") holds `report.json`, `items.jsonl` and, when compared, `against-items.jsonl`. A
    suite that was finished for this model on these data, before a stop or in an earlier comparison, is not run again.

    Raises:
        CauserieError: CAU-4201 for an unknown suite, CAU-4202 for a suite without data, CAU-4210 for a number that
            cannot be, and what the suites raise.
    """
    config.check()
    config = with_data(config)
    key = _key(config, {"intervals": config.confidence, "against": str(config.against is not None)})
    there = existing_artifact(config.out, workspace, "evaluation", config.name, key)
    if there is not None:
        return report_from_dict(read_json(there.file("report.json")), there.path)
    mine = _measure(replace(config, against=None), workspace)
    theirs = _measure(replace(config, model=config.against, against=None), workspace) if config.against else []
    report = EvalReport(
        path=Path(),
        model=str(config.model),
        against=None if config.against is None else str(config.against),
        figures=figures_of(mine, seed=config.seed, confidence=config.confidence),
        against_figures=figures_of(theirs, seed=config.seed, confidence=config.confidence),
        compared=tuple(compare(mine, theirs, seed=config.seed, confidence=config.confidence)),
        counts={result.suite: result.counts for result in mine},
    )
    return _write(config, workspace, key, report, mine, theirs)


def with_data(config: EvalConfig) -> EvalConfig:
    """The configuration with its suites named, and the data pack's files for public sets where none are given.

    Raises:
        CauserieError: CAU-4201, CAU-4202 naming the flag that is missing.
    """
    for suite in (*config.suites, *(config.limits or {})):
        if suite not in SUITES:
            raise CauserieError(
                "CAU-4201", f"unknown suite {suite!r}", where="suites", fix=f"choose from {', '.join(SUITES)}"
            )
    if "sycophancy" in config.suites and config.sycophancy is None:
        config = replace(config, sycophancy=sycophancy.QUESTIONS)
    if "over_refusal" in config.suites and config.refusals is None:
        config = replace(config, refusals=over_refusal.PROMPTS)
    pack = data_pack()
    if pack is not None and "ifeval" in config.suites and config.ifeval is None:
        config = replace(config, ifeval=pack / "eval" / "ifeval_input_data.jsonl")
    if pack is not None and "choice" in config.suites and not config.choices:
        config = replace(config, choices=tuple(sorted((pack / "eval" / "multiple_choice").glob("*.parquet"))))
    if pack is not None and "last_word" in config.suites and config.last_words is None:
        config = replace(config, last_words=pack / "eval" / "lambada_test.jsonl.gz")
    given = _data(config)
    suites = config.suites or tuple(suite for suite in SUITES if given[suite] and _offers(suite, given[suite]))
    if not suites:
        raise CauserieError(
            "CAU-4202", "no suite has data", where="suites", fix="give --chats, --pairs, --prompts, ..."
        )
    for suite in suites:
        if not given[suite]:
            flag = FLAGS[suite]
            raise CauserieError("CAU-4202", f"suite {suite} has no data", where=flag, fix=f"give --{flag} FILE")
    return replace(config, suites=tuple(suite for suite in SUITES if suite in suites))


FLAGS = {
    "bits_per_byte": "documents",
    "answer_loss": "chats",
    "preference": "pairs",
    "votes": "pairs",
    "ending": "prompts",
    "sycophancy": "sycophancy",
    "over_refusal": "refusals",
    "ifeval": "ifeval",
    "choice": "choices",
    "last_word": "last_words",
}
"""Suite → the field of `EvalConfig` that holds its data."""


def _data(config: EvalConfig) -> dict[str, tuple[Path, ...]]:
    found = {}
    for suite, flag in FLAGS.items():
        value = getattr(config, flag)
        found[suite] = value if isinstance(value, tuple) else () if value is None else (value,)
    return found


def _offers(suite: str, paths: tuple[Path, ...]) -> bool:
    """Whether a preferences folder or file has rows for the suite; only asked where the suites were not named."""
    names = {"preference": "heldout-pairs.jsonl", "votes": "heldout-unpaired.jsonl"}
    if suite not in names:
        return True
    folder = paths[0]
    path = folder / names[suite]
    return path.is_file() and path.stat().st_size > 0 if folder.is_dir() else suite == "preference"


def _key(config: EvalConfig, more: dict[str, Any]) -> str:
    settings = {name: getattr(config, name) for name in SETTINGS}
    data = _data(config)
    inputs = {f"{suite}.{i}": content_key(path) for suite in config.suites for i, path in enumerate(data[suite])}
    inputs["model"] = content_key(config.model)
    for name in ("against", "reference"):
        if (folder := getattr(config, name)) is not None:
            inputs[name] = content_key(folder)
    return artifact_key("evaluation", {**settings, **more, "suites": config.suites}, inputs, code_digest(*CODE))


def _measure(config: EvalConfig, workspace: Path) -> list[SuiteResult]:
    """Every suite of one model: read back where it was measured before, else measured."""
    key = _key(config, {"items": "one model"})
    plain = {name: str(value) for name, value in asdict(config).items()}
    subject = Subject(config.model, config)
    with open_run(workspace, "eval", config.name, key, plain) as run:
        return [_suite(subject, suite, run) for suite in config.suites]


def _suite(subject: Subject, suite: str, run: Run) -> SuiteResult:
    kept = run.path / f"{suite}.json"
    if kept.is_file():
        return suite_from_dict(read_json(kept))
    data = _data(subject.config)[suite]
    say(f"eval {subject.folder.name}: {suite}")
    runners: dict[str, Callable[[], SuiteResult]] = {
        "bits_per_byte": lambda: bits_per_byte.run(subject, data[0]),
        "answer_loss": lambda: answer_loss.run(subject, data),
        "preference": lambda: preference.run(subject, data[0]),
        "votes": lambda: votes.run(subject, data[0]),
        "ending": lambda: ending.run(subject, data[0]),
        "sycophancy": lambda: sycophancy.run(subject, data[0]),
        "over_refusal": lambda: over_refusal.run(subject, data[0]),
        "ifeval": lambda: ifeval.run(subject, data[0]),
        "choice": lambda: choice.run(subject, data),
        "last_word": lambda: last_word.run(subject, data[0]),
    }
    result = runners[suite]()
    write_json(kept, suite_to_dict(result))
    run.log("suite", suite=suite, items=len(result.items), **result.counts)
    return result


def _write(
    config: EvalConfig,
    workspace: Path,
    key: str,
    report: EvalReport,
    mine: list[SuiteResult],
    theirs: list[SuiteResult],
) -> EvalReport:
    place, exact = place_for(config.out, workspace)
    inputs = {"model": content_key(config.model)}
    if config.against is not None:
        inputs["against"] = content_key(config.against)
    plain = {name: str(value) for name, value in asdict(config).items()}
    seeds = {"seed": config.seed}
    with write_artifact(
        place, "evaluation", config.name, key, inputs=inputs, config=plain, seeds=seeds, exact=exact
    ) as draft:
        write_json(draft.path / "report.json", report.as_dict())
        write_jsonl(draft.path / "items.jsonl", item_rows(mine))
        if theirs:
            write_jsonl(draft.path / "against-items.jsonl", item_rows(theirs))
        draft.metrics.update({f"{f.suite}.{f.metric}": f.interval.value for f in report.figures})
    assert draft.artifact is not None
    return replace(report, path=draft.artifact.path)
