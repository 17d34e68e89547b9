"""A model is made ready by a part of the app alone: what the image's stage copies, and nothing else."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from hub_machine import Machine

from clip_app.errors import CheckpointError, HubError
from clip_app.preparation import of_the_hub, prepare
from clip_app.settings import load_settings

ROOT = Path(__file__).parent.parent


def copied() -> list[Path]:
    """Return what of the app the Dockerfile's stage of the model is made of."""
    text = (ROOT / "Dockerfile").read_text().replace("\\\n", " ")
    (stage,) = re.findall(r"^FROM dependencies AS model\n(.*?)^FROM ", text, re.M | re.S)
    lines = [line.split() for line in re.findall(r"^COPY (.*)$", stage, re.M)]
    return [Path(source) for *sources, _ in lines for source in sources]


@pytest.fixture
def part(tmp_path: Path) -> Path:
    """The stage's part of the app, in a folder of its own."""
    folder = tmp_path / "part"
    for path in copied():
        if (ROOT / path).is_dir():
            shutil.copytree(ROOT / path, folder / path)
        else:
            (folder / path).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(ROOT / path, folder / path)
    return folder


def test_the_stage_of_the_model_is_made_of_nothing_that_a_page_or_an_option_changes() -> None:
    names = {path.stem for path in copied()}
    assert {"engines", "hub", "preparation"} <= names
    assert not names & {"clip_app", "cli", "page", "ui", "labels", "label_groups", "options", "server", "bundled"}


def test_its_part_of_the_app_fetches_and_converts_and_the_whole_app_finds_it_all(part: Path, machine: Machine) -> None:
    env = machine.env | {"PYTHONPATH": str(part), "CLIP_APP_ENGINE": "auto"}
    program = "import clip_app.preparation as p; print(p.__file__); p.main()"
    done = subprocess.run([sys.executable, "-c", program], env=env, cwd=part, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    used, said = done.stdout.splitlines()
    assert Path(used).is_relative_to(part)
    assert said.startswith(f"{machine.hub.repo}: converted for OpenVINO")
    made = {path: path.stat().st_mtime_ns for path in machine.cache.artifacts.rglob("*.bin")}
    assert made
    machine.hub.requests.clear()
    code, text = machine.run("prefetch", CLIP_APP_ENGINE="auto", HF_HUB_OFFLINE="1")
    assert code == 0, text
    assert "label groups: objects" in text
    assert not machine.hub.requests
    assert {path: path.stat().st_mtime_ns for path in machine.cache.artifacts.rglob("*.bin")} == made


def test_what_is_wrong_is_one_line_and_the_exit_code_of_its_kind(part: Path, machine: Machine) -> None:
    env = machine.env | {"PYTHONPATH": str(part), "HF_HUB_OFFLINE": "1"}
    command = [sys.executable, "-m", "clip_app.preparation"]
    done = subprocess.run(command, env=env, cwd=part, capture_output=True, text=True)
    assert done.returncode == HubError("offline", "").exit_code
    (line,) = done.stderr.splitlines()
    assert "HF_HUB_OFFLINE" in line


def test_a_model_in_the_package_or_in_a_folder_is_not_of_the_hub(small_clip: Path) -> None:
    assert of_the_hub(load_settings(model="openai/clip-vit-base-patch32"))
    assert not of_the_hub(load_settings(model="bundled"))
    assert not of_the_hub(load_settings(model=str(small_clip)))


def test_an_engine_that_cannot_is_passed_over_aloud_unless_it_was_asked_for(small_clip: Path, tmp_path: Path) -> None:
    folder = str(shutil.copytree(small_clip, tmp_path / "model"))
    Path(folder, "model.safetensors").write_bytes(b"damaged")
    warnings: list[str] = []
    with pytest.raises(CheckpointError):
        prepare(load_settings(model=folder, precision="float32", engine="openvino"), None, warnings.append)
    assert not warnings
    settings = load_settings(model=folder, precision="float32")
    assert prepare(settings, None, warnings.append) is None, "torch is the next, and converts nothing"
    (said,) = warnings
    assert said.startswith("openvino in float32 on cpu will not serve. ")
