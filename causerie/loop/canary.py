"""The canary: a candidate that passed its gate answers a share of the conversations until live votes decide.

Which conversations is settled by a digest of their id, so a conversation keeps its version. Decided by the sequential
test of `sequential`: promoted when people prefer it, rolled back when they prefer the incumbent, laid aside when the
votes that were allowed for did not tell. Every step is in the audit log; a test that was decided stays decided.
"""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass
from typing import Any, Final, Literal

import numpy as np
from sqlalchemy import Connection, insert, select, update

from causerie.core import CauserieError, sha256_json
from causerie.hub import get_version, list_versions, promote, record_audit, refuse, retire, set_card
from causerie.loop.coalition import Voices, voices_of
from causerie.loop.config import CanaryConfig
from causerie.loop.duels import Duels, duels, live_votes
from causerie.loop.sequential import confidence_sequence, duels_left, log_evidence, log_evidence_path
from causerie.store import Store, canaries, new_id, now

Status = Literal["running", "promoted", "rolled_back", "undecided", "stopped"]

ACTOR: Final = "canary"
DAY: Final = 86_400.0


@dataclass(frozen=True)
class Canary:
    """A candidate on trial; `figures` are those of the last look."""

    id: str
    name: str
    incumbent: str
    candidate: str
    settings: CanaryConfig
    status: Status
    why: str
    figures: dict[str, Any]
    started: float
    ended: float | None

    def takes(self, conversation: str) -> bool:
        """Whether a conversation is among the candidate's share; always the same answer for the same conversation."""
        return int(sha256_json([self.id, conversation])[:12], 16) / 16**12 < self.settings.share

    def as_dict(self) -> dict[str, Any]:
        """The canary as plain JSON values."""
        return asdict(self)


@dataclass(frozen=True)
class Decision:
    """What the votes so far say: a status, why, and the figures."""

    status: Status
    why: str
    figures: dict[str, Any]


def start_canary(store: Store, candidate: str, settings: CanaryConfig, *, actor: str = ACTOR) -> Canary:
    """Let a registered candidate answer a share of the conversations of its name.

    Raises:
        CauserieError: CAU-5001 when it is not registered, CAU-5003 when it was refused, CAU-5105 when a canary runs
            for the name already, CAU-5106 for settings that cannot be.
    """
    settings.check()
    version = get_version(store, candidate)
    incumbent = get_version(store, version.name)
    if version.status == "refused":
        raise CauserieError("CAU-5003", f"{candidate} was refused", where="candidate", fix="choose another version")
    if version.ref == incumbent.ref:
        raise CauserieError("CAU-5106", f"{candidate} is promoted already", where="candidate", fix="nothing to do")
    canary = Canary(new_id("can"), version.name, incumbent.ref, version.ref, settings, "running", "", {}, now(), None)

    def work(connection: Connection) -> None:
        running = select(canaries.c.candidate).where(canaries.c.name == canary.name, canaries.c.status == "running")
        there = connection.execute(running).first()
        if there is not None:
            raise _under_way(canary.name, there.candidate)
        connection.execute(insert(canaries).values(**canary.as_dict()))

    store.transact(work)
    detail = {"canary": canary.id, "incumbent": incumbent.ref, **asdict(settings)}
    record_audit(store, actor, "canary", canary.candidate, detail)
    return canary


def running_canary(store: Store, name: str) -> Canary | None:
    """The canary of a name that runs, or None."""
    return next((canary for canary in list_canaries(store, name) if canary.status == "running"), None)


def list_canaries(store: Store, name: str = "") -> list[Canary]:
    """All canaries, of one name when given, newest first."""
    query = select(canaries).order_by(canaries.c.started.desc(), canaries.c.id)
    rows = store.read(query.where(canaries.c.name == name) if name else query)
    return [Canary(**{**row._asdict(), "settings": CanaryConfig(**row.settings)}) for row in rows]


def review_canary(store: Store, canary: Canary) -> Canary:
    """Look at the votes so far and act on them; returns the canary as it stands now.

    Looking as often as one likes is allowed: that is what the test is made for. Decided canaries are returned as
    they are.
    """
    if canary.status != "running":
        return canary
    serving = next((version.ref for version in list_versions(store, canary.name, status="promoted")), "none")
    if serving not in (canary.incumbent, canary.candidate):
        why = f"stopped: {serving} answers now instead of {canary.incumbent}"
        return _end(store, canary, Decision("stopped", why, canary.figures))
    numbers = [int(ref.rpartition("@")[2]) for ref in (canary.incumbent, canary.candidate)]
    votes = live_votes(store, canary.name, numbers[0], numbers[1], canary.started)
    found = duels(votes, canary.settings.max_per_user, canary.settings.min_people)
    decision = decide(found, canary.settings, days=(now() - canary.started) / DAY)
    if serving == canary.candidate and decision.status != "promoted":
        decision = Decision("stopped", f"stopped: {serving} was chosen by hand", decision.figures)
    if decision.status == "running":
        store.write(
            update(canaries)
            .where(canaries.c.id == canary.id, canaries.c.status == "running")
            .values(figures=decision.figures, why=decision.why)
        )
        return Canary(**{**vars(canary), "figures": decision.figures, "why": decision.why})
    return _end(store, canary, decision)


def stop_canary(store: Store, canary: Canary, reason: str) -> Canary:
    """End a canary by hand (or because its engine does not start): the incumbent answers everywhere again."""
    return _end(store, canary, Decision("stopped", f"stopped: {reason}", canary.figures))


def decide(found: Duels, settings: CanaryConfig, days: float = 0.0) -> Decision:
    """What a sequence of duels says: the first moment at which either side's evidence sufficed decides.

    Args:
        found: the duels in their order.
        settings: error rates and limits.
        days: how long the canary has run.
    """
    wins, losses = found.wins, found.losses
    settled = _first_decided(found, settings) if found.people >= settings.min_people else None
    figures = {**_figures(found, settings), "decided_after": settled}
    if settled is not None:
        won = sum(found.outcomes[:settled])
        told = _told(won, settled - won)
        if won * 2 > settled:
            return Decision("promoted", f"promoted: people preferred it, {told}", figures)
        return Decision("rolled_back", f"rolled back: people preferred the incumbent, {told}", figures)
    if wins + losses >= settings.max_duels or days >= settings.max_days:
        why = f"not enough evidence: {_told(wins, losses)} after {days:.1f} days; the incumbent stays"
        return Decision("undecided", why, figures)
    return Decision("running", f"on trial: {_told(wins, losses)}; {_lacking(figures)}", figures)


def _lacking(figures: dict[str, Any]) -> str:
    """What a trial still waits for, in words."""
    line = f"{figures['in_line']} votes wait until others have voted as much" if figures["in_line"] else ""
    if 1 < figures["people_needed"] > figures["people"]:
        voted = (
            f"{figures['people']} of the {figures['people_needed']} people have voted without whom nothing is decided"
        )
        return "; ".join(filter(None, (voted, line)))
    more = figures["missing"]
    told = "the votes lean to neither side"
    if more is not None:
        told = f"about {more} more decisive votes if they go on like this"
    if figures["wins"] > figures["losses"] and figures["evidence"] >= figures["needed"]:
        people, left_out = figures["people"], figures["left_out"]
        few = f"enough in all, but too much of it comes from few: not without the {left_out} of {people} people who"
        told = f"{few} spoke most for it" + ("" if more is None else f"; {told}")
    return "; ".join(filter(None, (told, line)))


def _first_decided(found: Duels, settings: CanaryConfig) -> int | None:
    """Duels after which either side's evidence sufficed for the first time; None when it never did.

    For the candidate it must suffice in whole and as `coalition.Voices` hears it; for the incumbent, whose return harms
    nobody, everybody's evidence is enough.
    """
    wins = np.cumsum(found.outcomes, dtype=int)
    losses = np.arange(1, len(wins) + 1) - wins
    better = log_evidence_path(wins, losses) >= math.log(1 / settings.alpha)
    worse = log_evidence_path(losses, wins) >= math.log(1 / settings.harm_alpha)
    voices = Voices(settings)
    for place in range(min(len(wins), settings.max_duels)):
        voices.hear(found.outcomes[place], found.voters[place])
        if place + 1 < settings.min_duels:
            continue
        if worse[place] or (better[place] and voices.evidence() >= voices.needed):
            return place + 1
    return None


def _told(wins: int, losses: int) -> str:
    if wins + losses == 0:
        return "no decisive vote yet"
    low, high = confidence_sequence(wins, losses)
    return f"{wins} of {wins + losses} decisive votes (win rate {low:.0%} to {high:.0%} at all times together)"


def _figures(found: Duels, settings: CanaryConfig) -> dict[str, Any]:
    wins, losses = found.wins, found.losses
    low, high = confidence_sequence(wins, losses)
    voices = voices_of(found, settings)
    heard = min(voices.evidence(), log_evidence(wins, losses))
    return {
        "wins": wins,
        "losses": losses,
        "ties": found.ties,
        "waiting": found.waiting,
        "people": found.people,
        "people_needed": settings.min_people,
        "over_cap": found.over_cap,
        "in_line": found.in_line,
        "choices": found.choices,
        "thumbs": found.thumbs,
        "win_rate_low": round(low, 4),
        "win_rate_high": round(high, 4),
        "evidence": _ratio(log_evidence(wins, losses)),
        "evidence_without_keenest": _ratio(heard),
        "left_out": voices.left_out,
        "evidence_of_harm": _ratio(log_evidence(losses, wins)),
        "needed": round(1 / settings.alpha, 3),
        "missing": _missing(found, heard, voices.needed, settings),
    }


def _ratio(evidence: float) -> float:
    return round(math.exp(min(evidence, 50.0)), 3)


def _missing(found: Duels, heard: float, needed: float, settings: CanaryConfig) -> int | None:
    """About how many more duels decide for the side that leads, if they go on like this.

    Where all the votes would do but not without the keenest voters, their evidence is taken to grow evenly.
    """
    ahead = found.wins > found.losses
    alpha = settings.alpha if ahead else settings.harm_alpha
    missing = duels_left(max(found.wins, found.losses), min(found.wins, found.losses), alpha)
    duels = found.wins + found.losses
    if missing == 0 and ahead and heard < needed:
        missing = math.ceil(duels * (needed / heard - 1)) if heard > needed / 20 else None
    return None if missing is None else max(missing, settings.min_duels - duels)


def _end(store: Store, canary: Canary, decision: Decision) -> Canary:
    """Settle the registry first, then the canary: killed between the two, the next look does the same again."""
    if decision.status == "promoted":
        promote(store, canary.candidate, actor=ACTOR, reason=decision.why)
    elif get_version(store, canary.candidate).status == "candidate":
        leave = refuse if decision.status == "rolled_back" else retire
        leave(store, canary.candidate, actor=ACTOR, reason=decision.why)
    moment = now()
    values = {"status": decision.status, "why": decision.why, "figures": decision.figures, "ended": moment}
    ended = update(canaries).where(canaries.c.id == canary.id, canaries.c.status == "running").values(**values)
    if store.write(ended):
        shown = {"status": decision.status, "why": decision.why, **decision.figures}
        set_card(store, canary.candidate, {"canary": shown}, actor=ACTOR)
        record_audit(store, ACTOR, f"canary {decision.status}", canary.candidate, {"canary": canary.id, **shown})
    return Canary(**{**vars(canary), **values})


def _under_way(name: str, candidate: str) -> CauserieError:
    return CauserieError(
        "CAU-5105",
        f"{candidate} is on trial with a share of the conversations",
        where=name,
        fix="wait for its votes, or end it: causerie canary stop " + name,
    )


def need_no_canary(store: Store, name: str) -> None:
    """Look at the canary of a name.

    Raises:
        CauserieError: CAU-5105 when it is still undecided.
    """
    canary = running_canary(store, name)
    if canary is not None and review_canary(store, canary).status == "running":
        raise _under_way(name, canary.candidate)
