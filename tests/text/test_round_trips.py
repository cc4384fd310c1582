"""Any text, any vocabulary: bytes come back, packed sources give the same texts, nothing that breaks off is silent."""

from __future__ import annotations

import gzip
import json
from pathlib import Path

import pytest
import zstandard
from hypothesis import given, settings
from hypothesis import strategies as st

from causerie.core import CauserieError
from causerie.text import StopStrings, StreamDecoder, Tokenizer, chat_format, train_bpe
from causerie.text.bytelevel import byte_alphabet, from_definition, to_definition
from causerie.text.sources import interleave, iter_texts

ROWS = [{"text": f"text {n} é\u2028 fin"} for n in range(9)]
PACKERS = {".jsonl": bytes, ".jsonl.gz": gzip.compress, ".jsonl.zst": zstandard.compress}


def lines(rows: list[dict]) -> bytes:
    return "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows).encode()


@pytest.mark.parametrize("ending", PACKERS)
def test_packed_files_give_the_same_texts_in_any_number_of_pieces(tmp_path: Path, ending: str) -> None:
    path = tmp_path / f"x{ending}"
    path.write_bytes(b"".join(PACKERS[ending](lines([row])) for row in ROWS))
    assert list(iter_texts(path)) == [row["text"] for row in ROWS]


@pytest.mark.parametrize("ending", [".jsonl.gz", ".jsonl.zst"])
def test_a_packed_file_that_breaks_off_between_two_lines_is_told(tmp_path: Path, ending: str) -> None:
    """The rows that can be read are whole; only the packing says that more should follow."""
    path = tmp_path / f"x{ending}"
    path.write_bytes(PACKERS[ending](lines(ROWS) * 400)[:-5])
    found = []
    with pytest.raises(CauserieError, match="breaks off") as caught:
        found.extend(iter_texts(path))
    assert caught.value.code == "CAU-1203"


@settings(max_examples=25, deadline=None)
@given(
    texts=st.lists(st.text(min_size=1, max_size=60), min_size=1, max_size=8),
    size=st.integers(272, 400),
    probe=st.text(max_size=80),
)
def test_a_vocabulary_of_any_text_writes_every_text(texts: list[str], size: int, probe: str) -> None:
    made = train_bpe(texts, size)
    assert made.vocab_size <= size
    clean = probe.encode("utf-8", "replace").decode()
    ids = made.encode(clean)
    assert made.decode_bytes(ids) == clean.encode()
    assert max(ids, default=0) < made.vocab_size - len(made.special)
    decoder = StreamDecoder(made)
    assert "".join(decoder.push([number]) for number in ids) + decoder.finish() == clean
    ranks = from_definition(made.definition)
    assert ranks is not None
    assert to_definition(ranks)["model"] == made.definition["model"]


def test_the_alphabet_of_bytes_is_gpt_2s() -> None:
    """Printable characters stand for themselves, the 68 others for those from U+0100 on."""
    letters = byte_alphabet()
    assert len(set(letters)) == 256
    assert all(letters[byte] == chr(byte) for byte in range(33, 127))
    assert letters[0] == "Ā"
    assert (letters[32], letters[10]) == ("Ġ", "Ċ")
    assert sum(ord(letter) > 255 for letter in letters) == 68


@settings(max_examples=50)
@given(counts=st.lists(st.integers(0, 6), min_size=1, max_size=4), limit=st.integers(0, 60))
def test_sources_take_turns_until_the_limit(
    tmp_path_factory: pytest.TempPathFactory, counts: list[int], limit: int
) -> None:
    folder = tmp_path_factory.mktemp("s")
    files = []
    for number, count in enumerate(counts):
        files.append(folder / f"{number}.jsonl")
        files[-1].write_bytes(lines([{"text": f"{number}:{row}"} for row in range(count)]))
    given_ = list(interleave(files, limit))
    turns = [f"{number}:{row}" for row in range(7) for number, count in enumerate(counts) if row < count]
    size, expected = 0, []
    for text in turns:
        expected.append(text)
        size += len(text)
        if limit and size >= limit:
            break
    assert given_ == expected


MESSAGES = st.lists(
    st.fixed_dictionaries({"role": st.sampled_from(["user", "assistant"]), "content": st.text(max_size=30)}), max_size=6
)


@pytest.mark.parametrize("name", ["chatml"])
@settings(max_examples=50, deadline=None)
@given(messages=MESSAGES)
def test_training_counts_each_answer_and_its_end_and_nothing_else(
    name: str, messages: list[dict], tokenizer: Tokenizer
) -> None:
    made = chat_format(tokenizer, name).render(messages)
    assert len(made.ids) == len(made.mask)
    counted = [number for number, mask in zip(made.ids, made.mask, strict=True) if mask]
    answers = [m["content"].strip() for m in messages if m["role"] == "assistant"]
    end = tokenizer.special["<|im_end|>"]
    assert counted.count(end) == len(answers)
    spoken = [[*tokenizer.encode(answer), end] for answer in answers]
    assert counted == [number for ids in spoken for number in ids]


@settings(max_examples=80)
@given(
    st.lists(st.text(alphabet="ab\n", min_size=1, max_size=3), min_size=1, max_size=3),
    st.lists(st.text(alphabet="ab\n", max_size=4), max_size=8),
)
def test_stop_strings_cut_at_the_first_whichever_way_the_text_comes(stops: list[str], pieces: list[str]) -> None:
    whole = "".join(pieces)
    places = [place for stop in stops if (place := whole.find(stop)) >= 0]
    cutter = StopStrings(stops)
    shown = "".join(map(cutter.push, pieces)) + cutter.finish()
    assert cutter.stopped == bool(places)
    if not places:
        assert shown == whole
    else:
        assert whole.startswith(shown)
        assert not any(stop in shown for stop in stops)
