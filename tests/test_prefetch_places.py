"""The cache that others use too: several users, other programs, branches that move, and places that cannot be."""

from __future__ import annotations

import os
import shutil
import stat
import subprocess
import sys
from pathlib import Path

import certifi
import pytest
from conftest import free_port
from fake_hub import REVISION, FakeHub
from hub_machine import Machine

from clip_app.source import examples_folder

LATER = "89abcdef0123456789abcdef0123456789abcdef"
PHOTO = str(examples_folder() / "coffee.jpg")
OWNER, MEMBER, STRANGER, GROUP = 23451, 23452, 23453, 23450


needs_users = pytest.mark.skipif(os.geteuid() != 0, reason="other users need root")


def change(hub: FakeHub) -> None:
    """Move the branch on to another commit, which differs in a small file."""
    hub.revision = LATER
    hub.files["tokenizer_config.json"] = b'{"model_max_length": 77}'


# Other programs.


def download_with_the_hubs_own_client(machine: Machine, *more: str) -> None:
    """As ``hf download`` does it, with the folder of everything."""
    script = f"from huggingface_hub import snapshot_download as get; get({machine.hub.repo!r}{''.join(more)})"
    ca = machine.env["CLIP_APP_CA_BUNDLE"]
    subprocess.run(
        [sys.executable, "-c", script], env=machine.env | {"SSL_CERT_FILE": ca}, check=True, capture_output=True
    )


def test_what_hf_download_laid_there_is_adopted_offline(machine: Machine) -> None:
    del machine.env["CLIP_APP_REVISION"]
    download_with_the_hubs_own_client(machine)
    machine.hub.requests.clear()
    code, text = machine.run(HF_HUB_OFFLINE="1", case="filled by hf download, offline")
    assert code == 0, text
    assert "laid into the cache by another program" in text
    assert (machine.complete, machine.hub.requests) == (True, [])
    code, text = machine.run(HF_HUB_OFFLINE="1")
    assert (code, "another program" in text) == (0, False), "the mark is there now"


def test_bytes_that_are_not_what_their_names_say_are_not_adopted(machine: Machine) -> None:
    download_with_the_hubs_own_client(machine, f", revision={REVISION!r}")
    weights = (machine.cache.snapshot(REVISION) / "model.safetensors").resolve()
    content = bytearray(weights.read_bytes())
    content[-1] ^= 1
    weights.write_bytes(content)
    code, text = machine.run(HF_HUB_OFFLINE="1", case="filled by hf download, a file was changed since")
    assert (code, "model.safetensors of acme/tiny-clip in the cache are not the bytes" in text) == (12, True), text
    assert not machine.complete


def test_a_download_of_another_program_that_was_interrupted_is_not_adopted(machine: Machine) -> None:
    download_with_the_hubs_own_client(machine, f", revision={REVISION!r}")
    (machine.cache.snapshot(REVISION) / "model.safetensors").unlink()
    code, text = machine.run(HF_HUB_OFFLINE="1", case="filled by hf download, interrupted")
    assert (code, "lacks model.safetensors" in text) == (16, True), text


@needs_users
def test_a_user_who_may_only_read_adopts_what_another_program_laid_there(machine: Machine, tmp_path: Path) -> None:
    download_with_the_hubs_own_client(machine, f", revision={REVISION!r}")
    reachable(tmp_path)
    for path in [machine.home, *machine.home.rglob("*")]:
        if not path.is_symlink():
            path.chmod(path.stat().st_mode | (0o055 if path.is_dir() else 0o044))
    for _ in range(2):
        code, text = run_as(machine, STRANGER, STRANGER, 0o022, offline=True)
        assert (code, "another program" in text) == (0, True), text
    assert not machine.complete, "nothing could be written down"


def test_where_the_hub_is_gone_what_another_program_laid_there_serves(machine: Machine) -> None:
    download_with_the_hubs_own_client(machine, f", revision={REVISION!r}")
    endpoint = f"https://localhost:{free_port()}"
    code, text = machine.run(HF_ENDPOINT=endpoint, case="filled by hf download, the Hub is gone")
    assert (code, machine.complete) == (0, True), text


def test_what_was_fetched_is_found_by_plain_transformers(machine: Machine) -> None:
    assert machine.run()[0] == 0
    script = (
        "import sys; from transformers import AutoConfig, AutoTokenizer; "
        "AutoTokenizer.from_pretrained(sys.argv[1], local_files_only=True); "
        "print(AutoConfig.from_pretrained(sys.argv[1], local_files_only=True).model_type)"
    )
    run = subprocess.run(
        [sys.executable, "-c", script, machine.hub.repo], env=machine.env, capture_output=True, text=True
    )
    assert run.stdout == "clip\n", run.stderr


# A branch that moves.


@pytest.fixture
def moved(machine: Machine) -> Machine:
    """A machine that has fetched what main was, before it moved on."""
    del machine.env["CLIP_APP_REVISION"]
    assert machine.run()[0] == 0
    change(machine.hub)
    return machine


def test_prefetch_asks_whether_the_branch_has_moved_and_doctor_says_so(moved: Machine) -> None:
    moved.convert()
    _, text = moved.run("doctor")
    assert f"has moved on to {LATER}; the cache serves {REVISION}" in text
    moved.hub.requests.clear()
    moved.run("analyze", PHOTO, "--labels", "a,b", "--format", "json")
    assert moved.hub.requests == [], "a start asks nobody"
    code, text = moved.run(CLIP_APP_ENGINE="torch", case="main has moved on the Hub")
    assert (code, f"at {LATER}" in text) == (0, True), text
    assert moved.cache.read_ref("main") == LATER


def test_where_the_hub_does_not_answer_the_one_that_is_there_will_do(moved: Machine) -> None:
    code, text = moved.run(HF_ENDPOINT=f"https://localhost:{free_port()}", case="a warm cache, the Hub is gone")
    assert (code, f"at {REVISION}" in text) == (0, True), text
    assert "What is in the cache serves" in text


def test_where_another_program_moved_the_branch_the_latest_that_is_complete_serves(moved: Machine) -> None:
    moved.cache.write_ref("main", LATER)
    moved.cache.snapshot(LATER).mkdir()
    code, text = moved.run(HF_HUB_OFFLINE="1", case="refs/main was moved by another program")
    assert (code, f"at {REVISION}" in text) == (0, True), text


# Several users.


# The interpreter may lie where other users cannot read: whatever a fetch imports is imported before the user changes.
AS_ANOTHER = """
import os, sys, tempfile
import certifi
from huggingface_hub import constants
from clip_app.errors import HubError
from clip_app.hub.fetch import fetch
from clip_app.settings import load_settings
user, group, umask, offline, certifi_copy = *map(int, sys.argv[1:5]), sys.argv[5]
settings, cache = load_settings(), constants.HF_HUB_CACHE
certifi.where = lambda: certifi_copy
with tempfile.TemporaryDirectory() as scratch:
    constants.HF_HUB_CACHE = scratch
    fetch(settings)
constants.HF_HUB_CACHE, constants.HF_HUB_OFFLINE = cache, bool(offline)
os.setgroups([]), os.setgid(group), os.setuid(user), os.umask(umask)
try:
    print("at", fetch(settings, ask=True, deadline_seconds=60).snapshot.revision)
except HubError as error:
    sys.exit(print(error) or error.exit_code)
"""


def start_as(machine: Machine, user: int, group: int, umask: int, *, offline: bool = False) -> subprocess.Popen[str]:
    copy = machine.home.parent / "certifi.pem"
    if not copy.exists():
        shutil.copy(certifi.where(), copy)
        copy.chmod(0o644)
        Path(machine.env["CLIP_APP_CA_BUNDLE"]).chmod(0o644)
    arguments = [str(number) for number in (user, group, umask, int(offline))]
    # Another user cannot write down which lines were covered.
    env = {name: value for name, value in machine.env.items() if not name.startswith("COVERAGE")}
    return subprocess.Popen(
        [sys.executable, "-c", AS_ANOTHER, *arguments, str(copy)],
        env=env | {"HOME": "/"},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )


def run_as(machine: Machine, user: int, group: int, umask: int, *, offline: bool = False) -> tuple[int, str]:
    process = start_as(machine, user, group, umask, offline=offline)
    text, _ = process.communicate(timeout=120)
    return process.returncode, text


def reachable(folder: Path) -> None:
    for place in (folder, *folder.parents):
        if place != Path("/") and place.stat().st_uid == os.geteuid():
            place.chmod(place.stat().st_mode | 0o055)


@needs_users
@pytest.mark.parametrize("umask", [0o077, 0o022, 0o002])
@pytest.mark.parametrize("mode", [0o2775, 0o1777])
def test_users_share_a_volume_whatever_their_umask(machine: Machine, tmp_path: Path, umask: int, mode: int) -> None:
    del machine.env["CLIP_APP_REVISION"]
    reachable(tmp_path)
    machine.home.mkdir()
    os.chown(machine.home, 0, GROUP)
    machine.home.chmod(mode)
    code, text = run_as(machine, OWNER, GROUP, umask)
    assert code == 0, text
    for user, group in ((MEMBER, GROUP), (STRANGER, STRANGER)):
        code, text = run_as(machine, user, group, umask, offline=True)
        assert code == 0, text
    change(machine.hub)
    code, text = run_as(machine, MEMBER, GROUP, umask)
    assert (code, f"at {LATER}" in text) == (0, True), text
    said = next(line for line in text.splitlines() if line.startswith("at "))
    machine.record(f"HF_HOME {mode:o}, umask {umask:03o}, a second user adds a revision", code, said)
    for user, group in ((OWNER, GROUP), (STRANGER, STRANGER)):
        code, text = run_as(machine, user, group, umask, offline=True)
        assert (code, f"at {LATER}" in text) == (0, True), text
    for blob in machine.cache.blobs.iterdir():
        assert not blob.stat().st_mode & stat.S_IWOTH, "nobody else may write a model's files"


@needs_users
def test_a_cache_that_a_user_may_not_enter_is_14(machine: Machine, tmp_path: Path) -> None:
    del machine.env["CLIP_APP_REVISION"]
    reachable(tmp_path)
    (machine.home / "hub").mkdir(parents=True)
    (machine.home / "hub").chmod(0o700)
    for offline in (False, True):
        code, text = run_as(machine, STRANGER, STRANGER, 0o022, offline=offline)
        assert code == 14, text


@needs_users
def test_two_users_at_once_download_once(machine: Machine, tmp_path: Path) -> None:
    reachable(tmp_path)
    machine.home.mkdir()
    os.chown(machine.home, 0, GROUP)
    machine.home.chmod(0o2775)
    both = [start_as(machine, user, GROUP, 0o077) for user in (OWNER, MEMBER)]
    outputs = [process.communicate(timeout=120)[0] for process in both]
    assert [process.returncode for process in both] == [0, 0], outputs
    assert machine.hub.downloads("model.safetensors") == 3, "two of them before they were other users"


# Places that cannot be.


def patched(folder: Path, script: str) -> dict[str, str]:
    folder.mkdir()
    (folder / "sitecustomize.py").write_text(script)
    return {"PYTHONPATH": str(folder)}


def test_a_user_without_a_home_is_told_to_set_one(machine: Machine, tmp_path: Path) -> None:
    del machine.env["HF_HOME"]
    machine.env.pop("HOME", None)
    machine.env.pop("XDG_CACHE_HOME", None)
    nobody = patched(tmp_path / "patch", "import pwd\ndef none(uid): raise KeyError(uid)\npwd.getpwuid = none\n")
    work = tmp_path / "work"
    work.mkdir()
    commands = {
        "prefetch": (["prefetch", "--no-labels"], {}, 14),
        "analyze": (["analyze", PHOTO, "--labels", "a,b"], {"CLIP_APP_MODEL": "bundled"}, 0),
    }
    for name, (arguments, env, expected) in commands.items():
        run = subprocess.run(
            [sys.executable, "-m", "clip_app", *arguments],
            env=machine.env | nobody | {"CLIP_APP_ENGINE": "auto"} | env,
            cwd=work,
            capture_output=True,
            text=True,
            timeout=120,
        )
        assert run.returncode == expected, run.stderr
        if name == "prefetch":
            machine.record("no home and no HF_HOME", run.returncode, run.stderr)
            assert "Set HF_HOME" in run.stderr
    assert list(work.iterdir()) == [], "no folder named ~"


def test_a_volume_that_knows_no_modes_serves(machine: Machine, tmp_path: Path) -> None:
    script = "import os\ndef refuse(*a, **k): raise PermissionError(1, 'Operation not permitted')\nos.chmod = refuse\n"
    code, text = machine.run(case="chmod answers EPERM", **patched(tmp_path / "patch", script))
    assert (code, machine.complete) == (0, True), text


def test_a_flush_that_fails_names_the_place(machine: Machine, tmp_path: Path) -> None:
    script = "import os\ndef refuse(file): raise OSError(22, 'Invalid argument')\nos.fsync = refuse\n"
    code, text = machine.run(case="fsync answers EINVAL", **patched(tmp_path / "patch", script))
    assert (code, "Check the folder of HF_HOME" in text) == (14, True), text


def test_a_ca_file_in_a_closed_folder_is_a_fault_of_that_path(machine: Machine, tmp_path: Path) -> None:
    script = (
        "import ssl\nclass C(ssl.SSLContext):\n"
        "    def load_verify_locations(self, cafile=None, *a, **k):\n"
        "        if 'closed' in str(cafile): raise PermissionError(13, 'Permission denied')\n"
        "        return super().load_verify_locations(cafile, *a, **k)\n"
        "ssl.SSLContext = C\n"
    )
    path = tmp_path / "closed" / "ca.pem"
    path.parent.mkdir()
    shutil.copy(machine.env["CLIP_APP_CA_BUNDLE"], path)
    env = patched(tmp_path / "patch", script) | {"CLIP_APP_CA_BUNDLE": str(path)}
    code, text = machine.run(case="a CA file that may not be read", **env)
    assert (code, "CLIP_APP_CA_BUNDLE=" in text, "may not be read" in text) == (10, True, True), text
