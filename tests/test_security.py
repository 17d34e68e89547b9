"""The two file-read holes of a mounted Gradio, and what else a stranger may try."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import httpx
import pytest
from conftest import served

META = {"_type": "gradio.FileData"}


def call(server: str, name: str, data: list[Any]) -> str:
    answer = httpx.post(f"{server}/gradio_api/call/{name}", json={"data": data}, timeout=30)
    if answer.status_code != 200:
        return answer.text
    event = answer.json()["event_id"]
    return httpx.get(f"{server}/gradio_api/call/{name}/{event}", timeout=30).text


def functions(server: str) -> list[dict[str, Any]]:
    return [d for d in httpx.get(f"{server}/config").json()["dependencies"] if d["backend_fn"]]


@pytest.fixture
def secret(tmp_path: Path, photographs: dict[str, Path]) -> Path:
    """A real picture on the server that nobody uploaded."""
    path = tmp_path / "secret.png"
    path.write_bytes(photographs["cat"].read_bytes())
    return path


@pytest.mark.parametrize("meta", [{"meta": META}, {}], ids=["with meta", "without meta"])
def test_a_path_that_was_not_uploaded_is_never_read(server: str, secret: Path, meta: dict[str, Any]) -> None:
    image = {"path": str(secret), **meta}
    for text in (call(server, "analyze", [image, None, 5]), call(server, "classify", [image, "cat", "{}", False])):
        assert "error" in text
        assert "confidence" not in text
        assert str(secret.parent) not in text


@pytest.mark.parametrize("meta", [{"meta": META}, {}], ids=["with meta", "without meta"])
def test_no_function_of_the_page_reads_or_copies_it_either(server: str, secret: Path, meta: dict[str, Any]) -> None:
    config = httpx.get(f"{server}/config").json()
    types = {component["id"]: component["type"] for component in config["components"]}
    inside = {"picture": {"path": str(secret), "url": f"file://{secret}", **meta}, "number": 1, "options": {}}
    with_picture = 0
    for function in functions(server):
        kinds = [types[i] for i in function["inputs"]]
        with_picture += "html" in kinds
        for value in (inside, {"picture": {"url": str(secret)}}, str(secret)):
            body = {"data": [value for _ in kinds], "fn_index": function["id"], "session_hash": "x"}
            text = httpx.post(f"{server}/gradio_api/run/predict", json=body, timeout=30).text
            assert "confidence" not in text.replace('"confidence":null', "")
            assert str(secret.parent) not in text
        assert httpx.get(f"{server}/gradio_api/file={secret}").status_code in (403, 404)
    assert with_picture >= 1


@pytest.mark.parametrize(
    "path", ["/etc/hostname", "/proc/self/environ", "/dev/zero", "../../../../etc/passwd", "", "\0"]
)
def test_system_files_are_never_read(server: str, path: str) -> None:
    for meta in ({"meta": META}, {}):
        text = call(server, "analyze", [{"path": path, **meta}, None, 5])
        assert "error" in text
        assert "confidence" not in text
    if path.startswith("/"):
        assert httpx.get(f"{server}/gradio_api/file={path}").status_code in (403, 404)


def test_a_pipe_in_the_way_does_not_hang_it(server: str, tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    assert "error" in call(server, "analyze", [{"path": str(tmp_path / "pipe")}, None, 5])


def test_a_link_out_of_the_upload_folder_is_not_followed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from clip_app.errors import BadOption
    from clip_app.gradio_host import read_upload

    uploads = tmp_path / "uploads"
    uploads.mkdir()
    monkeypatch.setenv("GRADIO_TEMP_DIR", str(uploads))
    (tmp_path / "outside").write_bytes(b"secret")
    (uploads / "link").symlink_to(tmp_path / "outside")
    (uploads / "inside").write_bytes(b"fine")
    assert read_upload({"path": str(uploads / "inside")}, 100) == (b"fine", "inside")
    for path in (uploads / "link", uploads / ".." / "outside", uploads, uploads / "missing"):
        with pytest.raises(BadOption):
            read_upload({"path": str(path)}, 100)


@pytest.mark.parametrize("url", ["http://127.0.0.1:1/x.png", "https://example.com/x.png", "HTTP://example.com/x"])
def test_pictures_are_not_fetched_from_the_web(server: str, url: str) -> None:
    text = call(server, "analyze", [{"path": url, "meta": META}, None, 5])
    assert "Download it and upload the file" in text
    elsewhere = call(server, "analyze", [{"path": "x.png", "url": url, "meta": META}, None, 5])
    assert "error" in elsewhere
    assert "confidence" not in elsewhere


@pytest.mark.parametrize(
    "encode",
    [
        lambda text: text.replace("://", ":\\/\\/").encode(),
        lambda text: text.replace("://", "\\u003a//").encode(),
        lambda text: text.encode("utf-16"),
    ],
    ids=["escaped slashes", "escaped colon", "utf-16"],
)
def test_a_url_in_disguise_is_found(server: str, encode: Callable[[str], bytes]) -> None:
    body = json.dumps({"data": [{"path": "http://127.0.0.1:1/x.png", "meta": META}, None, 5]})
    answer = httpx.post(f"{server}/gradio_api/call/analyze", content=encode(body))
    assert answer.status_code == 422
    assert "Download it and upload the file" in answer.text


@pytest.mark.parametrize(
    "path",
    [
        "/gradio_api/file=https://example.com/",
        "/gradio_api/file/https://example.com/",
        "/gradio_api/file=%68ttps://example.com/",
        "/gradio_api/proxy=https://example.com/",
        "/gradio_api/runs",
        "/monitoring",
        "/monitoring/summary",
    ],
)
def test_relays_and_monitoring_are_closed(server: str, path: str) -> None:
    assert httpx.get(f"{server}{path}").status_code == 404


def test_recordings_are_not_processed(server: str) -> None:
    assert httpx.post(f"{server}/gradio_api/process_recording").status_code == 404


def test_a_forwarded_host_does_not_become_the_pages_own(server: str) -> None:
    evil = {"X-Forwarded-Host": "evil.example", "X-Gradio-Server": "http://evil.example"}
    assert "evil.example" not in httpx.get(f"{server}/", headers=evil).text
    assert "evil.example" not in httpx.get(f"{server}/config", headers=evil).text


def test_json_bodies_are_bounded(server: str) -> None:
    data = {"data": [{"url": "data:image/png;base64," + "A" * 2_000_000}, None, 5]}
    answer = httpx.post(f"{server}/gradio_api/call/analyze", json=data)
    assert answer.status_code == 413
    chunked = (json.dumps(data).encode()[i : i + 65536] for i in range(0, 2_000_000, 65536))
    assert httpx.post(f"{server}/gradio_api/call/analyze", content=chunked).status_code == 413


def test_uploads_are_bounded(server: str) -> None:
    files = {"files": ("x.png", bytes(22_000_000))}
    assert httpx.post(f"{server}/gradio_api/upload", files=files, timeout=60).status_code == 413


def test_what_broken_uploads_leave_is_removed(tmp_path: Path) -> None:
    from clip_app.uploads import remove_broken_uploads

    finished = tmp_path / "folder" / "cat.png"
    finished.parent.mkdir()
    for path in (tmp_path / "old", tmp_path / "young", finished):
        path.write_bytes(b"x")
    for path in (tmp_path / "old", finished):
        os.utime(path, (0, 0))
    remove_broken_uploads(tmp_path)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["folder", "young"]
    assert finished.exists()


def preflight(server: str, path: str, origin: str) -> httpx.Response:
    headers = {"Origin": origin, "Access-Control-Request-Method": "POST"}
    return httpx.options(f"{server}{path}", headers=headers)


@pytest.mark.parametrize("path", ["/api/analyze", "/gradio_api/run/analyze", "/gradio_api/queue/join", "/healthz"])
def test_pages_of_other_sites_may_not_ask_unless_they_are_named(server: str, path: str) -> None:
    for origin in ("https://evil.example", "http://localhost:3000", "null"):
        assert "access-control-allow-origin" not in preflight(server, path, origin).headers
        assert "access-control-allow-origin" not in httpx.get(f"{server}{path}", headers={"Origin": origin}).headers


def test_a_site_that_is_named_may_ask_and_read_the_answer() -> None:
    friend = "https://friend.example"
    with served("--model", "bundled", "--cors-origins", f"{friend}, https://b.example") as url:
        for path in ("/api/analyze", "/gradio_api/run/analyze", "/healthz"):
            assert preflight(url, path, friend).headers["access-control-allow-origin"] == friend
            found = httpx.get(f"{url}{path}", headers={"Origin": friend}).headers
            assert found["access-control-allow-origin"] == friend
            assert "access-control-allow-origin" not in preflight(url, path, "https://evil.example").headers


VALUES = [
    {"data": []},
    {"data": ["no picture", None, None]},
    {"data": [None, None, "many"]},
    {"data": [{"path": "/etc/hostname"}, None, None]},
    {"data": [None, None, None], "batched": True},
    {"data": [None, None, None], "event_data": 5},
]


@pytest.mark.parametrize("body", VALUES)
def test_bad_values_of_a_direct_call_are_the_callers_fault(server: str, body: object) -> None:
    found = httpx.post(f"{server}/gradio_api/run/analyze", json=body)
    assert found.status_code == 422
    assert found.json()["error"]


@pytest.mark.parametrize("index", [1_000_000, -5, None, "two"])
@pytest.mark.parametrize("path", ["run/predict", "run/nothing", "queue/join", "call/nothing"])
def test_a_function_that_there_is_not_is_not_a_failure(server: str, index: object, path: str) -> None:
    body = {"data": [None], "session_hash": "abc"} | ({} if index is None else {"fn_index": index})
    assert httpx.post(f"{server}/gradio_api/{path}", json=body).status_code in (400, 404, 422)


@pytest.mark.parametrize("wanted", ["bytes=abc", "bytes=5-2", "items=0-1", "bytes=999999999-", "bytes=0-" + "9" * 50])
def test_a_range_that_makes_no_sense_is_not_a_failure(server: str, wanted: str) -> None:
    for path in ("/", "/page/page.js", "/gradio_api/info", "/metrics"):
        assert httpx.get(f"{server}{path}", headers={"Range": wanted}).status_code < 500
