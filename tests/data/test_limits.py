"""What a build may be told: every number has its bounds, and what is refused is refused before any page is read."""

from __future__ import annotations

import json
import math
from dataclasses import fields, replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from causerie.core import CauserieError
from causerie.data import DataBuildConfig, build
from causerie.data.config_json import config_from_json
from causerie.data.limits import BOUNDS, LENGTHS, check_values, check_weights
from causerie.data.sources import find_sources, named_path

PLAIN = DataBuildConfig(sources=("x",))
NUMBERS = [
    item.name
    for item in fields(DataBuildConfig)
    if isinstance(item.default, int | float) and not isinstance(item.default, bool)
]
BAD: dict[str, Any] = {"nan": math.nan, "inf": math.inf, "-inf": -math.inf, "-1": -1, "-0.001": -0.001}


@pytest.mark.parametrize("name", NUMBERS)
@pytest.mark.parametrize("value", BAD.values(), ids=BAD)
def test_no_number_is_nan_endless_or_below_zero(name: str, value: float) -> None:
    check_values(PLAIN)
    with pytest.raises(CauserieError) as caught:
        check_values(replace(PLAIN, **{name: value}))
    assert (caught.value.code, caught.value.where) == ("CAU-2003", f"--{name.replace('_', '-')}")
    assert caught.value.fix


@pytest.mark.parametrize("name", BOUNDS)
def test_bounds_belong_and_their_neighbours_do_not(name: str) -> None:
    least, most = BOUNDS[name]
    for value in (least, most):
        check_values(replace(PLAIN, **{name: value}))
    for value in (0, most * 2):
        with pytest.raises(CauserieError):
            check_values(replace(PLAIN, **{name: value}))


@pytest.mark.parametrize(("name", "needed"), LENGTHS.items())
@given(values=st.lists(st.floats(0, 1), max_size=9))
@settings(deadline=None)
def test_lists_of_shares_have_their_length(name: str, needed: int, values: list[float]) -> None:
    config = replace(PLAIN, **{name: tuple(values)})
    if len(values) == needed:
        check_values(config)
        check_values(config_from_json(json.loads(json.dumps({name: values}))))
    else:
        with pytest.raises(CauserieError, match=f"{len(values)} values where {needed}"):
            check_values(config)


@given(st.lists(st.floats(allow_nan=True, allow_infinity=True), max_size=5), st.integers(0, 5))
@settings(deadline=None)
def test_weights_are_none_or_one_above_zero_for_each(weights: list[float], needed: int) -> None:
    good = not weights or (len(weights) == needed and all(0 < weight < math.inf for weight in weights))
    try:
        check_weights(weights, needed, "things")
        said = ""
    except CauserieError as error:
        said = error.code
    assert said == ("" if good else "CAU-2003")


@pytest.mark.parametrize("code", ["", "EN", "english", "xx", "fr,en", "zz"])
def test_languages_that_nothing_is_in_are_refused(code: str) -> None:
    with pytest.raises(CauserieError, match="no text is ever told"):
        check_values(replace(PLAIN, languages=("en", code)))
    check_values(replace(PLAIN, languages=()))


def test_refused_before_a_page_is_read_or_a_folder_made(tmp_path: Path, make_prose) -> None:
    (tmp_path / "a.txt").write_text(make_prose(1))
    for change in ({"page_seconds": math.nan}, {"workers": -1}, {"weights": (math.nan,)}, {"name": "../up"}):
        config = DataBuildConfig(**{"sources": (str(tmp_path / "a.txt"),), **change})
        with pytest.raises(CauserieError):
            build(config, tmp_path / "w")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a.txt"]


@pytest.mark.parametrize("source", ["", "~nobody-of-this-name/x"])
def test_sources_that_name_nothing(source: str, tmp_path: Path) -> None:
    for call in (lambda: named_path(source), lambda: find_sources((source,), tmp_path)):
        with pytest.raises(CauserieError) as caught:
            call()
        assert caught.value.code == "CAU-2001"
        assert caught.value.where == repr(source)
