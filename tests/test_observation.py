from __future__ import annotations

import logging
import time
from contextlib import nullcontext
from contextvars import copy_context
from typing import Any

import pytest
from prometheus_client import REGISTRY

from clip_app.endpoints import PAGE, REST, Endpoint
from clip_app.errors import BadOption, Busy, ClipAppError, EncodingFailed
from clip_app.middleware.request_id import RequestContext, enter
from clip_app.observation import Observation, refuse
from clip_app.results import ModelInfo


@pytest.fixture(autouse=True)
def _listen(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, "clip_app")


def sample(name: str, **labels: str) -> float:
    return REGISTRY.get_sample_value(f"clip_app_{name}", labels) or 0.0


class Counts:
    """What is counted of a face from here on."""

    def __init__(self, face: Endpoint = REST) -> None:
        self._face = face
        self._before = self._now()

    def _now(self) -> dict[str, float]:
        endpoint, source = self._face.name, self._face.source or "ui"
        outcomes = ("ok", "invalid", "rejected", "error")
        analyses = {name: sample("analyses_total", endpoint=endpoint, outcome=name) for name in outcomes}
        timed = sample("analysis_duration_seconds_count", endpoint=endpoint)
        return analyses | {"timed": timed, "uploaded": sample("images_uploaded_total", source=source)}

    def moved(self) -> dict[str, float]:
        return {name: value - self._before[name] for name, value in self._now().items() if value != self._before[name]}


def last(caplog: pytest.LogCaptureFixture) -> tuple[int, dict[str, Any]]:
    """Return the level and the fields of the last line about an analysis."""
    record = [record for record in caplog.records if record.message == "analysis"][-1]
    fields: dict[str, Any] = record.fields  # type: ignore[attr-defined]
    return record.levelno, fields


@pytest.mark.parametrize(
    ("error", "outcome", "code", "timed"),
    [
        (None, "ok", None, True),
        (BadOption("x"), "invalid", "bad_option", True),
        (Busy("x"), "rejected", "busy", False),
        (EncodingFailed("x"), "error", "encoding_failed", True),
    ],
)
def test_an_analysis_is_counted_once_with_how_it_ended_and_timed_if_it_began(
    caplog: pytest.LogCaptureFixture, error: ClipAppError | None, outcome: str, code: str | None, timed: bool
) -> None:
    counts = Counts()
    with nullcontext() if error is None else pytest.raises(type(error), match=r"^x$"), Observation(REST):
        if error is not None:
            raise error
    assert counts.moved() == {outcome: 1, "uploaded": 1} | ({"timed": 1} if timed else {})
    level, fields = last(caplog)
    assert level == (logging.ERROR if outcome == "error" else logging.INFO)
    assert (fields["endpoint"], fields["outcome"], fields.get("code")) == ("rest", outcome, code)


def test_what_nobody_foresaw_becomes_an_error_that_is_safe_to_show(caplog: pytest.LogCaptureFixture) -> None:
    counts = Counts()
    with (
        pytest.raises(ClipAppError, match=r"^The analysis failed with KeyError\. The log says more\.$"),
        Observation(REST),
    ):
        raise KeyError("secret")
    assert counts.moved() == {"error": 1, "uploaded": 1, "timed": 1}
    assert "secret" in caplog.text


def test_whoever_stops_the_program_is_not_held_up() -> None:
    counts = Counts()
    with pytest.raises(KeyboardInterrupt), Observation(REST):
        raise KeyboardInterrupt
    assert counts.moved() == {"error": 1, "uploaded": 1, "timed": 1}


def test_a_picture_that_was_uploaded_before_is_not_counted_as_uploaded_again() -> None:
    for face, uploaded in ((PAGE, {"uploaded": 1}), (PAGE.again(), {})):
        counts = Counts(face)
        with Observation(face):
            pass
        assert counts.moved() == {"ok": 1, "timed": 1} | uploaded


def test_the_stages_that_succeed_are_timed_and_told_in_milliseconds(caplog: pytest.LogCaptureFixture) -> None:
    before = sample("stage_duration_seconds_count", stage="encode")
    started = time.perf_counter()
    with Observation(REST) as analysis:
        with analysis.stage("decode"):
            pass
        with pytest.raises(ValueError, match="half"), analysis.stage("preprocess"):
            raise ValueError("half way")
        analysis.add("encode", 0.25)
        timings = analysis.timings()
        analysis.model = ModelInfo(id="m", revision="r", engine="torch", precision="float32", bundled=False)
    assert sample("stage_duration_seconds_count", stage="encode") - before == 1
    assert (timings.encode, timings.preprocess) == (250, 0)
    assert 0 <= timings.decode <= timings.total <= 1000 * (time.perf_counter() - started)
    _, fields = last(caplog)
    assert fields["encode_ms"] == 250
    assert "preprocess_ms" not in fields
    assert (fields["model"], fields["revision"]) == ("m", "r")
    assert fields["total_ms"] >= timings.total


def test_what_was_waited_before_belongs_to_it() -> None:
    since = time.perf_counter() - 100
    with Observation(REST, since=since) as analysis:
        assert 100_000 <= analysis.timings().total <= 1000 * (time.perf_counter() - since) + 0.001
    with Observation(REST) as analysis:
        first = analysis.timings().total
        assert 0 <= first <= analysis.timings().total


def test_an_analysis_belongs_to_the_request_that_asked_for_it(caplog: pytest.LogCaptureFixture) -> None:
    call = RequestContext("seven")

    def run() -> None:
        enter(call)
        for _ in range(2):
            with Observation(REST):
                pass

    copy_context().run(run)
    assert call.analyses == 2
    assert last(caplog)[1]["request_id"] == "seven"


def test_a_refusal_is_an_analysis_that_never_began(caplog: pytest.LogCaptureFixture) -> None:
    for face, outcome, uploaded in ((REST, "rejected", {"uploaded": 1}), (PAGE.again(), "error", {})):
        counts, call = Counts(face), RequestContext("seven")
        refuse(call, face, outcome, "http_503")  # type: ignore[arg-type]
        assert call.analyses == 1
        assert counts.moved() == {outcome: 1} | uploaded
        level, fields = last(caplog)
        assert level == (logging.ERROR if outcome == "error" else logging.INFO)
        assert fields == {
            **{"request_id": "seven", "endpoint": face.name, "outcome": outcome, "code": "http_503"},
        }


def test_times_are_told_to_the_microsecond(caplog: pytest.LogCaptureFixture) -> None:
    with Observation(REST) as analysis:
        analysis.add("encode", 0.0123456789)
        timings = analysis.timings()
    assert timings.encode == last(caplog)[1]["encode_ms"] == 12.346
    for total in (timings.total, last(caplog)[1]["total_ms"]):
        assert total == round(total, 3)
