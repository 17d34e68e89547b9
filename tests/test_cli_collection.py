"""``clip-app index``, ``search``, ``duplicates`` and ``label``, as they are typed."""

from __future__ import annotations

import csv
import io
import json
import os
import shutil
import signal
import subprocess
import sys
import time
import xml.etree.ElementTree as ET
from contextlib import closing
from pathlib import Path

import numpy as np
import pytest
from conftest import embedded, prepared, small_checkpoint
from PIL import Image
from pyarrow import parquet

from clip_app.collection.store import Collection
from clip_app.errors import CollectionError
from clip_app.source import examples_folder

MANY = 400
WAIT_SECONDS = 120  # to end a hang


def environment(data: Path, model: str = "bundled") -> dict[str, str]:
    (embedded if model == "bundled" else prepared)()
    return os.environ | {"XDG_DATA_HOME": str(data), "CLIP_APP_MODEL": model, "COLUMNS": "200"}


def clip_app(
    data: Path, *arguments: object, model: str = "bundled", stdin: bytes = b""
) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "clip_app", *map(str, arguments)]
    done = subprocess.run(command, input=stdin, capture_output=True, env=environment(data, model), timeout=WAIT_SECONDS)
    out, err = done.stdout.decode(), done.stderr.decode()
    assert "Traceback" not in err, err
    return subprocess.CompletedProcess(command, done.returncode, out, err)


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The package's photographs, one of them twice, and what is none, in a collection by the name of home."""
    folder = tmp_path_factory.mktemp("home")
    shutil.copytree(examples_folder(), folder / "photos")
    with Image.open(folder / "photos" / "coffee.jpg") as coffee:
        coffee.resize((coffee.width * 4 // 5, coffee.height * 4 // 5)).save(folder / "photos" / "small coffee.jpg")
    (folder / "photos" / "bad.jpg").write_bytes(b"no picture")
    done = clip_app(folder, "index", folder / "photos", "--collection", "home")
    assert done.returncode == 1, done.stderr
    assert done.stdout == "home: 6 embedded, 0 unchanged, 1 failed, 0 gone\n"
    assert "bad.jpg: This is not a picture that can be read" in done.stderr
    return folder


def test_a_text_finds_what_shows_it_and_nothing_else(home: Path) -> None:
    done = clip_app(home, "search", "a cat", "-c", "home", "--format", "paths")
    assert (done.returncode, done.stdout) == (0, f"{home}/photos/chelsea.jpg\n")
    done = clip_app(home, "search", "a submarine", "-c", "home", "--format", "json")
    assert json.loads(done.stdout) == []
    assert "nothing in the collection fits" in done.stderr
    done = clip_app(home, "search", "a submarine", "-c", "home", "--format", "csv", "--above", "-1", "--top", "2")
    rows = list(csv.DictReader(io.StringIO(done.stdout)))
    assert [row["relevant"] for row in rows] == ["False", "False"]


def test_a_picture_finds_its_like_and_a_text_takes_away(home: Path) -> None:
    coffee = (home / "photos" / "coffee.jpg").read_bytes()
    done = clip_app(home, "search", "-c", "home", "--image", "-", "--format", "jsonl", stdin=coffee)
    rows = [json.loads(line) for line in done.stdout.splitlines()]
    assert [Path(row["path"]).name for row in rows] == ["coffee.jpg", "small coffee.jpg"]
    assert rows[0]["score"] == pytest.approx(1, abs=1e-3)
    asked = ("search", "food and drink", "-c", "home", "--above", "-1", "--top", "1", "--format", "paths")
    assert "coffee" in clip_app(home, *asked).stdout
    assert "coffee" not in clip_app(home, *asked, "--not", "a cup of coffee").stdout


def test_a_contact_sheet_is_one_page_that_loads_nothing(home: Path, tmp_path: Path) -> None:
    sheet = tmp_path / "sheet.html"
    done = clip_app(home, "search", "<b>coffee</b>", "-c", "home", "--above", "0", "--sheet", sheet)
    assert done.returncode == 0, done.stderr
    text = sheet.read_text()
    assert "<h1>&lt;b&gt;coffee&lt;/b&gt;</h1>" in text
    assert text.count("data:image/jpeg;base64,") == done.stdout.count(".jpg") > 1
    assert not [part for part in ("http://", "https://", "<script") if part in text]


def test_copies_are_grouped(home: Path) -> None:
    done = clip_app(home, "duplicates", "-c", "home", "--format", "json")
    rows = json.loads(done.stdout)
    assert [(row["group"], Path(row["path"]).name) for row in rows] == [(1, "coffee.jpg"), (1, "small coffee.jpg")]
    assert rows[0]["width"] > rows[1]["width"]


def labelled(home: Path, *arguments: object) -> list[dict[str, str]]:
    done = clip_app(home, "label", "-c", "home", *arguments)
    assert done.returncode == 0, done.stderr
    return list(csv.DictReader(io.StringIO(done.stdout)))


def test_labels_are_those_of_an_analysis(home: Path) -> None:
    asked = ("--labels", "cat, cup of coffee, pizza", "--top-k", "1")
    rows = {Path(row["path"]).name: row for row in labelled(home, *asked)}
    assert {name: row["label"] for name, row in rows.items() if float(row["confidence"]) > 0.5} == {
        "chelsea.jpg": "cat",
        "coffee.jpg": "cup of coffee",
        "small coffee.jpg": "cup of coffee",
        "pizza.jpg": "pizza",
    }
    done = clip_app(home, "analyze", home / "photos" / "pizza.jpg", *asked, "--format", "json")
    ((score,),) = (group["labels"] for group in json.loads(done.stdout)[0]["groups"])
    assert float(rows["pizza.jpg"]["confidence"]) == pytest.approx(score["confidence"], abs=0.02)


def test_labels_of_groups_go_into_parquet(home: Path, tmp_path: Path) -> None:
    done = clip_app(
        home, "label", "-c", "home", "--groups", "objects", "--format", "parquet", "--output", tmp_path / "a.parquet"
    )
    assert done.returncode == 0, done.stderr
    table = parquet.read_table(tmp_path / "a.parquet").to_pylist()
    assert len(table) == 6 * 5
    best = {Path(row["path"]).name: row["label"] for row in table if row["rank"] == 1}
    assert best["coffee.jpg"] == "cup of coffee"
    assert "clip-app[parquet]" not in done.stderr
    refused = clip_app(home, "label", "-c", "home", "--format", "parquet")
    assert (refused.returncode, "--output" in refused.stderr) == (2, True)


def test_sidecars_lie_beside_the_pictures_and_nobody_elses_is_touched(home: Path) -> None:
    other = home / "photos" / "taxis.jpg.xmp"
    other.write_text("<x:xmpmeta x:xmptk='Another program'/>")
    labels = ("--labels", "cat, cup of coffee, <taxi>", "--format", "xmp")
    done = clip_app(home, "label", "-c", "home", *labels)
    assert (done.returncode, done.stdout) == (1, "5 sidecars written; 1 left as they were\n")
    assert "taxis.jpg.xmp is another program's" in done.stderr
    assert other.read_text() == "<x:xmpmeta x:xmptk='Another program'/>"
    found = ET.parse(home / "photos" / "chelsea.jpg.xmp").iter("{http://www.w3.org/1999/02/22-rdf-syntax-ns#}li")
    assert [item.text for item in found] == ["cat"]
    other.unlink()
    assert clip_app(home, "label", "-c", "home", *labels).returncode == 0, "its own are written anew"


def test_a_question_without_words_or_a_collection_that_is_not_there_is_said(home: Path) -> None:
    for arguments, says in (
        (("search", "-c", "home"), "Give a text"),
        (
            ("search", "cat", "-c", "away"),
            "There is no collection away. Make it: clip-app index PATH --collection away",
        ),
        (("duplicates", "-c", "away"), "There is no collection away"),
        (("label", "-c", "home", "--format", "xmp", "--output", "a"), "takes no --output"),
        (("index", "-c", "home"), "There is nothing to index"),
        (("index", home, "-c", ".."), "give a name"),
    ):
        done = clip_app(home, *arguments)
        assert (done.returncode, says in done.stderr) == (2, True), done.stderr


def test_another_model_is_refused_with_both_names(home: Path) -> None:
    for arguments in (
        ("search", "cat", "-c", "home"),
        ("label", "-c", "home"),
        ("index", home / "photos", "-c", "home"),
    ):
        done = clip_app(home, *arguments, model=str(small_checkpoint()))
        assert done.returncode == 2
        assert "made with bundled at" in done.stderr
        assert "small-clip at local serves" in done.stderr


def in_it(folder: Path) -> int:
    """How many pictures a reader finds in a collection; none where there is no collection yet."""
    try:
        collection = Collection.open(folder)
    except CollectionError:
        return 0
    with closing(collection):
        return collection.counts().pictures


def test_killed_half_way_it_goes_on_where_it_was(tmp_path: Path) -> None:
    photos = tmp_path / "photos"
    photos.mkdir()
    for i in range(MANY):
        pixels = np.random.default_rng(i).integers(0, 256, (30, 40, 3), np.uint8)
        Image.fromarray(pixels).save(photos / f"{i:03d}.png")
    model = str(small_checkpoint())
    whole = clip_app(tmp_path, "index", photos, "-c", "whole", model=model)
    assert whole.stdout == f"whole: {MANY} embedded, 0 unchanged, 0 failed, 0 gone\n", whole.stderr

    folder = tmp_path / "clip_app" / "collections" / "killed"
    slow = {"CLIP_APP_MAX_BATCH_SIZE": "1", "CLIP_APP_THREADS": "1"}
    command = [sys.executable, "-m", "clip_app", "index", str(photos), "-c", "killed"]
    process = subprocess.Popen(command, env=environment(tmp_path, model) | slow)
    deadline = time.monotonic() + WAIT_SECONDS
    while not in_it(folder):
        assert process.poll() is None
        assert time.monotonic() < deadline
    process.send_signal(signal.SIGKILL)
    process.wait()
    had = in_it(folder)
    again = clip_app(tmp_path, "index", photos, "-c", "killed", model=model)
    assert 0 < had < MANY
    assert again.stdout == f"killed: {MANY - had} embedded, {had} unchanged, 0 failed, 0 gone\n", again.stderr

    one, other = Collection.open(folder.parent / "whole"), Collection.open(folder)
    expected = {row.path: one.vectors()[row.vector or 0] for row in one.found()}
    found = {row.path: other.vectors()[row.vector or 0] for row in other.found()}
    assert found.keys() == expected.keys()
    assert all(np.allclose(found[path], expected[path], atol=1e-4) for path in expected)


def test_a_list_of_paths_and_a_folder_of_ones_own(tmp_path: Path) -> None:
    listed = "\n".join(str(path) for path in sorted(examples_folder().glob("*.jpg"))[:2])
    folder = tmp_path / "kept" / "here"
    done = clip_app(tmp_path, "index", "--files-from", "-", "-c", f"{folder}/", stdin=listed.encode())
    assert done.stdout == "here: 2 embedded, 0 unchanged, 0 failed, 0 gone\n", done.stderr
    assert (folder / "pictures.sqlite").is_file()
