"""What README's first screen says runs as written, from a copy of the repository: its commands are read off it."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from conftest import need

ROOT = Path(__file__).parent.parent
README = (ROOT / "README.md").read_text(encoding="utf-8")
FIRST_SCREEN = README[: README.index("\n## What a score means")]
BLOCKS = re.findall(r"^```\n(.*?)^```$", FIRST_SCREEN, re.S | re.M)
SESSIONS = [block for block in BLOCKS if block.startswith("$ ")]
NUMBER = re.compile(r"\d[\d.]*(e-\d+)?")
PORT = "7860"
END = "end of a command"


def commands(session: str) -> list[tuple[str, list[str]]]:
    """Each command of a session, which a quote may carry on over lines, and the lines shown after it."""
    found: list[tuple[str, list[str]]] = []
    for line in session.splitlines():
        if line.startswith("$ "):
            found.append((line.removeprefix("$ "), []))
        elif found[-1][0].count('"') % 2:
            found[-1] = f"{found[-1][0]}\n{line}", []
        else:
            found[-1][1].append(line)
    return found


def words(lines: list[str]) -> list[str]:
    """The lines without their numbers, which differ by the machine, in an order: two streams have none."""
    return sorted(" ".join(NUMBER.sub("0", line).split()) for line in lines)


@pytest.fixture(scope="module")
def clone(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The files of the repository, with this Python's programs where make run puts them."""
    folder = tmp_path_factory.mktemp("clone") / "clip_app"
    shutil.copytree(ROOT, folder, ignore=shutil.ignore_patterns(".*", "__pycache__", "build", "dist"))
    (folder / ".venv").symlink_to(sys.prefix)
    return folder


@pytest.mark.skipif(not (Path(sys.prefix) / "bin" / "clip-app").exists(), reason="clip-app is not installed here")
@need("curl")
@pytest.mark.parametrize("session", SESSIONS, ids=lambda session: " ".join(session.split()[1:3]))
def test_each_session_gives_what_it_shows(clone: Path, server: str, session: str) -> None:
    asked = commands(session)
    script = "\n".join(f"{command}\nlast=$?; echo '{END}'; (exit $last)" for command, _ in asked)
    run = subprocess.run(
        ["bash"],
        cwd=clone,
        input=script.replace(f":{PORT}", f":{server.rpartition(':')[2]}"),
        env=os.environ | {"CLIP_APP_MODEL": "bundled"},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    answers = run.stdout.split(f"{END}\n")
    assert len(answers) == len(asked) + 1, run.stdout
    for (command, shown), answer in zip(asked, answers, strict=False):
        assert words(answer.splitlines()) == words(shown), command


@need("make")
def test_whatever_make_is_told_to_do_there_is_a_rule_for() -> None:
    targets = re.findall(r"^(?:PORT=\d+ )?make ([\w-]+)", "\n".join(BLOCKS), re.M)
    assert {"run", "test"} <= set(targets)
    for target in targets:
        dry = subprocess.run(["make", "--dry-run", target], cwd=ROOT, capture_output=True, text=True)
        assert dry.returncode == 0, dry.stderr


def test_the_faces_that_a_terminal_reaches_are_shown_with_pictures_that_are_there() -> None:
    shown = "\n".join(SESSIONS)
    assert all(program in shown for program in ("curl ", "gradio_client", ".venv/bin/clip-app analyze"))
    pictures = re.findall(r"clip_app/examples/[\w.]+", shown) + re.findall(r"!\[.*?\]\((.*?)\)", FIRST_SCREEN)
    assert [picture for picture in pictures if not (ROOT / picture).exists()] == []
