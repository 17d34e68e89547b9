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
    result, *failed = json.loads(run.stdout)
    assert set(result) == {"model", "image", "groups", "timings_ms"}
    assert result["image"] == {"name": str(folder / "cat.png"), "width": 451, "height": 300}
    assert [one["image"]["name"] for one in failed] == [str(folder / "notes.txt"), str(folder / "gone.png")]
    assert [one["error"]["code"] for one in failed] == ["undecodable_image", "unreadable_path"]
    lines = run.stderr.decode().splitlines()
    assert any("notes.txt: This is not a picture that can be read" in line for line in lines)
    assert any("gone.png: No such file" in line for line in lines)
    assert not any("Traceback" in line for line in lines)


def test_folders_are_searched_for_pictures(folder: Path) -> None:
    flat = clip_app("analyze", folder, "--format", "jsonl", "--top-k", 1)
    assert flat.returncode == 0
    assert [json.loads(line)["image"]["name"] for line in flat.stdout.splitlines()] == [str(folder / "cat.png")]
    deep = clip_app("analyze", folder, "--recursive", "--format", "csv", "--groups", "kinds", "--top-k", 2)
    rows = list(csv.DictReader(io.StringIO(deep.stdout.decode())))
    assert [(row["image"], row["rank"]) for row in rows] == [
        (str(folder / name), rank) for name in ("cat.png", "deeper/coffee.png") for rank in ("1", "2")
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
    assert f"{photographs['cat']}: kinds" in run.stdout.decode()
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
        (["--port", "8000"], "--port does nothing for analyze. It is a setting of clip-app serve."),
        (["--max-pixels", "abc"], "CLIP_APP_MAX_PIXELS=abc"),
        (["--threshold", "2"], "threshold: it must be a number from 0 to 1"),
        (["--null"], "--files-from"),
        (["--files-from", "nowhere.txt"], "--files-from cannot be read"),
        (["--precision", "int4"], "CLIP_APP_PRECISION=int4"),
    ],
)
def test_wrong_usage_is_2_and_says_what(photographs: dict[str, Path], arguments: list[str], says: str) -> None:
    run = clip_app("analyze", photographs["cat"], *arguments)
    assert run.returncode == 2
    assert says in run.stderr.decode()


def names(run: subprocess.CompletedProcess[bytes]) -> list[str]:
    return [json.loads(line)["image"]["name"] for line in run.stdout.splitlines()]


QUICK = ("--format", "jsonl", "--groups", "kinds", "--top-k", 1)


@pytest.mark.parametrize("ending", [b"\n", b"\r\n", b"\0"], ids=["lines", "Windows", "null"])
def test_paths_come_from_a_list_or_a_pipe(folder: Path, ending: bytes) -> None:
    paths = [str(folder / "cat.png"), str(folder / "deeper" / "coffee.png")]
    listed = ending.join(path.encode() for path in paths) + ending
    null = ["--null"] if ending == b"\0" else []
    run = clip_app("analyze", "--files-from", "-", *null, *QUICK, stdin=listed)
    assert (run.returncode, names(run)) == (0, paths)
    (folder / "list").write_bytes(listed if null else b"\xef\xbb\xbf" + listed)
    run = clip_app("analyze", folder / "notes.txt", "--files-from", folder / "list", *null, *QUICK)
    assert (run.returncode, names(run)) == (1, [str(folder / "notes.txt"), *paths])


def test_a_list_of_the_other_kind_and_none_at_all_are_told(folder: Path) -> None:
    run = clip_app("analyze", "--files-from", "-", stdin=b"a.png\0b.png\0")
    assert (run.returncode, b"Add --null" in run.stderr) == (2, True)
    run = clip_app("analyze", "--files-from", "-", stdin=b"\n")
    assert (run.returncode, b"There is nothing to analyse" in run.stderr) == (2, True)
    run = clip_app("analyze")
    assert (run.returncode, b"There is nothing to analyse" in run.stderr) == (2, True)


def test_an_empty_folder_says_so(folder: Path) -> None:
    (folder / "empty").mkdir()
    run = clip_app("analyze", folder / "empty", *QUICK)
    assert (run.returncode, b"There is no picture in this folder." in run.stderr) == (1, True)
    assert b"--recursive" not in run.stderr
    (folder / "cat.png").unlink()
    run = clip_app("analyze", folder, *QUICK)
    assert (run.returncode, b"add --recursive" in run.stderr) == (1, True)


def test_a_name_that_is_no_utf8_comes_back_byte_for_byte(folder: Path) -> None:
    path = os.fsencode(folder) + b"/caf\xe9.png"
    Path(os.fsdecode(path)).write_bytes((folder / "cat.png").read_bytes())
    for arguments in ((os.fsdecode(path),), (folder,)):
        run = clip_app("analyze", *arguments, "--format", "csv", "--groups", "kinds", "--top-k", 1)
        assert run.returncode == 0
        assert path in [row.split(b",")[0] for row in run.stdout.splitlines()]


def test_hidden_files_and_links_in_circles_are_left_alone(folder: Path) -> None:
    shutil.copy(folder / "cat.png", folder / ".hidden.png")
    (folder / "deeper" / "up").symlink_to(folder)
    run = clip_app("analyze", folder, "-r", *QUICK)
    assert (run.returncode, names(run)) == (0, [str(folder / "cat.png"), str(folder / "deeper" / "coffee.png")])


@pytest.mark.parametrize(("threshold", "left"), [(0, 3), (0.5, 1), (1, 0)])
def test_only_labels_above_the_threshold_are_written(photographs: dict[str, Path], threshold: float, left: int) -> None:
    run = clip_app(
        "analyze", photographs["coffee"], "--labels", "cup of coffee, dog, bus", "--threshold", threshold,
        "--format", "json",
    )  # fmt: skip
    (group,) = json.loads(run.stdout)[0]["groups"]
    assert len(group["labels"]) == left
    assert group["no_match"] < 0.5


def test_help_shows_an_example_and_what_belongs_there() -> None:
    analyze = clip_app("analyze", "--help").stdout.decode()
    assert "Example: clip-app analyze photos" in analyze
    assert "--files-from" in analyze
    for flag in ("--host", "--port", "--queue-size", "--auth", "--cors-origins"):
        assert flag not in analyze
        assert flag in clip_app("serve", "--help").stdout.decode()


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_shells_complete_it(shell: str) -> None:
    run = clip_app("--show-completion", shell)
    assert run.returncode == 0
    assert b"clip-app" in run.stdout
    env = {"_CLIP_APP_COMPLETE": "complete_bash", "COMP_WORDS": "clip-app analyze --files", "COMP_CWORD": "2"}
    assert b"--files-from" in clip_app(env=env).stdout


def test_who_stops_reading_is_not_told_about_it(photographs: dict[str, Path]) -> None:
    command = (
        f"{sys.executable} -m clip_app analyze {photographs['cat']} {photographs['coffee']} --format jsonl | head -c 1"
    )
    embedded()
    environment = os.environ | {"CLIP_APP_MODEL": "bundled"}
    run = subprocess.run(command, shell=True, capture_output=True, env=environment, timeout=120)
    assert run.stdout == b"{"
    assert b"Traceback" not in run.stderr
    assert b"Broken pipe" not in run.stderr


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
