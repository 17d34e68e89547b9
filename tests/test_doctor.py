"""What the doctor finds, looked at in this process; test_prefetch.py lets it look at a Hub."""

from __future__ import annotations

import dataclasses
import errno
import fcntl
import os
import shutil
import sys
from datetime import datetime, timedelta, timezone
from pathlib import Path

import pytest
import torch
from certificates import write_authority
from conftest import small_checkpoint
from huggingface_hub import constants

from clip_app.doctor import Finding, examine, exit_code
from clip_app.engines.agreement import Agreement
from clip_app.engines.conversion import Converted, conversions
from clip_app.hub.cache import RepoCache
from clip_app.hub.files import hash_file
from clip_app.machine import available_cpus
from clip_app.settings import load_settings
from clip_app.source import bundled_folder, folder_source
from clip_app.tokenizer import Padding

REPO, REVISION = "acme/tiny-clip", "0123456789abcdef0123456789abcdef01234567"


@pytest.fixture(autouse=True)
def root(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A cache of the test's own."""
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "hub"))
    return tmp_path / "hub"


def look(name: str | None = None, environ: dict[str, str] | None = None, **given: object) -> list[Finding]:
    """Examine, and return the findings of a name; OpenVINO and float32, which any CPU has."""
    chosen = {
        "model": str(small_checkpoint()),
        "engine": "openvino",
        "precision": "float32",
        "tls_roots": "certifi",
    } | given
    findings = examine(load_settings(**chosen), environ or {})
    return [finding for finding in findings if name in (None, finding.name)]


def levels(findings: list[Finding]) -> list[str]:
    return [finding.level for finding in findings]


def test_the_first_thing_that_is_bad_gives_the_exit_code() -> None:
    fine = Finding(name="x", level="ok", text="")
    warned = Finding(name="x", level="warn", text="", reason="tls")
    unnamed = Finding(name="x", level="bad", text="")
    offline, tls = (Finding(name="x", level="bad", text="", reason=reason) for reason in ("offline", "tls"))
    assert exit_code([]) == exit_code([fine, warned]) == 0
    assert exit_code([fine, warned, offline, tls]) == 16
    assert exit_code([tls, offline]) == 10
    assert exit_code([unnamed, tls]) == 1


def test_where_nothing_is_wrong_everything_is_told_in_the_order_of_a_download() -> None:
    findings = look()
    assert exit_code(findings) == 0
    assert list(dict.fromkeys(finding.name for finding in findings)) == [
        *("TLS roots", "Hub", "cache", "model", "engine", "threads")
    ]
    assert all(finding.fix for finding in findings if finding.level != "ok")


# Certificates.


def test_roots_that_end_within_a_month_are_the_operators_to_replace(tmp_path: Path) -> None:
    now = datetime.now(timezone.utc)
    for days, expected in ((29, ["ok", "ok", "warn"]), (31, ["ok", "ok"])):
        path = write_authority(tmp_path / f"{days}.pem", now + timedelta(days=days))
        findings = look("TLS roots", ca_bundle=path)
        assert levels(findings) == expected
        assert f"CLIP_APP_CA_BUNDLE: {path}, 1 authorities, the next ends {now + timedelta(days=days):%Y-%m-%d}" in (
            finding.text for finding in findings
        )


def test_a_ca_file_that_is_not_there_is_bad(tmp_path: Path) -> None:
    findings = look(environ={"SSL_CERT_FILE": str(tmp_path / "none.pem")})
    assert exit_code(findings) == 10
    assert "none.pem: there is no such file" in next(finding.text for finding in findings if finding.level == "bad")


@pytest.mark.parametrize(
    ("environ", "named"),
    [
        ({}, "CLIP_APP_TLS_VERIFY=false"),
        ({"PYTHONHTTPSVERIFY": "0"}, "PYTHONHTTPSVERIFY"),
        (
            {"PYTHONHTTPSVERIFY": "0", "HF_HUB_DISABLE_SSL_VERIFICATION": "1"},
            "HF_HUB_DISABLE_SSL_VERIFICATION, PYTHONHTTPSVERIFY",
        ),
    ],
)
def test_whatever_turns_verification_off_is_named(environ: dict[str, str], named: str) -> None:
    (finding,) = look("TLS", environ, tls_verify=False)
    assert (finding.level, f"({named})" in finding.text) == ("warn", True)
    assert look("TLS", environ, tls_verify=True) == []


# Variables.


def test_variables_that_do_nothing_are_told_with_what_to_do() -> None:
    environ = {"CURL_CA_BUNDLE": "/x", "SSL_CERT_DIR": "", "CLIP_APP_MODLE": "x", "CLIP_APP_QQQQ": "x", "HOME": "/"}
    findings = {finding.text: finding.fix for finding in look("variables", environ)}
    assert findings == {
        "CURL_CA_BUNDLE is set, but does nothing": "nothing here reads it; set CLIP_APP_CA_BUNDLE instead",
        "there is no setting CLIP_APP_MODLE": "Did you mean CLIP_APP_MODEL?",
        "there is no setting CLIP_APP_QQQQ": "Unset it.",
    }


# The Hub and the cache.


def test_the_hub_is_not_asked_offline_nor_for_a_model_that_is_not_of_it(monkeypatch: pytest.MonkeyPatch) -> None:
    assert "HF_HUB_OFFLINE is set" in look("Hub", model=REPO)[0].text
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    monkeypatch.setattr(constants, "ENDPOINT", "http://hub.example")  # refused, as it is not encrypted
    for model in ("bundled", str(bundled_folder())):
        (finding,) = look("Hub", model=model)
        assert (finding.level, "not needed" in finding.text) == ("ok", True)
    (finding,) = look("Hub", model=REPO)
    assert (finding.level, finding.reason, "http://hub.example" in finding.text) == ("bad", "tls", True)


def test_a_cache_that_can_be_written_and_locked_is_fine_and_nothing_is_left_in_it(root: Path) -> None:
    findings = look("cache")
    assert findings[0].text.startswith(f"{root}: ")
    assert (findings[1].level, findings[1].text) == ("ok", "writable, with file locks")
    assert not root.exists()


def test_little_space_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(constants, "HF_HUB_CACHE", "/proc/hub")  # which has no space at all
    space, writing = look("cache")
    assert (space.level, space.fix) == ("warn", "Free space, or move HF_HOME.")
    assert (writing.level, "read-only" in writing.text) == ("warn", True)


def test_a_volume_without_locks_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(file: int, how: int) -> None:
        raise OSError(errno.ENOLCK, os.strerror(errno.ENOLCK))

    monkeypatch.setattr(fcntl, "flock", refuse)
    finding = look("cache")[1]
    assert (finding.level, finding.text) == ("warn", "writable, without file locks")


# The model.


def test_a_folder_is_a_model_and_one_that_is_not_there_is_bad(tmp_path: Path) -> None:
    assert look("model", model=str(bundled_folder()))[0].text == f"the folder {bundled_folder()}"
    missing = look(model=str(tmp_path / "none"))
    assert exit_code(missing) == 15
    assert f"there is no folder {tmp_path / 'none'}" in [finding.text for finding in missing]


@pytest.fixture
def cache(root: Path) -> RepoCache:
    """A model of the Hub that is complete."""
    cache = RepoCache(root, REPO)
    shutil.copytree(small_checkpoint(), cache.snapshot(REVISION))
    files = [path for path in cache.snapshot(REVISION).iterdir() if path.is_file()]
    cache.write_marker(REVISION, {path.name: hash_file(path) for path in files}, "float")
    return cache


def flip(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[-1] ^= 1
    path.write_bytes(content)


def test_a_model_of_the_hub_is_hashed_again(cache: RepoCache) -> None:
    (finding,) = look("model", model=REPO, revision=REVISION)
    files = len(cache.listed(REVISION)[0])
    assert finding.text == f"{REPO} at {REVISION}: complete, {files} files hashed again"
    flip(cache.snapshot(REVISION) / "tokenizer.json")
    (finding,) = look("model", model=REPO, revision=REVISION)
    assert (finding.level, finding.reason) == ("bad", "integrity")
    assert finding.text == "tokenizer.json: not the bytes that were verified"


def test_a_model_that_is_not_in_the_cache_is_bad() -> None:
    findings = look(model=REPO, revision=REVISION)
    assert exit_code(findings) == 16
    assert f"{REPO} is not complete in the cache" in [finding.text for finding in findings]
    assert levels(look("engine", model=REPO, revision=REVISION)) == ["ok"], "and nothing is said of its conversion"


# The engine.


@pytest.fixture
def converted() -> Converted:
    """The small CLIP as if it were converted."""
    folder = conversions(folder_source(small_checkpoint())).folder / "float"
    folder.mkdir(parents=True)
    (folder / "image.bin").write_bytes(b"weights")
    made = Converted(
        folder=folder,
        variant="float",
        logit_scale=100.0,
        context=77,
        vocabulary=49408,
        padding=Padding(token=1),
        lower_case=False,
        agreement=Agreement(8, 100, 0.999, 0.99, 1.0),
        files={"image.bin": hash_file(folder / "image.bin")},
    )
    made.write_marker()
    return made


def test_a_conversion_that_is_still_to_be_made_is_told() -> None:
    engine, conversion = look("engine")
    assert engine.text.startswith("openvino ")
    assert engine.text.endswith(" on cpu, float32")
    assert (conversion.level, conversion.fix) == ("warn", "Run clip-app prefetch.")


def test_a_conversion_is_hashed_again(converted: Converted) -> None:
    assert look("engine")[1].text.startswith(
        "converted: float, 0.0 MB, same best label 100.0% (98% wanted), cosine to float32 0.9990"
    )
    flip(converted.folder / "image.bin")
    (finding,) = look("engine")[1:]
    assert (finding.level, finding.reason) == ("bad", "integrity")
    assert finding.text == "image.bin of the converted model: not the bytes that were written"
    assert str(converted.folder) in str(finding.fix)
    dataclasses.replace(converted, files={}).write_marker()
    assert look("engine")[1].level == "ok"


@pytest.mark.parametrize("computes_in_it", [True, False])
def test_bfloat16_is_advised_against_where_the_cpu_has_none(
    monkeypatch: pytest.MonkeyPatch, computes_in_it: bool
) -> None:
    monkeypatch.setattr("clip_app.doctor.has_bfloat16", lambda: computes_in_it)
    for precision, advised in (("bfloat16", not computes_in_it), ("float32", False)):
        findings = look("engine", precision=precision)
        fixes = [finding.fix for finding in findings if "bfloat16 on a CPU" in finding.text]
        assert fixes == (["Set CLIP_APP_PRECISION=auto."] if advised else [])


def test_more_threads_than_processors_are_told() -> None:
    allowed = available_cpus()
    for threads, level in (("auto", "ok"), (allowed, "ok"), (allowed + 1, "warn")):
        (finding,) = look("threads", threads=threads)
        assert finding.level == level
        assert finding.text.startswith(f"{allowed if threads == 'auto' else threads} for {allowed} CPUs")


def test_a_pair_of_onnx_files_needs_no_conversion_and_its_files_are_named() -> None:
    for engine in ("openvino", "onnxruntime"):
        first, files = look("engine", model="bundled", engine=engine)
        assert first.text.startswith(f"{engine} ")
        assert (files.level, "onnx/vision_model_quantized.onnx" in files.text) == ("ok", True)
    (finding,) = look("engine", model="bundled", engine="torch")
    assert (finding.level, "Set CLIP_APP_ENGINE=auto" in finding.text) == ("bad", True)


def test_torch_is_told_that_openvino_would_be_faster_only_where_it_is_missing(monkeypatch: pytest.MonkeyPatch) -> None:
    (finding,) = look("engine", engine="torch", device="cpu")
    assert finding.text.startswith("torch ")
    assert finding.text.endswith(" on cpu, float32")
    monkeypatch.setitem(sys.modules, "openvino", None)
    _, advice = look("engine", engine="auto", device="cpu")
    assert (advice.level, advice.fix) == ("warn", "pip install 'clip-app[openvino]'.")


@pytest.mark.parametrize("there_is_one", [True, False])
def test_a_cuda_device_that_torch_does_not_see_is_bad(monkeypatch: pytest.MonkeyPatch, there_is_one: bool) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: there_is_one)
    findings = look("engine", engine="torch", device="cuda")
    assert levels(findings) == (["ok"] if there_is_one else ["bad", "ok"])
    assert findings[-1].text.endswith(" on cuda, float32")
    assert exit_code(findings) == (0 if there_is_one else 1)
