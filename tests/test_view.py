from __future__ import annotations

import re

import pytest

from clip_app.errors import BadOption
from clip_app.labels import LabelGroup
from clip_app.results import AnalysisResult, GroupResult, ImageInfo, LabelScore, ModelInfo, Timings
from clip_app.status import LoadStatus
from clip_app.view import error_html, result_html, status_html, waiting_html

EVIL = '<script>"'


def model(*, bundled: bool = False, revision: str = "main") -> ModelInfo:
    return ModelInfo(id="acme/<clip>", revision=revision, engine="torch", precision="float32", bundled=bundled)


def result(revision: str = "main") -> AnalysisResult:
    scores = [
        LabelScore(label="a cat", confidence=0.7512, similarity=0.31),
        LabelScore(label=EVIL, confidence=0.1, similarity=0.2),
    ]
    groups = [
        GroupResult(name="pets", no_match=0.1488, labels=scores),
        GroupResult(name="labels", no_match=1, labels=[]),
    ]
    return AnalysisResult(
        model=model(revision=revision),
        image=ImageInfo(name="x", width=30, height=20),
        groups=groups,
        timings_ms=Timings(decode=3, preprocess=4, queue=1, encode=20, score=2, total=31),
    )


GROUPS = {"pets": LabelGroup(name="pets", title="Pets & co", labels=("a cat",))}


def test_a_result_is_a_bar_for_each_label_and_one_for_none_of_them() -> None:
    html = result_html(result(), GROUPS)
    assert re.findall(r'<span class="ca-value">([\d.]+) %</span>', html) == ["75.1", "10.0", "14.9", "100.0"]
    assert re.findall(r'width:([\d.]+)%"', html)[0] == "75.12"
    assert re.findall(r"<h3>(.*?)</h3>", html) == ["Pets &amp; co", "Your labels"]
    assert html.count("none of these</span>") == 2
    assert "similarity 0.310" in html


def test_the_foot_says_which_model_and_where_the_time_went() -> None:
    html = result_html(result(), GROUPS)
    assert "acme/&lt;clip&gt; (main), torch float32 &middot; 30 x 20 pixels" in html
    assert "31 ms: decode 7, queue 1, encode 20, score 2" in html


@pytest.mark.parametrize(
    ("revision", "shown"), [("0123456" + "f" * 33, "(0123456)"), ("my-long-branch", "(my-long-branch)")]
)
def test_a_commit_is_shown_by_its_beginning_and_a_branch_whole(revision: str, shown: str) -> None:
    assert shown in result_html(result(revision), GROUPS)


def test_what_a_client_sent_is_never_markup() -> None:
    for html in (result_html(result(), GROUPS), error_html(BadOption(EVIL), EVIL)):
        assert "<script>" not in html
        assert "&lt;script&gt;" in html


def test_an_error_says_what_to_do_and_what_to_ask_about() -> None:
    html = error_html(BadOption("Do this."), "seven")
    assert "Do this." in html
    assert "Request seven" in html
    assert "appear here" in waiting_html()


@pytest.mark.parametrize(
    ("status", "info", "title", "says"),
    [
        (LoadStatus("failed", reason="No <disk>."), None, "No model.", "No &lt;disk&gt;"),
        (LoadStatus("failed", reason="x"), model(), "No model.", "server&#x27;s log"),
        (LoadStatus("fetching", 0.25), None, "Getting ready.", "width:25%"),
        (LoadStatus("labels", 0.5), None, "Getting ready.", "width:50%"),
        (LoadStatus("ready", verified=False), model(bundled=True), "Unverified TLS.", "CLIP_APP_CA_BUNDLE"),
        (
            LoadStatus("ready", reason="No network."),
            model(bundled=True),
            "Demonstration model.",
            "because: No network.",
        ),
    ],
)
def test_the_banner_says_what_a_visitor_must_know(
    status: LoadStatus, info: ModelInfo | None, title: str, says: str
) -> None:
    html = status_html(status, info)
    assert f"<strong>{title}</strong>" in html
    assert says in html


def test_there_is_no_banner_where_all_is_well_and_no_bar_where_nothing_is_measured() -> None:
    assert status_html(LoadStatus("ready"), model()) == ""
    assert "width:" not in status_html(LoadStatus("loading"), None)
    assert "because" not in status_html(LoadStatus("ready"), model(bundled=True))


def test_an_engine_that_was_left_is_told_with_its_reason() -> None:
    model = ModelInfo(id="a/b", revision="1", engine="torch", precision="float32", bundled=False)
    status = LoadStatus("ready", 1.0, left_out=("openvino in bfloat16 on cpu: It fails here.",))
    html = status_html(status, model)
    assert "torch in float32 serves." in html
    assert "openvino in bfloat16 on cpu: It fails here." in html
    assert status_html(LoadStatus("ready", 1.0), model) == ""
