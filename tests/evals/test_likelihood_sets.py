from __future__ import annotations

import gzip
import json
import zipfile
from pathlib import Path

import pytest

from causerie.core import CauserieError, data_pack
from causerie.evals.likelihood_sets import read_public_set


def _zip(path: Path, files: dict[str, str]) -> Path:
    with zipfile.ZipFile(path, "w") as archive:
        for name, text in files.items():
            archive.writestr(name, text)
    return path


def test_blimp_pairs_a_good_sentence_with_a_bad_one(tmp_path: Path) -> None:
    row = {"sentence_good": "She sleeps.", "sentence_bad": "She sleep.", "UID": "agreement", "pairID": "3"}
    found = read_public_set(_zip(tmp_path / "blimp_jsonl.zip", {"agreement.jsonl": json.dumps(row) + "\n"}))
    assert found is not None
    name, (question,) = found
    assert name == "blimp"
    assert (question.id, question.endings, question.answer) == ("agreement/3", (" She sleeps.", " She sleep."), 0)
    assert question.contexts == ("", "")


def test_mmlu_shows_lettered_choices_and_scores_the_letter(tmp_path: Path) -> None:
    text = '"Two, and two?",3,4,5,6,B\n'
    found = read_public_set(
        _zip(tmp_path / "mmlu_csv.zip", {"mmlu/test/school_maths_test.csv": text, "mmlu/dev/x_dev.csv": text})
    )
    assert found is not None
    name, (question,) = found
    assert name == "mmlu"
    assert question.contexts[0].endswith("about school maths.\n\nTwo, and two?\nA. 3\nB. 4\nC. 5\nD. 6\nAnswer:")
    assert question.endings[question.answer] == " B"


def test_hellaswag_requests_become_one_question_each(tmp_path: Path) -> None:
    folder = tmp_path / "hellaswag"
    folder.mkdir()
    doc = {"ind": 7, "query": "She opens the door and", "choices": ["a", "b", "c", "d"], "gold": 2}
    path = folder / "requests.jsonl.gz"
    with gzip.open(path, "wt") as file:
        for _ in range(4):
            file.write(json.dumps({"doc": doc}) + "\n")
    found = read_public_set(path)
    assert found is not None
    name, (question,) = found
    assert (name, question.id, question.answer, question.endings[2]) == ("hellaswag", "7", 2, " c")


def test_other_files_are_left_to_other_readers_and_broken_ones_are_named(tmp_path: Path) -> None:
    assert read_public_set(tmp_path / "questions.jsonl") is None
    broken = tmp_path / "blimp.zip"
    broken.write_bytes(b"not a zip")
    with pytest.raises(CauserieError) as caught:
        read_public_set(broken)
    assert caught.value.code == "CAU-4204"
    assert "blimp.zip" in caught.value.where
    with pytest.raises(CauserieError):
        read_public_set(_zip(tmp_path / "mmlu.zip", {"x_test.csv": "a question,only,three,B\n"}))


@pytest.mark.skipif(data_pack() is None, reason="the data pack is not there")
def test_the_sets_of_the_data_pack() -> None:
    pack = data_pack()
    assert pack is not None
    for name, wanted, chance in (("blimp_jsonl.zip", 67_000, 2), ("mmlu_csv.zip", 14_042, 4)):
        found = read_public_set(pack / "eval" / name)
        assert found is not None
        assert len(found[1]) == wanted
        assert {len(question.endings) for question in found[1]} == {chance}
