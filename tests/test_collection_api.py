"""Visitors search the operator's collections, and nothing but them."""

from __future__ import annotations

import io
import shutil
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import httpx
import pytest
from conftest import served_here
from PIL import Image

from clip_app.bulk import embed_all
from clip_app.collection.indexing import index
from clip_app.collection.store import Collection, Identity
from clip_app.collection.thumbnails import TALL
from clip_app.errors import SettingsError
from clip_app.model import Model
from clip_app.server import create_app
from clip_app.settings import load_settings
from clip_app.source import examples_folder


def collected(folder: Path, pictures: Path, model: Model, identity: Identity | None = None) -> None:
    embed = partial(embed_all, model, load_settings(model="bundled"))
    with Collection.writing(folder, identity or Identity.of(model)) as collection:
        list(index(collection, [str(pictures)], embed, max_bytes=10**8))


@pytest.fixture(scope="module")
def pictures(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("a visitor may not see this") / "photos"
    shutil.copytree(examples_folder(), folder)
    return folder


@pytest.fixture(scope="module")
def few(tmp_path_factory: pytest.TempPathFactory, pictures: Path, bundled: Model) -> Path:
    """A collection beside its pictures, of which one will be gone."""
    folder = tmp_path_factory.mktemp("few")
    shutil.copytree(pictures, folder / "photos")
    collected(folder / "few", folder / "photos", bundled)
    return folder


@pytest.fixture(scope="module")
def url(tmp_path_factory: pytest.TempPathFactory, few: Path, pictures: Path, bundled: Model) -> Iterator[str]:
    """A server that offers three collections, one of them of another model."""
    home = tmp_path_factory.mktemp("collections")
    collected(home / "our house", pictures, bundled)
    collected(home / "strange", pictures, bundled, Identity("acme/clip", "7", "squares", 512))
    with served_here(collections=f"{home / 'our house'},{home / 'strange'},{few / 'few'}") as served:
        yield served


def search(url: str, picture: bytes | None = None, **fields: object) -> httpx.Response:
    given = {"collection": "our house"} | {name: str(value) for name, value in fields.items()}
    files = [("image", picture)] if picture is not None else None
    return httpx.post(f"{url}/api/search", data=given, files=files)


def paths(answer: httpx.Response) -> list[str]:
    assert answer.status_code == 200, answer.text
    return [result["path"] for result in answer.json()["results"]]


def told(answer: httpx.Response) -> str:
    assert answer.status_code == 422, answer.text
    message: str = answer.json()["error"]["message"]
    return message


def test_a_text_finds_its_picture_by_a_path_that_tells_nothing_of_the_server(url: str) -> None:
    answer = search(url, text="a cup of coffee")
    assert paths(answer)[0] == "photos/coffee.jpg"
    best = answer.json()["results"][0]
    assert best["relevant"]
    assert (best["width"], best["height"]) == (600, 400)
    assert "may not see" not in answer.text


def test_a_picture_finds_itself_and_counts_beside_a_text(url: str, pictures: Path) -> None:
    coffee = (pictures / "coffee.jpg").read_bytes()
    alone = search(url, coffee, top_k=1).json()["results"][0]
    assert (alone["path"], alone["score"]) == ("photos/coffee.jpg", pytest.approx(1, abs=1e-3))
    both = search(url, coffee, text="a taxi", top_k=1, above=-1).json()["results"][0]
    assert both["score"] < alone["score"]


def test_above_and_top_k_say_how_many(url: str) -> None:
    every = search(url, text="a cup of coffee", above=-1)
    assert len(paths(every)) == len(list(examples_folder().glob("*.jpg")))
    assert not every.json()["results"][-1]["relevant"]
    scores = [result["score"] for result in every.json()["results"]]
    assert scores == sorted(scores, reverse=True)
    assert paths(search(url, text="a cup of coffee", above=-1, top_k=2)) == paths(every)[:2]
    assert paths(search(url, text="a cup of coffee", above=scores[1])) == paths(every)[:2]


def test_a_thumbnail_is_small_and_had_by_the_address_that_a_search_gave(url: str) -> None:
    best = search(url, text="a cup of coffee").json()["results"][0]
    answer = httpx.get(url + best["thumbnail"])
    assert answer.headers["content-type"] == "image/jpeg"
    assert "max-age" in answer.headers["cache-control"]
    with Image.open(io.BytesIO(answer.content)) as small:
        assert small.height == TALL
        assert not small.getexif()


@pytest.mark.parametrize("number", ["-1", "1000000", "x"])
def test_nothing_but_the_pictures_of_a_collection_is_to_be_had(url: str, number: str) -> None:
    assert httpx.get(f"{url}/api/collections/our house/thumbnails/{number}.jpg").status_code == 422


def test_the_collections_are_named_with_their_sizes(url: str) -> None:
    sizes = httpx.get(f"{url}/api/collections").json()["collections"]
    count = len(list(examples_folder().glob("*.jpg")))
    assert sizes == {"our house": count, "strange": count, "few": count}


def test_what_is_wrong_is_said_and_the_next_search_works(url: str) -> None:
    assert "'nowhere'. There are: our house, strange, few." in told(search(url, collection="nowhere", text="cat"))
    assert "/" not in told(search(url, collection="/etc/passwd", text="cat")).replace("/etc/passwd", "")
    assert "a text, a picture, or both" in told(search(url))
    assert "a text, a picture, or both" in told(search(url, text="  "))
    assert "from -1 to 1" in told(search(url, text="cat", above=7))
    assert "top_k" in told(search(url, text="cat", top_k=0))
    assert "querry" in told(search(url, querry="cat"))
    assert httpx.get(f"{url}/api/collections/nowhere/thumbnails/0.jpg").status_code == 422
    assert search(url, b"no picture").status_code == 400
    assert paths(search(url, text="a cup of coffee"))


def test_a_collection_of_another_model_is_refused_with_both_names(url: str) -> None:
    message = told(search(url, collection="strange", text="cat"))
    assert "acme/clip" in message
    assert "bundled" in message


def test_a_picture_that_is_gone_is_told_and_then_found_no_more(few: Path, bundled: Model, url: str) -> None:
    best = search(url, collection="few", text="a cup of coffee").json()["results"][0]
    (few / "photos" / "coffee.jpg").unlink()
    answer = httpx.get(url + best["thumbnail"])
    assert answer.status_code == 400, "the file is not there"
    assert str(few) not in answer.text, "its path is not told"
    collected(few / "few", few / "photos", bundled)
    assert "photos/coffee.jpg" not in paths(search(url, collection="few", text="a cup of coffee"))
    assert httpx.get(url + best["thumbnail"]).status_code == 422


@pytest.mark.parametrize(
    ("names", "mentions"),
    [("nowhere", "There is no collection nowhere"), ("{0}/same,{0}/other/same", "two are called same")],
)
def test_a_wrong_name_ends_the_start_in_one_line(
    tmp_path: Path, pictures: Path, bundled: Model, monkeypatch: pytest.MonkeyPatch, names: str, mentions: str
) -> None:
    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path))
    collected(tmp_path / "same", pictures, bundled)
    collected(tmp_path / "other" / "same", pictures, bundled)
    with pytest.raises(SettingsError, match=mentions):
        create_app(load_settings(model="bundled", collections=names.format(tmp_path)))
