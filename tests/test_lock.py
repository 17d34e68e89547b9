"""requirements/image.txt is what the image installs, with torch beside it, and nothing else."""

from __future__ import annotations

import re
import sys
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

ROOT = Path(__file__).parent.parent
REQUIREMENTS = ROOT / "requirements"
IMAGE, BUILD = REQUIREMENTS / "image.txt", REQUIREMENTS / "build.txt"
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())
HASHED = re.compile(r"(?P<pin>[a-z0-9][a-z0-9.-]*==[^\s;]+)( ; [^\\]+)?( --hash=sha256:[0-9a-f]{64})+")
IMAGE_PYTHON = {"python_version": "3.11", "python_full_version": "3.11.9", "sys_platform": "linux"}


def locked(lock: Path) -> dict[str, Requirement]:
    """Read every line of the lock; one that is not a pin with hashes fails here."""
    lines = [line for line in lock.read_text().splitlines() if not line.lstrip().startswith("#")]
    pins = {}
    for entry in re.split(r"\n(?! )", re.sub(r" \\\n +", " ", "\n".join(lines)).strip()):
        found = HASHED.fullmatch(entry)
        assert found, f"{lock.name}: {entry[:80]} is not one exact version with hashes"
        pin = Requirement(found["pin"])
        assert pin.name not in pins, f"{pin.name} is locked twice"
        pins[pin.name] = pin
    return pins


def version(pin: Requirement) -> str:
    (specifier,) = pin.specifier
    return specifier.version


def direct() -> list[Requirement]:
    """Return what pyproject.toml asks for and the image installs."""
    extras = PROJECT["project"]["optional-dependencies"]
    texts = PROJECT["project"]["dependencies"] + extras["heic"] + extras["openvino"]
    return [Requirement(text) for text in texts]


@pytest.mark.parametrize("lock", [IMAGE, BUILD], ids=lambda lock: lock.name)
def test_every_line_is_one_version_with_hashes_and_names_no_index(lock: Path) -> None:
    assert locked(lock)
    assert not re.search(r"://|\s/\w|find-links|index-url", lock.read_text()), "even a comment names no place"


def test_the_image_gets_every_dependency_of_the_project_in_its_range() -> None:
    pins = locked(IMAGE)
    for requirement in direct():
        name = canonicalize_name(requirement.name)
        if name == "torch" or (requirement.marker and not requirement.marker.evaluate(IMAGE_PYTHON)):
            continue
        assert name in pins, f"{name} is not locked: make lock"
        assert requirement.specifier.contains(version(pins[name])), f"{pins[name]} is not {requirement}: make lock"


def test_torch_and_its_cuda_build_stay_out_of_the_lock() -> None:
    gpu = re.compile(r"torch|triton|cuda-.*|nvidia-.*")
    assert not [name for name in locked(IMAGE) if gpu.fullmatch(name)]


def test_what_builds_the_wheel_is_locked() -> None:
    assert {Requirement(text).name for text in PROJECT["build-system"]["requires"]} <= set(locked(BUILD))
