"""The pictures that libraries are tested with, as strange as files get: each is answered or refused, none fails."""

from __future__ import annotations

import json
import subprocess
import sys
from importlib.resources import files
from itertools import islice
from pathlib import Path

import httpx
import pytest

GROWTH = 400  # megabytes
PILLOW = Path(__file__).parent.parent / "build" / "pictures"
AT_ONCE = 16
# Decodes all files below folders, and says by how much the process grew and what came of each.
PROGRAM = """
import json, sys, warnings
from pathlib import Path
from clip_app.errors import ImageTooLarge, UndecodableImage
from clip_app.images import decode

def peak():
    return next(int(line.split()[1]) for line in Path("/proc/self/status").open() if line.startswith("VmHWM")) // 1024

warnings.simplefilter("ignore")
found, before = {}, peak()
for path in sorted(path for name in sys.argv[1:] for path in Path(name).rglob("*") if path.is_file()):
    try:
        decode(path.read_bytes(), max_bytes=20_000_000, max_pixels=10**8, target=224)
        found[path.name] = "answered"
    except (ImageTooLarge, UndecodableImage) as error:
        found[path.name] = error.message
print(json.dumps([peak() - before, found]))
"""


def folders() -> list[Path]:
    """Where scikit-image, scikit-learn and matplotlib keep pictures, and Pillow's source, if it is here."""
    installed = (("skimage", "data"), ("sklearn", "datasets/images"), ("matplotlib", "mpl-data"))
    return [Path(str(files(name))) / below for name, below in installed] + [PILLOW] * PILLOW.is_dir()


@pytest.mark.processes
def test_every_picture_of_the_libraries_is_answered_or_refused_within_the_bound() -> None:
    command = [sys.executable, "-c", PROGRAM, *map(str, folders())]
    growth, found = json.loads(subprocess.run(command, check=True, capture_output=True, timeout=600).stdout)
    assert growth <= GROWTH
    assert sum(outcome == "answered" for outcome in found.values()) > 40
    for name in ("astronaut.png", "retina.jpg", "multipage.tif", "no_time_for_that_tiny.gif", "china.jpg", "home.png"):
        assert found[name] == "answered", name


@pytest.mark.processes
@pytest.mark.skipif(not PILLOW.is_dir(), reason="Pillow's test pictures are not here; .ci/run fetches them")
def test_pillows_test_pictures_are_answered_or_refused_by_the_server(server: str) -> None:
    paths = iter(sorted(path for path in PILLOW.rglob("*") if path.is_file() and path.stat().st_size < 5_000_000))
    answered = asked = 0
    while some := list(islice(paths, AT_ONCE)):
        sent = [("image", (path.name, path.read_bytes())) for path in some]
        found = httpx.post(f"{server}/api/analyze", files=sent, data={"groups": "kinds"})
        assert found.status_code == 200, (found.text, [path.name for path in some])
        results = found.json()["results"]
        assert {one["error"]["code"] for one in results if "error" in one} <= {"undecodable_image", "too_large"}
        answered += sum("groups" in one for one in results)
        asked += len(some)
    assert asked > 800
    assert answered > 600
