"""Our curation as a datatrove pipeline step; imported only where datatrove is installed (extra `cluster`)."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from datatrove.pipeline.base import PipelineStep

from causerie.data.cluster import curate_task


class CurationStep(PipelineStep):
    """Curates the units of its rank and writes their batches into the plan's folder."""

    name = "causerie curation"
    type = "READER"

    def __init__(self, plan: str) -> None:
        super().__init__()
        self.plan = plan

    def run(self, data: Any, rank: int = 0, world_size: int = 1) -> Any:
        """datatrove's entry point; passes on whatever documents came in."""
        yield from data or ()
        for count in curate_task(Path(self.plan), rank, world_size):
            self.stat_update("documents", value=count)
