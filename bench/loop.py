"""The loop under simulated users: how often it promotes what is not better, how often it finds what is, and how it
recovers from poisoned votes. Nothing comparable exists elsewhere, so the figures stand alone.

    .venv/bin/python bench/loop.py            200 seeded rounds of each kind, some ten minutes
    .venv/bin/python bench/loop.py --quick    20 rounds
    .venv/bin/python bench/loop.py --real     also real training of a tiny model: 500 events to a promoted version (Y6)

Users like right and brief answers to sums (utility = right − 0.3 · wordy), err in one vote of ten, and may be joined by
adversaries who always vote for the candidate. The candidate's policy is simulated (a table of probabilities over four
answers per prompt); gate and canary are the product's own code: `paired_difference`, `GateRow`, `judge`, `duels`,
`decide`, and for poisoned votes `standing` with its cap per user.
"""

from __future__ import annotations

import argparse
import functools
import tempfile
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np

from causerie.evals import paired_difference, wilson
from causerie.loop import CanaryConfig, Duels, GateRow, LiveVote, decide, duels, judge

RIGHT = np.array([1, 1, 0, 0])
WORDY = np.array([0, 1, 0, 1])
UTILITY = RIGHT - 0.3 * WORDY
NOISE = 0.1
JITTER = 0.4
"""Spread of what training changes besides the true improvement, in logits per prompt and answer."""


class Policies:
    """An incumbent and a candidate over `prompts` sums; `shift` is the candidate's true gain in the logit of right."""

    def __init__(self, rng: np.random.Generator, shift: float, prompts: int = 400) -> None:
        base = rng.normal(0, 1, (prompts, 4)) + np.array([0.4, 0.6, 0.3, 0.0])
        change = rng.normal(0, JITTER, (prompts, 4)) + shift * RIGHT
        self.log_old, self.log_new = (_log_softmax(logits) for logits in (base, base + change))


def _log_softmax(logits: np.ndarray) -> np.ndarray:
    return logits - np.log(np.exp(logits).sum(axis=1, keepdims=True))


def win_rate(shift: float, seed: int = 1) -> float:
    """Share of decisive votes, noise included, that the candidate wins against the incumbent."""
    both = Policies(np.random.default_rng(seed), shift, 20_000)
    joint = np.exp(both.log_new)[:, :, None] * np.exp(both.log_old)[:, None, :]
    better = (UTILITY[:, None] > UTILITY[None, :])[None]
    wins, losses = (joint * better).sum(), (joint * better.transpose(0, 2, 1)).sum()
    clean = wins / (wins + losses)
    return float(clean * (1 - NOISE) + (1 - clean) * NOISE)


@functools.cache
def shift_for(target: float) -> float:
    """The shift at which the candidate wins this share of decisive votes."""
    low, high = -6.0, 6.0
    for _ in range(30):
        middle = (low + high) / 2
        low, high = (middle, high) if win_rate(middle) < target else (low, middle)
    return (low + high) / 2


def draw(rng: np.random.Generator, log_p: np.ndarray) -> np.ndarray:
    """One answer for each row of log-probabilities."""
    return (np.exp(log_p).cumsum(axis=1) < rng.random((len(log_p), 1))).sum(axis=1).clip(max=3)


def gate_passes(rng: np.random.Generator, both: Policies, held_out: int, poisoned: float = 0.0) -> bool:
    """The gate on held-out votes about the incumbent's answers: margin of chosen over rejected, paired."""
    prompts = rng.integers(0, len(both.log_old), held_out * 4)
    first, second = draw(rng, both.log_old[prompts]), draw(rng, both.log_old[prompts])
    gap = UTILITY[first] - UTILITY[second]
    kept = np.flatnonzero(gap != 0)[:held_out]
    flip = rng.random(len(kept)) < NOISE
    chosen_first = (gap[kept] > 0) ^ flip
    bad = rng.random(len(kept)) < poisoned
    chosen_first = np.where(bad, gap[kept] < 0, chosen_first)
    chosen = np.where(chosen_first, first[kept], second[kept])
    rejected = np.where(chosen_first, second[kept], first[kept])
    rows = prompts[kept]
    margins = [log_p[rows, chosen] - log_p[rows, rejected] for log_p in (both.log_new, both.log_old)]
    weights = np.ones(len(kept))
    found = paired_difference((margins[0], weights), (margins[1], weights), seed=int(rng.integers(2**31)))
    assert found.low is not None
    assert found.high is not None
    row = GateRow(
        "margin", 0.0, found.value, found.value, found.low, found.high, found.n, "preference", 0.0, None, True
    )
    return judge([row]).promoted


def live(
    rng: np.random.Generator, both: Policies, votes: int, users: int, trolls: int = 0, troll_votes: int = 0
) -> list[LiveVote]:
    """Votes of a canary as they come: honest users compare the two versions, trolls always choose the candidate."""
    prompts = rng.integers(0, len(both.log_old), votes)
    gap = UTILITY[draw(rng, both.log_new[prompts])] - UTILITY[draw(rng, both.log_old[prompts])]
    said = np.where(rng.random(votes) < NOISE, -gap, gap)
    found = [
        LiveVote(f"user{rng.integers(users)}", "choice", None if one == 0 else bool(one > 0), True, 0.0) for one in said
    ]
    found += [LiveVote(f"troll{index % trolls}", "choice", True, True, 0.0) for index in range(trolls * troll_votes)]
    order = rng.permutation(len(found))
    return [found[index] for index in order]


def trial(found: Duels, limit: int, coalition: float = CanaryConfig.coalition) -> tuple[str, int]:
    """The canary's decision within so many decisive votes, and how many it took."""
    people = min(5, max(2, found.people))
    decision = decide(found, CanaryConfig(max_duels=limit, min_people=people, coalition=coalition))
    moment = decision.figures["decided_after"]
    return ("undecided", limit) if moment is None else (decision.status, moment)


def promoted_by(found: Duels, limits: Sequence[int], coalition: float = CanaryConfig.coalition) -> list[bool]:
    """Whether the candidate is promoted within each number of decisive votes: what is decided stays decided."""
    status, moment = trial(found, max(limits), coalition)
    return [status == "promoted" and moment <= limit for limit in limits]


def rate(hits: int, rounds: int) -> str:
    """A share with Wilson's interval."""
    interval = wilson(hits, rounds)
    return f"{hits / rounds:6.1%} [{interval.low:.1%}, {interval.high:.1%}]"


def table(rounds: int) -> None:
    """Wrong promotions and power."""
    print(
        f"\n{rounds} seeded rounds each; users err in {NOISE:.0%} of votes; gate on 96 held-out votes; win rates as votes are cast"
    )
    print(
        f"{'true win rate':>14}  {'gate alone':>24}  {'canary alone, 1000 votes':>24}  {'gate and canary':>24}  {'rolled back':>22}  median votes"
    )
    for target in (0.45, 0.5, 0.55, 0.6):
        shift = shift_for(target)
        passed = promoted = both_ok = back = 0
        took = []
        for seed in range(rounds):
            rng = np.random.default_rng([seed, round(target * 100)])
            both = Policies(rng, shift)
            through = gate_passes(rng, both, 96)
            status, votes = trial(duels(live(rng, both, 2500, 40), 200, 5), 1000)
            passed += through
            promoted += status == "promoted"
            back += status == "rolled_back"
            both_ok += through and status == "promoted"
            took.append(votes)
        cells = "  ".join(f"{rate(hits, rounds):>24}" for hits in (passed, promoted, both_ok))
        print(f"{target:>14.0%}  {cells}  {rate(back, rounds):>22}  {int(np.median(took))}")


def budgets(rounds: int) -> None:
    """Power of the canary by its budget of decisive votes."""
    limits = (100, 200, 500, 1000, 2000)
    print("\npower of the canary by decisive votes, 40 users (a candidate that is as good: wrong promotions)")
    print(f"{'true win rate':>14}  {'left out':>8}  " + "  ".join(f"{limit:>22}" for limit in limits))
    for target in (0.5, 0.55, 0.6, 0.65):
        hits: dict[float, Counter[int]] = {share: Counter() for share in SHARES}
        for seed in range(rounds):
            rng = np.random.default_rng([seed, 7, round(target * 100)])
            found = duels(live(rng, Policies(rng, shift_for(target)), 5000, 40), 0, 5)
            for share in SHARES:
                hits[share].update(dict(zip(limits, promoted_by(found, limits, share), strict=True)))
        for share in SHARES:
            cells = "  ".join(f"{rate(hits[share][limit], rounds):>22}" for limit in limits)
            print(f"{target:>14.0%}  {share:>8.0%}  {cells}", flush=True)


SHARES = (0.0, CanaryConfig.coalition, 0.05)
"""Shares of the voters without whom the evidence must suffice; 0 trusts everybody."""


def adversaries(rounds: int) -> None:
    """A few users who flood the canary with votes for a candidate that is as good, or worse."""
    print("\ntrolls who always vote for the candidate, beside 40 honest users with 1000 votes: wrong promotions")
    shares = "  ".join(f"{f'and without {share:.0%}':>22}" for share in SHARES[1:])
    print(
        f"{'true win rate':>14}  {'trolls x votes':>14}  {'every vote counts':>22}  {'nobody far ahead':>22}  {shares}"
    )
    for target, trolls, each in (
        (0.5, 0, 0), (0.5, 1, 200), (0.5, 1, 1000), (0.5, 2, 300), (0.5, 3, 300), (0.5, 5, 300), (0.45, 3, 300), (0.45, 5, 300)
    ):  # fmt: skip
        hits: Counter[float | None] = Counter()
        for seed in range(rounds):
            rng = np.random.default_rng([seed, 11, trolls, each])
            votes = live(rng, Policies(rng, shift_for(target)), 1000, 40, trolls, each)
            anonymous = [replace(vote, user=str(index)) for index, vote in enumerate(votes)]
            hits[None] += trial(duels(anonymous, 0), 2000, 0.0)[0] == "promoted"
            said = duels(votes, 200, 5)
            for share in SHARES:
                hits[share] += trial(said, 2000, share)[0] == "promoted"
        cells = "  ".join(f"{rate(hits[share], rounds):>22}" for share in (None, *SHARES))
        print(f"{target:>14.0%}  {f'{trolls} x {each}':>14}  {cells}", flush=True)


def groups(rounds: int) -> None:
    """What it costs to convince without the keenest voters, by how many people vote."""
    limits = (200, 500, 1000)
    print(
        "\npower of the canary by number of voters, at a true 60 %, and wrong promotions where one of them is a troll"
    )
    heads = "  ".join(f"{f'{limit} votes':>22}" for limit in limits)
    print(f"{'voters':>7}  {'left out':>8}  {heads}  {'equal, with a troll':>22}")
    for users in (2, 3, 5, 10, 40, 200):
        hits: dict[float, Counter[int]] = {share: Counter() for share in SHARES}
        for seed in range(rounds):
            rng = np.random.default_rng([seed, 17, users])
            found = duels(live(rng, Policies(rng, shift_for(0.6)), 2500, users), 0, 2)
            trolled = duels(live(rng, Policies(rng, shift_for(0.5)), 1000, max(1, users - 1), 1, 1000), 0, 2)
            for share in SHARES:
                hits[share].update(dict(zip(limits, promoted_by(found, limits, share), strict=True)))
                hits[share][0] += trial(trolled, 1000, share)[0] == "promoted"
        for share in SHARES:
            cells = "  ".join(f"{rate(hits[share][limit], rounds):>22}" for limit in (*limits, 0))
            print(f"{users:>7}  {share:>8.0%}  {cells}", flush=True)


def recovery(rounds: int) -> None:
    """Poisoned rounds first, clean ones after: how long until the served model is at least as good as at the start."""
    print("\npoisoned votes in the first two rounds (training and held-out alike), clean ones after; up to 8 rounds")
    print(
        f"{'poisoned':>9}  {'gate alone: hurt':>22}  {'with canary: hurt':>22}  {'not worse after 3 more':>24}  median rounds to recover"
    )
    for poisoned in (0.2, 0.4, 0.6, 0.8):
        hurt, hurt_gate, fine, took = 0, 0, 0, []
        for seed in range(rounds):
            rng = np.random.default_rng([seed, 13, round(poisoned * 10)])
            quality, lowest, alone = 0.0, 0.0, 0.0
            recovered = None
            for turn in range(8):
                share = poisoned if turn < 2 else 0.0
                net = (1 - share) * (1 - 2 * NOISE) - share  # what the votes ask for, and training gives
                step = 0.6 * net + rng.normal(0, 0.1)
                both = Policies(rng, step)
                if gate_passes(rng, both, 96, share):
                    alone = min(alone, step) if turn < 2 else alone
                    live_votes = live(rng, both, 1500, 40)
                    if trial(duels(live_votes, 200, 5), 1000)[0] == "promoted":
                        quality += step
                lowest = min(lowest, quality)
                if turn >= 2 and recovered is None and quality >= 0:
                    recovered = turn - 1
                if turn == 4:
                    fine += quality >= 0
            hurt += lowest < 0
            hurt_gate += alone < 0
            took.append(recovered or 9)
        cells = "  ".join(f"{rate(hits, rounds):>22}" for hits in (hurt_gate, hurt))
        print(f"{poisoned:>9.0%}  {cells}  {rate(fine, rounds):>24}  {np.median(took):g}")


TABLES = {
    "rates": table, "budgets": budgets, "adversaries": adversaries, "groups": groups, "recovery": recovery,
}  # fmt: skip


def main() -> None:
    """Print the tables."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="20 rounds instead of 200")
    parser.add_argument("--rounds", type=int, default=200)
    parser.add_argument("--tables", nargs="+", choices=tuple(TABLES), default=list(TABLES))
    parser.add_argument("--real", action="store_true", help="also real rounds with a tiny model")
    parser.add_argument("--method", default="auto", help="of the real rounds: auto, dpo, kto, sft or grpo")
    parser.add_argument("--set", nargs="+", default=[], metavar="NAME=NUMBER", help="settings of the real rounds")
    parser.add_argument("--only-real", action="store_true")
    asked = parser.parse_args()
    rounds = 20 if asked.quick else asked.rounds
    if not asked.only_real:
        start = time.perf_counter()
        for name in asked.tables:
            TABLES[name](rounds)
        print(f"\n{time.perf_counter() - start:.0f} s")
    if asked.real or asked.only_real:
        from loop_real import real_rounds

        with tempfile.TemporaryDirectory() as folder:
            more = {name: float(value) for name, _, value in (one.partition("=") for one in asked.set)}
            real_rounds(Path(folder), 1 if asked.quick else 3, asked.method, **more)


if __name__ == "__main__":
    main()
