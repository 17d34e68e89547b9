"""How far the model is, as every face says it."""

from __future__ import annotations

from typing import get_args

import pytest

from clip_app.status import LoadStatus, Phase, describe, readiness

PHASES: tuple[Phase, ...] = get_args(Phase)


@pytest.mark.parametrize("phase", PHASES)
def test_only_what_answered_a_real_inference_is_ready(phase: Phase) -> None:
    status = LoadStatus(phase)
    assert status.ready is readiness(status).ready is (phase == "ready")
    assert describe(status).endswith(".")


def test_before_anything_it_is_about_to_load_with_nothing_done_and_nothing_wrong() -> None:
    found = readiness(LoadStatus())
    assert (found.ready, found.phase, found.progress, found.reason, found.left_out) == (False, "starting", 0, None, [])
    assert LoadStatus().verified


@pytest.mark.parametrize("phase", PHASES)
def test_a_share_is_told_of_what_takes_long_and_of_nothing_else(phase: Phase) -> None:
    told = describe(LoadStatus(phase, 0.256))
    assert ("26% done" in told) is (phase in ("fetching", "labels"))


def test_a_failure_says_why_and_where_nothing_is_known_only_that_it_failed() -> None:
    assert describe(LoadStatus("failed", reason="The disk is full.")) == "No model could be loaded: The disk is full."
    assert describe(LoadStatus("failed")) == "No model could be loaded."
    assert "disk" not in describe(LoadStatus("ready", 1.0, "The disk is full.")), "a reason to stand in is no failure"


def test_what_probes_are_told_holds_the_reason_what_was_left_out_and_a_short_share() -> None:
    found = readiness(LoadStatus("ready", 0.123456, "The Hub is gone.", left_out=("torch: too old",)))
    assert found.model_dump() == {
        "ready": True,
        "phase": "ready",
        "progress": 0.123,
        "done_bytes": None,
        "total_bytes": None,
        "message": describe(LoadStatus("ready")),
        "reason": "The Hub is gone.",
        "left_out": ["torch: too old"],
    }
