from __future__ import annotations

import csv
import io
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from conftest import embedded


def clip_app(
    *arguments: object, stdin: bytes = b"", env: dict[str, str] | None = None
) -> subprocess.CompletedProcess[bytes]:
    command = [sys.executable, "-m", "clip_app", *map(str, arguments)]
    embedded()
    environment = os.environ | {"CLIP_APP_MODEL": "bundled"} | (env or {})
    return subprocess.run(command, input=stdin, capture_output=True, env=environment, timeout=120)


@pytest.fixture
def folder(tmp_path: Path, photographs: dict[str, Path]) -> Path:
    shutil.copy(photographs["cat"], tmp_path / "cat.png")
    (tmp_path / "deeper").mkdir()
    shutil.copy(photographs["coffee"], tmp_path / "deeper" / "coffee.png")
    (tmp_path / "notes.txt").write_text("no picture")
    return tmp_path


def test_json_is_a_list_of_results_and_a_bad_file_is_reported_beside_it(folder: Path) -> None:
    run = clip_app("analyze", folder / "cat.png", folder / "notes.txt", folder / "gone.png", "--format", "json")
    assert run.returncode == 1
    (result,) = json.loads(run.stdout)
    assert set(result) == {"model", "image", "groups", "timings_ms"}
    assert result["image"] == {"name": "cat.png", "width": 451, "height": 300}
    lines = run.stderr.decode().splitlines()
    assert any("notes.txt: This is not a picture that can be read" in line for line in lines)
    assert any("gone.png: No such file" in line for line in lines)
    assert not any("Traceback" in line for line in lines)


def test_folders_are_searched_for_pictures(folder: Path) -> None:
    flat = clip_app("analyze", folder, "--format", "jsonl", "--top-k", 1)
    assert flat.returncode == 0
    assert [json.loads(line)["image"]["name"] for line in flat.stdout.splitlines()] == ["cat.png"]
    deep = clip_app("analyze", folder, "--recursive", "--format", "csv", "--groups", "kinds", "--top-k", 2)
    rows = list(csv.DictReader(io.StringIO(deep.stdout.decode())))
    assert [(row["image"], row["rank"]) for row in rows] == [
        ("cat.png", "1"),
        ("cat.png", "2"),
        ("coffee.png", "1"),
        ("coffee.png", "2"),
    ]
    assert all(row["model"] == "bundled" for row in rows)


def test_standard_input_and_an_output_file(photographs: dict[str, Path], tmp_path: Path) -> None:
    labels = tmp_path / "labels.txt"
    labels.write_text('\ufeff# pets\ncat\n"dog, small"\n', encoding="utf-8")
    out = tmp_path / "out.json"
    run = clip_app(
        "analyze", "-", "--labels-file", labels, "--format", "json", "--output", out,
        stdin=photographs["cat"].read_bytes(),
    )  # fmt: skip
    assert (run.returncode, run.stdout) == (0, b"")
    (result,) = json.loads(out.read_text())
    assert {score["label"] for score in result["groups"][0]["labels"]} == {"cat", "dog, small"}


def test_the_table_names_the_picture_and_the_demonstration_model(photographs: dict[str, Path]) -> None:
    run = clip_app("analyze", photographs["cat"], "--groups", "kinds", "--top-k", 3)
    assert run.returncode == 0
    assert "chelsea.png: kinds" in run.stdout.decode()
    assert "none of these" in run.stdout.decode()
    assert "demonstration model" in run.stderr.decode()


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["--groups", "birds"], "There is no label group 'birds'"),
        (["--top-k", "0"], "top_k"),
        (["--labels", "cat", "--template", "x"], "template"),
        (["--labels-file", "nowhere.txt"], "--labels-file"),
        (["--format", "xml"], "xml"),
        (["--port", "abc"], "CLIP_APP_PORT=abc"),
        (["--precision", "int4"], "CLIP_APP_PRECISION=int4"),
    ],
)
def test_wrong_usage_is_2_and_says_what(photographs: dict[str, Path], arguments: list[str], says: str) -> None:
    run = clip_app("analyze", photographs["cat"], *arguments)
    assert run.returncode == 2
    assert says in run.stderr.decode()


def test_a_bad_label_file_stops_the_start_with_its_line(tmp_path: Path) -> None:
    (tmp_path / "pets.txt").write_text("cat\ncat\n")
    run = clip_app("serve", "--labels-dir", tmp_path)
    assert run.returncode == 2
    assert "pets.txt, line 2" in run.stderr.decode()


def test_a_wrong_setting_stops_the_start_in_one_line_and_a_misspelt_one_is_named() -> None:
    run = clip_app(env={"CLIP_APP_THREADS": "none"})
    assert run.returncode == 2
    assert run.stderr.decode().strip().count("\n") == 0
    assert run.stderr.decode().startswith("clip-app: CLIP_APP_THREADS=none: ")
    run = clip_app("analyze", "nothing", env={"CLIP_APP_MODLE": "x"})
    assert "Did you mean CLIP_APP_MODEL?" in run.stderr.decode()


def test_flags_without_a_command_are_those_of_serve() -> None:
    run = clip_app("--port", "abc")
    assert run.returncode == 2
    assert "CLIP_APP_PORT=abc" in run.stderr.decode()


def test_the_version() -> None:
    assert clip_app("--version").stdout.decode().startswith("clip_app ")


def test_starting_is_light() -> None:
    """Nothing heavy is imported for what does not need it."""
    code = (
        "import sys, clip_app.cli; print([m for m in ('torch', 'transformers', 'gradio', 'numpy') if m in sys.modules])"
    )
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert run.stdout.strip() == "[]"
