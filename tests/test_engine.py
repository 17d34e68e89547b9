"""Which engine is chosen; test_engines.py is about what they compute."""

from __future__ import annotations

import sys

import pytest

from clip_app.engines import Choice, candidates
from clip_app.settings import load_settings

BEST = "what the CPU does best"


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        ({"device": "cpu"}, ("openvino", BEST, "cpu")),
        ({"engine": "openvino"}, ("openvino", BEST, "cpu")),
        ({"precision": "int8"}, ("openvino", "int8", "cpu")),
        ({"device": "cpu", "precision": "float32"}, ("openvino", "float32", "cpu")),
        ({"device": "cpu", "precision": "bfloat16"}, ("openvino", "bfloat16", "cpu")),
        ({"device": "cpu", "engine": "torch"}, ("torch", BEST, "cpu")),
        ({"device": "cuda"}, ("torch", "float32", "cuda")),
        ({"device": "cuda", "precision": "bfloat16"}, ("torch", "bfloat16", "cuda")),
    ],
)
@pytest.mark.parametrize("computes_in_it", [True, False], ids=["a CPU with bfloat16", "a CPU without"])
def test_what_the_settings_leave_open_is_chosen_for_the_machine(
    monkeypatch: pytest.MonkeyPatch, given: dict[str, str], expected: tuple[str, str, str], computes_in_it: bool
) -> None:
    monkeypatch.setattr("clip_app.engines.has_bfloat16", lambda: computes_in_it)
    best = "bfloat16" if computes_in_it else "float32"
    choice = candidates(load_settings(**given))[0]
    assert [choice.engine, choice.precision, choice.device] == [best if part == BEST else part for part in expected]


def test_torch_serves_where_openvino_is_not_installed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "openvino", None)
    assert candidates(load_settings(device="cpu", precision="float32"))[0] == Choice("torch", "float32", "cpu")
