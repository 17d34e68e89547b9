"""Whatever is given to the options, and whatever the API's own description allows: an answer or a sentence."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from clip_app.errors import BadOption, ClipAppError
from clip_app.images import decode
from clip_app.labels import request_group
from clip_app.middleware.request_id import WELL_FORMED, address_of
from clip_app.options import ExplainOptions, Options, SearchOptions
from clip_app.question import Question

SETTINGS = settings(
    max_examples=300, deadline=None, derandomize=True, suppress_health_check=[HealthCheck.too_slow], database=None
)
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=8), inner, max_size=4),
    max_leaves=12,
)


def refusal_of(work: Callable[[], object]) -> str | None:
    """The sentence with which it is refused, None where it is not; anything else that is raised fails the test."""
    try:
        work()
    except ClipAppError as error:
        return f"{error.status} {error.message}"
    return None


@SETTINGS
@given(st.fixed_dictionaries({}, optional=dict.fromkeys(Options.model_fields, JSON)))
def test_whatever_is_given_as_options_is_taken_or_refused_in_a_sentence(given: dict[str, Any]) -> None:
    for kind in (Options, SearchOptions, ExplainOptions):
        known = {name: value for name, value in given.items() if name in kind.model_fields}
        refusal = refusal_of(lambda kind=kind, known=known: kind.of(**known))  # type: ignore[misc]
        assert refusal is None or refusal.startswith("422 ")
        assert not any(character in (refusal or "") for character in "\n\r\x1b")


@SETTINGS
@given(JSON | st.fixed_dictionaries({"picture": JSON, "options": JSON}))
def test_whatever_the_page_asks_is_a_question_or_refused(value: Any) -> None:
    refusal = refusal_of(lambda: Question.of(value, 1000))
    assert refusal is None or refusal.startswith(("422 ", "413 "))


@SETTINGS
@given(st.lists(st.text(), max_size=8))
def test_labels_stay_what_they_are(labels: list[str]) -> None:
    try:
        group = request_group(labels)
    except BadOption:
        return
    assert group.labels
    assert request_group(list(group.labels)).labels == group.labels
    assert not any(character < " " or character == "\x7f" for label in group.labels for character in label)


@SETTINGS
@given(st.text())
def test_an_address_is_named_whatever_it_is(host: str) -> None:
    assert 0 < len(address_of(host)) <= 64 or address_of(host).count(":")


MAGIC = (b"\xff\xd8\xff\xe0", b"\x89PNG\r\n\x1a\n", b"GIF89a", b"RIFF", b"BM", b"II*\0")


@SETTINGS
@given(st.sampled_from(MAGIC), st.binary(max_size=400))
def test_bytes_that_begin_like_a_picture_are_one_or_refused(magic: bytes, rest: bytes) -> None:
    refusal = refusal_of(lambda: decode(magic + rest, max_bytes=1000, max_pixels=10_000, target=32))
    assert refusal is None or refusal.startswith(("400 ", "413 "))


def test_what_the_description_of_the_api_allows_is_answered_as_it_says(server: str, tmp_path: Path) -> None:
    command = [sys.executable, "-m", "schemathesis.cli", "run", f"{server}/api/openapi.json"]
    checks = "not_a_server_error,status_code_conformance,content_type_conformance,response_schema_conformance"
    flags = ["--checks", checks, "--max-examples", "25", "--seed", "1", "--phases", "examples,coverage,fuzzing"]
    run = subprocess.run([*command, *flags], cwd=tmp_path, capture_output=True, text=True, timeout=300)
    assert run.returncode == 0, run.stdout[-4000:]


def test_an_id_is_kept_as_it_is_or_not_at_all() -> None:
    assert WELL_FORMED.fullmatch("a" * 64)
    assert not WELL_FORMED.fullmatch("a" * 65)
