"""`causerie keys`: from creation to revocation."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from causerie.cli.app import dispatch
from causerie.core import CauserieError
from causerie.serve.keys import find_key
from causerie.store import open_store


def test_a_key_from_creation_to_revocation(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    place = ["--workspace", str(tmp_path)]
    command = ["keys", "create", "laptop", "--scope", "platform", "--days", "2", "--tokens-per-day", "9", "--json"]
    dispatch([*command, *place])
    made = json.loads(capsys.readouterr().out.splitlines()[-1])
    with open_store(tmp_path) as store:
        found = find_key(store, made["key"])
    assert found is not None
    assert (found.scopes, found.limits.tokens_per_day) == (("platform",), 9)
    assert found.expires is not None
    dispatch(["keys", "list", *place])
    listed = capsys.readouterr().out
    assert made["id"] in listed
    assert made["key"] not in listed
    dispatch(["keys", "revoke", made["id"], *place])
    with open_store(tmp_path) as store:
        assert find_key(store, made["key"]) is None
    for wrong in (["keys", "revoke", made["id"]], ["keys", "create", "x", "--scope", "nonsense"]):
        with pytest.raises(CauserieError) as caught:
            dispatch([*wrong, *place])
        assert caught.value.code == "CAU-6009"
