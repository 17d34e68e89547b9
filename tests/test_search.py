from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from conftest import served
from gradio_client import Client, handle_file
from gradio_client.exceptions import AppError
from PIL import Image, ImageEnhance
from test_metrics import scrape, value
from zips import packed

from clip_app.ranking import NEARLY_THE_SAME

API = {"api_name": "/search"}
NAMES = ("china", "cat", "rocket", "coffee", "flower", "astronaut")


@pytest.fixture(scope="module")
def client(server: str) -> Client:
    return Client(server, verbose=False)


@pytest.fixture(scope="module")
def sent(photographs: dict[str, Path]) -> list[Any]:
    return [handle_file(photographs[name]) for name in NAMES]


@pytest.mark.parametrize(
    ("query", "name"),
    [
        ("a cat", "cat"),
        ("a rocket", "rocket"),
        ("a cup of coffee", "coffee"),
        ("espresso", "coffee"),
    ],
)
def test_the_picture_that_is_asked_for_comes_first_and_others_are_cut_off(
    client: Client, sent: list[Any], query: str, name: str
) -> None:
    answer = client.predict(sent, query, **API)
    assert (answer["query"], answer["done"], answer["total"]) == (query, 6, 6)
    results = answer["results"]
    assert NAMES[results[0]["index"]] == name
    assert sorted(found["index"] for found in results) == list(range(6))
    scores = [found["score"] for found in results]
    assert scores == sorted(scores, reverse=True)
    relevant = [found["relevant"] for found in results]
    assert relevant[0]
    assert not relevant[-1]
    assert answer["errors"] == answer["duplicates"] == []


def test_a_picture_is_named_and_measured_as_in_an_analysis(client: Client, sent: list[Any]) -> None:
    best = client.predict(sent, "a cat", top_k=1, **API)["results"]
    assert [found["image"] for found in best] == [{"name": "chelsea.png", "width": 451, "height": 300}]


def test_what_nothing_shows_is_relevant_nowhere(client: Client, sent: list[Any]) -> None:
    assert not any(found["relevant"] for found in client.predict(sent, "a submarine", **API)["results"])


def test_near_duplicates_are_found_by_their_places(
    client: Client, sent: list[Any], photographs: dict[str, Path], tmp_path: Path
) -> None:
    photograph = Image.open(photographs["coffee"]).convert("RGB")
    width, height = photograph.size
    photograph.save(tmp_path / "again.jpg", quality=60)
    photograph.crop((15, 10, width - 15, height - 10)).save(tmp_path / "cropped.jpg")
    ImageEnhance.Brightness(photograph).enhance(1.2).save(tmp_path / "bright.jpg")
    copies = [handle_file(tmp_path / name) for name in ("again.jpg", "cropped.jpg", "bright.jpg")]
    pairs = client.predict([*sent, *copies], "a cat", **API)["duplicates"]
    same = (NAMES.index("coffee"), 6, 7, 8)
    assert {tuple(pair["indices"]) for pair in pairs} == {(a, b) for a in same for b in same if a < b}
    cosines = [pair["cosine"] for pair in pairs]
    assert cosines == sorted(cosines, reverse=True)
    assert min(cosines) >= NEARLY_THE_SAME


def test_what_cannot_be_used_is_told_by_its_place_and_leaves_the_rest(
    client: Client, photographs: dict[str, Path], tmp_path: Path
) -> None:
    (tmp_path / "bad.jpg").write_text("no picture")
    cat = photographs["cat"].read_bytes()
    (tmp_path / "a.zip").write_bytes(packed(("x/b.zip", packed()), ("x/cat.png", cat), (".DS_Store", b"x")))
    files = [handle_file(tmp_path / "bad.jpg"), handle_file(tmp_path / "a.zip"), handle_file(photographs["coffee"])]
    answer = client.predict(files, "a cat", **API)
    assert [(found["index"], found["image"]["name"]) for found in answer["results"]] == [
        (2, "x/cat.png"),
        (3, "coffee.png"),
    ]
    told = [(error["index"], error["image"]["name"], error["error"]["code"]) for error in answer["errors"]]
    assert told == [(0, "bad.jpg", "undecodable_image"), (1, "x/b.zip", "bad_archive")]


def test_where_no_picture_can_be_used_all_are_errors(client: Client, tmp_path: Path) -> None:
    (tmp_path / "bad.jpg").write_text("no picture")
    answer = client.predict([handle_file(tmp_path / "bad.jpg")], "a cat", **API)
    assert (answer["results"], answer["duplicates"], len(answer["errors"])) == ([], [], 1)


def test_a_picture_of_one_colour_is_relevant_to_nothing(client: Client, sent: list[Any], tmp_path: Path) -> None:
    Image.new("RGB", (300, 300), "white").save(tmp_path / "white.png")
    results = client.predict([*sent, handle_file(tmp_path / "white.png")], "white", **API)["results"]
    (flat,) = [found for found in results if found["index"] == len(sent)]
    assert not flat["relevant"]
    assert "one colour" in flat["image"]["warnings"][0]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"query": ""}, "There is nothing to search by. Say in a few words what to look for"),
        ({"query": " \n "}, "There is nothing to search by"),
        ({"query": None}, "query"),
        ({"query": "x" * 300}, "Shorten it"),
        ({"query": "a cat", "top_k": 0}, "top_k"),
        ({"query": "a cat", "files": []}, "There is no picture"),
    ],
)
def test_a_bad_question_says_what_to_do(
    client: Client, sent: list[Any], arguments: dict[str, Any], message: str
) -> None:
    with pytest.raises(AppError, match=message):
        client.predict(**({"files": sent} | arguments), **API)


def test_every_picture_is_counted_and_a_bad_question_once(photographs: dict[str, Path], tmp_path: Path) -> None:
    (tmp_path / "bad.jpg").write_text("no picture")
    files = [handle_file(photographs["cat"]), handle_file(tmp_path / "bad.jpg")]
    with served("--model", "bundled") as url:
        client = Client(url, verbose=False)
        client.predict(files, "a cat", **API)
        with pytest.raises(AppError):
            client.predict(files, "", **API)
        samples = scrape(url)
    analyses = "clip_app_analyses_total"
    assert value(samples, analyses, endpoint="search", outcome="ok") == 1
    assert value(samples, analyses, endpoint="search", outcome="invalid") == 2
    assert value(samples, "clip_app_images_uploaded_total", source="api") == 3
