"""Files and uploads through the official client, and forms that are none."""

from __future__ import annotations

import hashlib
import time
from typing import Any

import httpx
import openai
import pytest

from causerie.serve import files
from causerie.store import Store, objects


def test_a_file_is_kept_listed_read_and_deleted(client: openai.OpenAI) -> None:
    content = bytes(range(256)) * 100
    file = client.files.create(file=("données été.bin", content), purpose="user_data")
    assert (file.bytes, file.filename, file.purpose, file.status) == (
        25_600,
        "données été.bin",
        "user_data",
        "processed",
    )
    assert client.files.retrieve(file.id) == file
    assert client.files.content(file.id).content == content
    assert file.id in [each.id for each in client.files.list(purpose="user_data")]
    assert file.id not in [each.id for each in client.files.list(purpose="batch")]
    assert client.files.delete(file.id).deleted
    for call in (client.files.retrieve, client.files.content, client.files.delete):
        with pytest.raises(openai.NotFoundError):
            call(file.id)


def test_lists_come_in_pages_in_both_orders(client: openai.OpenAI) -> None:
    made = [client.files.create(file=(f"{n}", b"x"), purpose="vision").id for n in range(5)]
    page = client.files.list(purpose="vision", limit=2, order="asc")
    assert [each.id for each in page.data] == made[:2]
    assert page.has_more
    assert [each.id for each in page] == made  # the client follows the pages
    assert [each.id for each in client.files.list(purpose="vision", limit=2)] == made[::-1]
    after = client.files.list(purpose="vision", after=made[1], order="asc")
    assert [each.id for each in after.data] == made[2:]
    assert client.files.list(limit=0).data == []


@pytest.mark.parametrize(
    "query", ["limit=-1", "limit=1e3", "limit=10001", "order=up", "after=file_none", "limit=" + "9" * 99]
)
def test_lists_that_cannot_be(query: str, http: httpx.Client) -> None:
    answer = http.get(f"/v1/files?{query}")
    assert answer.status_code in (400, 404)
    assert answer.json()["error"]["message"]


def test_files_expire(client: openai.OpenAI, store: Store) -> None:
    soon = {"anchor": "created_at", "seconds": 3600}
    file = client.files.create(file=("x", b"x"), purpose="batch", expires_after=soon)
    assert file.expires_at - file.created_at == 3600
    from sqlalchemy import select, update

    row = store.first(select(objects.c.body).where(objects.c.id == file.id))
    assert row is not None
    past = dict(row.body) | {"expires_at": int(time.time()) - 1}
    store.write(update(objects).where(objects.c.id == file.id).values(body=past))
    assert file.id not in [each.id for each in client.files.list()]
    with pytest.raises(openai.NotFoundError):
        client.files.retrieve(file.id)


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        ({"data": {"purpose": "spying"}, "files": {"file": b"x"}}, "purpose"),
        ({"data": {}, "files": {"file": b"x"}}, "purpose"),
        ({"data": {"purpose": "batch"}, "files": {"other": b"x"}}, "file"),
        (
            {"data": {"purpose": "batch", "expires_after[anchor]": "created_at"}, "files": {"file": b"x"}},
            "expires_after",
        ),
        (
            {
                "data": {"purpose": "batch", "expires_after[anchor]": "x", "expires_after[seconds]": "9" * 40},
                "files": {"file": b"x"},
            },
            "expires_after",
        ),
        ({"json": {"purpose": "batch"}}, "multipart"),
        ({"content": b"nonsense", "headers": {"content-type": "multipart/form-data; boundary=x"}}, ""),
        ({"content": b"nonsense", "headers": {"content-type": "multipart/form-data"}}, ""),
        ({"content": b"--x\r\n" + b"a" * 100_000, "headers": {"content-type": "multipart/form-data; boundary=x"}}, ""),
    ],
)
def test_forms_that_are_none(fields: dict[str, Any], words: str, http: httpx.Client) -> None:
    answer = http.post("/v1/files", **fields)
    assert answer.status_code == 400, answer.text
    assert words in answer.json()["error"]["message"]


def test_a_file_that_is_too_long_is_refused(http: httpx.Client, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(files, "MAX_FILE", 1000)
    answer = http.post("/v1/files", data={"purpose": "batch"}, files={"file": b"x" * 100_000})
    assert answer.status_code == 413


@pytest.mark.parametrize("name", ["../../etc/passwd", "..\\x", "/abs", "a\0b", ""])
def test_names_of_files_are_names(name: str, client: openai.OpenAI) -> None:
    file = client.files.create(file=(name or "upload", b"x"), purpose="batch")
    assert "/" not in file.filename
    assert "\\" not in file.filename
    assert file.filename
    assert client.files.content(file.id).content == b"x"


@pytest.mark.parametrize("id", ["..%2f..%2fcauserie.db", "%2e%2e", "x" * 500, "%00"])
def test_ids_are_no_paths(id: str, http: httpx.Client) -> None:
    assert http.get(f"/v1/files/{id}/content").status_code == 404


def test_an_upload_in_parts_is_joined_and_checked(client: openai.OpenAI) -> None:
    content = b"".join(bytes([n]) * 1000 for n in range(10))
    upload = client.uploads.create(bytes=len(content), filename="big.bin", mime_type="x/y", purpose="user_data")
    assert upload.status == "pending"
    second = client.uploads.parts.create(upload.id, data=content[6000:])
    first = client.uploads.parts.create(upload.id, data=content[:6000])
    with pytest.raises(openai.BadRequestError, match="MD5"):
        client.uploads.complete(upload.id, part_ids=[first.id, second.id], md5="0" * 32)
    with pytest.raises(openai.BadRequestError, match="6000 bytes"):
        client.uploads.complete(upload.id, part_ids=[first.id])
    with pytest.raises(openai.NotFoundError):
        client.uploads.complete(upload.id, part_ids=["part_none"])
    digest = hashlib.md5(content).hexdigest()
    done = client.uploads.complete(upload.id, part_ids=[first.id, second.id], md5=digest)
    assert (done.status, done.file.bytes, done.file.filename) == ("completed", 10_000, "big.bin")
    assert client.files.content(done.file.id).content == content
    with pytest.raises(openai.BadRequestError, match="completed"):
        client.uploads.parts.create(upload.id, data=b"x")


def test_an_upload_is_cancelled_and_bounded(client: openai.OpenAI) -> None:
    upload = client.uploads.create(bytes=10, filename="x", mime_type="x/y", purpose="batch")
    with pytest.raises(openai.BadRequestError, match="longer than the 10 bytes"):
        client.uploads.parts.create(upload.id, data=b"x" * 11)
    assert client.uploads.cancel(upload.id).status == "cancelled"
    with pytest.raises(openai.BadRequestError, match="cancelled"):
        client.uploads.cancel(upload.id)
    with pytest.raises(openai.BadRequestError):
        client.uploads.create(bytes=2**63, filename="x", mime_type="x/y", purpose="batch")
