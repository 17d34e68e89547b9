"""A container engine of this machine's: docker where its daemon runs, else podman with a storage of its own."""

from __future__ import annotations

import ast
import json
import os
import re
import resource
import shutil
import subprocess
import sys
import uuid
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parent.parent
STORAGE = ROOT / "build" / "image-test"  # keeps layers for the next run; make clean removes it
OFFICIAL_BASE: str = re.findall(r"^FROM (\S+) AS python$", (ROOT / "Dockerfile").read_text(), re.M)[0]
IMAGE = "localhost/clip_app-test"
STAND_IN = "localhost/python:stand-in"
PULL_SECONDS = 120
UNRAISED_LIMIT = 16384
# What of pip's configuration says where packages come from and whom to trust.
PIP_OPTIONS = ("cert", "extra-index-url", "find-links", "index-url", "proxy", "timeout")


@cache
def engine_program() -> str | None:
    """Return docker or podman, None where neither can run anything."""
    if shutil.which("docker") and subprocess.run(["docker", "info"], capture_output=True).returncode == 0:
        return "docker"
    return "podman" if shutil.which("podman") else None


@dataclass
class Engine:
    """Builds images and runs them."""

    program: str
    env: dict[str, str] = field(default_factory=dict)

    @property
    def is_podman(self) -> bool:
        return self.program == "podman"

    def __call__(self, *arguments: str, check: bool = True, **options: Any) -> subprocess.CompletedProcess[str]:
        command = [self.program, *arguments]
        done = subprocess.run(command, env=os.environ | self.env, capture_output=True, text=True, **options)
        assert not check or done.returncode == 0, f"{' '.join(command)}\n{done.stdout[-2000:]}{done.stderr[-4000:]}"
        return done

    def exists(self, image: str) -> bool:
        return self("image", "inspect", image, check=False).returncode == 0

    def base_image(self) -> str:
        """Return BASE_IMAGE, the official one, or a stand-in made of this machine's Debian packages."""
        if chosen := os.environ.get("BASE_IMAGE"):
            return chosen
        for image in (OFFICIAL_BASE, STAND_IN):
            if self.exists(image):
                return image
        with suppress(subprocess.TimeoutExpired):
            if self("pull", "--quiet", OFFICIAL_BASE, check=False, timeout=PULL_SECONDS).returncode == 0:
                return OFFICIAL_BASE
        archive = STORAGE / "base.tar"
        archive.parent.mkdir(parents=True, exist_ok=True)
        subprocess.run([ROOT / "tests" / "image" / "stand_in_base.sh", archive], check=True)
        self("import", str(archive), STAND_IN)
        archive.unlink()
        return STAND_IN

    def build(self, target: str, **variables: str) -> str:
        """Build a target of the Dockerfile as ``make image`` does, and return its name."""
        variables |= {"IMAGE": IMAGE, "TARGET": target}
        if self.is_podman:
            variables["IMAGE_ARGS"] = " ".join(pip_of_this_machine(STORAGE))
            if variables["IMAGE_ARGS"]:
                variables["TORCH_BACKEND"] = "pip"
        else:
            variables["BUILDER"] = self.program
        command = ["make", "image", *(f"{name}={value}" for name, value in variables.items())]
        done = subprocess.run(command, cwd=ROOT, env=os.environ | self.env, capture_output=True, text=True)
        assert done.returncode == 0, f"{' '.join(command)}\n{done.stdout[-2000:]}{done.stderr[-4000:]}"
        return f"{IMAGE}:{target}"

    def close(self) -> None:
        """Leave no mount behind, which would keep the storage from being removed."""
        if self.is_podman and (mounted := STORAGE / "storage" / "overlay").is_mount():
            subprocess.run(["umount", mounted], check=False)

    @contextmanager
    def running(self, image: str, *command: str, options: tuple[str, ...] = ()) -> Iterator[str]:
        """Run a container in the background, and remove it."""
        name = f"clip_app-test-{uuid.uuid4().hex[:8]}"
        self("run", "--detach", "--name", name, *options, image, *command)
        try:
            yield name
        finally:
            self("rm", "--force", "--volumes", name, check=False)

    def inspect(self, name: str) -> dict[str, Any]:
        (found,) = json.loads(self("inspect", name).stdout)
        return dict(found)


def make_engine() -> Engine:
    """Return the engine; podman's storage, limits and runtime are the tests' own, so that nothing of it is changed."""
    program = engine_program()
    assert program is not None
    return Engine(program, podman_env() if program == "podman" else {})


def podman_env() -> dict[str, str]:
    STORAGE.mkdir(parents=True, exist_ok=True)
    storage, containers = STORAGE / "storage.conf", STORAGE / "containers.conf"
    storage.write_text(
        f'[storage]\ndriver = "overlay"\ngraphroot = "{STORAGE / "storage"}"\nrunroot = "{STORAGE / "run"}"\n'
    )
    # Podman's defaults are high, and not everybody may raise a limit.
    numbers = {"nofile": resource.RLIMIT_NOFILE, "nproc": resource.RLIMIT_NPROC}
    asked = {
        name: min(UNRAISED_LIMIT, *filter(lambda limit: limit != resource.RLIM_INFINITY, resource.getrlimit(number)))
        for name, number in numbers.items()
    }
    limits = ", ".join(f'"{name}={limit}:{limit}"' for name, limit in asked.items())
    engine = {"events_logger": "file", "cgroup_manager": "cgroupfs"}
    if runc := shutil.which("runc", path=f"{os.environ['PATH']}:/usr/sbin"):
        engine["runtime"] = runc  # crun knows no hybrid of both versions of cgroups
    lines = [f'{name} = "{value}"' for name, value in engine.items()]
    containers.write_text("\n".join([f"[containers]\ndefault_ulimits = [{limits}]", "[engine]", *lines]) + "\n")
    return {
        "CONTAINERS_STORAGE_CONF": str(storage),
        "CONTAINERS_CONF": str(containers),
        "BUILDAH_ISOLATION": "chroot",  # needs no more rights than a build here has
    }


def pip_of_this_machine(folder: Path) -> list[str]:
    """Return mounts that make pip in a build take packages from where pip here does, trusting whom it trusts."""
    listed = subprocess.run([sys.executable, "-m", "pip", "config", "list"], capture_output=True, text=True, check=True)
    found: dict[str, str] = {}
    for line in listed.stdout.splitlines():
        name, _, value = line.partition("=")
        section, _, option = name.rpartition(".")
        if option in PIP_OPTIONS and (section == ":env:" or option not in found):
            found[option] = ast.literal_eval(value)
    if not found:
        return []
    config = folder / "pip.conf"
    config.write_text("[global]\n" + "".join(f"{name} = {value}\n" for name, value in found.items()))
    paths = re.findall(r"(?:(?<=file://)|(?<!\S))/[^\s]+", " ".join(found.values()))
    present = dict.fromkeys(path for path in paths if Path(path).exists())
    outermost = [path for path in present if not any(str(parent) in present for parent in Path(path).parents)]
    # A package folder's index lies beside its files.
    folders = [str(Path(path).parent) if Path(path).name == "simple" else path for path in outermost]
    return [f"--volume={config}:/etc/pip.conf:ro", *(f"--volume={path}:{path}:ro" for path in folders)]
