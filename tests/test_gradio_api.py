from __future__ import annotations

from pathlib import Path

import httpx
import pytest
from conftest import served
from gradio_client import Client, handle_file
from gradio_client.exceptions import AppError


@pytest.fixture(scope="module")
def client(server: str) -> Client:
    return Client(server, verbose=False)


def test_analyze_returns_the_result(client: Client, photographs: dict[str, Path]) -> None:
    result = client.predict(handle_file(photographs["cat"]), api_name="/analyze")
    assert set(result) == {"model", "image", "groups", "timings_ms"}
    assert result["image"] == {"name": "chelsea.png", "width": 451, "height": 300}
    assert [group["name"] for group in result["groups"]] == ["kinds", "objects"]
    assert len(result["groups"][0]["labels"]) == 5


def test_analyze_takes_groups_and_top_k(client: Client, photographs: dict[str, Path]) -> None:
    result = client.predict(handle_file(photographs["cat"]), groups=["scenes", "content"], top_k=2, api_name="/analyze")
    assert [(group["name"], len(group["labels"])) for group in result["groups"]] == [("scenes", 2), ("content", 2)]


@pytest.mark.parametrize("labels", [["cat", "cup of coffee"], "cat, cup of coffee"])
def test_classify_scores_own_labels(client: Client, photographs: dict[str, Path], labels: object) -> None:
    result = client.predict(
        handle_file(photographs["coffee"]),
        labels=labels,
        template="a picture of a {}.",
        independent=True,
        api_name="/classify",
    )
    assert {score["label"] for score in result["groups"][0]["labels"]} == {"cat", "cup of coffee"}


def test_explain_says_where(client: Client, photographs: dict[str, Path]) -> None:
    result = client.predict(handle_file(photographs["coffee"]), label="cup of coffee", api_name="/explain")
    assert (result["label"], result["method"]) == ("cup of coffee", "class maps")
    assert result["image"] == {"name": "coffee.png", "width": 600, "height": 400}
    assert max(map(max, result["map"])) == 1


@pytest.mark.parametrize("label", ["", " ", None, 7])
def test_explain_without_a_label_says_what_to_do(client: Client, photographs: dict[str, Path], label: object) -> None:
    with pytest.raises(AppError, match="label"):
        client.predict(handle_file(photographs["cat"]), label, api_name="/explain")


def test_status_says_what_serves(client: Client) -> None:
    status = client.predict(api_name="/status")
    assert (status["ready"], status["model"]["id"]) == (True, "bundled")
    assert status["groups"] == ["kinds", "objects", "scenes", "content"]


def test_the_endpoints_are_typed_and_documented(server: str) -> None:
    endpoints = httpx.get(f"{server}/gradio_api/info").json()["named_endpoints"]
    assert set(endpoints) == {"/analyze", "/classify", "/analyze_batch", "/search", "/explain", "/status"}
    analyze = endpoints["/analyze"]
    assert [p["parameter_name"] for p in analyze["parameters"]] == ["image", "groups", "top_k"]
    assert analyze["parameters"][0]["python_type"]["type"] == "filepath"
    assert set(analyze["returns"][0]["type"]["properties"]) == {"model", "image", "groups", "timings_ms", "embedding"}
    assert analyze["description"].startswith("Say what is in a picture")
    batch = endpoints["/analyze_batch"]
    assert [p["parameter_name"] for p in batch["parameters"]] == [
        *("files", "groups", "labels", "template", "independent", "top_k")
    ]
    assert set(batch["returns"][0]["type"]["properties"]) == {"done", "total", "results"}
    search = endpoints["/search"]
    assert [p["parameter_name"] for p in search["parameters"]] == ["files", "query", "top_k"]
    assert {"results", "errors", "duplicates"} < set(search["returns"][0]["type"]["properties"])
    explain = endpoints["/explain"]
    assert [p["parameter_name"] for p in explain["parameters"]] == ["image", "label"]
    assert set(explain["returns"][0]["type"]["properties"]) == {
        "model",
        "image",
        "label",
        "method",
        "map",
        "timings_ms",
    }


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"groups": ["birds"]}, "There is no label group 'birds'"),
        ({"top_k": 0}, "top_k"),
        ({"top_k": "three"}, "top_k"),
        ({"groups": {"a": 1}}, "groups: names are a list"),
    ],
)
def test_a_bad_option_says_what_to_do(
    client: Client, photographs: dict[str, Path], arguments: dict[str, object], message: str
) -> None:
    with pytest.raises(AppError, match=message):
        client.predict(handle_file(photographs["cat"]), **arguments, api_name="/analyze")


def test_an_undecodable_file_says_what_to_do_and_the_next_works(
    client: Client, photographs: dict[str, Path], tmp_path: Path
) -> None:
    bad = tmp_path / "cat.jpg"
    bad.write_text("no picture")
    with pytest.raises(AppError, match="not a picture that can be read"):
        client.predict(handle_file(bad), api_name="/analyze")
    assert client.predict(handle_file(photographs["cat"]), api_name="/analyze")


def test_the_client_gets_through_a_password(photographs: dict[str, Path]) -> None:
    with served("--model", "bundled", env={"CLIP_APP_AUTH": "ann:secret"}) as url:
        client = Client(url, verbose=False, httpx_kwargs={"auth": ("ann", "secret")})
        assert client.predict(handle_file(photographs["cat"]), api_name="/analyze")


def test_curl_style_calls_work(server: str, photographs: dict[str, Path]) -> None:
    (path,) = httpx.post(
        f"{server}/gradio_api/upload", files={"files": ("cat.png", photographs["cat"].read_bytes())}
    ).json()
    data = [{"path": path, "meta": {"_type": "gradio.FileData"}}, ["kinds"], 2]
    event = httpx.post(f"{server}/gradio_api/call/analyze", json={"data": data}).json()["event_id"]
    stream = httpx.get(f"{server}/gradio_api/call/analyze/{event}", timeout=30).text
    assert "event: complete" in stream
    assert '"name":"kinds"' in stream.replace(" ", "")
    run = httpx.post(f"{server}/gradio_api/run/analyze", json={"data": data}, timeout=30).json()
    assert run["data"][0]["groups"][0]["name"] == "kinds"


@pytest.mark.parametrize("picture", [handle_file("http://127.0.0.1:1/x.png"), "https://example.com/x.png"])
def test_an_address_is_answered_with_a_sentence(client: Client, picture: object) -> None:
    with pytest.raises(AppError, match=r"Pictures are not fetched from the web\. Download it and upload the file"):
        client.predict(picture, api_name="/analyze")
