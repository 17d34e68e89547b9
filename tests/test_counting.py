"""Every face counts exactly once, whatever becomes of a picture; and says so in one line of the log."""

from __future__ import annotations

import base64
import json
import re
import socket
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import httpx
import pytest
from conftest import CURSED, need, served
from gradio_client import Client, handle_file
from gradio_client.exceptions import AppError
from playwright.sync_api import expect
from prometheus_client import REGISTRY
from prometheus_client.parser import text_string_to_metric_families
from real_browser import add_label, answered, chromium, put_in, visit
from typer.testing import CliRunner

FILE = {"_type": "gradio.FileData"}
OVERSIZED = 21_000_000  # over MAX_UPLOAD_MB, under what Gradio is let through


def counts(samples: Any) -> dict[str, float]:
    """What was counted of uploads and analyses, as "rest/ok": 3, without the zeros."""
    found: dict[str, float] = {}
    for sample in samples:
        labels = sample.labels
        if sample.name == "clip_app_images_uploaded_total":
            found[f"uploaded/{labels['source']}"] = sample.value
        elif sample.name == "clip_app_analyses_total":
            found[f"{labels['endpoint']}/{labels['outcome']}"] = sample.value
        elif sample.name == "clip_app_analysis_duration_seconds_count":
            found[f"timed/{labels['endpoint']}"] = sample.value
    return {name: value for name, value in found.items() if value}


def counted(url: str) -> dict[str, float]:
    families = text_string_to_metric_families(httpx.get(f"{url}/metrics").text)
    return counts(sample for family in families for sample in family.samples)


def counted_here() -> dict[str, float]:
    return counts(sample for family in REGISTRY.collect() for sample in family.samples)


def difference(after: dict[str, float], before: dict[str, float]) -> dict[str, float]:
    moved = {name: value - before.get(name, 0) for name, value in after.items()}
    return {name: value for name, value in moved.items() if value}


@pytest.fixture(scope="module")
def fresh(damaged: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[str, Path]]:
    log = tmp_path_factory.mktemp("log") / "log"
    with served("--model", str(damaged), "--log-format", "json", "--log-level", "info", log=log) as url:
        yield url, log


@pytest.fixture
def app(fresh: tuple[str, Path]) -> str:
    """The server of this module; what a test finds counted afterwards is what it did."""
    return fresh[0]


@pytest.fixture
def broken(tmp_path: Path, photographs: dict[str, Path]) -> Path:
    path = tmp_path / "broken.png"
    path.write_bytes(photographs["cat"].read_bytes()[:5000])
    return path


def post(url: str, *pictures: bytes, **fields: str) -> httpx.Response:
    files = [("image", ("x.png", picture)) for picture in pictures]
    return httpx.post(f"{url}/api/analyze", files=files, data=fields, timeout=60)


def test_rest(app: str, photographs: dict[str, Path]) -> None:
    good = photographs["cat"].read_bytes()
    before = counted(app)
    for _ in range(3):
        assert post(app, good).status_code == 200
    several = post(app, good, b"no picture", good).json()["results"]  # 2 ok, 1 invalid
    assert ["error" in result for result in several] == [False, True, False]
    assert post(app, b"no picture").status_code == 400
    assert post(app, good, groups="birds").status_code == 422
    assert post(app, good, labels=" , ").status_code == 422
    assert post(app, good + bytes(OVERSIZED)).status_code == 413  # by the picture's own bound
    assert post(app, good, labels=CURSED).status_code == 500
    # Refused as a whole, before there is an analysis:
    assert post(app, bytes(90_000_000)).status_code == 413
    assert post(app, *[b"x"] * 17).status_code == 422
    assert post(app, good, top_k="many").status_code == 422
    assert httpx.post(f"{app}/api/analyze", data={"top_k": "3"}).status_code == 422
    malformed = httpx.post(
        f"{app}/api/analyze", content=b"no form", headers={"Content-Type": "multipart/form-data; boundary=x"}
    )
    assert malformed.status_code in (400, 422)
    # Not for an analysis at all:
    assert httpx.get(f"{app}/api/analyze").status_code in (404, 405)
    assert difference(counted(app), before) == {
        "rest/ok": 5,
        "rest/invalid": 1 + 4 + 5,
        "rest/error": 1,
        "uploaded/rest": 16,
        "timed/rest": 5 + 1 + 4 + 1,
    }


def test_rest_where(app: str, photographs: dict[str, Path]) -> None:
    good = photographs["cat"].read_bytes()

    def where(*pictures: bytes, **fields: str) -> int:
        files = [("image", ("x.png", picture)) for picture in pictures]
        return httpx.post(f"{app}/api/explain", files=files, data=fields, timeout=60).status_code

    before = counted(app)
    assert where(good, label="cat") == where(good, label="cat", format="json") == 200
    assert where(b"no picture", label="cat") == 400
    assert where(good, label="cat", group="birds") == 422
    assert where(good + bytes(OVERSIZED), label="cat") == 413
    assert where(good, label=CURSED) == 500
    # Refused as a whole, before there is an analysis:
    assert where(good) == where(good, good, label="cat") == where(good, lable="cat") == 422
    assert where(bytes(90_000_000), label="cat") == 413
    assert difference(counted(app), before) == {
        "rest_explain/ok": 2,
        "rest_explain/invalid": 3 + 4,
        "rest_explain/error": 1,
        "uploaded/rest": 10,
        "timed/rest_explain": 2 + 3 + 1,
    }


def call(url: str, name: str, data: list[Any], way: str = "call") -> str:
    answer = httpx.post(f"{url}/gradio_api/{way}/{name}", json={"data": data}, timeout=60)
    if way == "run" or answer.status_code != 200:
        return answer.text
    return httpx.get(f"{url}/gradio_api/call/{name}/{answer.json()['event_id']}", timeout=60).text


def test_the_gradio_api(app: str, photographs: dict[str, Path], broken: Path, tmp_path: Path) -> None:
    photo = photographs["cat"]
    client = Client(app, verbose=False)
    before = counted(app)
    client.predict(handle_file(photo), api_name="/analyze")
    client.predict(handle_file(photo), "cat", api_name="/classify")
    client.predict(handle_file(photo), "cat", api_name="/explain")
    client.predict(api_name="/status")  # no analysis
    for bad, options in ((broken, {}), (photo, {"groups": ["birds"]})):
        with pytest.raises(AppError):
            client.predict(handle_file(bad), **options, api_name="/analyze")
    with pytest.raises(AppError, match=r"The log says more\. \(request [0-9a-f]{32}\)"):
        client.predict(handle_file(photo), CURSED, api_name="/classify")
    # Values that Gradio itself refuses, before the function sees them, queued and direct:
    outside = {"path": str(photo), "meta": FILE}
    for way in ("call", "run"):
        for data in ([outside, None, 5], [], [{"path": "x.png"}, None, 5], [None, None, 5]):
            assert "(request " in call(app, "analyze", data, way)
    assert difference(counted(app), before) == {
        "analyze/ok": 1,
        "analyze/invalid": 2 + 8,
        "classify/ok": 1,
        "classify/error": 1,
        "explain/ok": 1,
        "uploaded/api": 14,
        "timed/analyze": 1 + 2 + 4,  # the last two ways of wrong reach the function
        "timed/classify": 2,
        "timed/explain": 1,
    }


def test_what_gradio_refuses_at_the_door(app: str, photographs: dict[str, Path]) -> None:
    before = counted(app)
    upload = f"{app}/gradio_api/upload"
    big = {"files": ("x.png", bytes(20_500_000))}  # Gradio's own bound
    huge = {"files": ("x.png", bytes(22_000_000))}  # the body's
    assert httpx.post(upload, files=big, timeout=60).status_code == 413
    assert httpx.post(upload, files=huge, timeout=60).status_code == 413
    assert httpx.post(f"{upload}?upload_id=abc", files=big, timeout=60).status_code == 413  # as the page does
    assert httpx.post(f"{app}/gradio_api/call/analyze", content=b"{").status_code == 422
    assert httpx.post(f"{app}/gradio_api/call/analyze", json={"data": ["A" * 2_000_000]}).status_code == 413
    assert httpx.post(f"{app}/gradio_api/call/v2/classify", json={"nonsense": 1}).status_code == 500
    assert httpx.post(f"{app}/gradio_api/queue/join", content=b"{").status_code == 422
    assert httpx.post(f"{app}/gradio_api/call/status", content=b"{").status_code == 422  # no analysis
    assert httpx.post(upload, files={"files": ("x.png", photographs["cat"].read_bytes())}).status_code == 200
    assert difference(counted(app), before) == {
        "gradio/invalid": 3,
        "ui/invalid": 1,
        "analyze/invalid": 2,
        "classify/error": 1,  # Gradio itself fails on it
        "uploaded/api": 6,
        "uploaded/ui": 1,
    }


@need("chromium")
def test_the_page(app: str, photographs: dict[str, Path], broken: Path, tmp_path: Path) -> None:
    with chromium() as browser, visit(browser, app) as page:
        before = counted(app)
        put_in(page, photographs["cat"])
        answered(page)
        page.get_by_label("Scenes").uncheck()  # the same picture again
        expect(page.locator('[data-group="scenes"]')).to_have_count(0)
        add_label(page, CURSED)
        expect(page.locator("#ca-verdict")).to_contain_text("Something went wrong that is not known")
        page.locator("#ca-results summary").click()
        expect(page.locator("#ca-results")).to_contain_text(re.compile("says more.*Request [0-9a-f]{32}", re.S))
        page.get_by_role("button", name=f"Remove {CURSED}").click()
        answered(page)
        put_in(page, broken)
        expect(page.locator("#ca-verdict")).to_contain_text("not a picture that can be read")
        (tmp_path / "big.tiff").write_bytes(bytes(OVERSIZED))
        put_in(page, tmp_path / "big.tiff")  # the page itself stops it; it never arrives
        expect(page.locator("#ca-picture-problem")).to_contain_text("are accepted")
    assert difference(counted(app), before) == {
        "ui/ok": 3,
        "ui/error": 1,
        "ui/invalid": 1,
        "uploaded/ui": 2,
        "timed/ui": 5,
    }


def question(picture: object, **options: object) -> dict[str, object]:
    return {"data": [{"picture": {"url": picture}, "options": options, "number": 1}], "fn_index": 0}


def test_the_questions_of_the_page(app: str, photographs: dict[str, Path]) -> None:
    url = f"data:image/png;base64,{base64.b64encode(photographs['cat'].read_bytes()).decode()}"
    before = counted(app)
    for body, code in (
        (question(url), None),
        (question("/etc/passwd"), "bad_option"),
        (question(url, groups=["birds"]), "bad_option"),
        (question(f"data:image/png;base64,{'A' * 27_000_000}"), "too_large"),  # by the picture's own bound
    ):
        (told,) = httpx.post(f"{app}/gradio_api/run/predict", json=body, timeout=60).json()["data"]
        assert (told["error"] or {}).get("code") == code
    huge = question("A" * 28_000_000)  # by the body's
    assert httpx.post(f"{app}/gradio_api/run/predict", json=huge, timeout=60).status_code == 413
    assert difference(counted(app), before) == {
        "ui/ok": 1,
        "ui/invalid": 4,
        "uploaded/ui": 5,
        "timed/ui": 4,
    }


def test_the_command_line(damaged: Path, photographs: dict[str, Path], broken: Path, tmp_path: Path) -> None:
    """There is nothing to scrape: the counters of this process are looked at."""
    from clip_app.cli import app as cli

    big = tmp_path / "big.png"
    big.write_bytes(bytes(OVERSIZED))
    before = counted_here()
    common = ["analyze", "--model", str(damaged), "--format", "json", "--output", str(tmp_path / "out.json")]
    photo = str(photographs["cat"])
    assert CliRunner().invoke(cli, [*common, photo, photo]).exit_code == 0
    assert CliRunner().invoke(cli, [*common, photo, str(broken), str(big), str(tmp_path / "gone.png")]).exit_code == 1
    assert CliRunner().invoke(cli, [*common, photo, "--labels", CURSED]).exit_code == 1
    assert difference(counted_here(), before) == {
        "cli/ok": 3,
        "cli/invalid": 3,
        "cli/error": 1,
        "uploaded/cli": 7,
        "timed/cli": 7,
    }


def test_a_full_queue_counts_every_picture_it_turned_away(photographs: dict[str, Path]) -> None:
    with ExitStack() as stack:
        url = stack.enter_context(
            served("--model", "bundled", "--queue-size", "1", env={"CLIP_APP_AUTH": "ann:secret"})
        )
        client = stack.enter_context(httpx.Client(base_url=url, auth=("ann", "secret"), timeout=60))
        pool = stack.enter_context(ThreadPoolExecutor(12))
        stranger = post(url, photographs["cat"].read_bytes())  # is no analysis
        assert (stranger.status_code, "x-request-id" in stranger.headers) == (401, True)
        upload = client.post("/gradio_api/upload", files={"files": ("x.png", photographs["cat"].read_bytes())})
        body = {"data": [{"path": upload.json()[0], "meta": FILE}, None, 5]}
        answers = list(pool.map(lambda _: client.post("/gradio_api/call/analyze", json=body), range(24)))
        accepted = [answer.json()["event_id"] for answer in answers if answer.status_code == 200]
        texts = [client.get(f"/gradio_api/call/analyze/{event}").text for event in accepted]
        assert all("confidence" in text for text in texts)
        full = sum(answer.status_code == 503 for answer in answers)
        assert full > 0, "nothing was turned away: the test shows nothing"
        assert counted(url) == {
            "analyze/ok": 24 - full,
            "analyze/rejected": full,
            "uploaded/api": 24,
            "timed/analyze": 24 - full,
        }


@pytest.fixture(scope="module")
def unready(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """A server that waits for a Hub which takes connections and never answers."""
    with socket.create_server(("127.0.0.1", 0)) as hub:
        env = {"HF_HUB_OFFLINE": "0", "HF_ENDPOINT": f"http://127.0.0.1:{hub.getsockname()[1]}"}
        env["HF_HOME"] = str(tmp_path_factory.mktemp("home"))
        with served(env=env, ready=False) as url:
            yield url


def test_before_the_model_is_there_pictures_are_rejected(unready: str, photographs: dict[str, Path]) -> None:
    good = photographs["cat"].read_bytes()
    assert post(unready, good).status_code == 503
    upload = httpx.post(f"{unready}/gradio_api/upload", files={"files": ("x.png", good)})
    image = {"path": upload.json()[0], "meta": FILE}
    assert "error" in call(unready, "analyze", [image, None, 5])
    assert counted(unready) == {"rest/rejected": 1, "analyze/rejected": 1, "uploaded/rest": 1, "uploaded/api": 1}


def lines(log: Path) -> list[dict[str, Any]]:
    whole, _, _ = log.read_text().rpartition("\n")  # the last line may still be on its way
    return [json.loads(line) for line in whole.splitlines()]


@pytest.mark.parametrize("given", ["from-a-proxy.1:2", ""])
def test_one_line_of_the_log_names_the_request_and_no_secret(
    fresh: tuple[str, Path], photographs: dict[str, Path], given: str
) -> None:
    url, log = fresh
    before = len(lines(log))
    answer = httpx.post(
        f"{url}/api/analyze",
        files={"image": ("my secret name.png", photographs["cat"].read_bytes())},
        data={"labels": "a secret label, a dog"},
        headers={"X-Request-ID": given, "Authorization": "Bearer secret-token"},
    )
    request_id = answer.headers["x-request-id"]
    assert request_id == given or re.fullmatch("[0-9a-f]{32}", request_id)
    (line,) = lines(log)[before:]
    assert (line["message"], line["level"], line["request_id"]) == ("analysis", "info", request_id)
    assert (line["endpoint"], line["outcome"], line["model"]) == ("rest", "ok", "checkpoint")
    stages = {f"{stage}_ms" for stage in ("decode", "preprocess", "queue", "encode", "score")}
    assert line["total_ms"] >= sum(line[stage] for stage in stages) > 0
    assert "secret" not in json.dumps(line)


@pytest.mark.parametrize("given", ["a b", "x" * 65, "id=1", "<b>", "é"])
def test_an_id_that_is_not_well_formed_is_made_anew(app: str, given: str) -> None:
    answer = httpx.get(f"{app}/healthz", headers={b"X-Request-ID": given.encode()})
    assert re.fullmatch("[0-9a-f]{32}", answer.headers["x-request-id"])


def test_an_error_names_its_request(app: str) -> None:
    for answer in (post(app, b"no picture"), post(app, *[b"x"] * 17), post(app, bytes(90_000_000))):
        assert answer.json()["error"]["request_id"] == answer.headers["x-request-id"]


def test_a_queued_event_keeps_the_id_of_the_request_that_asked(
    fresh: tuple[str, Path], photographs: dict[str, Path]
) -> None:
    """Also where another request started Gradio's queue, in whose name its tasks would run."""
    url, log = fresh
    httpx.get(f"{url}/gradio_api/startup-events", headers={"X-Request-ID": "starter"})
    upload = httpx.post(f"{url}/gradio_api/upload", files={"files": ("x.png", photographs["cat"].read_bytes())})
    image = {"path": upload.json()[0], "meta": FILE}
    before = len(lines(log))

    def ask(name: str) -> None:
        answer = httpx.post(
            f"{url}/gradio_api/call/analyze", json={"data": [image, None, 5]}, headers={"X-Request-ID": name}
        )
        assert answer.headers["x-request-id"] == name
        httpx.get(f"{url}/gradio_api/call/analyze/{answer.json()['event_id']}", headers={"X-Request-ID": "poll"})

    names = [f"asked-{i}" for i in range(8)]
    with ThreadPoolExecutor(8) as pool:
        list(pool.map(ask, names))
    assert sorted(line["request_id"] for line in lines(log)[before:]) == names


def test_an_unexpected_failure_is_logged_with_its_request(
    fresh: tuple[str, Path], photographs: dict[str, Path]
) -> None:
    url, log = fresh
    before = len(lines(log))
    answer = post(url, photographs["cat"].read_bytes(), labels=CURSED)
    assert (answer.status_code, answer.json()["error"]["code"]) == (500, "error")
    written = lines(log)[before:]
    assert {line["request_id"] for line in written} == {answer.headers["x-request-id"]}
    assert any("IndexError" in line.get("exception", "") for line in written)
    assert [line["outcome"] for line in written if line["message"] == "analysis"] == ["error"]
    assert CURSED not in json.dumps(written)


def test_text_lines_hold_the_same_fields(photographs: dict[str, Path], tmp_path: Path) -> None:
    log = tmp_path / "log"
    with served("--model", "bundled", "--log-level", "info", log=log) as url:
        answer = post(url, photographs["cat"].read_bytes())
    (line,) = [line for line in log.read_text().splitlines() if " analysis " in line]
    fields = dict(pair.split("=", 1) for pair in line.split(" analysis ")[1].split())
    assert fields["request_id"] == answer.headers["x-request-id"]
    assert (fields["endpoint"], fields["outcome"], fields["model"]) == ("rest", "ok", "bundled")
    assert float(fields["total_ms"]) >= float(fields["encode_ms"]) > 0


def test_exemplars_name_the_request_in_openmetrics_only(app: str, photographs: dict[str, Path]) -> None:
    answer = httpx.post(f"{app}/api/analyze", files={"image": photographs["cat"].read_bytes()})
    exemplar = f'# {{request_id="{answer.headers["x-request-id"]}"}}'
    accept = {"Accept": "application/openmetrics-text; version=1.0.0"}
    openmetrics = httpx.get(f"{app}/metrics", headers=accept).text.splitlines()
    named = {line.split("{")[0] for line in openmetrics if exemplar in line}
    assert named == {"clip_app_analysis_duration_seconds_bucket", "clip_app_stage_duration_seconds_bucket"}
    assert "request_id" not in httpx.get(f"{app}/metrics").text


def test_no_name_no_label_and_no_path_of_a_client_is_in_the_log(
    fresh: tuple[str, Path], photographs: dict[str, Path]
) -> None:
    url, log = fresh
    good, named = photographs["cat"].read_bytes(), "concealed-name.png"
    before = len(log.read_text())
    for picture in (good, b"no picture"):
        for fields in (
            {"labels": f"concealed-label, {CURSED}"},
            {"groups": "concealed-group"},
            {"top_k": "concealed-number"},
        ):
            httpx.post(f"{url}/api/analyze", files={"image": (named, picture)}, data=fields)
        upload = httpx.post(f"{url}/gradio_api/upload", files={"files": (named, picture)})
        image = {"path": upload.json()[0], "meta": FILE, "orig_name": named}
        call(url, "classify", [image, f"concealed-label, {CURSED}", "a concealed {}", False])
        call(url, "analyze", [image, ["concealed-group"], 5])
        call(url, "analyze", [{"path": "/concealed/path", "meta": FILE}, None, 5])
        call(url, "concealed-endpoint", [image])
        call(url, "status", ["concealed-value"])
    written = log.read_text()[before:]
    assert written.count('"message": "analysis"') == 12
    assert "concealed" not in written
    assert CURSED not in written
