from __future__ import annotations

import csv
import io
import json

import pytest

from clip_app.cli.writers import WRITERS, OutputFormat
from clip_app.errors import ClipAppError, UndecodableImage
from clip_app.results import AnalysisResult, GroupResult, ImageInfo, LabelScore, ModelInfo, Timings


def result(name: str, *labels: str) -> AnalysisResult:
    scores = [
        LabelScore(label=label, confidence=0.5 / (i + 1), similarity=0.25 - i / 100) for i, label in enumerate(labels)
    ]
    return AnalysisResult(
        model=ModelInfo(id="bundled", revision="1", engine="torch", precision="float32", bundled=True),
        image=ImageInfo(name=name, width=30, height=20),
        groups=[GroupResult(name="objects", no_match=0.125, labels=scores)],
        timings_ms=Timings(total=1.5),
    )


RESULTS = [result("größer.png", "cat", "red car"), result("second.png", "dog")]


def written(kind: OutputFormat, *answers: AnalysisResult | tuple[str, AnalysisResult | ClipAppError]) -> str:
    out = io.StringIO()
    writer = WRITERS[kind](out)
    for one in answers:
        path, answer = one if isinstance(one, tuple) else (one.image.name, one)
        writer.write(path, answer)
    writer.close()
    return out.getvalue()


def test_json_is_one_list_and_holds_everything() -> None:
    text = written(OutputFormat.json, *RESULTS)
    assert [AnalysisResult.model_validate(value) for value in json.loads(text)] == RESULTS
    assert "größer.png" in text
    assert json.loads(written(OutputFormat.json)) == []


def test_json_lines_come_one_by_one() -> None:
    out = io.StringIO()
    writer = WRITERS[OutputFormat.jsonl](out)
    for count, one in enumerate(RESULTS, 1):
        writer.write(one.image.name, one)
        lines = out.getvalue().splitlines()
        assert len(lines) == count
        assert AnalysisResult.model_validate_json(lines[-1]) == one
    writer.close()
    assert len(out.getvalue().splitlines()) == 2


def test_csv_has_a_row_for_each_label_with_its_rank() -> None:
    rows = list(csv.DictReader(io.StringIO(written(OutputFormat.csv, *RESULTS))))
    assert [(row["image"], row["group"], row["rank"], row["label"]) for row in rows] == [
        ("größer.png", "objects", "1", "cat"),
        ("größer.png", "objects", "2", "red car"),
        ("second.png", "objects", "1", "dog"),
    ]
    assert rows[1] | {"label": ""} == {
        **{"image": "größer.png", "width": "30", "height": "20", "group": "objects", "rank": "2", "label": ""},
        **{"confidence": "0.25", "similarity": "0.24", "no_match": "0.125", "model": "bundled"},
        **{"warnings": "", "error": ""},
    }


def test_what_was_wrong_with_a_file_is_a_column_and_a_line() -> None:
    one = result("cut.jpg", "cat")
    one.image.warnings = ["It ends early.", "It is flat."]
    (row, *_) = csv.DictReader(io.StringIO(written(OutputFormat.csv, one)))
    assert row["warnings"] == "It ends early. It is flat."
    assert "cut.jpg: It ends early." in written(OutputFormat.table, one)
    assert json.loads(written(OutputFormat.json, one))[0]["image"]["warnings"] == one.image.warnings
    assert "warnings" not in json.loads(written(OutputFormat.json, result("fine.jpg")))[0]["image"]


@pytest.mark.parametrize("start", ["=", "+", "-", "@"])
def test_a_spreadsheet_runs_no_name_and_no_label_as_a_formula(start: str) -> None:
    text = written(OutputFormat.csv, result(f"{start}A1", f"{start}cmd"))
    (row,) = csv.DictReader(io.StringIO(text))
    assert (row["image"], row["label"]) == (f"./{start}A1", f"'{start}cmd"), "the path still names the file"


FAILED = ("in/bad.jpg", UndecodableImage("The picture is damaged."))


def test_a_bad_file_has_a_row_of_its_own() -> None:
    rows = list(csv.DictReader(io.StringIO(written(OutputFormat.csv, RESULTS[1], FAILED))))
    assert [(row["image"], row["label"], row["error"]) for row in rows] == [
        ("second.png", "dog", ""),
        ("in/bad.jpg", "", "The picture is damaged."),
    ]
    entry = {"image": {"name": "in/bad.jpg"}, "error": {"code": "undecodable_image", "message": FAILED[1].message}}
    assert json.loads(written(OutputFormat.json, RESULTS[0], FAILED))[1] == entry
    assert json.loads(written(OutputFormat.jsonl, RESULTS[0], FAILED).splitlines()[1]) == entry
    assert "in/bad.jpg: The picture is damaged." in written(OutputFormat.table, FAILED)


@pytest.mark.parametrize("kind", [OutputFormat.csv, OutputFormat.json, OutputFormat.jsonl])
@pytest.mark.parametrize("path", [b"caf\xe9.jpg", b"\xff\xfe/a.png", "größer.png".encode()])
def test_bytes_of_a_path_survive(kind: OutputFormat, path: bytes) -> None:
    given = path.decode("utf-8", "surrogateescape")
    data = written(kind, (given, RESULTS[0])).encode("utf-8", "surrogateescape")
    if kind is OutputFormat.csv:
        (row, *_) = csv.DictReader(io.StringIO(data.decode("utf-8", "surrogateescape")))
        found = row["image"]
    else:
        value = json.loads(data.decode("utf-8"))  # it is UTF-8, as JSON must be
        found = (value[0] if isinstance(value, list) else value)["image"]["name"]
    assert found.encode("utf-8", "surrogateescape") == path


def test_a_group_without_a_label_left_keeps_its_row() -> None:
    (row,) = csv.DictReader(io.StringIO(written(OutputFormat.csv, result("a.png"))))
    assert (row["group"], row["label"], row["no_match"]) == ("objects", "", "0.125")


def test_a_table_is_for_people() -> None:
    lines = written(OutputFormat.table, *RESULTS).splitlines()
    assert [line.strip() for line in lines if "objects" in line] == ["größer.png: objects", "second.png: objects"]
    (cat,) = [line for line in lines if "cat" in line]
    assert cat.split("│")[1:-1] == [" cat           ", "      50.0% ", "      0.250 "]
    assert sum("none of these" in line and "12.5%" in line for line in lines) == 2
