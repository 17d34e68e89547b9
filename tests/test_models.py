"""The models by short name."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from clip_app.errors import SettingsError
from clip_app.models import DEFAULT_REVISIONS, MODELS, full_id, measured, nearest
from clip_app.settings import load_settings

DOCS = Path(__file__).parent.parent / "docs" / "models.md"


def run(*arguments: str, **env: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "clip_app", *arguments]
    return subprocess.run(command, env=os.environ | env, capture_output=True, text=True)


def test_every_row_is_whole() -> None:
    for name, row in MODELS.items():
        assert name == row.name
        assert re.fullmatch(r"[\w.-]+/[\w.-]+(:[\w/-]+)?", row.id)
        assert all(re.fullmatch("[0-9a-f]{40}", revision) or revision == "main" for revision in row.revisions)
        assert (row.trust == "first use") == (row.revisions == ("main",))
        assert row.good_for
        assert row.licence
        assert row.source
        assert row.accuracy is not None
        assert 50 < row.accuracy < 90
    assert set(measured()) <= {*MODELS, "bundled"}
    assert all(value > 0 for speed in measured().values() for value in speed.milliseconds.values())


def test_a_short_name_is_the_id_behind_it_and_its_commit_is_the_default() -> None:
    settings = load_settings(model="siglip2-b16")
    assert settings.model == "google/siglip2-base-patch16-224"
    assert DEFAULT_REVISIONS[settings.model] == MODELS["siglip2-b16"].revisions
    assert full_id("acme/clip") == "acme/clip"


@pytest.mark.parametrize(
    ("name", "hint"), [("clip-b31", "clip-b32"), ("SigLIP2-B16", "siglip2-b16"), ("bundle", "bundled"), ("qqq", None)]
)
def test_an_unknown_name_says_the_nearest(name: str, hint: str | None) -> None:
    assert nearest(name) == hint
    with pytest.raises(SettingsError, match="clip-app models lists the short names") as caught:
        load_settings(model=name)
    assert ("did you mean" in str(caught.value)) == (hint is not None)
    assert str(caught.value).startswith(f"CLIP_APP_MODEL={name}: ")


def test_a_folder_that_is_there_needs_no_slash(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "mine").mkdir()
    monkeypatch.chdir(tmp_path)
    assert load_settings(model="mine").model == "mine"


def test_the_command_prints_them_with_what_is_in_the_cache(tmp_path: Path) -> None:
    commit = MODELS["laion-b32"].revisions[0]
    snapshot = tmp_path / "hub" / "models--laion--CLIP-ViT-B-32-laion2B-s34B-b79K" / "snapshots" / commit
    snapshot.mkdir(parents=True)
    (snapshot / "config.json").write_text("{}")
    marker = snapshot.parents[1] / "clip_app" / f"{commit}.json"
    marker.parent.mkdir()
    marker.write_text(json.dumps({"files": {"config.json": {"size": 2, "sha256": "0" * 64}}}))
    listed = json.loads(run("models", "--format", "json", HF_HOME=str(tmp_path)).stdout)
    assert [row["name"] for row in listed] == list(MODELS)
    assert [row["name"] for row in listed if row["cached"]] == ["laion-b32"]
    shown = run("models", HF_HOME=str(tmp_path))
    assert shown.returncode == 0
    rows = {line.split()[0]: line for line in shown.stdout.splitlines() if line.strip()}
    assert {*MODELS, "bundled"} <= set(rows)
    assert "yes" in rows["laion-b32"]
    assert "yes" not in rows["clip-b32"]


def test_a_setting_of_another_command_is_refused() -> None:
    refused = run("models", "--port", "1")
    assert (refused.returncode, "--port does nothing for models" in refused.stderr) == (2, True)


def test_the_document_is_what_the_command_prints() -> None:
    table = run("models", "--format", "markdown").stdout.strip()
    text = DOCS.read_text(encoding="utf-8")
    if os.environ.get("CLIP_TESTS_WRITE_DOCS"):
        text = re.sub(
            r"<!-- table -->.*<!-- end -->", lambda _: f"<!-- table -->\n{table}\n<!-- end -->", text, flags=re.S
        )
        DOCS.write_text(text, encoding="utf-8")
    assert f"<!-- table -->\n{table}\n<!-- end -->" in text, "make docs writes it anew"
