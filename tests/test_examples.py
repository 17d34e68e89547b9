"""Labels by example: pictures beside words, or instead of them."""

from __future__ import annotations

import errno
import json
import logging
import os
import subprocess
import sys
from pathlib import Path

import httpx
import numpy as np
import pytest
from conftest import served
from PIL import Image

from clip_app.bank import LabelBank, LabelStore
from clip_app.errors import LabelFileError
from clip_app.example_pictures import MOST_OF_A_LABEL
from clip_app.few_shot import Matrix, mixed
from clip_app.labels import LabelGroup, group_names, load_groups
from clip_app.model import Model


def crops(path: Path, folder: Path, count: int) -> Path:
    """Write so many different cuts of a photograph."""
    folder.mkdir(parents=True, exist_ok=True)
    picture = Image.open(path).convert("RGB")
    for i in range(count):
        left, top = 8 * (i % 5), 6 * (i // 5)
        picture.crop((left, top, picture.width - 8 * (i % 3), picture.height - top)).save(folder / f"{i}.jpg")
    return folder


@pytest.fixture
def labels(tmp_path: Path, photographs: dict[str, Path]) -> Path:
    """A group by pictures alone, whose names say nothing to a text encoder."""
    for name, label in (("rocket", "kind_zq"), ("china", "kind_xw"), ("flower", "kind_vj")):
        crops(photographs[name], tmp_path / "labels" / "things" / label, 6)
    return tmp_path / "labels"


def unit(model: Model, path: Path) -> Matrix:
    pixels = model.preprocessing(Image.open(path).convert("RGB"))[None]
    return np.asarray(model.encode_images(pixels)[0], np.float32)


def best(model: Model, bank: LabelBank, group: LabelGroup, path: Path) -> str:
    rows, neutral = bank.group(group)
    embedding = unit(model, path)
    assert (rows @ embedding).max() > (neutral @ embedding).max(), "and better than what names nothing"
    return group.labels[int((rows @ embedding).argmax())]


def test_labels_by_pictures_alone_are_found(bundled: Model, labels: Path, photographs: dict[str, Path]) -> None:
    group = load_groups(labels)["things"]
    assert group.labels == ("kind vj", "kind xw", "kind zq")
    assert len(group.examples) == 18
    bank = LabelBank(bundled)
    for name, label in (("rocket", "kind zq"), ("china", "kind xw"), ("flower", "kind vj")):
        assert best(bundled, bank, group, photographs[name]) == label


def test_words_and_pictures_make_one_group(bundled: Model, labels: Path, photographs: dict[str, Path]) -> None:
    (labels / "things.txt").write_text("title: Mine\nKind XW\na cup of coffee\n")
    group = load_groups(labels)["things"]
    assert group.title == "Mine"
    assert group.labels == ("Kind XW", "a cup of coffee", "kind vj", "kind zq"), "spelt as the file spells them"
    bank = LabelBank(bundled)
    assert best(bundled, bank, group, photographs["china"]) == "Kind XW"
    assert best(bundled, bank, group, photographs["coffee"]) == "a cup of coffee"


def test_only_what_is_new_is_embedded(
    bundled: Model, labels: Path, tmp_path: Path, photographs: dict[str, Path]
) -> None:
    seen: list[str] = []

    class Watched(LabelBank):
        def _see(self, example):  # type: ignore[no-untyped-def]
            seen.append(example.path.name)
            return super()._see(example)

    def embed() -> int:
        seen.clear()
        Watched(bundled, store=LabelStore(tmp_path / "store.safetensors")).group(load_groups(labels)["things"])
        return len(seen)

    assert embed() == 18 + 5, "and the photographs of the package, to tell them apart from"
    assert embed() == 0
    Image.open(photographs["cat"]).convert("RGB").save(labels / "things" / "kind_zq" / "0.jpg")
    assert embed() == 1


def test_a_picture_that_cannot_be_read_is_left_out_and_told(
    bundled: Model, labels: Path, photographs: dict[str, Path], caplog: pytest.LogCaptureFixture
) -> None:
    (labels / "things" / "kind_zq" / "broken.jpg").write_bytes(b"no picture")
    bank = LabelBank(bundled)
    with caplog.at_level(logging.WARNING, "clip_app"):
        assert best(bundled, bank, load_groups(labels)["things"], photographs["rocket"]) == "kind zq"
    assert "the example broken.jpg of 'kind zq' is left out" in caplog.text
    assert str(labels) not in caplog.text


def test_junk_is_passed_over_and_an_empty_folder_stops_the_start(labels: Path) -> None:
    folder = labels / "things" / "kind_zq"
    for name in (".DS_Store", "Thumbs.db", "desktop.ini"):
        (folder / name).write_bytes(b"junk")
    (labels / "lost+found").mkdir()  # of a volume's root
    assert len(load_groups(labels)["things"].examples) == 18
    (labels / "things" / "kind_new").mkdir()
    with pytest.raises(LabelFileError, match="things/kind_new: there is no picture in it"):
        load_groups(labels)


def test_the_names_of_groups_need_no_picture_to_be_read(labels: Path) -> None:
    (labels / "birds.txt").write_text("wren\n")
    assert group_names(labels) == set(load_groups(labels)) == {"things", "birds"}


def test_a_folder_that_may_not_be_read_stops_the_start_by_its_name(
    labels: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(path: Path) -> object:
        raise PermissionError(errno.EACCES, os.strerror(errno.EACCES))

    monkeypatch.setattr(Path, "iterdir", refuse)  # root may read everything
    with pytest.raises(LabelFileError, match="the folder cannot be read: Permission denied"):
        load_groups(labels)


def test_too_many_and_a_link_out_of_the_folder_are_refused(
    labels: Path, tmp_path: Path, photographs: dict[str, Path]
) -> None:
    folder = labels / "things" / "kind_zq"
    (folder / "outside.jpg").symlink_to(photographs["cat"])
    with pytest.raises(LabelFileError, match=r"things/kind_zq/outside.jpg: it is a link that leads out"):
        load_groups(labels)
    (folder / "outside.jpg").unlink()
    for i in range(MOST_OF_A_LABEL):
        (folder / f"more-{i}.jpg").write_bytes(b"x")
    with pytest.raises(LabelFileError, match=r"things/kind_zq: it has 106 pictures; at most 100"):
        load_groups(labels)


def test_a_mounted_config_map_is_read(tmp_path: Path, photographs: dict[str, Path]) -> None:
    """Kubernetes mounts files as links into a dotted folder of the same mount."""
    root = tmp_path / "labels"
    data = root / "..2026_11_26"
    crops(photographs["cat"], data, 2)
    (root / "..data").symlink_to(data.name)
    (root / "animals" / "cat").mkdir(parents=True)
    for name in ("0.jpg", "1.jpg"):
        (root / "animals" / "cat" / name).symlink_to(Path("..", "..", "..data", name))
    groups = load_groups(root)
    assert list(groups) == ["animals"]
    assert len(groups["animals"].examples) == 2


def test_the_mix_is_the_words_without_pictures_and_the_pictures_with_many() -> None:
    random = np.random.default_rng(0)

    def rows(count: int, away: float = 0.0) -> Matrix:
        made = random.standard_normal((count, 32))
        made[:, 0] += away
        return np.asarray(made / np.linalg.norm(made, axis=1, keepdims=True), np.float32)

    texts, neutral, background = rows(3), rows(4), rows(5, away=9)
    none = [np.empty((0, 32), np.float32)] * 3
    assert mixed(texts, none, neutral, background) is texts
    pictures = [rows(50, away=9), rows(2, away=9), none[0]]
    both = mixed(texts, pictures, neutral, background)
    assert np.array_equal(both[2], texts[2]), "a label without pictures stays"
    assert np.linalg.norm(both, axis=1).max() <= 1 + 1e-6
    near = rows(1, away=9)[0]
    assert abs(float(both[0] @ near)) < 0.5, "pictures that lie apart from all texts do not draw a label to themselves"


def test_the_command_line_takes_a_folder_of_examples(labels: Path, photographs: dict[str, Path]) -> None:
    command = [sys.executable, "-m", "clip_app", "analyze", str(photographs["rocket"]), "--model", "bundled"]
    command += ["--examples", str(labels / "things"), "--format", "json"]
    run = subprocess.run(command, capture_output=True, text=True, env=os.environ)
    assert run.returncode == 0, run.stderr
    (group,) = json.loads(run.stdout)[0]["groups"]
    assert (group["name"], group["labels"][0]["label"]) == ("examples", "kind zq")
    run = subprocess.run([*command, "--labels", "cat,dog"], capture_output=True, text=True, env=os.environ)
    assert [group["name"] for group in json.loads(run.stdout)[0]["groups"]] == ["examples", "labels"]
    (labels / "things" / "empty").mkdir()
    run = subprocess.run(command, capture_output=True, text=True, env=os.environ)
    assert (run.returncode, "examples/empty: there is no picture in it" in run.stderr) == (2, True)


def test_a_server_offers_the_group_on_every_face(labels: Path, photographs: dict[str, Path]) -> None:
    with served("--model", "bundled", env={"CLIP_APP_LABELS_DIR": str(labels)}) as url:
        picture = {"image": photographs["china"].read_bytes()}
        answer = httpx.post(f"{url}/api/analyze", files=picture, data={"groups": "things"})
        (group,) = answer.json()["results"][0]["groups"]
        assert group["labels"][0]["label"] == "kind xw"
        where = httpx.post(f"{url}/api/explain", files=picture, data={"label": "kind xw", "format": "json"})
        assert where.status_code == 200
