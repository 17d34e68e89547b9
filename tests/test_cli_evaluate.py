"""``clip-app evaluate`` as a process, on photographs and the bundled model."""

from __future__ import annotations

import io
import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from clip_app.source import examples_folder

LABELS = {
    "cat": ["chelsea.jpg"],
    "cup_of_coffee": ["coffee.jpg"],
    "Teddy_bear": ["teddy_bear.jpg"],
    "pizza": ["pizza.jpg"],
}


def evaluate(*arguments: object, code: int = 0, env: dict[str, str] | None = None) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "clip_app", "evaluate", *map(str, arguments)]
    environment = os.environ | {"CLIP_APP_MODEL": "bundled", "CLIP_APP_PRECISION": "float32"} | (env or {})
    run = subprocess.run(command, capture_output=True, text=True, env=environment, timeout=300)
    assert "Traceback" not in run.stderr
    assert run.returncode == code, run.stderr
    return run


def as_json(*arguments: object, code: int = 0) -> Any:
    return json.loads(evaluate(*arguments, "--format", "json", code=code).stdout)


@pytest.fixture
def sorted_pictures(tmp_path: Path, photographs: dict[str, Path]) -> Path:
    folder = tmp_path / "sorted"
    for label, names in LABELS.items():
        (folder / label / "deeper").mkdir(parents=True)
        for name in names:
            shutil.copy(examples_folder() / name, folder / label / "deeper" / name)
    shutil.copy(photographs["cat"], folder / "cat" / "other.png")
    shutil.copy(photographs["coffee"], folder / "cup_of_coffee")
    (folder / ".hidden").mkdir()
    return folder


def test_a_folder_of_folders_is_labels_and_pictures(sorted_pictures: Path) -> None:
    found = as_json(sorted_pictures)
    assert found["labels"] == ["Teddy bear", "cat", "cup of coffee", "pizza"]
    assert (found["pictures"], found["failed"], found["distractors"]) == (6, [], [])
    (run,) = found["runs"]
    assert (run["model"]["id"], run["precision"], run["template"]) == ("bundled", "float32", "a photo of a {}.")
    assert (run["top_1"]["value"], run["top_1"]["high"], run["difference"]) == (1.0, 1.0, None)
    assert 0.6 < run["top_1"]["low"] < 0.7
    assert run["confusions"] == []
    assert [(item["label"], item["count"], item["right"]) for item in run["labels"]] == [
        ("Teddy bear", 1, 1),
        ("cat", 2, 2),
        ("cup of coffee", 2, 2),
        ("pizza", 1, 1),
    ]
    assert sum(item["count"] for item in run["calibration"]) == 6


def test_a_table_of_paths_and_labels_does_as_well(sorted_pictures: Path) -> None:
    rows = [
        "path,label",
        "cat/other.png,cat",
        "pizza/deeper/pizza.jpg,Cat ",
        "",
        f'{examples_folder() / "coffee.jpg"},"coffee, hot"',
    ]
    table = sorted_pictures / "labels.csv"
    table.write_bytes(b"\xef\xbb\xbf" + "\r\n".join(rows).encode())
    found = as_json(table, "--labels", "pizza, CAT")
    assert (found["labels"], found["distractors"]) == (["cat", "coffee, hot"], ["pizza"])
    (run,) = found["runs"]
    assert run["confusions"] == [{"label": "cat", "taken_for": "pizza", "count": 1}]
    assert (run["labels"][2]["count"], run["labels"][2]["precision"]) == (0, 0.0)
    table.write_text("\n".join(rows[1:]), encoding="utf-8")  # the header may be missing
    assert as_json(table, "--labels", "pizza")["runs"][0]["top_1"] == run["top_1"]


def test_what_cannot_be_read_is_told_and_counted_and_the_rest_goes_on(sorted_pictures: Path, tmp_path: Path) -> None:
    (sorted_pictures / "cat" / "torn.jpg").write_bytes(b"no picture")
    (sorted_pictures / "empty").mkdir()
    (sorted_pictures / "_").mkdir()
    page = tmp_path / "report.html"
    run = evaluate(sorted_pictures, "--report", page, code=1)
    for says in ("torn.jpg: This is not a picture", "empty: There is no picture", "_: The label is empty."):
        assert says in run.stderr
    assert "6 pictures of 4 labels; 3 could not be read" in run.stdout
    assert "torn.jpg" in page.read_text(encoding="utf-8")

    table = sorted_pictures / "labels.csv"
    table.write_text(
        "pizza/deeper/pizza.jpg,pizza\ncat/other.png,cat\ngone.jpg,cat\ncat/other.png,\ncat/other.png\n",
        encoding="utf-8",
    )
    run = evaluate(table, code=1)
    for says in ("gone.jpg: No such file", "row 4: The label is empty.", "row 5: It needs a path and a label"):
        assert says in run.stderr
    assert "2 pictures of 2 labels; 3 could not be read" in run.stdout


def test_runs_are_paired_with_the_first(sorted_pictures: Path) -> None:
    templates = ("--template", "a photo of a {}.", "--template", "not at all a {}", "--template", "a photo of a {}.")
    found = as_json(sorted_pictures, *templates, "--precision", "float32", "--precision", "int8")
    runs = found["runs"]
    assert [(run["precision"], run["template"]) for run in runs] == [
        ("float32", "a photo of a {}."),
        ("float32", "not at all a {}"),
        ("int8", "a photo of a {}."),
        ("int8", "not at all a {}"),
    ]
    assert runs[0]["difference"] is None
    for run in runs[1:]:
        one = run["difference"]["top_1"]
        assert one["value"] == pytest.approx(run["top_1"]["value"] - runs[0]["top_1"]["value"])
        assert one["low"] <= one["value"] <= one["high"]
        assert one["verdict"] == "no real difference", "six pictures cannot show one"
    shown = evaluate(sorted_pictures, *templates).stdout
    assert "Against run 1 on the same pictures" in shown
    assert "no real difference" in shown


def test_labels_by_example_are_runs_beside_the_words(sorted_pictures: Path, tmp_path: Path) -> None:
    picture = Image.open(examples_folder() / "pizza.jpg").convert("RGB")
    for label in ("kind_q", "kind_z"):  # one of the pictures, under a name that says nothing
        (sorted_pictures / label).mkdir()
    (sorted_pictures / "pizza").rename(sorted_pictures / "kind_p")
    shutil.copy(examples_folder() / "taxis.jpg", sorted_pictures / "kind_q")
    shutil.copy(examples_folder() / "teddy_bear.jpg", sorted_pictures / "kind_z")
    shots = tmp_path / "four"
    for i in range(4):
        (shots / "kind_p").mkdir(parents=True, exist_ok=True)
        picture.crop((5 * i, 0, picture.width - 9, picture.height)).save(shots / "kind_p" / f"{i}.jpg")
    words, pictures = as_json(sorted_pictures, "--examples", shots)["runs"]
    assert pictures["template"] == "a photo of a {}. + four"
    right = [{item["label"]: item["right"] for item in run["labels"]}["kind p"] for run in (words, pictures)]
    assert right == [0, 1]
    (shots / "another").mkdir()
    shutil.copy(examples_folder() / "taxis.jpg", shots / "another")
    assert "'another' is none of the labels" in evaluate(sorted_pictures, "--examples", shots, code=2).stderr


def test_the_report_is_one_page_that_loads_nothing(sorted_pictures: Path, tmp_path: Path) -> None:
    (sorted_pictures / "<b>&").mkdir()
    shutil.copy(examples_folder() / "taxis.jpg", sorted_pictures / "<b>&")
    page = tmp_path / "report.html"
    run = evaluate(sorted_pictures, "--template", "a photo of a {}.", "--template", "{}", "--report", page)
    assert f"report: {page}" in run.stderr
    text = page.read_text(encoding="utf-8")
    assert not re.search(r"https?:|src=|<link|<script|url\(|@import", text)
    assert "default-src 'none'" in text
    assert "<b>&" not in text
    assert "&lt;b&gt;&amp;" in text
    for says in ("Against run 1", "Calibration", "by threshold", "Confusions", "Labels, the weakest first"):
        assert says in text
    assert str(tmp_path) not in text, "a report is for others, too"
    assert text.count("<svg") == text.count("</svg>")


def test_the_report_may_be_a_picture(sorted_pictures: Path, tmp_path: Path) -> None:
    pytest.importorskip("matplotlib")
    picture = tmp_path / "report.PNG"
    evaluate(sorted_pictures, "--template", "{} $1", "--template", "{}", "--report", picture)
    with Image.open(io.BytesIO(picture.read_bytes())) as opened:
        assert opened.format == "PNG"
        assert min(opened.size) > 800


def test_a_picture_without_matplotlib_is_refused_with_what_to_install(sorted_pictures: Path, tmp_path: Path) -> None:
    (tmp_path / "sitecustomize.py").write_text("import sys; sys.modules['matplotlib'] = None", encoding="utf-8")
    env = {"PYTHONPATH": os.pathsep.join([str(tmp_path), os.environ.get("PYTHONPATH", "")])}
    run = evaluate(sorted_pictures, "--report", tmp_path / "report.png", code=2, env=env)
    assert "pip install 'clip-app[evaluate]', or name a file that ends in .html" in run.stderr


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["--template", "a photo"], "The template needs {} once"),
        (["--precision", "int4"], "CLIP_APP_PRECISION=int4"),
        (["--report", "report.txt"], "ends in .html or .png"),
        (["--report", "nowhere/report.html"], "cannot be written"),
        (["--labels-file", "nowhere.txt"], "--labels-file cannot be read"),
        (["--port", "8000"], "--port does nothing for evaluate"),
        (["--model", "bundled", "--model", "./other", "--revision", "main"], "--revision is of one model"),
    ],
)
def test_wrong_usage_is_2_and_says_what(sorted_pictures: Path, arguments: list[str], says: str) -> None:
    assert says in evaluate(sorted_pictures, *arguments, code=2).stderr


def test_without_two_labels_or_pictures_there_is_nothing_to_evaluate(tmp_path: Path) -> None:
    assert "does not exist" in evaluate(tmp_path / "nowhere", code=2).stderr
    assert "has no sub-folders" in evaluate(tmp_path, code=2).stderr
    (tmp_path / "cat").mkdir()
    assert "There is no picture in this folder" in evaluate(tmp_path, code=2).stderr
    shutil.copy(examples_folder() / "chelsea.jpg", tmp_path / "cat")
    assert "All pictures have one label, 'cat'" in evaluate(tmp_path, code=2).stderr
    (tmp_path / "cat" / "chelsea.jpg").write_bytes(b"no picture")
    (tmp_path / "dog").mkdir()
    (tmp_path / "dog" / "torn.png").write_bytes(b"no picture")
    assert "None of the pictures could be read." in evaluate(tmp_path, code=2).stderr
    (tmp_path / "empty.csv").touch()
    assert "has no rows" in evaluate(tmp_path / "empty.csv", code=2).stderr
    assert "no UTF-8" in evaluate(examples_folder() / "chelsea.jpg", code=2).stderr


def test_another_model_never_stands_in(sorted_pictures: Path) -> None:
    run = evaluate(sorted_pictures, "--model", "bundled", "--model", "nobody/has-this", code=16)
    assert "HF_HUB_OFFLINE" in run.stderr
    assert run.stdout == ""
