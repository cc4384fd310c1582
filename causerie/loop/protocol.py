"""Pre-registration: what a round will be judged by is on disk, with its digest in the audit log, before any candidate.

The gate reads its limits back from that file and refuses when it was changed since, so a margin cannot be chosen after
the figures are known.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Final

from causerie.core import CauserieError, read_json, sha256_file, write_json
from causerie.hub import list_audit, record_audit
from causerie.loop.config import ImproveConfig
from causerie.store import Store

FILE: Final = "protocol.json"
"""Name of the registered protocol in the run's folder."""

ACTION: Final = "preregister"


@dataclass(frozen=True)
class Rule:
    """How one figure will be judged; see `gate.GateRow` for `floor`, `ceiling` and `by_value`."""

    suite: str
    metric: str
    meaning: str
    role: str = "shown"
    """promise (what the round is for), guard, or shown (decides nothing)."""
    floor: float | None = None
    ceiling: float | None = None
    by_value: bool = False
    factor: float | None = None
    """Limits as a share of the incumbent's own figure: at most this many times larger or smaller."""


def rules(config: ImproveConfig, suites: Sequence[str], promise: str) -> list[Rule]:
    """The rules of a round, in the order in which people read them.

    Args:
        config: the margins.
        suites: suites that will be run.
        promise: the suite that the round is judged by: "preference" or "votes".
    """
    pressed, praise, refusal = config.sycophancy_margin, config.flattery_margin, config.refusal_margin
    found = [
        Rule("preference", "margin_per_token", "preference for what people chose (nats per token)"),
        Rule("votes", "agreement", "agreement with people's thumbs (nats per token)"),
        Rule("preference", "accuracy_per_token", "share of held-out choices ranked as people did"),
        Rule("preference", "longer_wins", "the same by length alone"),
        _guard("answer_loss", "nats_per_token", "loss on held-out human answers (nats per token)", config.loss_margin),
        _guard("sycophancy", "agrees_with_wrong", "share of the user's wrong claims agreed with", pressed, True),
        _guard("sycophancy", "flipped", "share of right answers given up when the user doubts", pressed, True),
        _guard("sycophancy", "flattery", "share of answers that praise the user", praise, True),
        _guard("over_refusal", "refused", "share of harmless questions refused", refusal, True),
        Rule("ending", "ended", "share of answers that end by themselves", "guard", floor=-config.ending_margin),
        _guard("ending", "empty", "share of empty answers", config.empty_margin),
        Rule("ending", "answer_tokens", "answer length (tokens)", "guard", by_value=True, factor=config.length_factor),
    ]
    ordered = sorted(found, key=lambda rule: rule.suite != promise) if promise == "votes" else found
    wanted = [rule for rule in ordered if rule.suite in suites]
    return [_promised(rule, config) if (rule.suite, rule.metric) == PROMISES[promise] else rule for rule in wanted]


PROMISES: Final = {"preference": ("preference", "margin_per_token"), "votes": ("votes", "agreement")}
"""Suite → the figure that a round can promise to raise."""


def _guard(suite: str, metric: str, meaning: str, ceiling: float, by_value: bool = False) -> Rule:
    """A figure that may grow by `ceiling` at most; by its value where a few dozen yes/no items are all there are."""
    return Rule(suite, metric, meaning, "guard", ceiling=ceiling, by_value=by_value)


def _promised(rule: Rule, config: ImproveConfig) -> Rule:
    return Rule(**{**asdict(rule), "role": "promise", "floor": config.promise_margin})


def register_protocol(store: Store, folder: Path, subject: str, given: Sequence[Rule], facts: dict[str, Any]) -> str:
    """Write the protocol and put its digest in the audit log; a resumed round finds its own again.

    Args:
        store: the store.
        folder: the run's folder.
        subject: the incumbent's reference, for the log.
        given: the rules.
        facts: what else is settled beforehand: keys of the incumbent, votes and guard, seed, confidence.

    Returns:
        The file's SHA-256.

    Raises:
        CauserieError: CAU-5107 when the run was begun under another protocol.
    """
    path = folder / FILE
    content = {**facts, "rules": [asdict(rule) for rule in given]}
    if not path.is_file():
        write_json(path, content)
    elif read_json(path) != content:
        raise _changed(path)
    digest = sha256_file(path)
    if digest not in _digests(store, folder):
        record_audit(store, "gate", ACTION, subject, {"protocol": digest, "run": folder.name})
    return digest


def registered_rules(store: Store, folder: Path) -> list[Rule]:
    """The rules as they were registered.

    Raises:
        CauserieError: CAU-5107 when the file is not the one whose digest is in the audit log.
    """
    path = folder / FILE
    if not path.is_file() or sha256_file(path) not in _digests(store, folder)[-1:]:
        raise _changed(path)
    return [Rule(**rule) for rule in read_json(path)["rules"]]


def _digests(store: Store, folder: Path) -> list[str]:
    rows = [row for row in list_audit(store) if row.action == ACTION]
    return [str(row.detail.get("protocol")) for row in rows if row.detail.get("run") == folder.name]


def _changed(path: Path) -> CauserieError:
    return CauserieError(
        "CAU-5107",
        "the protocol differs from the one that was registered",
        where=str(path),
        fix="delete the run's folder and turn the loop again; its candidate cannot be judged",
    )
