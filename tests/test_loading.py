"""From the settings to a model that answers, in this process and without a network."""

from __future__ import annotations

import logging
import shutil
import sys
from pathlib import Path

import numpy as np
import pytest
from conftest import small_checkpoint
from huggingface_hub import constants
from prometheus_client import REGISTRY
from safetensors.numpy import load_file, save_file

from clip_app.errors import EncodingFailed, LabelFileError, NotReady
from clip_app.loading import Loader
from clip_app.settings import Settings, load_settings
from clip_app.status import LoadStatus, describe


def settings(**given: object) -> Settings:
    return load_settings(**({"model": "bundled", "precision": "float32", "device": "cpu"} | given))


def ready() -> float | None:
    return REGISTRY.get_sample_value("clip_app_model_ready")


@pytest.fixture(scope="module")
def labels_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("labels")
    (folder / "birds.txt").write_text("wren\nrobin\n")
    return folder


@pytest.fixture(scope="module")
def loader(labels_dir: Path, tmp_path_factory: pytest.TempPathFactory) -> Loader:
    """The bundled model, loaded into an empty cache, with a group of the operator's own."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(constants, "HF_HUB_CACHE", str(tmp_path_factory.mktemp("hub")))
        loader = Loader(settings(labels_dir=labels_dir), preload=["birds", "no such group"])
        loader.run()
    return loader


@pytest.mark.parametrize(
    ("status", "said"),
    [
        (LoadStatus(), "The model is about to load."),
        (LoadStatus("fetching", 0.25), "The model is being fetched from the Hub. 25% done."),
        (LoadStatus("labels", 0.5), "The labels are being embedded. 50% done."),
        (LoadStatus("loading", 0.5), "The model is being loaded."),
        (LoadStatus("ready", 1.0), "The model is ready."),
        (LoadStatus("failed", reason="No disk."), "No model could be loaded: No disk."),
    ],
)
def test_how_far_loading_is_is_a_sentence_with_a_share_where_there_is_one(status: LoadStatus, said: str) -> None:
    assert describe(status) == said
    assert status.ready is (status.phase == "ready")


def test_before_it_is_loaded_nothing_serves_and_closing_does_no_harm() -> None:
    loader = Loader(settings())
    with pytest.raises(NotReady, match="about to load"):
        loader.serving()
    loader.close()


def test_a_loaded_model_has_answered_and_says_so(loader: Loader) -> None:
    assert loader.status == LoadStatus("ready", 1.0, None, verified=True)
    serving = loader.serving()
    info = serving.model.info
    assert (info.id, info.bundled, info.engine, info.precision) == ("bundled", True, "openvino", "int8")
    assert {"kinds", "birds", "objects", "scenes", "content"} == set(serving.groups)


def test_the_groups_asked_for_first_are_the_checkpoints_and_the_operators(loader: Loader) -> None:
    assert sorted(loader.serving().default_groups) == ["birds", "kinds", "objects"]


def test_what_was_embedded_before_readiness_is_only_what_was_asked_for(loader: Loader) -> None:
    def misses() -> float:
        return REGISTRY.get_sample_value("clip_app_label_cache_total", {"result": "miss"}) or 0.0

    serving, before = loader.serving(), misses()
    serving.bank.group(serving.groups["birds"])
    assert misses() == before
    serving.bank.group(serving.groups["kinds"])
    assert misses() > before


class Watched(Loader):
    """Keeps every status that it ever had."""

    def __init__(self, settings: Settings, preload: list[str]) -> None:
        self.seen: list[LoadStatus] = []
        super().__init__(settings, preload=preload)

    def __setattr__(self, name: str, value: object) -> None:
        if isinstance(value, LoadStatus):
            self.seen.append(value)
        super().__setattr__(name, value)


def test_the_phases_come_in_their_order_and_the_share_of_labels_is_that_of_all_groups(tmp_path: Path) -> None:
    (tmp_path / "many.txt").write_text("\n".join(f"label {i}" for i in range(70)))
    (tmp_path / "few.txt").write_text("one\n")
    loader = Watched(settings(labels_dir=tmp_path), ["few", "many"])
    loader.run()
    phases = list(dict.fromkeys(status.phase for status in loader.seen))
    assert phases == ["starting", "loading", "labels", "warming up", "ready"]
    shares = [status.progress for status in loader.seen if status.phase == "labels"]
    assert shares[0] == 0.5, "the first of two groups"
    assert shares == sorted(shares)
    assert 0.5 < shares[1] < shares[-1] == 1


def test_a_bad_label_file_stops_it_before_it_starts(tmp_path: Path) -> None:
    (tmp_path / "empty.txt").write_text("")
    with pytest.raises(LabelFileError, match=r"empty\.txt"):
        Loader(settings(labels_dir=tmp_path))


def test_without_a_fallback_the_reason_is_all_there_is(tmp_path: Path) -> None:
    loader = Loader(settings(model=str(tmp_path / "none"), fallback="none"))
    loader.run()
    assert (loader.status.phase, ready()) == ("failed", 0)
    with pytest.raises(NotReady, match="No model could be loaded: CLIP_APP_MODEL names a folder that does not exist"):
        loader.serving()


def test_with_one_the_bundled_model_serves_and_says_why(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    loader = Loader(settings(model=str(tmp_path / "none")), preload=[])
    loader.run()
    assert loader.status.ready
    assert loader.serving().model.info.bundled
    assert "CLIP_APP_MODEL names a folder that does not exist" in str(loader.status.reason)
    assert "the bundled demonstration model serves instead of" in caplog.text
    assert ready() == 1


@pytest.mark.parametrize("given", [{"engine": "torch"}, {"engine": "torch", "precision": "bfloat16"}])
def test_it_serves_with_an_engine_that_can_whichever_was_asked_for(tmp_path: Path, given: dict[str, str]) -> None:
    loader = Loader(settings(model=str(tmp_path / "none"), **given), preload=[])
    loader.run()
    assert loader.serving().model.info.engine == "openvino"
    alone = Loader(settings(engine="torch"), preload=[])
    alone.run()
    assert "Set CLIP_APP_ENGINE=auto" in str(alone.status.reason), "but not where it is asked for itself"


@pytest.fixture
def _no_conversion(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A cache without a conversion, and a process that cannot make one."""
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "hub"))
    script = tmp_path / "converter"
    script.write_text("#!/bin/sh\nexit 1\n")
    script.chmod(0o755)
    monkeypatch.setattr(sys, "executable", str(script))


@pytest.mark.usefixtures("_no_conversion")
def test_torch_serves_where_the_model_cannot_be_converted(caplog: pytest.LogCaptureFixture) -> None:
    loader = Loader(settings(model=str(small_checkpoint())), preload=[])
    loader.run()
    assert loader.status.ready
    assert loader.serving().model.info.engine == "torch"
    (reason,) = loader.status.left_out
    assert reason.startswith("openvino in float32 on cpu: ")
    assert "cannot be converted" in reason
    assert "is left, and the next is tried" in caplog.text


@pytest.mark.usefixtures("_no_conversion")
@pytest.mark.parametrize("given", [{"engine": "openvino"}, {"engine": "auto", "precision": "int8"}])
def test_but_not_where_openvino_or_int8_is_asked_for(given: dict[str, str]) -> None:
    loader = Loader(settings(model=str(small_checkpoint()), fallback="none", **given), preload=[])
    loader.run()
    assert loader.status.phase == "failed"
    assert "cannot be converted" in str(loader.status.reason)


def test_a_model_that_answers_nonsense_is_never_ready(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    folder = Path(shutil.copytree(small_checkpoint(), tmp_path / "checkpoint"))
    weights = load_file(folder / "model.safetensors")
    weights["visual_projection.weight"] *= 0
    save_file(weights, folder / "model.safetensors", {"format": "pt"})
    loader = Loader(settings(model=str(folder), engine="torch"), preload=[])
    with caplog.at_level(logging.ERROR):
        loader.run()
    assert loader.status.phase == "failed"
    assert "no unit embedding" in str(loader.status.reason)
    assert "no unit embedding" in caplog.text


def test_a_closed_loader_takes_no_more_pictures() -> None:
    loader = Loader(settings(), preload=[])
    loader.run()
    loader.close()
    serving = loader.serving()
    with pytest.raises(EncodingFailed, match="shutting down"):
        serving.batcher.encode(np.zeros(serving.model.preprocessing.shape, np.float32))
