"""Metrics of the process in Prometheus' text format, written by hand: counters, gauges and two histograms."""

from __future__ import annotations

from bisect import bisect_left
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from causerie.serve.metering import Meter

CONTENT_TYPE: Final = "text/plain; version=0.0.4; charset=utf-8"
SECONDS: Final = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0)
"""Upper ends of the histograms' buckets."""


@dataclass
class Histogram:
    """Counts of seconds by bucket."""

    counts: list[int] = field(default_factory=lambda: [0] * (len(SECONDS) + 1))
    total: float = 0.0

    def add(self, seconds: float) -> None:
        """Count one."""
        self.counts[bisect_left(SECONDS, seconds)] += 1
        self.total += seconds


@dataclass
class Tally:
    """What a process counts from its start on; labels are few: routes as declared, served models, statuses."""

    requests: Counter[tuple[str, int]] = field(default_factory=Counter)
    """Answers drawn, by route and status."""
    tokens: Counter[tuple[str, str]] = field(default_factory=Counter)
    """Tokens by model and kind: prompt, cached, completion."""
    latency: defaultdict[str, Histogram] = field(default_factory=lambda: defaultdict(Histogram))
    first: defaultdict[str, Histogram] = field(default_factory=lambda: defaultdict(Histogram))
    failures: Counter[int] = field(default_factory=Counter)
    """Requests of any kind that were refused or failed, by status."""

    def answered(self, meter: Meter, seconds: float) -> None:
        """Count a request that reached an engine."""
        self.requests[meter.route, meter.status] += 1
        self.latency[meter.route].add(seconds)
        if meter.first is not None:
            self.first[meter.route].add(meter.first)
        model = meter.version.label if meter.version else "none"
        self.tokens[model, "prompt"] += meter.prompt_tokens
        self.tokens[model, "cached"] += meter.cached_tokens
        self.tokens[model, "completion"] += meter.completion_tokens


def exposition(tally: Tally, gauges: Mapping[str, tuple[str, Iterable[tuple[Mapping[str, str], float]]]]) -> str:
    """The text that Prometheus reads.

    Args:
        tally: the counters.
        gauges: for each name what it is, and its values with their labels.
    """
    lines: list[str] = []

    def family(name: str, kind: str, help: str, rows: Iterable[tuple[str, Mapping[str, str], float]]) -> None:
        lines.extend((f"# HELP causerie_{name} {help}", f"# TYPE causerie_{name} {kind}"))
        lines.extend(f"causerie_{name}{suffix}{_labels(labels)} {value:.10g}" for suffix, labels, value in rows)

    requests = [("", {"route": route, "status": str(status)}, n) for (route, status), n in tally.requests.items()]
    family("requests_total", "counter", "Requests that reached an engine.", requests)
    tokens = [("", {"model": model, "kind": kind}, n) for (model, kind), n in tally.tokens.items()]
    family("tokens_total", "counter", "Tokens read and drawn.", tokens)
    failures = [("", {"status": str(status)}, n) for status, n in tally.failures.items()]
    family("refusals_total", "counter", "Requests refused or failed.", failures)
    family("request_seconds", "histogram", "Seconds to the last token.", _histograms(tally.latency))
    family("first_token_seconds", "histogram", "Seconds to the first token.", _histograms(tally.first))
    for name, (help, values) in gauges.items():
        family(name, "gauge", help, (("", labels, value) for labels, value in values))
    return "\n".join(lines) + "\n"


def _histograms(found: Mapping[str, Histogram]) -> Iterable[tuple[str, Mapping[str, str], float]]:
    for route, histogram in found.items():
        total = 0
        for bound, count in zip((*SECONDS, float("inf")), histogram.counts, strict=True):
            total += count
            yield "_bucket", {"route": route, "le": "+Inf" if bound == float("inf") else f"{bound:g}"}, total
        yield "_sum", {"route": route}, histogram.total
        yield "_count", {"route": route}, total


def _labels(labels: Mapping[str, str]) -> str:
    if not labels:
        return ""
    return "{" + ",".join(f'{name}="{_escaped(value)}"' for name, value in labels.items()) + "}"


def _escaped(value: str) -> str:
    return value.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n")
