from __future__ import annotations

import re

import pytest
from asgi import Answer, ask
from prometheus_client import REGISTRY
from prometheus_client.parser import text_string_to_metric_families
from starlette.requests import Request
from starlette.types import Receive, Scope, Send

from clip_app.results import ModelInfo
from clip_app.settings import load_settings
from clip_app.telemetry import metrics, set_model_info


async def app(scope: Scope, receive: Receive, send: Send) -> None:
    await (await metrics(Request(scope)))(scope, receive, send)


def scrape(accept: str = "") -> Answer:
    return ask(app, "/metrics", method="GET", headers={"Accept": accept})


def info(name: str, *, bundled: bool) -> ModelInfo:
    return ModelInfo(id=name, revision="main", engine="torch", precision="float32", bundled=bundled)


def test_a_scrape_is_answered_in_the_format_that_is_asked_for() -> None:
    assert scrape().headers["content-type"].startswith("text/plain; version=")
    found = scrape("application/openmetrics-text; version=1.0.0")
    assert found.headers["content-type"].startswith("application/openmetrics-text")
    assert found.body.endswith(b"# EOF\n")


def test_only_the_model_that_serves_is_named() -> None:
    for name, bundled in (("first", True), ("second", False)):
        set_model_info(info(name, bundled=bundled), "cpu")
        families = [family for family in REGISTRY.collect() if family.name == "clip_app_model_info"]
        (sample,) = families[0].samples
        assert sample.value == 1
        assert sample.labels == {
            **{"model": name, "revision": "main", "engine": "torch", "precision": "float32", "device": "cpu"},
            "bundled": "true" if bundled else "false",
        }


def test_every_metric_says_in_a_sentence_what_it_is() -> None:
    families = [f for f in text_string_to_metric_families(scrape().body.decode()) if f.name.startswith("clip_app_")]
    assert len(families) >= 17
    assert all(re.fullmatch(r"[A-Z1].*\.", family.documentation) for family in families)
    assert not [family.name for family in families if family.name.endswith("_created")], "no series of when it began"


@pytest.mark.parametrize("result", ["hit", "miss"])
def test_what_has_not_happened_yet_is_there_for_a_rate_to_begin_with(result: str) -> None:
    assert REGISTRY.get_sample_value("clip_app_label_cache_total", {"result": result}) is not None


def test_how_many_pictures_go_together_is_told_up_to_the_most_that_is_usual() -> None:
    (family,) = [family for family in REGISTRY.collect() if family.name == "clip_app_batch_size"]
    edges = [float(sample.labels["le"]) for sample in family.samples if sample.name.endswith("_bucket")]
    usual = load_settings().max_batch_size
    assert edges[0] == 1, "a lone picture is told from two"
    assert usual in edges
    assert edges[-2] > usual
