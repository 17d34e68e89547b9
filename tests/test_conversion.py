"""What is converted is kept whole or not at all; test_engines.py is about what comes out of it."""

from __future__ import annotations

import dataclasses
import json
import os
import shutil
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from clip_app.checkpoint import variant_of
from clip_app.engines.agreement import Agreement
from clip_app.engines.conversion import ConversionStore, Converted, describe_conversion
from clip_app.errors import CheckpointError
from clip_app.hub.files import Pin, hash_file
from clip_app.tokenizer import Padding

HOURS = 3600


@pytest.fixture
def converted(tmp_path: Path) -> Converted:
    """A complete conversion, as the converting process leaves it."""
    return complete(tmp_path / "converted")


def complete(folder: Path) -> Converted:
    folder.mkdir(parents=True)
    for name in ("image.xml", "image.bin"):
        (folder / name).write_text(f"content of {name}")
    made = Converted(
        folder=folder,
        variant="float",
        logit_scale=100.0,
        context=77,
        vocabulary=49408,
        padding=Padding(token=1),
        lower_case=False,
        agreement=None,
        files={path.name: hash_file(path) for path in folder.iterdir()},
    )
    made.write_marker()
    return made


def test_one_conversion_serves_both_kinds_of_floats() -> None:
    assert [variant_of(precision) for precision in ("float32", "bfloat16", "int8")] == ["float", "float", "int8"]


@pytest.mark.parametrize("agreement", [None, Agreement(8, 100, 0.999, 0.99, 1.0)])
def test_a_conversion_is_read_as_it_was_written(converted: Converted, agreement: Agreement | None) -> None:
    written = dataclasses.replace(converted, agreement=agreement)
    written.write_marker()
    assert Converted.read(written.folder) == written


@pytest.mark.parametrize("spoil", ["missing", "shorter", "longer"])
def test_a_conversion_without_all_its_bytes_is_none(converted: Converted, spoil: str) -> None:
    path = converted.folder / "image.bin"
    path.write_text({"missing": "", "shorter": "content of image.bi", "longer": "content of image.bin."}[spoil])
    if spoil == "missing":
        path.unlink()
    assert Converted.read(converted.folder) is None


def test_an_empty_file_is_another_thing_than_none(converted: Converted) -> None:
    (converted.folder / "image.bin").write_bytes(b"")
    empty = dataclasses.replace(converted, files=dict(converted.files) | {"image.bin": Pin(0, "")})
    empty.write_marker()
    assert Converted.read(converted.folder) == empty
    (converted.folder / "image.bin").unlink()
    assert Converted.read(converted.folder) is None


@pytest.mark.parametrize("change", [{"format": 1}, {"files": 1}, {"agreement": {"much": 1}}, {"unheard_of": 1}])
def test_a_marker_of_another_form_is_none(converted: Converted, change: dict[str, object]) -> None:
    (marker,) = (path for path in converted.folder.iterdir() if path.suffix == ".json")
    content = json.loads(marker.read_text())
    marker.write_text(json.dumps(content | change))
    assert Converted.read(converted.folder) is None
    marker.write_text("[]")
    assert Converted.read(converted.folder) is None
    marker.write_text(json.dumps(content))
    assert Converted.read(converted.folder) == converted


def test_a_conversion_is_told_by_its_size_and_how_well_int8_agrees(converted: Converted) -> None:
    files = {"image.bin": Pin(87_000_000, ""), "image.xml": Pin(500_000, "")}
    assert describe_conversion(dataclasses.replace(converted, files=files)) == "float, 87.5 MB"
    agreement = Agreement(photographs=8, pictures=100, mean_cosine=0.99912, least_cosine=0.98765, same_label=0.99)
    rounded = dataclasses.replace(converted, files=files, variant="int8", agreement=agreement)
    assert describe_conversion(rounded).startswith("int8, 87.5 MB, same best label 99.0% (98% wanted), cosine to")
    assert "0.9991 on average (0.995 wanted) and 0.9877 at least" in describe_conversion(rounded)
    assert "100 pictures from 8 photographs" in describe_conversion(rounded)


@pytest.mark.parametrize(("cosine", "same", "enough"), [(0.995, 0.98, True), (0.9949, 1.0, False), (1.0, 0.97, False)])
def test_int8_serves_where_it_agrees_well_enough(
    converted: Converted, cosine: float, same: float, enough: bool
) -> None:
    agreement = Agreement(photographs=8, pictures=100, mean_cosine=cosine, least_cosine=0.9, same_label=same)
    assert agreement.enough == enough
    converted.folder.rename(converted.folder.with_name("int8"))
    made = dataclasses.replace(converted, folder=converted.folder.with_name("int8"), agreement=agreement)
    made.write_marker()
    store = ConversionStore(made.folder.parent)
    assert store.find("int8") == made
    assert store.serves("int8") == enough


# Making one. A script stands for the process that converts, which takes seconds.


@pytest.fixture
def checkpoint(tmp_path: Path) -> Path:
    folder = tmp_path / "checkpoint"
    folder.mkdir()
    (folder / "model.safetensors").write_bytes(bytes(1000))
    return folder


@pytest.fixture
def store(tmp_path: Path) -> ConversionStore:
    return ConversionStore(tmp_path / "home" / "openvino" / "main")


def converts_with(monkeypatch: pytest.MonkeyPatch, folder: Path, script: str) -> None:
    """Let a script be the other process; its arguments are -m, the module, CHECKPOINT, TARGET, VARIANT and so on."""
    path = folder / "converter"
    path.write_text(f"#!/bin/sh\n{script}\n")
    path.chmod(0o755)
    monkeypatch.setattr(sys, "executable", str(path))


def test_a_conversion_is_made_beside_and_moved_into_place(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, store: ConversionStore, checkpoint: Path, converted: Converted
) -> None:
    converts_with(monkeypatch, tmp_path, f'cp {converted.folder}/* "$4" && echo "$3 $5 $6" >{tmp_path}/arguments')
    assert store.find("float") is None
    made = store.make(checkpoint, "float", tmp_path / "photographs")
    assert made == store.find("float") == dataclasses.replace(converted, folder=store.folder / "float")
    assert store.find("int8") is None
    assert [path.name for path in store.folder.iterdir()] == ["float"]
    assert (tmp_path / "arguments").read_text() == f"{checkpoint} float {tmp_path / 'photographs'}\n"


def test_what_is_not_complete_is_made_anew(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, store: ConversionStore, checkpoint: Path, converted: Converted
) -> None:
    converts_with(monkeypatch, tmp_path, f'cp {converted.folder}/* "$4"')
    (complete(store.folder / "float").folder / "image.bin").unlink()
    (store.folder / "float" / "rest").write_text("")
    assert store.make(checkpoint, "float", tmp_path).files == converted.files
    assert not (store.folder / "float" / "rest").exists()


def test_whoever_comes_second_throws_its_own_away(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, store: ConversionStore, checkpoint: Path, converted: Converted
) -> None:
    converts_with(monkeypatch, tmp_path, f'cp {converted.folder}/* "$4"')
    first = complete(store.folder / "float")
    (first.folder / "first").write_text("")
    assert store.make(checkpoint, "float", tmp_path) == first
    assert (first.folder / "first").exists()
    assert [path.name for path in store.folder.iterdir()] == ["float"]


def test_conversions_at_the_same_time_do_not_hurt_each_other(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, store: ConversionStore, checkpoint: Path, converted: Converted
) -> None:
    (begun := tmp_path / "begun").mkdir()
    both_run = f"touch {begun}/$$; until [ $(ls {begun} | wc -l) = 2 ]; do sleep 0.01; done"
    converts_with(monkeypatch, tmp_path, f'{both_run}; cp {converted.folder}/* "$4"')
    with ThreadPoolExecutor(2) as pool:
        one, other = pool.map(lambda _: store.make(checkpoint, "float", tmp_path), range(2))
    assert one == other == store.find("float")
    assert [path.name for path in store.folder.iterdir()] == ["float"], "nothing is left beside it"


def test_a_conversion_with_a_damaged_file_is_not_used_and_made_again(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, store: ConversionStore, checkpoint: Path, converted: Converted
) -> None:
    converts_with(monkeypatch, tmp_path, f'cp {converted.folder}/* "$4"')
    shutil.copytree(converted.folder, store.folder / "float")
    assert store.find("float") is not None
    (store.folder / "float" / "image.bin").write_bytes(b"short")
    assert store.find("float") is None
    assert store.make(checkpoint, "float", tmp_path).files == converted.files
    assert [path.name for path in store.folder.iterdir()] == ["float"], "nothing is left beside it"


def test_what_killed_conversions_left_is_removed_and_what_runs_is_not(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, store: ConversionStore, checkpoint: Path, converted: Converted
) -> None:
    converts_with(monkeypatch, tmp_path, f'cp {converted.folder}/* "$4"')
    for name, age in ((".float.old", 2 * HOURS), (".float.young", 0), (".int8.old", 2 * HOURS)):
        (store.folder / name).mkdir(parents=True)
        os.utime(store.folder / name, (time.time() - age,) * 2)
    store.make(checkpoint, "float", tmp_path)
    assert sorted(path.name for path in store.folder.iterdir()) == [".float.young", ".int8.old", "float"]


@pytest.mark.parametrize(
    ("script", "says"),
    [
        ("echo noise >&2; echo 'The checkpoint lacks config.json.' >&2; exit 3", "^The checkpoint lacks config"),
        ("echo 'Traceback' >&2; exit 1", "Set CLIP_APP_ENGINE=torch"),
        ("exit 0", "not complete. Run clip-app prefetch again"),
    ],
    ids=["unusable", "broken", "nothing written"],
)
def test_a_conversion_that_fails_says_what_to_do_and_leaves_nothing(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, store: ConversionStore, checkpoint: Path, script: str, says: str
) -> None:
    converts_with(monkeypatch, tmp_path, script)
    with pytest.raises(CheckpointError, match=says):
        store.make(checkpoint, "float", tmp_path)
    assert store.find("float") is None
    assert not list(store.folder.glob(".*"))


def test_what_went_wrong_in_the_other_process_is_logged(
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
    store: ConversionStore,
    checkpoint: Path,
    caplog: pytest.LogCaptureFixture,
) -> None:
    converts_with(monkeypatch, tmp_path, "echo 'RuntimeError: op 17' >&2; exit 1")
    with pytest.raises(CheckpointError):
        store.make(checkpoint, "float", tmp_path)
    assert "RuntimeError: op 17" in caplog.text


def test_a_disk_that_cannot_hold_it_is_found_before_anything_is_written(
    tmp_path: Path, store: ConversionStore, checkpoint: Path
) -> None:
    with (checkpoint / "model.safetensors").open("wb") as file:
        file.truncate(shutil.disk_usage(tmp_path).free)  # a hole, which takes no room itself
    with pytest.raises(OSError, match="No space left"):
        store.make(checkpoint, "float", tmp_path)
    assert list(store.folder.iterdir()) == []


def test_int8_without_what_quantises_says_what_to_install(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, store: ConversionStore, checkpoint: Path, converted: Converted
) -> None:
    monkeypatch.setitem(sys.modules, "nncf", None)
    converts_with(monkeypatch, tmp_path, f'cp {converted.folder}/* "$4"')
    with pytest.raises(CheckpointError, match=r"clip-app\[int8\]"):
        store.make(checkpoint, "int8", tmp_path)
    assert store.make(checkpoint, "float", tmp_path).variant == "float", "which needs none of it"
