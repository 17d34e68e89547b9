"""The real Prometheus scrapes the real app: the rules count right, the alerts fire and clear."""

from __future__ import annotations

import json
import math
import os
import re
import signal
import socket
import subprocess
import time
from bisect import bisect_left
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path

import httpx
import pytest
import yaml
from conftest import CURSED, free_port, need, served, small_checkpoint, wait_for, warm
from fake_hub import REVISION, Authority, FakeHub
from real_prometheus import MONITORING, Prometheus, hurried, prometheus

from clip_app.hub.files import hash_file
from clip_app.hub.pins import write_pins
from clip_app.telemetry import ANALYSIS_DURATION

pytestmark = [need("prometheus"), need("promtool")]

FILE = {"_type": "gradio.FileData"}
DASHBOARD = json.loads((MONITORING / "dashboard.json").read_text())
PANELS = [panel for panel in DASHBOARD["panels"] if panel["type"] != "row"]
ALERTS = [
    rule for group in yaml.safe_load((MONITORING / "alerts.yml").read_text())["groups"] for rule in group["rules"]
]


@pytest.mark.parametrize(
    "arguments", [("rules", "recording.yml"), ("rules", "alerts.yml"), ("config", "prometheus.yml")]
)
def test_promtool_finds_nothing_wrong(arguments: tuple[str, str]) -> None:
    kind, file = arguments
    check = subprocess.run(["promtool", "check", kind, MONITORING / file], capture_output=True, text=True)
    assert check.returncode == 0, check.stdout + check.stderr
    assert "SUCCESS" in check.stdout


def test_every_alert_fires_and_does_not_fire_in_promtools_cases() -> None:
    run = subprocess.run(["promtool", "test", "rules", MONITORING / "alerts_test.yml"], capture_output=True, text=True)
    assert run.returncode == 0, run.stdout + run.stderr
    cases = yaml.safe_load((MONITORING / "alerts_test.yml").read_text())["tests"]
    checks = [check for case in cases for check in case["alert_rule_test"]]
    for alert in ALERTS:
        seen = {"exp_alerts" in check for check in checks if check["alertname"] == alert["alert"]}
        assert seen == {True, False}, f"{alert['alert']} needs a case where it fires and one where it does not"


@dataclass
class Load:
    """What the load generator sent, and what it was answered."""

    rest_ok: list[dict[str, float]] = field(default_factory=list)
    api_ok: list[dict[str, float]] = field(default_factory=list)
    invalid: int = 0
    errors: int = 0
    seconds: list[float] = field(default_factory=list)  # of what api_ok came of, as the server's log says

    @property
    def all(self) -> int:
        return len(self.rest_ok) + len(self.api_ok) + self.invalid + self.errors


def send(url: str, picture: bytes) -> Load:
    """A short load over REST and Gradio's API, some of it wrong."""
    load = Load()
    with httpx.Client(base_url=url, timeout=60) as client:
        upload = client.post("/gradio_api/upload", files={"files": ("x.png", picture)}).json()[0]
        for turn in range(30):
            answer = client.post("/api/analyze", files={"image": picture}, data={"labels": f"cat, dog {turn}"})
            load.rest_ok.append(answer.json()["results"][0]["timings_ms"])
            body = {"data": [{"path": upload, "meta": FILE}, None, 5]}
            load.api_ok.append(client.post("/gradio_api/run/analyze", json=body).json()["data"][0]["timings_ms"])
            if turn % 3 == 0:
                load.invalid += client.post("/api/analyze", files={"image": b"no picture"}).status_code == 400
                cursed = client.post("/api/analyze", files={"image": picture}, data={"labels": CURSED})
                load.errors += cursed.status_code == 500
            time.sleep(0.05)
    return load


PACE = 10  # five minutes are thirty seconds


@pytest.fixture(scope="module")
def log(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The log of the server that fails on one word."""
    return tmp_path_factory.mktemp("log") / "log"


@pytest.fixture(scope="module")
def server_with_errors(damaged: Path, log: Path) -> Iterator[str]:
    """Fails on one word."""
    with served("--model", str(damaged), "--log-level", "info", "--log-format", "json", log=log) as url:
        yield url


@pytest.fixture(scope="module")
def scraped(
    server_with_errors: str, log: Path, photographs: dict[str, Path], tmp_path_factory: pytest.TempPathFactory
) -> Iterator[tuple[Prometheus, Load]]:
    """Prometheus after a load, when it has seen the end of it."""
    url, folder = server_with_errors, tmp_path_factory.mktemp("prometheus") / "run"
    with prometheus(url, folder, pace=PACE) as prom:
        prom.wait(lambda: bool(prom.query("clip_app_analyses_total")))
        load = send(url, photographs["cat"].read_bytes())
        lines = [json.loads(line) for line in log.read_text().splitlines() if '"endpoint": "analyze"' in line]
        load.seconds = [line["total_ms"] / 1000 for line in lines]
        prom.wait(lambda: prom.value("sum(clip_app_analyses_total)") == load.all)
        seen = time.time()
        prom.wait(lambda: prom.value("timestamp(job:clip_app_analyses_error:ratio_rate5m)") > seen + 0.2)
        yield prom, load


def test_the_recording_rules_give_the_numbers_of_the_load_generator(scraped: tuple[Prometheus, Load]) -> None:
    prom, load = scraped
    assert (load.invalid, load.errors) == (10, 10)
    # A rate is a straight line through the samples, drawn out to both ends of the window by up to 1.1 of the usual time
    # between two: it is near the count. A ratio of rates is the ratio itself.
    samples = prom.value(hurried('count_over_time(up{job="clip_app"}[5m])', PACE))
    near = 0.05 + 2 * 1.1 / (samples - 1)
    assert near < 0.8, "of so few samples a rate shows nothing"
    for source, count in (("api", len(load.api_ok)), ("rest", load.all - len(load.api_ok))):
        rate = prom.value(f'job_source:clip_app_images_uploaded:rate5m{{source="{source}"}}')
        assert rate * 30 == pytest.approx(count, rel=near)
    assert prom.value("job:clip_app_images_uploaded:rate5m") * 30 == pytest.approx(load.all, rel=near)
    ok = prom.value('job_endpoint_outcome:clip_app_analyses:rate5m{endpoint="rest", outcome="ok"}')
    assert ok * 30 == pytest.approx(len(load.rest_ok), rel=near)
    assert prom.value("job:clip_app_analyses_error:ratio_rate5m") == pytest.approx(load.errors / load.all, rel=1e-3)
    assert prom.value("job:clip_app_analyses_rejected:ratio_rate5m") == 0
    assert prom.value("job:clip_app_batch_size:mean5m") == 1, "they were sent one after the other"
    # Of the stages, only scoring was not done for pictures whose answer gave no times.
    score = [timings["score"] / 1000 for timings in load.rest_ok + load.api_ok]
    mean = prom.value('job_stage:clip_app_stage_duration_seconds:mean5m{stage="score"}')
    assert mean == pytest.approx(sum(score) / len(score), rel=1e-2)


def test_the_95th_percentile_lies_in_the_bucket_of_the_real_one(scraped: tuple[Prometheus, Load]) -> None:
    prom, load = scraped
    durations = sorted(load.seconds)  # an answer tells a little less, which may be in the bucket before
    assert len(durations) == len(load.api_ok)
    real = durations[math.ceil(0.95 * len(durations)) - 1]
    bounds = [0.0, *ANALYSIS_DURATION.labels("analyze")._upper_bounds]
    at = bisect_left(bounds, real)
    estimate = prom.value('job_endpoint:clip_app_analysis_duration_seconds:p95_5m{endpoint="analyze"}')
    assert bounds[at - 1] <= estimate <= bounds[at] * 1.01


def test_prometheus_keeps_the_exemplars(scraped: tuple[Prometheus, Load]) -> None:
    prom, _ = scraped
    query = 'clip_app_analysis_duration_seconds_bucket{endpoint="rest"}'
    found = prom.get("/api/v1/query_exemplars", query=query, start=time.time() - 60, end=time.time())
    ids = {exemplar["labels"]["request_id"] for series in found for exemplar in series["exemplars"]}
    assert ids
    assert all(re.fullmatch("[0-9a-f]{32}", request_id) for request_id in ids)


@pytest.mark.parametrize(
    ("title", "expression"),
    [(panel["title"], target["expr"]) for panel in PANELS for target in panel["targets"]],
)
def test_every_query_of_the_dashboard_returns_data(
    scraped: tuple[Prometheus, Load], title: str, expression: str
) -> None:
    prom, _ = scraped
    found = prom.query(hurried(expression.replace("$job", "clip_app"), PACE))
    assert any(math.isfinite(value) for value in found.values()), f"{title}: {found}"


def test_the_dashboard_is_whole() -> None:
    ids = [panel["id"] for panel in DASHBOARD["panels"]]
    assert len(set(ids)) == len(ids)
    places = [
        (panel["gridPos"]["x"] + x, panel["gridPos"]["y"] + y)
        for panel in DASHBOARD["panels"]
        for x in range(panel["gridPos"]["w"])
        for y in range(panel["gridPos"]["h"])
    ]
    assert len(set(places)) == len(places), "panels lie on each other"
    assert {variable["name"] for variable in DASHBOARD["templating"]["list"]} == {"datasource", "job"}
    for panel in PANELS:
        assert panel["fieldConfig"]["defaults"]["unit"]
        assert all('job=~"$job"' in target["expr"] for target in panel["targets"])


def test_the_dashboards_choice_of_jobs_is_filled(scraped: tuple[Prometheus, Load]) -> None:
    prom, _ = scraped
    assert prom.get("/api/v1/label/job/values", **{"match[]": "clip_app_model_ready"}) == ["clip_app"]


# The alerts, with five minutes in one second.

HURRY = 300


def test_down_and_not_ready_fire_and_clear(tmp_path: Path) -> None:
    """First nothing is there, then a server whose Hub stalls, then that Hub is gone and the fallback serves."""
    port = free_port()
    hub = socket.create_server(("127.0.0.1", 0))
    env = {
        "HF_HUB_OFFLINE": "0",
        "HF_ENDPOINT": f"http://127.0.0.1:{hub.getsockname()[1]}",
        "HF_HOME": str(tmp_path),
    }
    with ExitStack() as stack:
        stack.callback(hub.close)
        prom = stack.enter_context(prometheus(f"http://127.0.0.1:{port}", tmp_path / "run", pace=HURRY))
        prom.wait(lambda: prom.firing() == {"ClipAppDown"})
        stack.enter_context(served(env=env, ready=False, port=port))
        prom.wait(lambda: prom.firing() == {"ClipAppNotReady"})
        hub.close()
        prom.wait(lambda: prom.firing() == set(), 60)


def post(client: httpx.Client, picture: bytes, **fields: str) -> int:
    return client.post("/api/analyze", files={"image": picture}, data=fields).status_code


@pytest.mark.usefixtures("scraped")  # which counts from nothing
def test_errors_and_a_stop_of_the_uploads_fire_and_clear(
    server_with_errors: str, photographs: dict[str, Path], tmp_path: Path
) -> None:
    good, url = photographs["cat"].read_bytes(), server_with_errors
    with ExitStack() as stack:
        prom = stack.enter_context(prometheus(url, tmp_path / "run", pace=HURRY))
        client = stack.enter_context(httpx.Client(base_url=url, timeout=30))
        prom.wait(lambda: bool(prom.query("clip_app_analyses_total")))

        def firing_while(**fields: str) -> set[str]:
            for _ in range(8):
                post(client, good, **fields)
            return prom.firing()

        prom.wait(lambda: firing_while(labels=CURSED) == {"ClipAppErrors"})
        prom.wait(lambda: firing_while() == set())
        for _ in range(60):
            post(client, b"no picture")
        prom.wait(lambda: prom.firing() == {"ClipAppUploadsStopped"})
        prom.wait(lambda: firing_while() == set())


def test_a_full_queue_fires_and_clears(photographs: dict[str, Path], tmp_path: Path) -> None:
    good = photographs["china"].read_bytes()
    with ExitStack() as stack:
        url = stack.enter_context(served("--model", "bundled", "--queue-size", "1"))
        prom = stack.enter_context(prometheus(url, tmp_path / "run", pace=HURRY))
        client = stack.enter_context(httpx.Client(base_url=url, timeout=30))
        pool = stack.enter_context(ThreadPoolExecutor(6))
        prom.wait(lambda: bool(prom.query("clip_app_analyses_total")))

        def crowd() -> set[str]:
            list(pool.map(lambda _: post(client, good), range(12)))
            return prom.firing()

        def calm() -> set[str]:
            post(client, good)
            return prom.firing()

        prom.wait(lambda: crowd() == {"ClipAppQueueFull"})
        prom.wait(lambda: calm() == set())


def test_an_unverified_download_fires_and_a_verified_start_clears(tmp_path: Path) -> None:
    port = free_port()
    authority = Authority()
    with ExitStack() as stack:
        hub = stack.enter_context(FakeHub(small_checkpoint(), tls=authority.context()).running())
        env = {"HF_HUB_OFFLINE": "0", "HF_ENDPOINT": hub.endpoint, "NO_PROXY": "localhost,127.0.0.1"}
        env |= {"CLIP_APP_MODEL": hub.repo, "CLIP_APP_REVISION": REVISION}
        env |= {"CLIP_APP_TLS_VERIFY": "false", "CLIP_APP_PINS": str(tmp_path / "pins.json")}
        write_pins(
            tmp_path / "pins.json", hub.repo, REVISION, {name: hash_file(hub.folder / name) for name in hub.files}
        )
        prom = stack.enter_context(prometheus(f"http://127.0.0.1:{port}", tmp_path / "run", pace=HURRY))
        with served(env=env | {"HF_HOME": str(warm(tmp_path / "home", hub.repo, REVISION))}, port=port):
            prom.wait(lambda: prom.firing() == {"ClipAppTLSUnverified"})
        with served("--model", "bundled", port=port):
            prom.wait(lambda: prom.firing() == set())


@need("make")
def test_make_monitoring_scrapes_the_running_app(server: str) -> None:
    at = free_port()
    ports = {"PORT": server.rpartition(":")[2], "PROMETHEUS_PORT": str(at)}
    make = subprocess.Popen(
        ["make", "--silent", "monitoring"], cwd=MONITORING.parent, env=os.environ | ports, start_new_session=True
    )
    try:
        wait_for(f"http://127.0.0.1:{at}/-/ready", make)
        prom = Prometheus(f"http://127.0.0.1:{at}")
        prom.wait(lambda: prom.query('up{job="clip_app"} == 1') != {})
        rules = [rule["name"] for group in prom.get("/api/v1/rules")["groups"] for rule in group["rules"]]
        assert {alert["alert"] for alert in ALERTS} <= set(rules)
    finally:
        os.killpg(make.pid, signal.SIGTERM)
        make.wait(30)
