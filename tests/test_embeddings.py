"""Embeddings of pictures and texts over HTTP lie in one space."""

from __future__ import annotations

import base64
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest
from conftest import served

from clip_app.embeddings_api import LONGEST, MOST_TEXTS


def embed(server: str, texts: object, **more: object) -> httpx.Response:
    return httpx.post(f"{server}/v1/embeddings", json={"input": texts, **more})


def numbers(answer: httpx.Response) -> Any:
    assert answer.status_code == 200, answer.text
    rows = answer.json()["data"]
    assert [row["index"] for row in rows] == list(range(len(rows)))
    return np.array([row["embedding"] for row in rows], np.float32)


def test_the_similarity_of_a_label_is_the_product_of_both_embeddings(server: str, photographs: dict[str, Path]) -> None:
    form = {"labels": "teapot, cat", "template": "a drawing of a {}.", "embedding": "true"}
    answer = httpx.post(f"{server}/api/analyze", files={"image": photographs["coffee"].read_bytes()}, data=form)
    (result,) = answer.json()["results"]
    picture = np.frombuffer(base64.b64decode(result["embedding"]["data"]), "<f4")
    assert result["embedding"]["length"] == len(picture)
    assert np.linalg.norm(picture) == pytest.approx(1, abs=1e-3)
    texts = numbers(embed(server, ["a drawing of a teapot.", "a drawing of a cat."]))
    told = {score["label"]: score["similarity"] for score in result["groups"][0]["labels"]}
    assert list(texts @ picture) == pytest.approx([told["teapot"], told["cat"]], abs=1e-3)


def test_an_embedding_is_given_only_on_request(server: str, photographs: dict[str, Path]) -> None:
    answer = httpx.post(f"{server}/api/analyze", files={"image": photographs["coffee"].read_bytes()})
    assert "embedding" not in answer.json()["results"][0]


def test_one_text_may_come_by_itself_and_base64_says_the_same(server: str) -> None:
    plain = numbers(embed(server, "a photo of a cat.", model="anything", user="me"))
    answer = embed(server, ["a photo of a cat."], encoding_format="base64").json()
    packed = np.frombuffer(base64.b64decode(answer["data"][0]["embedding"]), "<f4")
    assert list(packed) == pytest.approx(list(plain[0]), abs=1e-6)
    assert (answer["object"], answer["data"][0]["object"], answer["model"]) == ("list", "embedding", "bundled")
    assert answer["usage"]["total_tokens"] == answer["usage"]["prompt_tokens"] > 3


@pytest.mark.parametrize(
    ("body", "mentions"),
    [
        ({}, "input"),
        ({"input": []}, "input"),
        ({"input": ""}, "input"),
        ({"input": [7]}, "input"),
        ({"input": ["x"] * (MOST_TEXTS + 1)}, str(MOST_TEXTS)),
        ({"input": "x" * (LONGEST + 1)}, f"{LONGEST}"),
        ({"input": "x", "encoding_format": "int7"}, "encoding_format"),
        ({"input": "x", "dimensions": 8}, "dimensions"),
    ],
)
def test_a_bad_request_says_what_to_change(server: str, body: dict[str, Any], mentions: str) -> None:
    answer = httpx.post(f"{server}/v1/embeddings", json=body)
    assert answer.status_code == 422
    assert mentions in answer.json()["error"]["message"]
    numbers(embed(server, "and the next one works"))


def test_it_is_behind_the_password_as_everything_is() -> None:
    with served("--model", "bundled", env={"CLIP_APP_AUTH": "me:secret"}) as url:
        assert embed(url, "x").status_code == 401
        assert httpx.post(f"{url}/v1/embeddings", json={"input": "x"}, auth=("me", "secret")).status_code == 200
