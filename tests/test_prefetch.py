"""How the model gets into the cache: the real client, over real TLS, with everything that goes wrong."""

from __future__ import annotations

import errno
import fcntl
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import pytest
from checkpoint import export_pair
from conftest import free_port, small_checkpoint
from fake_hub import REVISION, Authority, FakeHub, Fault, digest, size
from hub_machine import TABLE, Machine

from clip_app.hub.cache import RepoCache
from clip_app.hub.files import hash_file
from clip_app.source import examples_folder


def test_a_private_authority_is_refused_until_it_is_named(machine: Machine, ca: Path) -> None:
    del machine.env["CLIP_APP_CA_BUNDLE"]
    code, text = machine.run(case="private CA, not named")
    assert code == 10
    assert "CLIP_APP_CA_BUNDLE" in text
    assert "TLS_VERIFY" not in text, "the insecure switch is never suggested first"
    for variable in ("CLIP_APP_CA_BUNDLE", "SSL_CERT_FILE", "REQUESTS_CA_BUNDLE"):
        shutil.rmtree(machine.home, ignore_errors=True)
        code, text = machine.run(case=f"private CA, named by {variable}", **{variable: str(ca)})
        assert (code, machine.complete) == (0, True), text


def test_a_ca_file_that_is_missing_or_garbage_is_named(machine: Machine, tmp_path: Path) -> None:
    code, text = machine.run(case="CA file missing", CLIP_APP_CA_BUNDLE=str(tmp_path / "none.pem"))
    assert code == 10
    assert "none.pem: there is no such file" in text
    (tmp_path / "garbage.pem").write_text("garbage")
    code, text = machine.run(case="CA file garbage", CLIP_APP_CA_BUNDLE=str(tmp_path / "garbage.pem"))
    assert code == 10
    assert "garbage.pem: there are no certificates in it" in text


@pytest.mark.parametrize(
    ("case", "names", "expired", "says"),
    [
        ("wrong host name", ("other.example",), False, "another host name"),
        ("expired certificate", ("localhost", "127.0.0.1"), True, "expired"),
    ],
)
def test_a_certificate_that_is_wrong_is_told_apart(
    tmp_path: Path, authority: Authority, ca: Path, case: str, names: tuple[str, ...], expired: bool, says: str
) -> None:
    with FakeHub(small_checkpoint(), tls=authority.context(*names, expired=expired)).running() as hub:
        code, text = Machine(tmp_path / "home", hub, ca).run(case=case)
    assert code == 10
    assert says in text


def write_pins(machine: Machine, path: Path) -> None:
    code, text = machine.run("prefetch", "--no-labels", "--write-pins", str(path))
    assert code == 0, text
    shutil.rmtree(machine.home)


@pytest.mark.parametrize(
    "switch",
    [{"CLIP_APP_TLS_VERIFY": "false"}, {"HF_HUB_DISABLE_SSL_VERIFICATION": "1"}, {"PYTHONHTTPSVERIFY": "0"}],
    ids=lambda switch: next(iter(switch)),
)
def test_unverified_only_when_configured_and_only_against_pins(
    machine: Machine, tmp_path: Path, switch: dict[str, str]
) -> None:
    pins = tmp_path / "pins.json"
    write_pins(machine, pins)
    del machine.env["CLIP_APP_CA_BUNDLE"]
    name = next(iter(switch))
    code, text = machine.run(case=f"{name}, without pins", **switch)
    assert code == 10
    assert "--write-pins" in text
    machine.hub.requests.clear()
    code, text = machine.run(case=f"{name}, with pins", CLIP_APP_PINS=str(pins), HF_TOKEN="hf_secret", **switch)
    assert (code, machine.complete) == (0, True), text
    assert "CERTIFICATES ARE NOT VERIFIED" in text
    assert "the connection was NOT verified" in text
    assert not any("authorization" in request.headers for request in machine.hub.requests), "no token unverified"


def test_pins_of_a_branch_are_found(machine: Machine, tmp_path: Path) -> None:
    del machine.env["CLIP_APP_REVISION"]
    pins = tmp_path / "pins.json"
    write_pins(machine, pins)
    del machine.env["CLIP_APP_CA_BUNDLE"]
    code, text = machine.run(CLIP_APP_PINS=str(pins), CLIP_APP_TLS_VERIFY="false")
    assert (code, machine.complete) == (0, True), text


def test_unverified_refuses_tampered_bytes(machine: Machine, tmp_path: Path) -> None:
    pins = tmp_path / "pins.json"
    write_pins(machine, pins)
    del machine.env["CLIP_APP_CA_BUNDLE"]
    machine.hub.faults.append(Fault("/cdn/", "flip", times=9))
    code, text = machine.run(case="unverified, tampered", CLIP_APP_PINS=str(pins), CLIP_APP_TLS_VERIFY="false")
    assert code == 12
    assert "model.safetensors" in text
    assert not machine.complete


def test_verified_is_tried_first_even_when_insecure_is_allowed(machine: Machine) -> None:
    code, text = machine.run(CLIP_APP_TLS_VERIFY="false")
    assert (code, machine.complete) == (0, True)
    assert "NOT VERIFIED" not in text


def test_a_download_cut_twice_is_finished(machine: Machine) -> None:
    machine.hub.faults.append(Fault("/cdn/", "cut", 0.5, times=2))
    code, text = machine.run(case="cut at 50 %, twice")
    assert (code, machine.complete) == (0, True), text


@pytest.mark.parametrize("status", [503, 429])
@pytest.mark.parametrize("where", ["/revision/", "/tree/", "/resolve/"])
def test_a_busy_hub_is_asked_again_when_it_says(machine: Machine, status: int, where: str) -> None:
    machine.hub.faults.append(Fault(where, "status", status, times=1, retry_after=1))
    code, text = machine.run(case=f"{status} with Retry-After on {where.strip('/')}")
    assert (code, machine.complete) == (0, True), text


def test_a_hub_that_stays_busy_is_given_up_at_the_deadline(machine: Machine) -> None:
    machine.hub.faults.append(Fault("/revision/", "status", 503, times=999))
    code, text = machine.run("prefetch", "--no-labels", "--deadline", "3", case="503 for ever")
    assert code == 11
    assert "503" in text


@pytest.mark.parametrize("where", ["/tree/", "/cdn/"])
def test_a_stalled_response_is_not_waited_for_for_ever(machine: Machine, where: str) -> None:
    machine.hub.faults.append(Fault(where, "stall", 3600))
    code, text = machine.run("prefetch", "--no-labels", "--deadline", "60", case=f"stalled {where.strip('/')}")
    assert (code, machine.complete) == (0, True), text


def test_a_short_body_is_noticed_and_fetched_again(machine: Machine) -> None:
    machine.hub.faults.append(Fault("config.json", "short", 0.5, method="GET"))
    code, text = machine.run(case="short body")
    assert (code, machine.complete) == (0, True), text


def test_flipped_bytes_are_fetched_once_more(machine: Machine) -> None:
    machine.hub.faults.append(Fault("/cdn/", "flip"))
    code, text = machine.run(case="flipped bytes, once")
    assert (code, machine.complete) == (0, True), text
    assert machine.hub.downloads("model.safetensors") == 2
    for name, pin in (machine.cache.read_marker(REVISION) or {}).items():
        assert hash_file(machine.cache.snapshot(REVISION) / name) == pin


@pytest.mark.parametrize("match", ["/cdn/", "/tokenizer.json"])
def test_bytes_that_stay_flipped_are_removed_and_reported(machine: Machine, match: str) -> None:
    machine.hub.faults.append(Fault(match, "flip", times=9, method="GET"))
    name = "model.safetensors" if match == "/cdn/" else "tokenizer.json"
    code, text = machine.run(case=f"flipped bytes of {name}, always")
    assert code == 12
    assert name in text
    assert not machine.complete
    assert not (machine.cache.snapshot(REVISION) / name).exists()


def test_an_unreachable_hub_is_network(machine: Machine) -> None:
    code, text = machine.run(case="nothing listens", HF_ENDPOINT=f"https://localhost:{free_port()}")
    assert code == 11
    assert "cannot be reached" in text


def test_nobody_is_followed_from_https_to_http(machine: Machine) -> None:
    machine.hub.cdn = machine.hub.cdn.replace("https://", "http://")
    code, text = machine.run(case="a file is redirected to http://")
    assert code == 10
    assert "sends on to http://127.0.0.1, which is not encrypted" in text
    assert not machine.complete


def test_a_checkpoint_without_a_tokenizer_is_15_before_the_weights(machine: Machine) -> None:
    for name in [name for name in machine.hub.files if name in ("tokenizer.json", "vocab.json", "merges.txt")]:
        del machine.hub.files[name]
    code, text = machine.run(case="a checkpoint without a tokenizer")
    assert code == 15
    assert "has no tokenizer.json" in text
    assert machine.hub.downloads("model.safetensors") == 0


@pytest.mark.parametrize("status", [503, 429])
def test_a_busy_hub_that_does_not_say_when_is_waited_for(machine: Machine, status: int) -> None:
    machine.hub.faults.append(Fault("/revision/", "status", status, times=4))
    code, text = machine.run(case=f"{status} four times, without Retry-After")
    assert code == 0, text


INVALID = "Invalid credentials in Authorization header"


@pytest.mark.parametrize(
    ("status", "message", "token", "says"),
    [
        (401, INVALID, "hf_revoked", "refused the token in HF_TOKEN (401). Unset it"),
        (403, "", "hf_narrow", "refused the token in HF_TOKEN (403)"),
        (403, "", None, "refused a request without a token (403). Set HF_TOKEN"),
        (451, "", None, "withheld for legal reasons (451)"),
    ],
)
def test_a_refusal_of_the_hub_names_what_to_change(
    machine: Machine, status: int, message: str, token: str | None, says: str
) -> None:
    machine.hub.faults.append(Fault("/api/models/", "status", status, times=99, message=message))
    case = f"{status} {'with' if token else 'without'} a token"
    code, text = machine.run(case=case, **({"HF_TOKEN": token} if token else {}))
    assert (code, says in text) == (15, True), text
    assert len(machine.hub.requests) == 1, "another try would end the same"


def test_a_refused_connection_says_so_and_no_password_is_told(machine: Machine) -> None:
    endpoint = f"https://ann:secret@localhost:{free_port()}"
    code, text = machine.run(HF_ENDPOINT=endpoint, case="a password in HF_ENDPOINT")
    assert code == 11
    assert "connection refused" in text
    process = machine.start("doctor", HF_ENDPOINT=endpoint)
    told, _ = process.communicate(timeout=60)
    assert "connection refused" in told
    assert "secret" not in text + told


def test_a_proxy_that_refuses_is_named(machine: Machine) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listening:

        def refuse() -> None:
            with suppress(OSError):
                while True:
                    connection, _ = listening.accept()
                    with connection:
                        connection.recv(4096)
                        connection.sendall(b"HTTP/1.1 407 Proxy Authentication Required\r\nContent-Length: 0\r\n\r\n")

        threading.Thread(target=refuse, daemon=True).start()
        proxy = f"http://ann:secret@127.0.0.1:{listening.getsockname()[1]}"
        code, text = machine.run(NO_PROXY="", HTTPS_PROXY=proxy, case="the proxy answers 407")
    assert code == 11
    assert "The proxy refused the way to the Hub (407" in text
    assert "Check HTTPS_PROXY" in text
    assert "secret" not in text


@pytest.mark.parametrize("where", ["/api/models/", "/tree/", "/resolve/", "/cdn/"])
def test_a_login_page_instead_of_the_hub_is_told(machine: Machine, where: str) -> None:
    machine.hub.faults.append(Fault(where, "page", times=99))
    code, text = machine.run("prefetch", "--no-labels", "--deadline", "6", case=f"a login page answers at {where}")
    assert code == 11
    assert f"What answers at {machine.hub.endpoint} is not the Hub" in text


def test_a_gated_model_needs_a_token_that_may_read_it(machine: Machine) -> None:
    machine.hub.faults.append(Fault("/api/models/", "status", 403, times=99, code="GatedRepo"))
    code, text = machine.run(case="a gated model, without a token")
    assert (code, "needs a login. Set HF_TOKEN" in text) == (15, True), text


def test_a_checkpoint_as_transformers_5_writes_it_is_served(machine: Machine) -> None:
    """All settings of its pictures are in processor_config.json."""
    alone = json.loads(machine.hub.files.pop("preprocessor_config.json"))  # type: ignore[arg-type]
    machine.hub.files["processor_config.json"] = json.dumps({"image_processor": alone}).encode()
    code, text = machine.run(case="processor_config.json alone")
    assert code == 0, text
    code, text = machine.run("analyze", str(examples_folder() / "coffee.jpg"), "--labels", "a,b", "--format", "json")
    assert (code, json.loads(text)[0]["model"]["bundled"]) == (0, False), text


def test_a_model_may_be_given_as_its_address(machine: Machine) -> None:
    address = f"https://huggingface.co/{machine.hub.repo}"
    code, text = machine.run(CLIP_APP_MODEL=address, case="MODEL is an address of the Hub")
    assert (code, machine.complete) == (0, True), text
    code, text = machine.run(CLIP_APP_MODEL=f"{address}/tree/main", case="MODEL is an address of one revision")
    assert (code, "CLIP_APP_REVISION" in text) == (2, True), text


def test_a_content_network_that_is_blocked_is_named(machine: Machine) -> None:
    machine.hub.faults.append(Fault("/cdn/", "status", 403, times=99))
    code, text = machine.run(case="the content network answers 403", HF_TOKEN="hf_good")
    assert (code, "127.0.0.1, where the Hub sends on to, answered 403" in text) == (11, True), text
    assert "HF_TOKEN" not in text


@pytest.mark.parametrize("body", ["[]", "{}", '{"error": "blocked"}', "3"])
@pytest.mark.parametrize("where", ["/revision/", "/tree/"])
def test_json_that_is_not_the_hubs_is_an_answer_of_somebody_else(machine: Machine, where: str, body: str) -> None:
    machine.hub.faults.append(Fault(where, "page", times=99, body=body))
    code, text = machine.run()
    assert code == (15 if (where, body) in (("/tree/", "[]"), ("/tree/", "{}")) else 11), text
    assert "fault of clip-app" not in text


@pytest.mark.parametrize("kind", ["file", "broken link"])
def test_a_home_that_is_no_folder_is_14(machine: Machine, kind: str) -> None:
    machine.home.write_text("mine") if kind == "file" else machine.home.symlink_to(machine.home / "nowhere")
    code, text = machine.run(case=f"HF_HOME is a {kind}")
    assert code == 14
    assert "Set HF_HOME" in text


@pytest.mark.parametrize("case", ["an error of our own", "an error that is its own cause"])
def test_an_error_of_our_own_is_neither_retried_nor_called_network(machine: Machine, tmp_path: Path, case: str) -> None:
    raising = "raise KeyError('ours')" if case.endswith("own") else "e = KeyError('ours')\n    raise e from e"
    patch = f"import clip_app.checkpoint as c\ndef broken(names):\n    {raising}\n"
    (tmp_path / "sitecustomize.py").write_text(f"{patch}c.missing_files = broken\n")
    process = machine.start("prefetch", "--no-labels", PYTHONPATH=str(tmp_path))
    _, err = process.communicate(timeout=60)
    machine.record(case, process.returncode, err.splitlines()[-1])
    assert process.returncode == 1
    assert "KeyError: 'ours'" in err
    assert err.endswith("KeyError, which is a fault of clip-app itself. Please report it with what is above.\n")
    assert "network" not in err
    assert sum("/revision/" in line for line in machine.hub.log) == 1


def test_an_endpoint_that_is_empty_is_none(machine: Machine) -> None:
    script = "import clip_app; from huggingface_hub import constants; print(constants.ENDPOINT)"
    run = subprocess.run([sys.executable, "-c", script], env=machine.env | {"HF_ENDPOINT": ""}, capture_output=True)
    assert run.stdout == b"https://huggingface.co\n"


def test_the_switch_that_is_set_is_the_one_that_is_named(machine: Machine) -> None:
    code, text = machine.run(TRANSFORMERS_OFFLINE="1", case="TRANSFORMERS_OFFLINE, empty cache")
    assert code == 16
    assert "TRANSFORMERS_OFFLINE is set" in text


@pytest.mark.parametrize("place", ["foreign", "folder"])
def test_a_file_for_pins_that_will_not_do_is_told_before_the_download(
    machine: Machine, tmp_path: Path, place: str
) -> None:
    path = tmp_path / "pins.json"
    path.write_text("mine") if place == "foreign" else path.mkdir()
    code, text = machine.run("prefetch", "--write-pins", str(path), case=f"--write-pins, a {place} one")
    assert code == 12
    assert "--write-pins" in text
    assert machine.hub.requests == []


def test_clear_text_is_refused_outside_loopback(machine: Machine) -> None:
    code, text = machine.run(case="http:// endpoint", HF_ENDPOINT="http://hub.example")
    assert code == 10
    assert "Use https://" in text


def test_what_is_not_there_is_15(machine: Machine) -> None:
    code, text = machine.run(case="no such repository", CLIP_APP_MODEL="acme/none")
    assert code == 15
    assert "CLIP_APP_MODEL" in text
    code, text = machine.run(case="no such revision", CLIP_APP_REVISION="f" * 40)
    assert code == 15
    assert "CLIP_APP_REVISION" in text
    machine.hub.files["pytorch_model.bin"] = machine.hub.files.pop("model.safetensors")
    code, text = machine.run(case="no safetensors, only a pickle")
    assert code == 15
    assert "safetensors" in text


def mount_tmpfs(folder: Path, megabytes: float) -> bool:
    folder.mkdir(parents=True)
    options = f"size={int(megabytes * 1e6)},mode=777"
    return subprocess.run(["mount", "-t", "tmpfs", "-o", options, "tmpfs", folder], capture_output=True).returncode == 0


def fill(path: Path) -> None:
    """Write until the disk is full."""
    with suppress(OSError), path.open("wb", buffering=0) as file:
        while file.write(bytes(1 << 16)):
            pass


def can_mount() -> bool:
    return os.geteuid() == 0 and subprocess.run(["unshare", "-m", "true"], capture_output=True).returncode == 0


needs_mount = pytest.mark.skipif(not can_mount(), reason="mounting needs root")


@needs_mount
def test_a_disk_that_is_too_small_is_13_before_the_first_byte(machine: Machine) -> None:
    assert mount_tmpfs(machine.home, 16)
    try:
        code, text = machine.run(case="disk too small")
        assert code == 13
        assert "MB are free" in text
        assert machine.hub.downloads("model.safetensors") == 0
    finally:
        subprocess.run(["umount", machine.home], check=True)


@needs_mount
def test_a_disk_that_fills_up_on_the_way_is_13(machine: Machine, tmp_path: Path) -> None:
    assert mount_tmpfs(machine.home, 34)
    try:
        machine.hub.open.clear()
        process = machine.start()
        while not machine.hub.downloads("model.safetensors"):
            assert process.poll() is None, process.communicate()
            time.sleep(0.05)
        fill(machine.home / "other")
        machine.hub.open.set()
        _, err = process.communicate(timeout=60)
        machine.record("disk full on the way", process.returncode, err)
        assert process.returncode == 13, err
        assert "disk is full" in err
    finally:
        subprocess.run(["umount", machine.home], check=True)


@needs_mount
def test_a_read_only_cache_serves_when_complete_and_says_so_when_not(machine: Machine, tmp_path: Path) -> None:
    machine.convert()
    assert machine.run("prefetch")[0] == 0
    empty = Machine(tmp_path / "empty", machine.hub, tmp_path / "ca.pem")
    empty.home.mkdir()
    for home in (machine.home, empty.home):
        subprocess.run(["mount", "--bind", home, home], check=True)
        subprocess.run(["mount", "-o", "remount,ro,bind", home], check=True)
    try:
        machine.hub.requests.clear()
        code, text = machine.run("analyze", str(examples_folder() / "coffee.jpg"), "--format", "json")
        assert code == 0, text
        assert machine.hub.requests == []
        code, text = empty.run(case="read-only cache, empty")
        assert code == 14
        assert "HF_HOME" in text
    finally:
        for home in (machine.home, empty.home):
            subprocess.run(["umount", home], check=True)


def test_killed_five_times_the_volume_does_not_grow(machine: Machine) -> None:
    sizes = []
    for _ in range(5):
        machine.hub.open.clear()
        machine.hub.requests.clear()
        process = machine.start()
        while not machine.hub.downloads("model.safetensors"):
            assert process.poll() is None, process.communicate()
            time.sleep(0.05)
        time.sleep(0.3)
        process.send_signal(signal.SIGKILL)
        process.communicate()
        machine.hub.open.set()
        sizes.append(machine.used())
    assert max(sizes) < 1.5 * size(machine.hub.files["model.safetensors"])
    code, text = machine.run(case="killed five times, then run")
    assert (code, machine.complete) == (0, True), text
    assert not list((machine.cache.folder / "blobs").glob("*.incomplete"))


def test_eight_at_once_download_once(machine: Machine) -> None:
    processes = [machine.start("prefetch", "--no-labels", "--deadline", "100") for _ in range(8)]
    outputs = [process.communicate(timeout=200) for process in processes]
    assert [process.returncode for process in processes] == [0] * 8, outputs
    assert machine.hub.downloads("model.safetensors") == 1
    assert machine.complete
    machine.record("eight at once on an empty cache", 0, outputs[0][0])


@needs_mount
def test_a_second_user_shares_the_cache(machine: Machine, tmp_path: Path) -> None:
    assert machine.run()[0] == 0
    other = 12345
    for folder in (p for p in (tmp_path, *tmp_path.parents) if p != Path("/") and p.stat().st_uid == os.geteuid()):
        folder.chmod(folder.stat().st_mode | 0o055)
    unreadable = [
        path
        for path in machine.cache.folder.rglob("*")
        if not path.is_symlink() and not path.stat().st_mode & (0o005 if path.is_dir() else 0o004)
    ]
    assert unreadable == []
    script = (
        "import os, sys; from pathlib import Path; "
        "from clip_app.hub.cache import RepoCache; from clip_app.hub.files import hash_file; "
        f"os.setgroups([]); os.setgid({other}); os.setuid({other}); "
        f"cache = RepoCache(Path({str(machine.home / 'hub')!r}), {machine.hub.repo!r}); "
        f"files = cache.read_marker({REVISION!r}); "
        f"assert all(hash_file(cache.snapshot({REVISION!r}) / n) == p for n, p in files.items()); print('same')"
    )
    run = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True)
    assert run.stdout == "same\n", run.stderr


def test_a_group_writable_cache_stays_so(machine: Machine) -> None:
    root = machine.home / "hub"
    root.mkdir(parents=True)
    root.chmod(0o2775)
    assert machine.run()[0] == 0
    for path in machine.cache.folder.rglob("*"):
        if not path.is_symlink():
            assert path.stat().st_mode & 0o020, path


def test_offline_with_a_complete_a_partial_and_an_empty_cache(machine: Machine) -> None:
    code, text = machine.run(case="offline, empty cache", HF_HUB_OFFLINE="1")
    assert code == 16
    assert "model.safetensors" in text
    assert machine.run()[0] == 0
    machine.hub.requests.clear()
    code, text = machine.run(case="offline, complete cache", HF_HUB_OFFLINE="1")
    assert code == 0, text
    (machine.cache.snapshot(REVISION) / "tokenizer.json").unlink()
    code, text = machine.run(case="offline, a file is gone", HF_HUB_OFFLINE="1")
    assert code == 16
    assert "lacks tokenizer.json" in text
    assert machine.hub.requests == []


def test_offline_without_a_marker_the_pins_decide(machine: Machine, tmp_path: Path) -> None:
    pins = tmp_path / "pins.json"
    assert machine.run("prefetch", "--no-labels", "--write-pins", str(pins))[0] == 0
    machine.cache.marker(REVISION).unlink()
    for link in list(machine.cache.snapshot(REVISION).iterdir()):  # as cp -rL leaves it
        content = link.read_bytes()
        link.unlink()
        link.write_bytes(content)
    code, text = machine.run(case="offline, no marker, nothing proves the files", HF_HUB_OFFLINE="1")
    assert code == 16
    assert "Set CLIP_APP_PINS to a file of its hashes, or CLIP_APP_MODEL to its folder" in text
    code, text = machine.run(case="offline, no marker, pins match", HF_HUB_OFFLINE="1", CLIP_APP_PINS=str(pins))
    assert code == 0, text


def test_a_warm_start_makes_no_request_even_where_the_hub_is_gone(machine: Machine) -> None:
    assert machine.run()[0] == 0
    machine.hub.requests.clear()
    code, text = machine.run()
    assert (code, machine.hub.requests) == (0, [])
    code, text = machine.run(HF_ENDPOINT=f"https://localhost:{free_port()}")
    assert code == 0, text


# A repository of ONNX files: many exports, of which one is served.


@pytest.fixture
def onnx(authority: Authority, tmp_path: Path, small_clip: Path, ca: Path) -> Iterator[Machine]:
    folder = export_pair(small_clip, tmp_path / "onnx-repository", ending="_quantized")
    export_pair(small_clip, folder)
    for path in list((folder / "onnx").glob("*_model.onnx")):
        shutil.copy(path, path.with_name(path.name.replace("_model", "_model_q4")))
    (folder / "onnx" / "model.onnx").write_bytes(b"a joint one")
    with FakeHub(folder, tls=authority.context()).running() as hub:
        machine = Machine(tmp_path / "home", hub, ca)
        machine.env["CLIP_APP_ENGINE"] = "auto"
        yield machine


def in_the_cache(machine: Machine) -> set[str]:
    return {path.name for path in machine.cache.snapshot(REVISION).rglob("*.onnx")}


def test_of_a_pair_of_onnx_files_only_what_serves_is_fetched_and_verified(onnx: Machine) -> None:
    assert onnx.run()[0] == 0
    assert in_the_cache(onnx) == {"vision_model.onnx", "text_model.onnx"}
    onnx.hub.requests.clear()
    photo = str(examples_folder() / "coffee.jpg")
    code, text = onnx.run("analyze", photo, "--labels", "a,b", "--format", "json")
    assert (code, onnx.hub.requests) == (0, []), text
    assert json.loads(text)[0]["model"]["engine"] == "openvino"
    code, text = onnx.run("analyze", photo, "--labels", "a,b", "--format", "json", CLIP_APP_ENGINE="onnxruntime")
    assert json.loads(text)[0]["model"]["engine"] == "onnxruntime", text


def test_another_precision_is_fetched_beside_the_first_once(onnx: Machine) -> None:
    assert onnx.run()[0] == 0
    code, text = onnx.run(CLIP_APP_PRECISION="int8", HF_HUB_OFFLINE="1")
    assert code == 16, text
    assert onnx.run(CLIP_APP_PRECISION="int8")[0] == 0
    both = {f"{side}_model{ending}.onnx" for side in ("vision", "text") for ending in ("", "_quantized")}
    assert in_the_cache(onnx) == both
    onnx.hub.requests.clear()
    for precision in ("int8", "float32"):
        assert onnx.run(CLIP_APP_PRECISION=precision)[0] == 0
    assert onnx.hub.requests == []


def test_an_onnx_file_that_was_changed_on_the_way_is_refused(onnx: Machine) -> None:
    onnx.hub.faults.append(Fault("/cdn/", "flip", times=9))
    code, text = onnx.run(case="an ONNX file with other bytes than the Hub lists")
    assert code == 12, text
    assert ".onnx" in text


@pytest.fixture
def parts(onnx: Machine) -> Machine:
    """A repository of two pairs, each in a folder with its config; the tokenizer is at the top for both."""
    for part in ("s0", "s2"):
        for name in ("onnx/vision_model.onnx", "onnx/text_model.onnx"):
            onnx.hub.files[name.replace("onnx/", f"onnx/{part}/")] = onnx.hub.files[name]
        for name in ("config.json", "preprocessor_config.json"):
            onnx.hub.files[f"onnx/{part}/{name}"] = onnx.hub.files[name]
    for name in ("config.json", "preprocessor_config.json"):
        del onnx.hub.files[name]
    onnx.env["CLIP_APP_MODEL"] = f"{onnx.hub.repo}:onnx/s0"
    return onnx


def test_a_checkpoint_in_a_folder_of_a_repository_is_one_by_itself(parts: Machine, tmp_path: Path) -> None:
    code, text = parts.run(case="a checkpoint in a folder of a repository")
    assert code == 0, text
    assert {path.parent.name for path in parts.cache.snapshot(REVISION).rglob("*.onnx")} == {"s0"}
    parts.hub.requests.clear()
    photo = str(examples_folder() / "coffee.jpg")
    code, text = parts.run("analyze", photo, "--labels", "a,b", "--format", "json", HF_HUB_OFFLINE="1")
    assert (code, parts.hub.requests) == (0, []), text
    assert json.loads(text)[0]["model"]["id"] == f"{parts.hub.repo}:onnx/s0"
    other = {"CLIP_APP_MODEL": f"{parts.hub.repo}:onnx/s2"}
    code, text = parts.run(HF_HUB_OFFLINE="1", **other)
    assert code == 16, "the other folder is another model"
    pins = tmp_path / "pins.json"
    assert parts.run("prefetch", "--write-pins", str(pins), **other)[0] == 0
    assert {path.parent.name for path in parts.cache.snapshot(REVISION).rglob("*.onnx")} == {"s0", "s2"}
    (entry,) = json.loads(pins.read_text())
    assert (entry["repo"], "onnx/s2/vision_model.onnx" in entry["files"]) == (other["CLIP_APP_MODEL"], True)
    code, text = parts.run("doctor", **other)
    assert code == 0, text


def test_a_folder_that_the_repository_lacks_is_15(parts: Machine) -> None:
    code, text = parts.run(CLIP_APP_MODEL=f"{parts.hub.repo}:onnx/s9", case="a folder that the repository lacks")
    assert code == 15
    assert "has no config.json" in text


def test_pins_hold_for_onnx_files_too(onnx: Machine, tmp_path: Path) -> None:
    pins = tmp_path / "pins.json"
    assert onnx.run("prefetch", "--no-labels", "--write-pins", str(pins))[0] == 0
    shutil.rmtree(onnx.home)
    del onnx.env["CLIP_APP_CA_BUNDLE"]
    code, text = onnx.run(CLIP_APP_TLS_VERIFY="false", CLIP_APP_PINS=str(pins))
    assert (code, "NOT verified" in text) == (0, True), text
    assert in_the_cache(onnx) == {"vision_model.onnx", "text_model.onnx"}


def test_a_joint_file_alone_is_refused_with_the_names_of_what_is_needed(onnx: Machine) -> None:
    for name in [name for name in onnx.hub.files if name.startswith("onnx/") and name != "onnx/model.onnx"]:
        del onnx.hub.files[name]
    code, text = onnx.run(case="a repository with a joint ONNX file alone")
    assert code == 15
    assert "onnx/vision_model.onnx and onnx/text_model.onnx" in text
    assert "CLIP_APP_MODEL" in text


def test_label_embeddings_are_stored_beside_the_snapshot(machine: Machine) -> None:
    machine.convert()
    code, text = machine.run("prefetch", case="a first download, with label embeddings")
    assert code == 0, text
    stored = list(machine.cache.artifacts.glob("labels-*.safetensors"))
    assert len(stored) == 1
    photo = str(examples_folder() / "coffee.jpg")
    before = {path: path.stat().st_mtime_ns for path in stored}
    code, text = machine.run("analyze", photo, "--format", "json")
    groups = json.loads(text)[0]["groups"]
    assert (code, [group["name"] for group in groups]) == (0, ["objects", "scenes", "content"])
    assert {path: path.stat().st_mtime_ns for path in machine.cache.artifacts.glob("*.safetensors")} == before


def test_a_lock_that_is_held_is_waited_for_until_the_deadline_and_its_holder_named(machine: Machine) -> None:
    machine.cache.artifacts.mkdir(parents=True)
    with (machine.cache.artifacts / "prefetch.lock").open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        file.write("process 77 on pod-a")
        file.flush()
        code, text = machine.run("prefetch", "--no-labels", "--deadline", "2", case="the lock is held")
    assert code == 14
    assert "process 77 on pod-a" in text
    assert machine.run(case="a stale lock file")[0] == 0


def test_another_program_that_downloads_the_same_file_is_not_waited_for_for_ever(machine: Machine) -> None:
    locks = machine.cache.root / ".locks" / machine.cache.folder.name
    locks.mkdir(parents=True)
    with (locks / f"{digest(machine.hub.files['model.safetensors'])}.lock").open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        code, text = machine.run("prefetch", "--no-labels", "--deadline", "2", case="another program downloads it")
    assert code == 14
    assert "another process still fills the cache" in text
    assert machine.run()[0] == 0


@pytest.mark.parametrize("code", [errno.ENOLCK, errno.EOPNOTSUPP, errno.EIO])
def test_a_volume_without_locks_says_what_to_do(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, code: int) -> None:
    from clip_app.hub.errors import explain
    from clip_app.hub.locks import LocksUnsupported

    def refuse(file: int, how: int) -> None:
        raise OSError(code, os.strerror(code))

    monkeypatch.setattr(fcntl, "flock", refuse)
    with pytest.raises(LocksUnsupported) as caught, RepoCache(tmp_path, "a/b").lock(time.monotonic() + 1):
        pass
    failure = explain(caught.value, "a/b", "main")
    assert failure is not None
    assert failure.exit_code == 14
    assert "This volume has no file locks" in str(failure)
    TABLE[f"flock answers {errno.errorcode[code]}"] = failure.exit_code, str(failure)


def test_where_everyone_gets_the_lock_the_result_is_intact(machine: Machine, tmp_path: Path) -> None:
    """As on some network volumes: flock succeeds for all."""
    (tmp_path / "sitecustomize.py").write_text("import fcntl\nfcntl.flock = lambda *a: None\n")
    processes = [machine.start(PYTHONPATH=str(tmp_path)) for _ in range(3)]
    outputs = [process.communicate(timeout=120) for process in processes]
    assert [process.returncode for process in processes] == [0] * 3, outputs
    for name, pin in (machine.cache.read_marker(REVISION) or {}).items():
        assert hash_file(machine.cache.snapshot(REVISION) / name) == pin


def test_the_token_goes_to_the_hub_alone(machine: Machine, authority: Authority, tmp_path: Path) -> None:
    assert machine.run(HF_TOKEN="hf_secret")[0] == 0
    sent = {(r.origin, "authorization" in r.headers) for r in machine.hub.requests}
    assert ("hub", True) in sent
    assert ("cdn", True) not in sent
    with FakeHub(small_checkpoint()).running() as clear:
        assert Machine(tmp_path / "clear", clear, None).run(HF_TOKEN="hf_secret")[0] == 0
        assert not any("authorization" in request.headers for request in clear.requests)


def test_doctor_says_what_is_wrong_and_what_is_right(machine: Machine) -> None:
    code, text = machine.run("doctor", CURL_CA_BUNDLE="/x", CLIP_APP_ENGINE="openvino")
    assert code == 16
    assert "is not complete in the cache -> Run clip-app prefetch." in text
    assert "CLIP_APP_CA_BUNDLE: " in text
    assert "CURL_CA_BUNDLE is set, but does nothing" in text
    machine.convert()
    assert machine.run()[0] == 0
    code, text = machine.run("doctor", "--format", "json")
    findings = json.loads(text)
    assert (code, {finding["level"] for finding in findings}) == (0, {"ok"})
    assert any("files hashed again" in finding["text"] for finding in findings)
    weights = (machine.cache.snapshot(REVISION) / "model.safetensors").resolve()
    damaged = bytearray(weights.read_bytes())
    damaged[5000] ^= 1
    weights.write_bytes(damaged)
    code, text = machine.run("doctor", CLIP_APP_ENGINE="openvino")
    assert code == 12
    assert "model.safetensors: not the bytes that were verified" in text
    del machine.env["CLIP_APP_CA_BUNDLE"]
    assert machine.run("doctor", CLIP_APP_ENGINE="openvino")[0] == 10
