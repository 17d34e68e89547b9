"""The Dockerfile and what it installs, as far as that is known without building it."""

from __future__ import annotations

import re
import subprocess
import sys
from importlib.metadata import requires
from pathlib import Path

import pytest
from packaging.requirements import Requirement

ROOT = Path(__file__).parent.parent
DOCKERFILE = (ROOT / "Dockerfile").read_text()
LOCKS = ["image.txt", "build.txt"]


def project() -> dict[str, Requirement]:
    """Return what the package depends on, without its extras."""
    found = [Requirement(line) for line in requires("clip-app") or []]
    return {one.name: one for one in found if one.marker is None or one.marker.evaluate({"extra": ""})}


def locked(name: str) -> dict[str, str]:
    """Return each requirement of a lock, with its hashes."""
    text = re.sub(r"\s*#.*", "", (ROOT / "requirements" / name).read_text()).replace("\\\n", " ")
    return {line.split("==")[0].lower(): line for line in text.splitlines() if line.strip()}


def test_hadolint_finds_nothing() -> None:
    program = Path(sys.executable).parent / "hadolint"
    done = subprocess.run([program, ROOT / "Dockerfile"], capture_output=True, text=True)
    assert done.returncode == 0, done.stdout


def test_the_base_is_named_by_digest_in_the_first_line_that_dependabot_reads() -> None:
    first, *others = re.findall(r"^FROM (\S+)", DOCKERFILE, re.M)
    assert re.fullmatch(r"docker\.io/library/python:3\.11-slim@sha256:[0-9a-f]{64}", first)
    assert {"python", "base"} <= set(others)
    assert not [image for image in others if ":" in image or "$" in image], "one base for all"


def test_torch_is_of_a_version_that_the_project_allows() -> None:
    (version,) = re.findall(r"^torch==(\S+)$", (ROOT / "requirements" / "torch.txt").read_text(), re.M)
    assert project()["torch"].specifier.contains(version)


@pytest.mark.parametrize("name", LOCKS)
def test_a_lock_pins_and_hashes_everything_and_names_no_index(name: str) -> None:
    lock = locked(name)
    assert lock
    for line in lock.values():
        assert re.match(r"[\w.\[\]-]+==\S+(\s*;.*?)?(\s+--hash=sha256:[0-9a-f]{64})+\s*$", line), line
    assert "://" not in (ROOT / "requirements" / name).read_text()


def test_the_lock_holds_all_that_the_project_asks_for_but_torch_and_cuda() -> None:
    lock = locked("image.txt")
    wanted = {name.lower().replace("_", "-") for name in project()} - {"torch"}
    assert wanted | {"openvino", "pillow-heif"} <= set(lock)
    assert not [name for name in lock if name == "torch" or name.startswith(("nvidia", "cuda", "triton"))]


def test_what_is_not_listed_never_reaches_a_builder() -> None:
    """A cache, a token in .env or the environment would otherwise be a layer."""
    lines = [line for line in (ROOT / ".dockerignore").read_text().splitlines() if not line.startswith("#")]
    assert lines[0] == "*"
    copied = re.findall(r"^COPY (?!--from)(.+) \S+$", DOCKERFILE, re.M)
    sources = {source.split("/")[0] for line in copied for source in line.split()}
    assert {line.removeprefix("!") for line in lines if line.startswith("!")} == sources
