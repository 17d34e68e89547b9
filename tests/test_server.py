"""The application as it is put together, before anything is loaded; others are about the running server."""

from __future__ import annotations

import json
import os
import time
from pathlib import Path

import numpy as np
import pytest
from asgi import Answer, ask
from conftest import READY_SECONDS
from prometheus_client import REGISTRY
from starlette.testclient import TestClient

from clip_app.errors import EncodingFailed
from clip_app.loading import Loader
from clip_app.server import create_app
from clip_app.settings import load_settings
from clip_app.uploads import remove_broken_uploads


def get(path: str, **given: object) -> Answer:
    return ask(create_app(load_settings(model="bundled", **given)).asgi, path, method="GET")


@pytest.mark.parametrize(
    ("path", "status"), [("/healthz", 200), ("/readyz", 503), ("/metrics", 200), ("/metrics/", 200)]
)
def test_health_and_metrics_answer_before_there_is_a_model_and_without_a_password(path: str, status: int) -> None:
    for given in ({}, {"auth": "me:pass"}):
        found = get(path, **given)
        assert found.status == status
        assert found.headers["x-request-id"]


def test_everything_else_asks_for_the_password_where_there_is_one() -> None:
    assert get("/api/openapi.json", auth="me:pass").status == 401
    assert get("/api/openapi.json").status == 200


def test_a_picture_is_not_taken_before_there_is_a_model() -> None:
    asgi = create_app(load_settings(model="bundled")).asgi
    form = b'--x\r\nContent-Disposition: form-data; name="image"; filename="x.png"\r\n\r\nx\r\n--x--\r\n'
    found = ask(asgi, "/api/analyze", form, headers={"Content-Type": "multipart/form-data; boundary=x"})
    assert (found.status, found.error["code"]) == (503, "not_ready")
    assert int(found.headers["retry-after"]) > 0


def test_the_limits_are_told_from_the_start() -> None:
    create_app(load_settings(model="bundled", queue_size=7))
    assert REGISTRY.get_sample_value("clip_app_queue_capacity") == 7
    assert (REGISTRY.get_sample_value("clip_app_memory_limit_bytes") or 0) > 0
    assert (REGISTRY.get_sample_value("clip_app_cpu_limit_cores") or 0) > 0


def test_only_old_files_that_lie_directly_in_the_folder_of_uploads_are_removed(tmp_path: Path) -> None:
    for name, age in (("young", 0), ("old", 86400)):
        (tmp_path / name).write_text("")
        (tmp_path / f"{name} folder").mkdir()
        (tmp_path / f"{name} folder" / "finished.png").write_text("")
        for path in (tmp_path / name, tmp_path / f"{name} folder" / "finished.png", tmp_path / f"{name} folder"):
            os.utime(path, (time.time() - age,) * 2)
    remove_broken_uploads(tmp_path)
    assert sorted(path.name for path in tmp_path.rglob("*") if path.is_file()) == ["finished.png"] * 2 + ["young"]


def test_under_any_server_it_becomes_ready_by_its_lifespan_and_ends_with_it(photographs: dict[str, Path]) -> None:
    app = create_app(load_settings(model="bundled"))
    with TestClient(app) as client:
        deadline = time.monotonic() + READY_SECONDS
        while client.get("/readyz").status_code != 200:
            assert time.monotonic() < deadline
            time.sleep(0.05)
        answer = client.post("/api/analyze", files={"image": photographs["coffee"].read_bytes()})
        assert answer.json()["results"][0]["groups"][0]["labels"][0]["label"] == "cup of coffee"
        assert "clip_app" in client.get("/").text
    serving = app.loader.serving()
    with pytest.raises(EncodingFailed, match="shutting down"):
        serving.batcher.encode(np.zeros(serving.model.preprocessing.shape, np.float32))


def test_an_encoder_that_hangs_is_told_and_in_the_end_the_process_is_dead(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Loader, "encoding_for", 45.0)
    state = json.loads(get("/readyz").body)
    assert state["reason"] == "The image encoder has been at one batch for 45 s; restart the app."
    assert get("/healthz").status == 200
    monkeypatch.setattr(Loader, "encoding_for", 61.0)
    dead = get("/healthz")
    assert (dead.status, json.loads(dead.body)["status"][:36]) == (503, "The image encoder has been at one ba")
    assert get("/healthz", answer_seconds=40).status == 200, "it is given twice as long as an answer may take"
