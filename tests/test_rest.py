from __future__ import annotations

import io
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, suppress
from pathlib import Path

import httpx
import pytest
from conftest import served, served_here
from PIL import Image


def post(server: str, *pictures: Path | bytes, **fields: object) -> httpx.Response:
    files = []
    for picture in pictures:
        named = ("x.bin", picture) if isinstance(picture, bytes) else (picture.name, picture.read_bytes())
        files.append(("image", named))
    data = {name: str(value) for name, value in fields.items()}
    return httpx.post(f"{server}/api/analyze", files=files, data=data, timeout=60)


def test_a_result_follows_the_contract(server: str, photographs: dict[str, Path]) -> None:
    answer = post(server, photographs["cat"], top_k=3)
    assert answer.status_code == 200
    (result,) = answer.json()["results"]
    assert set(result) == {"model", "image", "groups", "timings_ms"}
    assert set(result["model"]) == {"id", "revision", "engine", "precision", "bundled"}
    assert result["model"]["bundled"] is True
    assert result["image"] == {"name": "chelsea.png", "width": 451, "height": 300}
    group, other = result["groups"]
    assert (group["name"], other["name"], len(group["labels"])) == ("kinds", "objects", 3)
    confidences = [label["confidence"] for label in group["labels"]]
    assert confidences == sorted(confidences, reverse=True)
    assert sum(confidences) + group["no_match"] <= 1
    assert set(result["timings_ms"]) == {"decode", "preprocess", "queue", "encode", "score", "total"}
    assert result["timings_ms"]["total"] >= result["timings_ms"]["encode"] > 0


def test_own_labels_all_come_back_and_share_one_softmax(server: str, photographs: dict[str, Path]) -> None:
    (result,) = post(server, photographs["cat"], labels="cat, dog, pizza").json()["results"]
    (group,) = result["groups"]
    assert {label["label"] for label in group["labels"]} == {"cat", "dog", "pizza"}
    assert sum(label["confidence"] for label in group["labels"]) + group["no_match"] == pytest.approx(1, abs=1e-4)


def test_independent_labels_do_not_change_when_others_join(server: str, photographs: dict[str, Path]) -> None:
    def cat(labels: str) -> float:
        (result,) = post(server, photographs["cat"], labels=labels, independent=True).json()["results"]
        confidence: float = next(s["confidence"] for s in result["groups"][0]["labels"] if s["label"] == "cat")
        return confidence

    assert cat("cat") == pytest.approx(cat("cat, dog, pizza"), abs=1e-4)


def test_groups_and_own_labels_can_be_asked_together(server: str, photographs: dict[str, Path]) -> None:
    (result,) = post(server, photographs["cat"], groups="scenes,kinds", labels="cat", top_k=1).json()["results"]
    assert [group["name"] for group in result["groups"]] == ["scenes", "kinds", "labels"]


def test_several_pictures_keep_their_order_and_a_bad_one_its_place(server: str, photographs: dict[str, Path]) -> None:
    answer = post(server, photographs["cat"], b"no picture", photographs["coffee"])
    assert answer.status_code == 200
    first, bad, last = answer.json()["results"]
    assert (first["image"]["name"], last["image"]["name"]) == ("chelsea.png", "coffee.png")
    assert bad["image"] == {"name": "x.bin"}
    assert bad["error"]["code"] == "undecodable_image"


@pytest.mark.parametrize(
    ("fields", "mentions"),
    [
        ({"groups": "birds"}, "kinds, objects, scenes, content"),
        ({"top_k": 0}, "top_k"),
        ({"top_k": "many"}, "top_k"),
        ({"labels": " , "}, "labels"),
        ({"labels": "cat", "template": "no place"}, "template"),
        ({"independent": "perhaps"}, "independent"),
    ],
)
def test_a_bad_option_is_422_and_says_which(
    server: str, photographs: dict[str, Path], fields: dict[str, object], mentions: str
) -> None:
    answer = post(server, photographs["cat"], **fields)
    assert answer.status_code == 422
    assert answer.json()["error"]["code"] == "bad_option"
    assert mentions in answer.json()["error"]["message"]


def test_no_picture_at_all_is_422(server: str) -> None:
    answer = httpx.post(f"{server}/api/analyze", data={"top_k": "3"})
    assert (answer.status_code, answer.json()["error"]["code"]) == (422, "bad_option")


def test_an_undecodable_picture_is_400_and_the_next_request_works(server: str, photographs: dict[str, Path]) -> None:
    answer = post(server, b"no picture")
    assert (answer.status_code, answer.json()["error"]["code"]) == (400, "undecodable_image")
    assert post(server, photographs["cat"]).status_code == 200


def test_too_many_pixels_are_413(server: str) -> None:
    out = io.BytesIO()
    Image.new("1", (13_000, 13_000)).save(out, "PNG")
    answer = post(server, out.getvalue())
    assert (answer.status_code, answer.json()["error"]["code"]) == (413, "too_large")
    assert "CLIP_APP_MAX_PIXELS" in answer.json()["error"]["message"]


def test_too_many_bytes_are_413(server: str, photographs: dict[str, Path]) -> None:
    answer = post(server, photographs["cat"].read_bytes() + bytes(20_000_000))
    assert (answer.status_code, answer.json()["error"]["code"]) == (413, "too_large")
    assert "CLIP_APP_MAX_UPLOAD_MB" in answer.json()["error"]["message"]


@pytest.mark.parametrize("declared", [True, False], ids=["declared", "chunked"])
def test_a_body_past_every_bound_is_413_before_it_is_parsed(server: str, declared: bool) -> None:
    head = b'--x\r\nContent-Disposition: form-data; name="image"; filename="x.png"\r\n\r\n'
    body = head + bytes(90_000_000)
    headers = {"Content-Type": "multipart/form-data; boundary=x"}
    content = body if declared else (body[i : i + 1_000_000] for i in range(0, len(body), 1_000_000))
    answer = httpx.post(f"{server}/api/analyze", content=content, headers=headers, timeout=60)
    assert (answer.status_code, answer.json()["error"]["code"]) == (413, "too_large")


def test_more_pictures_than_one_request_takes_are_refused(server: str) -> None:
    answer = post(server, *([b"x"] * 17))
    assert (answer.status_code, answer.json()["error"]["code"]) == (422, "bad_option")


def test_health_openapi_and_its_page(server: str) -> None:
    assert httpx.get(f"{server}/healthz").json() == {"status": "ok"}
    assert httpx.get(f"{server}/readyz").json()["ready"] is True
    paths = httpx.get(f"{server}/api/openapi.json").json()["paths"]
    assert {"/api/analyze", "/api/explain", "/healthz", "/readyz"} <= set(paths)
    page = httpx.get(f"{server}/api/docs").text
    assert "https://" not in page, "the page must work without a content network"
    assert httpx.get(f"{server}/api/static/swagger-ui-bundle.js").status_code == 200


def test_a_full_house_is_told_to_come_back(photographs: dict[str, Path]) -> None:
    big = io.BytesIO()
    Image.open(photographs["china"]).resize((5000, 4000)).save(big, "JPEG")
    with served_here(queue_size=1) as url, ThreadPoolExecutor(8) as pool:
        answers = list(pool.map(lambda _: post(url, big.getvalue()), range(8)))
        busy = [answer for answer in answers if answer.status_code == 503]
        assert {answer.status_code for answer in answers} == {200, 503}
        assert all(answer.json()["error"]["code"] == "busy" for answer in busy)
        assert all(int(answer.headers["retry-after"]) > 0 for answer in busy)
        assert httpx.get(f"{url}/readyz").status_code == 200, "busy is not unready"
        assert post(url, photographs["cat"]).status_code == 200


def test_a_request_of_several_fits_into_the_smallest_house(photographs: dict[str, Path]) -> None:
    with served_here(queue_size=1) as url:
        answer = post(url, *[photographs["cat"]] * 6)
        assert answer.status_code == 200
        assert all("groups" in result for result in answer.json()["results"])


def test_behind_a_path_everything_still_answers(photographs: dict[str, Path]) -> None:
    with served_here(auth="ann:secret", root_path="/clip") as url:
        for path in ("/healthz", "/readyz", "/metrics"):
            assert httpx.get(f"{url}{path}").status_code == 200
            assert httpx.head(f"{url}{path}").status_code == 200
        assert httpx.get(f"{url}/").status_code == 401
        assert httpx.get(f"{url}/monitoring", auth=("ann", "secret")).status_code == 404
        assert httpx.get(f"{url}/config", auth=("ann", "secret")).json()["root"].endswith("/clip")
        files = {"image": photographs["cat"].read_bytes()}
        assert httpx.post(f"{url}/api/analyze", files=files, auth=("ann", "secret")).status_code == 200


def test_a_password_guards_everything_but_health_and_metrics(photographs: dict[str, Path]) -> None:
    with served_here(auth="ann:s:cret") as url:
        for path in ("/", "/api/openapi.json", "/gradio_api/info", "/config"):
            assert httpx.get(f"{url}{path}").status_code == 401
            assert httpx.get(f"{url}{path}", auth=("ann", "wrong")).status_code == 401
            assert httpx.get(f"{url}{path}", auth=("ann", "s:cret")).status_code == 200
        for path in ("/healthz", "/readyz", "/metrics"):
            assert httpx.get(f"{url}{path}").status_code == 200


def test_an_operators_groups_are_asked_by_default(photographs: dict[str, Path], tmp_path: Path) -> None:
    (tmp_path / "pets.txt").write_text("title: Pets\ncat\ndog\n")
    with served_here(labels_dir=tmp_path) as url:
        (result,) = post(url, photographs["cat"]).json()["results"]
        assert [group["name"] for group in result["groups"]] == ["kinds", "objects", "pets"]


def test_a_stop_does_not_wait_for_an_open_page(tmp_path: Path) -> None:
    """A page that is open holds a stream without end."""
    log = tmp_path / "log"
    with ExitStack() as stack:
        url = stack.enter_context(served("--model", "bundled", log=log))
        streams = ExitStack()
        stream = streams.enter_context(httpx.stream("GET", f"{url}/gradio_api/heartbeat/abc", timeout=30))
        assert stream.status_code == 200
        stack.close()
        assert "graceful shutdown exceeded" not in log.read_text(), "it ended the stream, and did not wait for it"
        with suppress(httpx.TransportError):
            streams.close()


@pytest.mark.parametrize("labels", [["", ""], [""], [" , "], ["[]"]])
def test_labels_that_are_none_are_422_and_not_the_default_question(
    server: str, photographs: dict[str, Path], labels: list[str]
) -> None:
    with photographs["cat"].open("rb") as picture:
        answer = httpx.post(f"{server}/api/analyze", files={"image": picture}, data={"labels": labels})
    assert answer.status_code == 422
    assert "No labels were given" in answer.json()["error"]["message"]


@pytest.mark.parametrize(
    ("field", "near"), [("label", "Did you mean labels?"), ("topk", "Did you mean top_k?"), ("zzz", "There are: image")]
)
def test_a_field_that_is_none_is_422_and_names_the_nearest(
    server: str, photographs: dict[str, Path], field: str, near: str
) -> None:
    with photographs["cat"].open("rb") as picture:
        answer = httpx.post(f"{server}/api/analyze", files={"image": picture}, data={field: "1"})
    assert answer.status_code == 422
    assert near in answer.json()["error"]["message"]


def test_labels_are_read_from_every_field_of_that_name(server: str, photographs: dict[str, Path]) -> None:
    form = {"labels": ["a cat\N{FULLWIDTH COMMA}a dog", '"big, red"; A Cat', "\N{ZERO WIDTH NO-BREAK SPACE}a ship"]}
    with photographs["cat"].open("rb") as picture:
        answer = httpx.post(f"{server}/api/analyze", files={"image": picture}, data=form)
    (group,) = answer.json()["results"][0]["groups"]
    assert {score["label"] for score in group["labels"]} == {"a cat", "a dog", "big, red", "a ship"}


# Where a label was seen.


def explain(server: str, picture: Path | bytes, **fields: str | list[str]) -> httpx.Response:
    data = picture if isinstance(picture, bytes) else picture.read_bytes()
    return httpx.post(f"{server}/api/explain", files={"image": ("x.bin", data)}, data=fields, timeout=60)


def test_a_map_comes_as_a_picture_or_as_numbers(server: str, photographs: dict[str, Path]) -> None:
    drawn = explain(server, photographs["coffee"], label="cup of coffee")
    assert (drawn.status_code, drawn.headers["content-type"]) == (200, "image/png")
    assert Image.open(io.BytesIO(drawn.content)).size == (600, 400)
    answer = explain(server, photographs["coffee"], label="Cup of Coffee", format="json")
    result = answer.json()
    assert set(result) == {"model", "image", "label", "method", "map", "timings_ms"}
    assert (result["label"], result["method"]) == ("cup of coffee", "class maps")
    assert result["image"] == {"name": "x.bin", "width": 600, "height": 400}
    assert max(map(max, result["map"])) == 1
    assert len({len(row) for row in result["map"]}) == 1


@pytest.mark.parametrize(
    "fields", [{"labels": ["dog", "pizza"]}, {"labels": "dog, pizza"}, {"group": "scenes"}, {"labels": "cat"}]
)
def test_a_map_is_told_apart_from_what_comes_with_it(
    server: str, photographs: dict[str, Path], fields: dict[str, str | list[str]]
) -> None:
    answer = explain(server, photographs["cat"], label="cat", format="json", **fields)
    assert (answer.status_code, answer.json()["label"]) == (200, "cat")


@pytest.mark.parametrize(
    ("fields", "mentions"),
    [
        ({}, "label"),
        ({"label": ""}, "label"),
        ({"label": " "}, "label: it is empty"),
        ({"lable": "cat"}, "Did you mean label?"),
        ({"label": "cat", "top_k": "3"}, "There are: image, label"),
        ({"label": "cat", "group": "birds"}, "kinds, objects, scenes, content"),
        ({"label": "cat", "group": "kinds", "labels": "dog"}, "one of the two"),
        ({"label": "cat", "format": "gif"}, "'png' or 'json'"),
    ],
)
def test_a_map_of_what_is_not_understood_is_422(
    server: str, photographs: dict[str, Path], fields: dict[str, str | list[str]], mentions: str
) -> None:
    answer = explain(server, photographs["cat"], **fields)
    assert (answer.status_code, answer.json()["error"]["code"]) == (422, "bad_option")
    assert mentions in answer.json()["error"]["message"]


def test_a_map_is_of_one_picture_that_can_be_read(server: str, photographs: dict[str, Path]) -> None:
    cat = photographs["cat"].read_bytes()
    broken = explain(server, b"no picture", label="cat")
    assert (broken.status_code, broken.json()["error"]["code"]) == (400, "undecodable_image")
    large = explain(server, cat + bytes(20_000_000), label="cat")
    assert (large.status_code, large.json()["error"]["code"]) == (413, "too_large")
    two = httpx.post(f"{server}/api/explain", files=[("image", cat)] * 2, data={"label": "cat"})
    assert (two.status_code, two.json()["error"]["code"]) == (422, "bad_option")


def test_a_map_before_there_is_a_model_is_503(photographs: dict[str, Path], tmp_path: Path) -> None:
    with served("--model", str(tmp_path / "none"), "--fallback", "none", ready=False) as url:
        answer = explain(url, photographs["cat"], label="cat")
        assert (answer.status_code, answer.json()["error"]["code"]) == (503, "not_ready")
        assert int(answer.headers["retry-after"]) > 0


def test_maps_and_analyses_share_the_places(photographs: dict[str, Path]) -> None:
    big = io.BytesIO()
    Image.open(photographs["china"]).resize((5000, 4000)).save(big, "JPEG")
    with served_here(queue_size=1) as url, ThreadPoolExecutor(8) as pool:
        asked = [explain if i % 2 else post for i in range(8)]
        answers = list(
            pool.map(lambda ask: ask(url, big.getvalue(), **({"label": "cat"} if ask is explain else {})), asked)
        )
        assert {answer.status_code for answer in answers} == {200, 503}
        assert explain(url, photographs["cat"], label="cat").status_code == 200
