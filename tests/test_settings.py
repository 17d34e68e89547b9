from __future__ import annotations

import pytest

from clip_app.settings import DEFAULT_MODEL, SettingsError, load_settings, unknown_variables


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
        ({"engine": "openvino", "device": "cuda"}, "CLIP_APP_ENGINE=openvino: openVINO runs on the CPU here"),
        ({"precision": "int8", "engine": "torch"}, "CLIP_APP_PRECISION=int8: int8 needs OpenVINO"),
        ({"precision": "int8", "device": "cuda"}, "CLIP_APP_PRECISION=int8: int8 needs OpenVINO"),
    ],
)
def test_settings_that_do_not_go_together_stop_the_start(given: dict[str, str], message: str) -> None:
    with pytest.raises(SettingsError, match=message):
        load_settings(**given)
