"""The learned judge of quality: its statistics against scipy and closed forms, its files, its place in a build."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from scipy.stats import mannwhitneyu

from causerie.core import CauserieError
from causerie.data import DataBuildConfig, QualityTrainConfig, build, read_ledger, train_quality
from causerie.data.filters import view
from causerie.data.quality import WEIGHTS_FILE, HashedLinear, auc, features, fit, load_quality, save_quality


def lines(path: Path, texts: list[str]) -> str:
    path.write_text("".join(json.dumps({"text": text}) + "\n" for text in texts))
    return str(path)


def junk(number: int) -> str:
    words = ("click", "here", "login", "cart", "menu", "next", "home", "subscribe", "cookies", "accept")
    return " ".join(words[(number * 7 + place * place) % 10] for place in range(60 + number % 9))


@pytest.fixture
def model(tmp_path: Path, make_prose) -> Path:
    good = lines(tmp_path / "good.jsonl", [make_prose(n, lang) for n in range(60) for lang in ("en", "fr")])
    bad = lines(tmp_path / "bad.jsonl", [junk(n) for n in range(100)])
    config = QualityTrainConfig(good=(good,), bad=(bad,), out=tmp_path / "quality", bits=12)
    return train_quality(config, tmp_path / "ws").path


@pytest.mark.parametrize("ties", [False, True])
def test_auc_is_mann_and_whitneys(ties: bool) -> None:
    chance = np.random.default_rng(0)
    labels = (chance.random(300) < 0.4).astype(float)
    scores = chance.normal(size=300) + labels
    scores = scores.round() if ties else scores
    expected = mannwhitneyu(scores[labels > 0.5], scores[labels < 0.5]).statistic
    area, error = auc(scores, labels)
    assert area == pytest.approx(expected / (labels.sum() * (300 - labels.sum())))
    resampled = []
    for _ in range(300):
        chosen = chance.integers(0, 300, 300)
        resampled.append(auc(scores[chosen], labels[chosen])[0])
    assert error == pytest.approx(np.std(resampled), rel=0.25)


def test_auc_at_its_ends() -> None:
    assert auc(np.array([0.0, 1.0]), np.array([0.0, 1.0]))[0] == 1.0
    assert auc(np.array([1.0, 1.0]), np.array([0.0, 1.0]))[0] == 0.5
    assert np.isnan(auc(np.array([1.0]), np.array([1.0]))[0])


def test_features_are_of_length_one_and_know_word_order() -> None:
    one, two = (features(view(text).hashes, 16) for text in ("a b c d", "d c b a"))
    assert np.dot(one[1], one[1]) == pytest.approx(1.0)
    assert len(one[0]) == 7
    assert set(one[0]) != set(two[0])
    assert len(features(view("").hashes, 16)[0]) == 0


def test_score_is_the_logistic_sum() -> None:
    seen = view("one two two")
    buckets, values = features(seen.hashes, 10)
    weights = np.zeros(1024, np.float32)
    weights[buckets] = np.arange(1, len(buckets) + 1)
    expected = 1 / (1 + np.exp(-(np.dot(np.arange(1, len(buckets) + 1), values) - 0.5)))
    assert HashedLinear(weights, -0.5).score(seen) == pytest.approx(expected, rel=1e-6)
    assert HashedLinear(weights, -0.5).score(view("")) == pytest.approx(1 / (1 + np.exp(0.5)))


def test_training_is_the_same_to_the_bit_and_minds_the_seed() -> None:
    rows = [features(view(f"{word} {n}").hashes, 10) for n in range(200) for word in ("yes", "no")]
    labels = np.array([1.0, 0.0] * 200)
    one, two, other = (fit(rows, labels, bits=10, epochs=2, seed=seed) for seed in (0, 0, 1))
    assert np.array_equal(one.weights, two.weights)
    assert not np.array_equal(one.weights, other.weights)
    assert one.score(view("yes 99")) > 0.6 > 0.4 > one.score(view("no 99"))


def test_unequal_classes_do_not_move_the_middle() -> None:
    rows = [features(view(word).hashes, 8) for word in ["yes"] * 90 + ["no"] * 10]
    model = fit(rows, np.array([1.0] * 90 + [0.0] * 10), bits=8, epochs=20, seed=0)
    assert model.score(view("yes")) == pytest.approx(1 - model.score(view("no")), abs=0.1)


def test_it_tells_prose_from_menus_it_never_saw(model: Path, make_prose) -> None:
    judge = load_quality(str(model))
    assert min(judge.score(view(make_prose(n, "fr"))) for n in range(900, 920)) > 0.5
    assert max(judge.score(view(junk(n))) for n in range(900, 920)) < 0.5


def test_the_same_documents_give_the_same_model_without_training_again(model: Path, tmp_path: Path) -> None:
    config = QualityTrainConfig(
        good=(str(tmp_path / "good.jsonl"),), bad=(str(tmp_path / "bad.jsonl"),), out=tmp_path / "quality", bits=12
    )
    before = (model / WEIGHTS_FILE).stat().st_mtime_ns
    again = train_quality(config, tmp_path / "ws")
    assert (model / WEIGHTS_FILE).stat().st_mtime_ns == before
    figures = again.manifest.metrics
    assert (figures["documents_good"], figures["documents_bad"]) == (120, 100)
    assert figures["held_out"]["all"]["auc"] > 0.99
    assert set(figures["held_out"]) >= {"all", "en", "fr"} - {"fr", "en"}


def test_a_build_writes_the_score_and_drops_below_the_threshold(model: Path, tmp_path: Path, make_prose) -> None:
    texts = [make_prose(n) for n in range(200, 206)] + [junk(n) + "." for n in range(300, 303)]
    source = lines(tmp_path / "mixed.jsonl", texts)
    loose = {"max_top_ngrams": (1.0,) * 3, "max_repeated_ngrams": (1.0,) * 6, "min_sentences": 0, "min_stop_words": 0}
    config = DataBuildConfig(
        sources=(source,),
        out=tmp_path / "corpus",
        quality_model=model,
        min_quality=0.5,
        workers=1,
        languages=(),
        **loose,
    )
    rows = read_ledger(build(config, tmp_path / "ws").path).to_pylist()
    assert [row["quality"] > 0.5 for row in rows] == [True] * 6 + [False] * 3
    assert ["low_quality" in row["failed"] for row in rows] == [False] * 6 + [True] * 3


def test_too_few_documents_and_odd_values_are_refused(tmp_path: Path, make_prose) -> None:
    good = lines(tmp_path / "good.jsonl", [make_prose(n) for n in range(30)])
    bad = lines(tmp_path / "bad.jsonl", ["menu"] * 3)
    with pytest.raises(CauserieError, match="CAU-2013"):
        train_quality(QualityTrainConfig(good=(good,), bad=(bad,)), tmp_path / "ws")
    for given in ({"good": ()}, {"bits": 30}, {"holdout": 1.0}, {"epochs": 0}):
        with pytest.raises(CauserieError, match="CAU-2003"):
            train_quality(QualityTrainConfig(**{"good": (good,), "bad": (bad,), **given}), tmp_path / "ws")


def test_damaged_models_are_refused(tmp_path: Path) -> None:
    with pytest.raises(CauserieError, match="CAU-2012"):
        load_quality(str(tmp_path))
    (tmp_path / WEIGHTS_FILE).write_bytes(b"{}")
    with pytest.raises(CauserieError, match="CAU-2012"):
        load_quality(str(tmp_path))
    save_quality(HashedLinear(np.full(256, np.nan, np.float32), 0.0), tmp_path)
    with pytest.raises(CauserieError, match="damaged"):
        load_quality(str(tmp_path))
