from __future__ import annotations

import re
import sys
from pathlib import Path

import pytest

from clip_app.errors import SettingsError
from clip_app.settings import DEFAULT_MODEL, Settings, insecure_variables, load_settings, unknown_variables


@pytest.fixture(autouse=True)
def _clean(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("PORT", "CLIP_APP_PORT", "CLIP_APP_MODEL"):
        monkeypatch.delenv(name, raising=False)


def test_the_defaults() -> None:
    settings = load_settings()
    assert (settings.model, settings.port, settings.fallback) == (DEFAULT_MODEL, 7860, "bundled")
    assert settings.max_upload_bytes == 20_000_000


def test_flags_come_before_variables_and_variables_before_defaults(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PORT", "1000")
    assert load_settings().port == 1000
    monkeypatch.setenv("CLIP_APP_PORT", "2000")
    assert load_settings().port == 2000
    assert load_settings(port="3000").port == 3000


@pytest.mark.parametrize(
    ("name", "value", "allowed"),
    [
        ("PORT", "abc", "integer"),
        ("PORT", "70000", "65535"),
        ("FALLBACK", "maybe", "'bundled' or 'none'"),
        ("THREADS", "0", "greater than or equal to 1"),
        ("THREADS", "many", "'auto'"),
        ("LABELS_DIR", "nowhere", "existing folder"),
        ("MAX_UPLOAD_MB", "-1", "greater than 0"),
        ("ROOT_PATH", "clip", "start with /"),
    ],
)
def test_a_wrong_value_is_one_line_with_name_value_and_what_is_allowed(
    monkeypatch: pytest.MonkeyPatch, name: str, value: str, allowed: str
) -> None:
    monkeypatch.setenv(f"CLIP_APP_{name}", value)
    with pytest.raises(SettingsError) as caught:
        load_settings()
    assert str(caught.value).startswith(f"CLIP_APP_{name}={value}: ")
    assert allowed in str(caught.value)
    assert "\n" not in str(caught.value)


def test_an_empty_variable_is_none_at_all(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("PORT", "CLIP_APP_AUTH", "CLIP_APP_LABELS_DIR", "CLIP_APP_MAX_BATCH_SIZE"):
        monkeypatch.setenv(name, "")
    settings = load_settings()
    assert (settings.port, settings.auth, settings.labels_dir, settings.max_batch_size) == (7860, None, None, 8)


def test_a_wrong_password_setting_is_not_printed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CLIP_APP_AUTH", "secret")
    with pytest.raises(SettingsError) as caught:
        load_settings()
    assert "secret" not in str(caught.value)
    assert "user:password" in str(caught.value)


def test_a_misspelt_variable_is_found_with_the_nearest_name() -> None:
    environ = {"CLIP_APP_MODLE": "x", "CLIP_APP_PORT": "1", "HOME": "/", "CLIP_APP_ZZZZZZ": ""}
    assert unknown_variables(environ) == {"CLIP_APP_MODLE": "CLIP_APP_MODEL", "CLIP_APP_ZZZZZZ": None}


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"engine": "openvino", "device": "cuda"}, "CLIP_APP_ENGINE=openvino: openvino runs on the CPU here"),
        ({"precision": "int8", "engine": "torch"}, "CLIP_APP_PRECISION=int8: int8 needs OpenVINO"),
        ({"precision": "int8", "device": "cuda"}, "CLIP_APP_PRECISION=int8: int8 needs OpenVINO"),
    ],
)
def test_settings_that_do_not_go_together_stop_the_start(given: dict[str, str], message: str) -> None:
    with pytest.raises(SettingsError, match=message):
        load_settings(**given)


@pytest.mark.parametrize(
    ("name", "least", "most"),
    [
        ("threads", 1, 256),
        ("port", 0, 65535),
        ("max_pixels", 1, 10**9),
        ("queue_size", 1, 10_000),
        ("max_batch_size", 1, 256),
    ],
)
def test_a_number_may_be_as_small_and_as_large_as_its_bounds_and_no_more(name: str, least: int, most: int) -> None:
    for value in (least, most):
        assert getattr(load_settings(**{name: value}), name) == value
    for value in (least - 1, most + 1):
        with pytest.raises(SettingsError, match=f"^CLIP_APP_{name.upper()}={value}: "):
            load_settings(**{name: value})


def test_megabytes_may_be_a_fraction_and_at_most_a_gigabyte() -> None:
    assert load_settings(max_upload_mb=0.5).max_upload_bytes == 500_000
    assert load_settings(max_upload_mb=1024).max_upload_bytes == 1_024_000_000
    for value in (0, 1024.5):
        with pytest.raises(SettingsError, match="MAX_UPLOAD_MB"):
            load_settings(max_upload_mb=value)


def test_a_flag_wins_over_the_variable_and_the_variable_over_the_usual_switches(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    for name in ("CLIP_APP_TLS_VERIFY", "HF_HUB_DISABLE_SSL_VERIFICATION", "PYTHONHTTPSVERIFY"):
        monkeypatch.delenv(name, raising=False)
    assert load_settings().tls_verify
    monkeypatch.setenv("PYTHONHTTPSVERIFY", "0")
    assert not load_settings().tls_verify
    assert load_settings(tls_verify=True).tls_verify
    monkeypatch.setenv("CLIP_APP_TLS_VERIFY", "true")
    assert load_settings().tls_verify
    assert not load_settings(tls_verify=False).tls_verify


@pytest.mark.parametrize(
    ("environ", "switches"),
    [
        ({}, []),
        ({"HF_HUB_DISABLE_SSL_VERIFICATION": "yes"}, ["HF_HUB_DISABLE_SSL_VERIFICATION"]),
        ({"HF_HUB_DISABLE_SSL_VERIFICATION": "0", "PYTHONHTTPSVERIFY": "1"}, []),
        ({"HF_HUB_DISABLE_SSL_VERIFICATION": "", "PYTHONHTTPSVERIFY": ""}, []),
        (
            {"HF_HUB_DISABLE_SSL_VERIFICATION": "1", "PYTHONHTTPSVERIFY": "0"},
            ["HF_HUB_DISABLE_SSL_VERIFICATION", "PYTHONHTTPSVERIFY"],
        ),
    ],
)
def test_the_usual_switches_count_where_they_are_on(environ: dict[str, str], switches: list[str]) -> None:
    assert insecure_variables(environ) == switches


@pytest.mark.parametrize(("auth", "good"), [("me:pass", True), ("me:a:b", True), (":pass", False), ("me:", False)])
def test_a_password_setting_has_both_parts(auth: str, good: bool) -> None:
    if good:
        found = load_settings(auth=auth).auth
        assert found is not None
        assert found.get_secret_value() == auth
    else:
        with pytest.raises(SettingsError, match=r"CLIP_APP_AUTH=\*\*\*: it must be user:password"):
            load_settings(auth=auth)


@pytest.mark.parametrize(
    ("given", "kept"),
    [("", ""), ("/", ""), ("/clip/", "/clip"), ("https://example.com/clip/", "https://example.com/clip")],
)
def test_the_path_behind_a_proxy_is_kept_without_its_last_slash(given: str, kept: str) -> None:
    assert load_settings(root_path=given).root_path == kept


def test_settings_that_do_go_together_are_taken() -> None:
    assert load_settings(engine="openvino", device="cpu", precision="int8").precision == "int8"
    assert load_settings(engine="auto", device="auto", precision="int8").engine == "auto"
    assert load_settings(engine="torch", device="cuda", precision="bfloat16").device == "cuda"


def test_what_is_not_installed_cannot_be_asked_for(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "openvino", None)
    with pytest.raises(SettingsError, match=r"pip install 'clip-app\[openvino\]'"):
        load_settings(engine="openvino")
    assert load_settings(precision="int8", engine="onnxruntime").precision == "int8"
    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    for given in ({"engine": "onnxruntime"}, {"precision": "int8"}):
        with pytest.raises(SettingsError, match=r"pip install 'clip-app\[o"):
            load_settings(**given)
    assert load_settings(engine="auto", precision="bfloat16").engine == "auto"


def test_a_setting_with_several_forms_names_them_all_in_one_line() -> None:
    with pytest.raises(SettingsError) as caught:
        load_settings(threads="many")
    allowed = str(caught.value).removeprefix("CLIP_APP_THREADS=many: ").split(" or ")
    assert len(allowed) == len(set(allowed)) >= 2
    assert all(text[0].islower() for text in allowed)


README = (Path(__file__).parent.parent / "README.md").read_text(encoding="utf-8")


@pytest.mark.parametrize("name", ["port", "max_upload_mb", "max_pixels", "queue_size", "max_batch_size"])
def test_readme_tells_the_default_of_every_number(name: str) -> None:
    """A row may tell several settings, each with its default in the same place."""
    (row,) = re.findall(rf"^\| (`[^|]*`{name.upper()}`[^|]*|`{name.upper()}`[^|]*) \| ([^|]*) \|", README, re.M)
    names = re.findall(r"`(\w+)`(?!\))", row[0])
    value = row[1].split(", ")[names.index(name.upper())].strip("`").replace(" million", "000000")
    assert float(value) == Settings.model_fields[name].default


@pytest.mark.parametrize("address", ["https://huggingface.co/acme/clip", "https://hf.co/acme/clip/"])
def test_the_address_of_a_models_page_is_its_id(address: str) -> None:
    assert load_settings(model=address).model == "acme/clip"


@pytest.mark.parametrize(
    ("address", "says"),
    [
        ("https://huggingface.co/acme/clip/tree/abc", "give the id, acme/clip, and a revision with CLIP_APP_REVISION"),
        ("https://other.example/acme/clip", "it is an address; give a Hub id"),
        ("http://huggingface.co/acme/clip", "it is an address; give a Hub id"),
    ],
)
def test_another_address_says_what_to_give(address: str, says: str) -> None:
    with pytest.raises(SettingsError, match=says):
        load_settings(model=address)
