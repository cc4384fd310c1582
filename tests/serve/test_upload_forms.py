"""Uploads and files: parts in a wrong order, missing, twice, too long; purposes and limits."""

from __future__ import annotations

import hashlib
from typing import Any

import httpx
import openai
import pytest

from causerie.serve import files, uploads
from causerie.serve.file_space import FileSpace


def begin(client: openai.OpenAI, length: int, **more: Any) -> Any:
    asked = {"filename": "x.txt", "mime_type": "text/plain", "purpose": "assistants", "bytes": length, **more}
    return client.uploads.create(**asked)


def part(client: openai.OpenAI, upload: Any, data: bytes) -> str:
    return client.uploads.parts.create(upload.id, data=data).id


def test_parts_are_joined_in_the_order_of_the_completion(client: openai.OpenAI) -> None:
    upload = begin(client, 9)
    ids = [part(client, upload, data) for data in (b"ghi", b"abc", b"def")]
    done = client.uploads.complete(upload.id, part_ids=[ids[1], ids[2], ids[0]])
    assert (done.status, done.file.bytes, done.file.filename) == ("completed", 9, "x.txt")
    assert client.files.content(done.file.id).content == b"abcdefghi"


def test_a_wrong_order_is_seen_by_its_digest_and_can_be_mended(client: openai.OpenAI) -> None:
    upload = begin(client, 6)
    first, second = part(client, upload, b"abc"), part(client, upload, b"def")
    digest = hashlib.md5(b"abcdef", usedforsecurity=False).hexdigest()
    with pytest.raises(openai.BadRequestError, match="MD5"):
        client.uploads.complete(upload.id, part_ids=[second, first], md5=digest)
    assert client.uploads.complete(upload.id, part_ids=[first, second], md5=digest.upper()).status == "completed"


def test_missing_parts_and_parts_twice_are_refused(client: openai.OpenAI) -> None:
    upload = begin(client, 6)
    first, second = part(client, upload, b"abc"), part(client, upload, b"def")
    with pytest.raises(openai.BadRequestError, match="3 bytes; 6"):
        client.uploads.complete(upload.id, part_ids=[first])
    with pytest.raises(openai.BadRequestError, match="twice"):
        client.uploads.complete(upload.id, part_ids=[first, first])
    with pytest.raises(openai.NotFoundError):
        client.uploads.complete(upload.id, part_ids=[first, "part_none"])
    with pytest.raises(openai.BadRequestError, match="part_ids"):
        client.uploads.complete(upload.id, part_ids=[])
    assert client.uploads.complete(upload.id, part_ids=[first, second]).status == "completed"


def test_another_uploads_part_is_not_taken(client: openai.OpenAI) -> None:
    one, two = begin(client, 3), begin(client, 3)
    foreign = part(client, two, b"xyz")
    with pytest.raises(openai.NotFoundError):
        client.uploads.complete(one.id, part_ids=[foreign])
    assert client.uploads.complete(two.id, part_ids=[foreign]).status == "completed"


def test_parts_beyond_what_was_announced_are_refused(client: openai.OpenAI) -> None:
    upload = begin(client, 4)
    part(client, upload, b"abc")
    with pytest.raises(openai.BadRequestError, match="longer than the 4 bytes"):
        part(client, upload, b"de")
    last = part(client, upload, b"d")
    assert last


def test_an_ended_upload_takes_nothing_more(client: openai.OpenAI) -> None:
    upload = begin(client, 3)
    id = part(client, upload, b"abc")
    client.uploads.complete(upload.id, part_ids=[id])
    for attempt in (
        lambda: part(client, upload, b"x"),
        lambda: client.uploads.complete(upload.id, part_ids=[id]),
        lambda: client.uploads.cancel(upload.id),
    ):
        with pytest.raises(openai.BadRequestError, match="completed"):
            attempt()


def test_an_upload_that_took_too_long_is_expired(client: openai.OpenAI, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(uploads, "LIFETIME", 0)
    upload = begin(client, 3)
    with pytest.raises(openai.BadRequestError, match="expired"):
        part(client, upload, b"abc")


def test_parts_leave_no_bytes_behind(client: openai.OpenAI, home: Any) -> None:
    kept = FileSpace(home / "files")
    upload = begin(client, 3)
    id = part(client, upload, b"abc")
    assert kept.path(id).is_file()
    client.uploads.cancel(upload.id)
    assert not kept.path(id).exists()
    refused = begin(client, 2)
    before = len(list((home / "files").rglob("*")))
    with pytest.raises(openai.BadRequestError):
        part(client, refused, b"abc")
    assert len(list((home / "files").rglob("*"))) == before


def test_a_part_over_the_bound_is_refused(client: openai.OpenAI, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(uploads, "MAX_PART", 10)
    upload = begin(client, 100_000)
    with pytest.raises(openai.APIStatusError) as caught:
        part(client, upload, b"x" * 99_999)
    assert caught.value.status_code == 413


@pytest.mark.parametrize(
    "change",
    [{"bytes": -1}, {"bytes": 2**60}, {"bytes": "x"}, {"purpose": "magic"}, {"filename": ""}, {"mime_type": 3}],
)
def test_uploads_that_cannot_be(change: dict[str, Any], http: httpx.Client) -> None:
    asked = {"filename": "x", "mime_type": "text/plain", "purpose": "assistants", "bytes": 3} | change
    answer = http.post("/v1/uploads", json=asked)
    assert (answer.status_code, answer.json()["error"]["param"]) == (400, next(iter(change)))


@pytest.mark.parametrize("purpose", files.PURPOSES)
def test_every_purpose_is_kept_and_listed(purpose: str, client: openai.OpenAI) -> None:
    made = client.files.create(file=("x.jsonl", b"{}\n"), purpose=purpose)
    assert made.purpose == purpose
    assert made.id in [each.id for each in client.files.list(purpose=purpose)]
    others = [each for each in files.PURPOSES if each != purpose]
    assert made.id not in [each.id for each in client.files.list(purpose=others[0])]


@pytest.mark.parametrize(
    ("purpose", "use"),
    [
        ("assistants", "batch"),
        ("batch", "fine-tune"),
        ("user_data", "batch"),
        ("evals", "fine-tune"),
    ],
)
def test_files_do_only_what_they_are_for(purpose: str, use: str, client: openai.OpenAI) -> None:
    file = client.files.create(file=("x.jsonl", b"{}\n"), purpose=purpose)
    with pytest.raises(openai.BadRequestError) as caught:
        if use == "batch":
            asked: Any = {"endpoint": "/v1/chat/completions", "completion_window": "24h"}
            client.batches.create(input_file_id=file.id, **asked)
        else:
            client.fine_tuning.jobs.create(model="petit", training_file=file.id)
    assert caught.value.code == "invalid_file_purpose"
