"""From signals to training rows: labels, pairs and demonstrations, each row naming the signals it came from."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Final

from causerie.core import sha256_json
from causerie.feedback.records import Exposure, Signal, opening_key
from causerie.feedback.standing import Records

Row = dict[str, Any]

NOT_TRAINED_ON: Final = ("imported_prompt", "imported_text", "imported_steps")
"""Kinds that are kept and exported, but say nothing that a round could learn from."""


@dataclass
class Derived:
    """Training rows (see the preferences artifact) and counts of what became of the signals."""

    pairs: list[Row] = field(default_factory=list)
    unpaired: list[Row] = field(default_factory=list)
    sft: list[Row] = field(default_factory=list)
    counts: Counter[str] = field(default_factory=Counter)

    def signal_ids(self) -> list[str]:
        """Ids of every signal that at least one row came from, sorted."""
        return sorted(
            {name for rows in (self.pairs, self.unpaired, self.sft) for row in rows for name in row["signals"]}
        )


@dataclass
class _Votes:
    """Votes for and against one statement ("this answer is good", "this one is better than that one")."""

    weight_for: float = 0.0
    weight_against: float = 0.0
    signals: list[str] = field(default_factory=list)

    def add(self, holds: bool, signal: Signal, weight: float = 1.0) -> None:
        if holds:
            self.weight_for += weight
        else:
            self.weight_against += weight
        self.signals.append(signal.id)

    @property
    def net(self) -> float:
        """Between −1 (all against) and 1 (all for), scaled down when every vote was a weak one."""
        total = self.weight_for + self.weight_against
        return (self.weight_for - self.weight_against) / max(total, 1.0)


def derive(records: Records, *, regenerate_weight: float = 0.5) -> Derived:
    """Turn standing signals into rows.

    - thumbs and imported labels → one unpaired row per answer (majority of the votes, weight = its margin); where
      one prompt has answers of both kinds, also pairs of a good with a bad answer;
    - choices, kept-against-discarded and imported pairs → one pair per two answers (majority, weight = margin);
      ties make no pair and are counted;
    - edits → a pair (edited over original) and a demonstration; imported answers → a demonstration.

    Args:
        records: exposures and the signals that count (`standing`).
        regenerate_weight: weight of a kept-against-discarded vote.
    """
    result = Derived()
    labels: dict[str, _Votes] = defaultdict(_Votes)
    duels: dict[tuple[str, str], _Votes] = defaultdict(_Votes)
    for signal in records.signals:
        result.counts[f"signals_{signal.kind}"] += 1
        exposure = records.exposures[signal.exposure_id]
        if signal.kind in ("thumb", "imported_label"):
            labels[exposure.id].add(bool(signal.value["label"]), signal)
        elif signal.kind == "edit":
            _add_edit(result, exposure, signal)
        elif signal.kind == "imported_answer":
            result.sft.append(_sft_row(exposure, exposure.text, signal))
        elif signal.kind in NOT_TRAINED_ON:
            continue
        elif signal.kind != "regenerate" and signal.value["outcome"] != "chosen":
            result.counts[f"{signal.value['outcome']}_choices"] += 1
        else:
            weight = regenerate_weight if signal.kind == "regenerate" else 1.0
            for other in signal.others:
                first, second = sorted((exposure.id, other))
                duels[first, second].add(exposure.id == first, signal, weight)
    _add_labels(result, records.exposures, labels)
    _add_duels(result, records.exposures, duels)
    _add_label_pairs(result, records.exposures, labels, duels)
    for rows in (result.pairs, result.unpaired, result.sft):
        rows.sort(key=lambda row: str(row["id"]))
    return result


def split(derived: Derived, held_out: float) -> tuple[Derived, Derived]:
    """Training rows and held-out rows: a conversation (by its first user message) is wholly on one side.

    The side depends on nothing but that message, so a conversation held out once is held out in every later round.
    """
    sides = Derived(counts=derived.counts), Derived()
    for name in ("pairs", "unpaired", "sft"):
        for row in getattr(derived, name):
            prompt = row["messages"] if name == "sft" else row["prompt"]
            getattr(sides[int(is_held_out(prompt, held_out))], name).append(row)
    return sides


def is_held_out(prompt: list[dict[str, str]], held_out: float) -> bool:
    """Whether a conversation belongs to the held-out share."""
    return int(sha256_json(["held out", opening_key(prompt)])[:12], 16) / 16**12 < held_out


def _add_labels(result: Derived, shown: Mapping[str, Exposure], labels: Mapping[str, _Votes]) -> None:
    for name, votes in labels.items():
        if votes.net == 0:
            result.counts["contradictory_labels"] += 1
            continue
        exposure = shown[name]
        body = {"completion": exposure.text, "label": votes.net > 0, "weight": round(abs(votes.net), 4)}
        result.unpaired.append(_row("lab", [name], exposure, body, votes.signals))


def _add_duels(result: Derived, shown: Mapping[str, Exposure], duels: Mapping[tuple[str, str], _Votes]) -> None:
    for (first, second), votes in duels.items():
        if votes.net == 0:
            result.counts["contradictory_pairs"] += 1
            continue
        chosen, rejected = (first, second) if votes.net > 0 else (second, first)
        _add_pair(result, shown[chosen], shown[rejected].text, [chosen, rejected], votes.signals, abs(votes.net))


def _add_label_pairs(
    result: Derived,
    shown: Mapping[str, Exposure],
    labels: Mapping[str, _Votes],
    duels: Mapping[tuple[str, str], _Votes],
) -> None:
    """Pair good with bad answers to one prompt: every answer of the larger side once, the smaller side in turn."""
    sides: dict[str, tuple[list[str], list[str]]] = defaultdict(lambda: ([], []))
    for name, votes in sorted(labels.items()):
        if votes.net:
            sides[shown[name].prompt_key][int(votes.net < 0)].append(name)
    for good, bad in sides.values():
        if not good or not bad:
            continue
        for index in range(max(len(good), len(bad))):
            chosen, rejected = good[index % len(good)], bad[index % len(bad)]
            first, second = sorted((chosen, rejected))
            if (first, second) in duels:
                continue
            used = labels[chosen].signals + labels[rejected].signals
            margin = min(abs(labels[chosen].net), abs(labels[rejected].net))
            _add_pair(result, shown[chosen], shown[rejected].text, [chosen, rejected], used, margin)
            result.counts["pairs_from_thumbs"] += 1


def _add_edit(result: Derived, exposure: Exposure, signal: Signal) -> None:
    edited = str(signal.value["text"])
    if edited.strip() == exposure.text.strip():
        result.counts["unchanged_edits"] += 1
        return
    better = Exposure(**{**vars(exposure), "text": edited, "token_ids": (), "log_probs": ()})
    _add_pair(result, better, exposure.text, [exposure.id, signal.id], [signal.id], 1.0)
    result.sft.append(_sft_row(exposure, edited, signal))


def _add_pair(result: Derived, chosen: Exposure, rejected: str, ids: list[str], used: list[str], weight: float) -> None:
    if chosen.text == rejected:
        result.counts["pairs_of_equal_answers"] += 1
        return
    if not chosen.text.strip():
        result.counts["pairs_with_an_empty_chosen_answer"] += 1
        return
    body = {"chosen": chosen.text, "rejected": rejected, "weight": round(weight, 4)}
    result.pairs.append(_row("pair", ids, chosen, body, used))


def _sft_row(exposure: Exposure, answer: str, signal: Signal) -> Row:
    messages = [*map(dict, exposure.prompt), {"role": "assistant", "content": answer}]
    row = _row("demo", [signal.id], exposure, {"messages": messages}, [signal.id])
    del row["prompt"]
    return row


def _row(prefix: str, ids: list[str], exposure: Exposure, body: Mapping[str, Any], used: list[str]) -> Row:
    row: Row = {"id": f"{prefix}_{sha256_json(ids)[:20]}", "prompt": [dict(message) for message in exposure.prompt]}
    row.update(body)
    row.update(source=exposure.source, prompt_key=exposure.prompt_key, signals=sorted(set(used)))
    row |= {"lang": exposure.lang} if exposure.lang else {}
    row |= {"license": exposure.licence} if exposure.licence else {}
    return row
