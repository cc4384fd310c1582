"""Configurations of the data commands: plain values, documented field by field; no heavy imports here."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Literal


@dataclass(frozen=True)
class DataBuildConfig:
    """`causerie data build`: pages → a curated corpus, and what was dropped why."""

    sources: tuple[str, ...] = ()
    """Files, folders or globs: WARC, WET, ARC, HTML, JSONL, Parquet, text; plain, gzip or zstd; `-` for stdin."""
    out: Path | None = None
    """Folder for the corpus; by default it goes to the workspace."""
    name: str = "corpus"
    """Name of the corpus in the workspace."""
    sample: float = 1.0
    """Share of the documents that is read at all, chosen by a hash of their address: for trying things out."""
    languages: tuple[str, ...] = ("en", "fr")
    """Languages kept, ISO 639-1; none given: every language."""
    min_language_share: float = 0.65
    """Least share of a text in its main language, by characters and confidence (FineWeb: 0.65)."""
    extractor: Literal["auto", "union", "trafilatura", "resiliparse", "justext"] = "auto"
    """Who reads HTML: the cheapest that suffices (auto); also the others when the filters drop that reading (union);
    or one alone."""
    page_memory_mb: int = 2_000
    """Memory a worker may take for a page, megabytes; a page that needs more is dropped and counted."""
    page_seconds: float = 10.0
    """CPU seconds a page may take; the worker of a page that takes longer is killed and the page counted."""
    max_page_bytes: int = 10_000_000
    """Larger pages are dropped unread."""
    mask_personal: bool = True
    """Replace e-mail, telephone, public IP, bank account (IBAN) and French NIR numbers by example ones."""
    quality_model: Path | None = None
    """Folder of a model made by `data quality train`; its score of every document goes to the ledger."""
    min_quality: float = 0.0
    """Least score that it must give, 0 to 1; without a model every document has 1."""
    min_words: int = 50
    """Least number of words (Gopher: 50)."""
    max_words: int = 100_000
    """Largest number of words (Gopher: 100,000)."""
    min_word_length: float = 3.0
    """Least mean length of a word, letters (Gopher: 3)."""
    max_word_length: float = 10.0
    """Largest mean length of a word, letters (Gopher: 10)."""
    max_symbol_ratio: float = 0.1
    """Largest number of hash signs and ellipses per word (Gopher: 0.1)."""
    max_bullet_lines: float = 0.9
    """Largest share of lines that start with a bullet (Gopher: 0.9)."""
    max_ellipsis_lines: float = 0.3
    """Largest share of lines that end in an ellipsis (Gopher: 0.3)."""
    min_alphabetic_words: float = 0.8
    """Least share of tokens with a letter (Gopher: 0.8)."""
    min_stop_words: int = 2
    """Least number of different stop words, asked of English and French texts (Gopher: 2)."""
    min_sentences: int = 3
    """Least number of sentences (C4: 3)."""
    max_curly_brackets: float = 0.01
    """Largest share of characters that are curly brackets."""
    min_terminal_lines: float = 0.12
    """Least share of lines that end like a sentence (FineWeb: 0.12)."""
    max_short_lines: float = 0.67
    """Largest share of lines under 30 characters (FineWeb: 0.67)."""
    max_lines_per_word: float = 0.3
    """Most lines for each word (FineWeb: 0.3)."""
    max_repeated_lines: float = 0.3
    """Largest share of lines, or of paragraphs, that occurred before in the text."""
    max_repeated_characters: float = 0.2
    """Largest share of characters in such lines or paragraphs."""
    max_top_ngrams: tuple[float, ...] = (0.2, 0.18, 0.16)
    """Largest share of characters in the most frequent run of 2, 3 and 4 words."""
    max_repeated_ngrams: tuple[float, ...] = (0.15, 0.14, 0.13, 0.12, 0.11, 0.10)
    """Largest share of characters in repeated runs of 5, 6, 7, 8, 9 and 10 words."""
    dedup_threshold: float = 0.6
    """Jaccard similarity of 5-word shingles from which a document is a near duplicate of an earlier one."""
    dedup_words: float = 0.88
    """Share of words in common from which it is one too, when the shingles' similarity is 0.35 at least; 1.01: off.

    With it 99 in 100 planted copies with 5 % of their words changed are found, without it 72."""
    dedup_contained: float = 0.9
    """Share of a document's shingles in an earlier one from which it counts as a part of it; 1.01: off."""
    dedup_memory_mb: int = 256
    """Memory for finding duplicates, megabytes; what does not fit is sorted on disk."""
    after: tuple[Path, ...] = ()
    """Earlier corpora: what they hold already is a duplicate here, and is not read again."""
    without: Path | None = None
    """A file with addresses, one a line, of pages to leave out: of their text nothing is kept."""
    boilerplate_pages: int = 6
    """Lines that stand on so many different pages of one site are cut from all of them; 0: none."""
    keep_dropped: bool = True
    """Keep the text of dropped documents beside the corpus, so that `data refilter` can move thresholds."""
    weights: tuple[float, ...] = ()
    """One weight per source, in their order: the share of training rows that `data pack` gives each; none: by size."""
    decontaminate: tuple[Path, ...] = ()
    """Evaluation files (JSONL, JSON, CSV, Parquet, text); documents that share a run of words with them are dropped."""
    decontaminate_ngram: int = 13
    """Length of such a run, words."""
    workers: int = 0
    """Worker processes; 0 takes as many as there are cores, two at most."""
    batch_documents: int = 64
    """Documents between two points from which a stopped build goes on."""
    engine: Literal["local", "cluster"] = "local"
    """Who curates: worker processes of this machine, or datatrove's executors (`pip install causerie[cluster]`)."""
    tasks: int = 2
    """Tasks that the cluster engine cuts the files into."""


@dataclass(frozen=True)
class PackConfig:
    """Pack a corpus into token shards for training."""

    corpus: Path
    """Corpus folder, made by `data build`."""
    tokenizer: Path
    """Tokenizer folder."""
    out: Path | None = None
    """Folder for the shards; by default they go to the workspace."""
    name: str = "shards"
    """Name of the shards in the workspace."""
    more: tuple[Path, ...] = ()
    """Further corpora, packed together with the first."""
    weights: tuple[float, ...] = ()
    """One weight per corpus: the share of training rows from each; none: as large as they are."""
    val_fraction: float = 0.02
    """Share of documents held out for validation, chosen by a hash of their text."""
    shard_tokens: int = 100_000_000
    """Tokens in a shard file, at most (a document is never cut between shards)."""
    seed: int = 0
    """Seed of the choice of held-out documents."""
