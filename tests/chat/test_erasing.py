"""Words that were erased are gone: from what is found, and from the database's own files."""

from __future__ import annotations

from pathlib import Path

from sqlalchemy import text

from causerie.chat.conversations import Book
from causerie.chat.search import prepare_search, search
from causerie.feedback import erase_user
from causerie.store import Store, open_store

SECRET = "xylophonebrouillard"


def bytes_of(workspace: Path) -> bytes:
    return b"".join(path.read_bytes() for path in workspace.glob("causerie.db*"))


def index_words(store: Store) -> list[str]:
    store.write(text("CREATE VIRTUAL TABLE IF NOT EXISTS temp_words USING fts5vocab('message_words', 'row')"))
    return [row.term for row in store.read(text("SELECT term FROM temp_words"))]  # type: ignore[arg-type]


def test_erasing_a_person_takes_the_words_out_of_the_index_and_the_files(workspace: Path) -> None:
    with open_store(workspace) as store:
        assert prepare_search(store)
        for user in ("ada", "grace"):
            book = Book(store, user)
            talk = book.create()["id"]
            for number in range(40):
                book.add(talk, "user", f"{SECRET if user == 'ada' else 'seagull'} number {number}", parent=None)
        assert [hit["passage"][: len(SECRET)] for hit in search(store, "ada", SECRET)] == [SECRET]
        assert SECRET in index_words(store)
        erase_user(store, "ada")
        assert search(store, "ada", SECRET) == []
        assert SECRET not in index_words(store)
        assert len(search(store, "grace", "seagull")) == 1, "what others said is still found"
        assert SECRET.encode() not in bytes_of(workspace)
    assert SECRET.encode() not in bytes_of(workspace)


def test_files_and_passages_go_with_the_person(workspace: Path) -> None:
    with open_store(workspace) as store:
        book = Book(store, "ada")
        talk = book.create(SECRET)["id"]
        file = [{"name": f"{SECRET}.txt", "text": SECRET}]
        question = book.add(talk, "user", "Why?", parent=None, attachments=file)
        book.add(talk, "assistant", "Because.", parent=question, attachments=[{**file[0], "part": 1, "parts": 1}])
        assert book.tree(talk)[1]["passages"][0]["text"] == SECRET
        erase_user(store, "ada")
        assert SECRET.encode() not in bytes_of(workspace)
