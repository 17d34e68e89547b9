"""What a collection keeps, whoever is killed, and what it refuses."""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from clip_app.collection.store import Collection, Identity, Row, collection_folder
from clip_app.errors import CollectionError
from clip_app.ranking import Matrix

IDENTITY = Identity("acme/clip", "1" * 40, "squares", 4)


def row(path: str, **more: object) -> Row:
    return replace(Row(path=path, stamp="1", size=10, sha256=b"x", width=4, height=3), **more)  # type: ignore[arg-type]


def vectors(*numbers: float) -> Matrix:
    return np.array([[number] * 4 for number in numbers], np.float32)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path / "home"


@pytest.fixture
def collection(folder: Path) -> Iterator[Collection]:
    with Collection.writing(folder, IDENTITY) as opened:
        yield opened


def paths(collection: Collection) -> list[str]:
    return [one.path for one in collection.found()]


def test_what_was_added_is_there_when_it_is_opened_again(folder: Path) -> None:
    with Collection.writing(folder, IDENTITY) as opened:
        opened.add([row("/a"), row("/bad", error="no picture"), row("/b")], vectors(1, 2))
    again = Collection.open(folder)
    assert paths(again) == ["/a", "/b"]
    assert again.vectors().tolist() == vectors(1, 2).tolist()
    assert [one.path for one in again.at([1, 0])] == ["/b", "/a"]
    assert [(one.path, one.error) for one in again.failures()] == [("/bad", "no picture")]
    assert (again.counts().pictures, again.counts().failed, again.counts().gone) == (2, 1, 0)
    again.close()


def test_what_somebody_who_was_killed_had_half_written_is_cut_off(folder: Path) -> None:
    with Collection.writing(folder, IDENTITY) as opened:
        opened.add([row("/a")], vectors(1))
    with (folder / "vectors.f32").open("ab") as file:
        file.write(b"half of an embedding")
    reader = Collection.open(folder)
    assert reader.vectors().shape == (1, 4), "who only reads is not disturbed"
    reader.close()
    with Collection.writing(folder, IDENTITY) as opened:
        opened.add([row("/b")], vectors(2))
        assert opened.vectors().tolist() == vectors(1, 2).tolist()


def test_missing_embeddings_are_said_to_be_missing(folder: Path) -> None:
    with Collection.writing(folder, IDENTITY) as opened:
        opened.add([row("/a")], vectors(1))
    os.truncate(folder / "vectors.f32", 3)
    with pytest.raises(CollectionError, match="damaged"), Collection.writing(folder, IDENTITY):
        pass


def test_pictures_are_added_all_or_none(collection: Collection) -> None:
    collection.add([row("/a")], vectors(1))
    with pytest.raises(CollectionError, match="NOT NULL"):
        collection.add([row("/b"), row("/c", stamp=None)], vectors(2, 3))
    assert paths(collection) == ["/a"]
    collection.add([row("/d")], vectors(4))
    assert collection.at([int(one.vector or 0) for one in collection.found()]) == list(collection.found())


def test_the_embedding_of_a_picture_that_changed_is_hidden(collection: Collection) -> None:
    collection.add([row("/a"), row("/b")], vectors(1, 2))
    collection.add([row("/a", stamp="2")], vectors(3))
    assert collection.hidden() == [0]
    assert [(one.path, one.vector) for one in collection.found()] == [("/b", 1), ("/a", 2)]
    collection.add([row("/a", stamp="3", error="no picture any more")], vectors())
    assert sorted(collection.hidden()) == [0, 2]
    assert paths(collection) == ["/b"]


def test_what_is_gone_is_hidden_until_it_is_there_again(collection: Collection) -> None:
    collection.add([row("/in/a"), row("/in/b"), row("/inside/c"), row("/in")], vectors(1, 2, 3, 4))
    seen = {known.id for name in ("/in/a", "/in") if (known := collection.known(name))}
    assert collection.mark_gone(["/in"], seen, collection.last_id()) == 1, "what only begins alike is not in it"
    assert paths(collection) == ["/in/a", "/inside/c", "/in"]
    assert collection.hidden() == [1]
    known = collection.known("/in/b")
    assert known is not None
    assert known.gone
    collection.returned([known.id])
    assert not collection.hidden()


def test_what_came_while_somebody_looked_is_not_gone(collection: Collection) -> None:
    last = collection.last_id()
    collection.add([row("/in/new")], vectors(1))
    assert collection.mark_gone(["/in"], set(), last) == 0
    assert collection.roots() == ["/in"]


def test_a_path_may_be_any_bytes(collection: Collection) -> None:
    name = os.fsdecode(b"/caf\xe9.jpg")
    collection.add([row(name)], vectors(1))
    assert paths(collection) == [name]
    assert collection.known(name) is not None


def test_another_model_is_refused_with_both_names(folder: Path, collection: Collection) -> None:
    other = replace(IDENTITY, model="acme/siglip", revision="2" * 40)
    with pytest.raises(CollectionError, match=rf"acme/clip at {'1' * 40}.*acme/siglip at {'2' * 40}.*CLIP_APP_MODEL"):
        collection.check(other)
    with pytest.raises(CollectionError, match=r"preprocessor_config\.json"):
        collection.check(replace(IDENTITY, preprocessing="circles"))
    collection.check(IDENTITY)


def test_one_at_a_time_adds_to_it(folder: Path, collection: Collection) -> None:
    with pytest.raises(CollectionError, match="Somebody else adds"), Collection.writing(folder, IDENTITY):
        pass
    collection.add([row("/a")], vectors(1))


def test_it_is_read_from_a_folder_that_cannot_be_written(folder: Path) -> None:
    with Collection.writing(folder, IDENTITY) as opened:
        opened.add([row("/a")], vectors(1))
    for path in (*folder.iterdir(), folder):
        path.chmod(stat.S_IREAD | (stat.S_IXUSR if path.is_dir() else 0))
    before = sorted(folder.iterdir())
    reader = Collection.open(folder)
    assert paths(reader) == ["/a"]
    reader.close()
    assert sorted(folder.iterdir()) == before
    folder.chmod(0o755)


def test_what_is_none_says_how_to_make_one(tmp_path: Path) -> None:
    with pytest.raises(CollectionError, match="clip-app index PATH --collection holidays"):
        Collection.open(tmp_path / "holidays")
    (tmp_path / "odd").mkdir()
    (tmp_path / "odd" / "pictures.sqlite").write_bytes(b"not rows at all, however long one looks at them")
    with pytest.raises(CollectionError, match="odd cannot be used"):
        Collection.open(tmp_path / "odd")


def test_a_name_is_a_folder_among_the_users_data_and_a_path_is_itself(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_DATA_HOME", "/data")
    assert collection_folder("home") == Path("/data/clip_app/collections/home")
    assert collection_folder("./home") == Path("home")
    monkeypatch.delenv("XDG_DATA_HOME")
    monkeypatch.setenv("HOME", "/users/me")
    assert collection_folder("home") == Path("/users/me/.local/share/clip_app/collections/home")
    assert collection_folder("~/home") == Path("/users/me/home")
    for wrong in ("", ".", "..", ".hidden", "a\nb"):
        with pytest.raises(CollectionError, match="give a name"):
            collection_folder(wrong)


def test_an_empty_one_has_nothing(collection: Collection) -> None:
    assert collection.vectors().shape == (0, 4)
    assert not list(collection.found())
    assert collection.known("/a") is None
