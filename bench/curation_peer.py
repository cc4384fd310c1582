"""The datatrove half of `bench/curation.py`; runs in an environment that has datatrove, not ours.

PEER_PYTHON bench/curation_peer.py FOLDER_OF_WARCS OUT WORKERS
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

from datatrove.executor import LocalPipelineExecutor
from datatrove.pipeline.dedup import (
    MinhashConfig,
    MinhashDedupBuckets,
    MinhashDedupCluster,
    MinhashDedupFilter,
    MinhashDedupSignature,
)
from datatrove.pipeline.extractors import Trafilatura
from datatrove.pipeline.filters import (
    C4QualityFilter,
    FineWebQualityFilter,
    GopherQualityFilter,
    GopherRepetitionFilter,
)
from datatrove.pipeline.filters.base_filter import BaseFilter
from datatrove.pipeline.readers import JsonlReader, WarcReader
from datatrove.pipeline.writers import JsonlWriter


class EnglishOrFrench(BaseFilter):
    """datatrove's language filter downloads its model; the same detector as on the other side stands in for it."""

    name = "py3langid"

    def filter(self, doc: Any) -> bool | tuple[bool, str]:
        from py3langid.langid import MODEL_FILE, LanguageIdentifier

        if not hasattr(self, "_model"):
            self._model = LanguageIdentifier.from_model_file(MODEL_FILE, norm_probs=True)
        language, share = self._model.classify(doc.text)
        return language in ("en", "fr") and share >= 0.65


def main(source: str, out: Path, workers: int) -> None:
    tasks = len(list(Path(source).glob("*.warc.gz")))

    def run(name: str, steps: list[Any], count: int) -> None:
        LocalPipelineExecutor(
            steps, tasks=count, workers=min(workers, count), logging_dir=str(out / "logs" / name)
        ).run()

    kept = str(out / "kept")
    run(
        "curate",
        [
            WarcReader(source, glob_pattern="*.warc.gz"),
            Trafilatura(favour_precision=True, timeout=10),
            EnglishOrFrench(),
            GopherRepetitionFilter(),
            GopherQualityFilter(),
            C4QualityFilter(filter_no_terminal_punct=False),
            FineWebQualityFilter(),
            JsonlWriter(kept),
        ],
        tasks,
    )
    config = MinhashConfig()
    config.num_buckets, config.hashes_per_bucket, config.n_grams = 14, 8, 5
    marks = [str(out / name) for name in ("signatures", "buckets", "remove")]
    run("sign", [JsonlReader(kept), MinhashDedupSignature(output_folder=marks[0], config=config)], tasks)
    run("bands", [MinhashDedupBuckets(marks[0], marks[1], config=config)], config.num_buckets)
    run("cluster", [MinhashDedupCluster(marks[1], marks[2], config=config)], 1)
    run("filter", [JsonlReader(kept), MinhashDedupFilter(marks[2]), JsonlWriter(str(out / "final"))], tasks)


if __name__ == "__main__":
    main(sys.argv[1], Path(sys.argv[2]), int(sys.argv[3]))
