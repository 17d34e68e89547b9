from __future__ import annotations

import re
from pathlib import Path

import pytest

from clip_app.errors import PinFileError
from clip_app.hub.files import Pin
from clip_app.hub.pins import BUILT_IN, read_pins, write_pins
from clip_app.models import DEFAULT_REVISIONS, MODELS
from clip_app.settings import DEFAULT_MODEL

TRUSTED = ("every file", "the weights")


def test_the_built_in_pins_are_whole() -> None:
    assert DEFAULT_MODEL in DEFAULT_REVISIONS
    trusted = {(row.id, row.revisions[0]): row.trust for row in MODELS.values() if row.trust in TRUSTED}
    assert set(trusted) <= set(BUILT_IN)
    for (repo, revision), files in BUILT_IN.items():
        assert re.fullmatch("[0-9a-f]{40}", revision)
        whole = trusted.get((repo, revision)) != "the weights"
        assert "model.safetensors" in files
        assert not whole or {"config.json", "model.safetensors", "preprocessor_config.json", "tokenizer.json"} <= set(
            files
        )
        assert all(re.fullmatch("[0-9a-f]{64}", pin.sha256) and pin.size > 0 for pin in files.values())


def test_pins_come_back_as_they_were_written_and_others_are_kept(tmp_path: Path) -> None:
    path, one, two = tmp_path / "pins.json", {"a": Pin(1, "1" * 64)}, {"b": Pin(2, "2" * 64)}
    write_pins(path, "acme/one", "main", one)
    write_pins(path, "acme/two", "main", two)
    assert read_pins(path) == {("acme/one", "main"): one, ("acme/two", "main"): two}


@pytest.mark.parametrize("text", ["", "{}x", "[1]", '[{"repo": "a"}]'])
def test_a_file_of_another_form_says_how_to_make_one(tmp_path: Path, text: str) -> None:
    path = tmp_path / "pins.json"
    path.write_text(text)
    with pytest.raises(PinFileError, match="--write-pins"):
        read_pins(path)
    with pytest.raises(PinFileError, match="No such file"):
        read_pins(tmp_path / "none.json")


def test_pins_of_a_revision_are_replaced_by_later_ones(tmp_path: Path) -> None:
    path = tmp_path / "pins.json"
    write_pins(path, "acme/one", "main", {"a": Pin(1, "1" * 64), "b": Pin(2, "2" * 64)})
    write_pins(path, "acme/one", "main", {"a": Pin(3, "3" * 64)})
    assert read_pins(path) == {("acme/one", "main"): {"a": Pin(3, "3" * 64)}}


def test_a_file_that_was_not_understood_is_not_written_over(tmp_path: Path) -> None:
    path = tmp_path / "pins.json"
    path.write_text("mine")
    with pytest.raises(PinFileError):
        write_pins(path, "acme/one", "main", {})
    assert path.read_text() == "mine"
