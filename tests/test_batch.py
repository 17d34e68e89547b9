from __future__ import annotations

import io
import json
import time
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from conftest import served
from gradio_client import Client, handle_file
from gradio_client.exceptions import AppError
from PIL import Image
from test_metrics import scrape, value
from zips import BAD, END, LOCAL, packed

from clip_app.batch import MOST_PICTURES

API = {"api_name": "/analyze_batch"}


@pytest.fixture(scope="module")
def client(server: str) -> Client:
    return Client(server, verbose=False)


@pytest.fixture(scope="module")
def fresh() -> Iterator[str]:
    """A server of its own, whose counts nobody else moves."""
    with served("--model", "bundled") as url:
        yield url


@pytest.fixture(scope="module")
def many(photographs: dict[str, Path], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An archive of sixty photographs, each another size."""
    photograph = Image.open(photographs["cat"]).convert("RGB")
    path = tmp_path_factory.mktemp("many") / "many.zip"
    with zipfile.ZipFile(path, "w") as archive:
        for number in range(60):
            saved = io.BytesIO()
            photograph.resize((451 + number, 300)).save(saved, "JPEG")
            archive.writestr(f"roll/{number:02}.jpg", saved.getvalue())
    return path


def saved(folder: Path, name: str, content: bytes) -> Any:
    path = folder / name
    path.write_bytes(content)
    return handle_file(path)


def row_names(results: list[dict[str, Any]]) -> list[str]:
    return [row["image"]["name"] for row in results]


def test_updates_come_one_after_the_other_and_the_last_has_all(client: Client, many: Path) -> None:
    updates = list(client.submit([handle_file(many)], groups=["kinds"], top_k=1, **API))
    *before, last = updates
    assert len(before) > 2
    assert (last["done"], last["total"]) == (60, 60)
    assert row_names(last["results"]) == [f"roll/{number:02}.jpg" for number in range(60)]
    assert [row["image"]["width"] for row in last["results"]] == [451 + number for number in range(60)]
    assert all(update["done"] < update["total"] == 60 for update in before)
    so_far = [row for update in before for row in update["results"]]
    assert so_far == last["results"][: before[-1]["done"]]
    for update, after in zip(before, updates[1:], strict=True):
        assert update["done"] < after["done"]


def test_what_is_sent_grows_with_the_pictures_and_not_with_their_square(server: str, many: Path) -> None:
    """As curl sees it."""
    text = httpx.get(called(server, [uploaded(server, many)])).text
    events = [line.removeprefix("data: ") for line in text.splitlines() if line.startswith("data: ")]
    (last,) = json.loads(events[-1])
    assert last["done"] == last["total"] == len(last["results"]) == 60
    assert len(events) > 4
    assert sum(map(len, events)) < 3.5 * len(events[-1]), "new rows, all rows, and all rows again as complete"


def uploaded(url: str, path: Path) -> dict[str, Any]:
    (there,) = httpx.post(f"{url}/gradio_api/upload", files={"files": (path.name, path.read_bytes())}).json()
    return {"path": there, "meta": {"_type": "gradio.FileData"}}


def called(url: str, files: list[dict[str, Any]]) -> str:
    """Call it as curl does; where its events are."""
    asked = {"files": files, "groups": ["kinds"]}
    event = httpx.post(f"{url}/gradio_api/call/v2/analyze_batch", json=asked).json()["event_id"]
    return f"{url}/gradio_api/call/analyze_batch/{event}"


def test_a_bad_picture_is_a_row_in_its_place(client: Client, photographs: dict[str, Path], tmp_path: Path) -> None:
    bad = saved(tmp_path, "bad.jpg", b"no picture")
    files = [handle_file(photographs["coffee"]), bad, handle_file(photographs["cat"])]
    first, second, third = client.predict(files, labels="cat, cup of coffee", **API)["results"]
    assert first["groups"][0]["labels"][0]["label"] == "cup of coffee"
    assert second["image"] == {"name": "bad.jpg"}
    assert second["error"]["code"] == "undecodable_image"
    assert "not a picture that can be read" in second["error"]["message"]
    assert len(second["error"]["request_id"]) == 32
    assert third["groups"][0]["labels"][0]["label"] == "cat"


def test_the_result_is_that_of_analyze(client: Client, photographs: dict[str, Path]) -> None:
    options = {"groups": ["kinds", "objects"], "top_k": 2}
    (row,) = client.predict([handle_file(photographs["cat"])], **options, **API)["results"]
    alone = client.predict(handle_file(photographs["cat"]), **options, api_name="/analyze")
    del row["timings_ms"], alone["timings_ms"]
    assert row == alone


def test_own_labels_take_the_place_of_the_default_groups(client: Client, photographs: dict[str, Path]) -> None:
    answer = client.predict(
        [handle_file(photographs["cat"])], labels=["cat", "dog"], template="a {}.", independent=True, top_k=1, **API
    )
    assert [(group["name"], len(group["labels"])) for group in answer["results"][0]["groups"]] == [("labels", 1)]


def test_one_file_is_taken_for_a_list_of_one(client: Client, photographs: dict[str, Path]) -> None:
    assert client.predict(handle_file(photographs["cat"]), **API)["total"] == 1


def test_an_archive_among_pictures_has_its_pictures_in_its_place(
    client: Client, photographs: dict[str, Path], tmp_path: Path
) -> None:
    cat, coffee = (photographs[name].read_bytes() for name in ("cat", "coffee"))
    files = [("Zürich/cat.png", cat), (".DS_Store", b"x"), ("notes.txt", b"no picture"), ("coffee.png", coffee)]
    archive = saved(tmp_path, "an archive by its content.jpg", packed(*files))
    rocket = handle_file(photographs["rocket"])
    answer = client.predict([rocket, archive, rocket], groups=["kinds"], **API)
    assert row_names(answer["results"]) == ["rocket.jpg", "Zürich/cat.png", "notes.txt", "coffee.png", "rocket.jpg"]
    assert [row.get("error", {}).get("code") for row in answer["results"]] == [
        None,
        None,
        "undecodable_image",
        None,
        None,
    ]


@pytest.mark.parametrize("kind", BAD)
def test_what_cannot_be_read_of_an_archive_is_a_row_that_says_what_to_do(
    client: Client, photographs: dict[str, Path], tmp_path: Path, kind: str
) -> None:
    make, message = BAD[kind]
    answer = client.predict([saved(tmp_path, "a.zip", make()), handle_file(photographs["cat"])], **API)
    *bad, good = answer["results"]
    assert bad
    for row in bad:
        assert row["error"]["code"] == "bad_archive"
        assert message in row["error"]["message"]
        assert str(tmp_path) not in str(row)
    assert good["groups"]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (LOCAL + bytes(500), "The archive is damaged"),
        (END + bytes(18), "There is no picture in the archive"),
        (packed((".DS_Store", b"x"), ("x/", b"")), "There is no picture in the archive"),
    ],
)
def test_an_archive_without_pictures_is_one_row(client: Client, tmp_path: Path, content: bytes, message: str) -> None:
    (row,) = client.predict([saved(tmp_path, "photos.zip", content)], **API)["results"]
    assert row["image"]["name"] == "photos.zip"
    assert message in row["error"]["message"]


def test_too_many_pictures_are_told_how_many_are_taken(
    client: Client, photographs: dict[str, Path], tmp_path: Path
) -> None:
    archive = saved(tmp_path, "a.zip", packed(*[(f"{number}.jpg", b"") for number in range(MOST_PICTURES)]))
    with pytest.raises(AppError, match="1,001 pictures were sent; at most 1,000 are taken at once"):
        client.predict([archive, handle_file(photographs["cat"])], **API)


@pytest.mark.parametrize(
    ("files", "arguments", "message"),
    [
        ([], {}, "There is no picture"),
        (None, {}, "There is no picture"),
        (["cat"], {"groups": ["birds"]}, "There is no label group 'birds'"),
        (["cat"], {"labels": " , "}, "No labels were given"),
        (["cat"], {"labels": "a", "template": "no place"}, "The template needs"),
        (["cat"], {"top_k": 0}, "top_k"),
    ],
)
def test_a_bad_question_is_refused_and_counted_once(
    fresh: str, photographs: dict[str, Path], files: list[str] | None, arguments: dict[str, object], message: str
) -> None:
    before = scrape(fresh)
    sent = None if files is None else [handle_file(photographs[name]) for name in files]
    with pytest.raises(AppError, match=message):
        Client(fresh, verbose=False).predict(sent, **arguments, **API)
    assert counted(fresh, before) == {"invalid": 1, "uploaded": 1}


def test_every_picture_is_counted_with_its_outcome(fresh: str, photographs: dict[str, Path], tmp_path: Path) -> None:
    before = scrape(fresh)
    cat = photographs["cat"]
    archive = saved(tmp_path, "a.zip", packed(("cat.png", cat.read_bytes()), ("b.zip", packed())))
    damaged = saved(tmp_path, "b.zip", LOCAL)
    Client(fresh, verbose=False).predict([handle_file(cat), archive, damaged], **API)
    assert counted(fresh, before) == {"ok": 2, "invalid": 2, "uploaded": 4}


def counted(url: str, before: Any) -> dict[str, float]:
    """What has been counted since."""
    now = scrape(url)
    found = {"uploaded": ("clip_app_images_uploaded_total", {"source": "api"})}
    for outcome in ("ok", "invalid", "rejected", "error"):
        found[outcome] = ("clip_app_analyses_total", {"endpoint": "analyze_batch", "outcome": outcome})
    grown = {key: value(now, name, **labels) - value(before, name, **labels) for key, (name, labels) in found.items()}
    return {key: count for key, count in grown.items() if count}


def test_a_batch_that_is_cancelled_stops(fresh: str, many: Path) -> None:
    before = scrape(fresh)
    client = Client(fresh, verbose=False)
    job = client.submit([handle_file(many)] * 16, **API)
    next(iter(job))
    job.cancel()
    assert 0 < settled(fresh, before) < 16 * 60


def test_a_batch_whose_client_is_gone_stops(fresh: str, many: Path) -> None:
    before = scrape(fresh)
    with httpx.stream("GET", called(fresh, [uploaded(fresh, many)] * 16)) as answer:
        assert next(answer.iter_lines()) == "event: generating"
    assert 0 < settled(fresh, before) < 16 * 60


def settled(url: str, before: Any) -> float:
    """How many pictures were analysed, once no more are."""
    count = -1.0
    while count != (count := counted(url, before).get("ok", 0.0)):
        time.sleep(2)
    return count


def test_a_batch_waits_for_a_place_and_leaves_it_to_others(many: Path, photographs: dict[str, Path]) -> None:
    """With one place that somebody else asks for all the time, every picture of the batch still gets its turn."""
    with served("--model", "bundled", env={"CLIP_APP_QUEUE_SIZE": "1"}) as url:
        before = scrape(url)
        job = Client(url, verbose=False).submit([handle_file(many)], groups=["kinds"], **API)
        picture, statuses = photographs["cat"].read_bytes(), set()
        while not job.done():
            statuses.add(httpx.post(f"{url}/api/analyze", files={"image": picture}).status_code)
        answer = job.result()
        assert statuses <= {200, 503}
        assert 200 in statuses
        assert all("groups" in row for row in answer["results"])
        assert counted(url, before) == {"ok": 60, "uploaded": 60}


def test_a_server_that_is_told_to_stop_stops_in_the_middle_of_a_batch(many: Path) -> None:
    with served("--model", "bundled") as url:
        job = Client(url, verbose=False).submit([handle_file(many)] * 16, **API)
        next(iter(job))
    # served() waits for it


def test_batches_that_come_together_are_all_answered(client: Client, many: Path) -> None:
    jobs = [client.submit([handle_file(many)], groups=["kinds"], top_k=1, **API) for _ in range(6)]
    assert [len(job.result()["results"]) for job in jobs] == [60] * 6


def test_a_direct_call_answers_what_is_done_by_its_first_update(server: str, photographs: dict[str, Path]) -> None:
    data = [[uploaded(server, photographs["cat"])], ["kinds"], None, None, False, None]
    answer = httpx.post(f"{server}/gradio_api/run/analyze_batch", json={"data": data}).json()["data"][0]
    assert (answer["done"], answer["total"]) == (1, 1)
