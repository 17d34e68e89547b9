"""The engines agree, and serving with OpenVINO needs neither torch nor transformers."""

from __future__ import annotations

import dataclasses
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from checkpoint import export_pair, make_checkpoint
from conftest import embedded, open_folder, prepared, served, small_checkpoint
from fake_hub import REVISION, FakeHub
from PIL import Image
from test_model import PROMPTS, assert_equal_logits, our_logits, tiny_siglip
from transformers import AutoTokenizer

from clip_app.checkpoint import Variant
from clip_app.engines import Choice, Precision, candidates, convert
from clip_app.engines.agreement import Agreement
from clip_app.engines.conversion import ConversionStore, Converted
from clip_app.engines.openvino import open_converted
from clip_app.errors import CheckpointError
from clip_app.machine import has_bfloat16
from clip_app.model import Model, load_model
from clip_app.settings import load_settings
from clip_app.source import Source, examples_folder

pytest.importorskip("openvino")


def convert_here(checkpoint: Path, home: Path, variant: Variant = "float") -> Converted:
    """Do what the converting process does in this one, which has torch already."""
    target = home / "openvino" / "test" / variant
    target.mkdir(parents=True)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(convert, "_end_with_parent", lambda: None)
        convert.main(checkpoint, target, variant, examples_folder())
    converted = Converted.read(target)
    assert converted is not None
    return converted


def open_both(folder: Path, converted: Converted, precision: Precision = "float32") -> tuple[Model, Model]:
    artifacts = converted.folder.parents[2]
    assert converted.folder.parent == artifacts / "openvino" / "test"
    source = Source(folder=folder, name="test", revision="test", artifacts=artifacts)
    return open_folder(folder), load_model(source, Choice("openvino", precision))


@pytest.fixture(scope="module")
def converted(tmp_path_factory: pytest.TempPathFactory) -> Converted:
    """What prefetch made of the small CLIP in a process of its own. Not to be changed."""
    store = tmp_path_factory.mktemp("converted") / "openvino" / "test"
    shutil.copytree(prepared() / "openvino" / "local", store)
    converted = Converted.read(store / "float")
    assert converted is not None
    return converted


def test_openvino_gives_the_logits_of_torch(converted: Converted, photographs: dict[str, Path]) -> None:
    reference, model = open_both(small_checkpoint(), converted)
    assert (model.info.engine, model.info.precision) == ("openvino", "float32")
    assert_equal_logits(our_logits(model, photographs), our_logits(reference, photographs))


@pytest.mark.filterwarnings("ignore::Warning:torch", "ignore::Warning:transformers")
def test_openvino_and_onnxruntime_give_the_logits_of_torch_in_the_widths_of_vit_b_32(
    tmp_path: Path, photographs: dict[str, Path]
) -> None:
    folder = make_checkpoint(tmp_path / "checkpoint", layers=3)
    reference, model = open_both(folder, convert_here(folder, tmp_path / "converted"))
    expected = our_logits(reference, photographs)
    assert_equal_logits(our_logits(model, photographs), expected)
    pair = export_pair(folder, tmp_path / "pair")
    for engine in ("openvino", "onnxruntime"):
        assert_equal_logits(our_logits(open_folder(pair, engine=engine), photographs), expected)
    shutil.rmtree(tmp_path)  # a gigabyte


def test_openvino_gives_the_logits_of_torch_for_a_siglip(tmp_path: Path, photographs: dict[str, Path]) -> None:
    folder = tiny_siglip(tmp_path / "checkpoint")
    reference, model = open_both(folder, convert_here(folder, tmp_path / "converted"))
    assert_equal_logits(our_logits(model, photographs), our_logits(reference, photographs))


def test_texts_of_every_length_agree(converted: Converted) -> None:
    reference, model = open_both(small_checkpoint(), converted)
    texts = ["", "a", "a photo of a cat.", "cup of tea " * 3, "word " * 200]
    np.testing.assert_allclose(model.encode_texts(texts), reference.encode_texts(texts), atol=1e-5)


def test_bfloat16_keeps_the_best_label(converted: Converted, photographs: dict[str, Path]) -> None:
    """A processor with AVX-512 alone emulates it; where there is none, OpenVINO computes in float32 and says so."""
    reference, model = open_both(small_checkpoint(), converted, "bfloat16")
    assert model.info.precision in ({"bfloat16"} if has_bfloat16() else {"bfloat16", "float32"})
    ours, theirs = our_logits(model, photographs), our_logits(reference, photographs)
    assert (ours.argmax(1) == theirs.argmax(1)).all()
    np.testing.assert_allclose(ours, theirs, atol=0.3)


def held_to_avx2(model: str, *flags: str) -> subprocess.CompletedProcess[str]:
    """Analyse a photograph as on a processor without AVX-512, which may report bfloat16 all the same."""
    command = [sys.executable, "-m", "clip_app", "analyze", str(examples_folder() / "coffee.jpg"), "--model", model]
    env = os.environ | {"ONEDNN_MAX_CPU_ISA": "AVX2"}
    return subprocess.run([*command, "--format", "json", *flags], env=env, capture_output=True, text=True)


def test_auto_is_what_works_on_a_processor_that_only_reports_bfloat16() -> None:
    prepared()
    run = held_to_avx2(str(small_checkpoint()))
    assert run.returncode == 0, run.stderr
    assert json.loads(run.stdout)[0]["model"]["precision"] == "float32"


def test_the_bundled_model_is_right_on_such_a_processor() -> None:
    embedded()
    run = held_to_avx2("bundled")
    assert run.returncode == 0, run.stderr
    assert json.loads(run.stdout)[0]["groups"][0]["labels"][0]["label"] == "cup of coffee"


def test_bfloat16_asked_for_by_name_is_served_or_refused_with_what_to_set() -> None:
    run = held_to_avx2(str(small_checkpoint()), "--precision", "bfloat16", "--engine", "openvino")
    if run.returncode == 0:  # a processor that reports none: OpenVINO computes in float32, and the result says so
        assert json.loads(run.stdout)[0]["model"]["precision"] == "float32"
    else:
        assert "Set CLIP_APP_PRECISION" in run.stderr


def test_the_encoders_take_as_many_threads_as_they_are_given(converted: Converted) -> None:
    engine, _ = open_converted(converted, precision="float32", threads=1)
    for encoder in (engine._image, engine._text):
        assert encoder._request.get_compiled_model().get_property("INFERENCE_NUM_THREADS") == 1


def test_int8_says_how_well_it_agrees_and_does_so(tmp_path: Path, photographs: dict[str, Path]) -> None:
    pytest.importorskip("nncf")
    converted = ConversionStore(tmp_path / "openvino" / "test").make(small_checkpoint(), "int8", examples_folder())
    assert converted.agreement is not None
    assert converted.agreement.photographs == 2, "one example in four is held out"
    assert converted.agreement.pictures == 100
    assert 0 < converted.agreement.same_label <= 1
    assert 0.95 < converted.agreement.least_cosine <= converted.agreement.mean_cosine < 1
    reference, model = open_both(small_checkpoint(), converted, "int8")
    assert model.info.precision == "int8"
    pictures = [Image.open(path).convert("RGB") for path in photographs.values()]
    pixels = np.stack([model.preprocessing(picture) for picture in pictures])
    cosines = (model.encode_images(pixels) * reference.encode_images(pixels)).sum(1)
    assert cosines.mean() > 0.98
    assert cosines.min() > 0.9, "calibrated on three photographs only"
    assert cosines.max() < 1 - 1e-6, "it is not float32 under another name"


def test_a_damaged_checkpoint_is_named_by_who_converts_it(tmp_path: Path) -> None:
    folder = Path(shutil.copytree(small_checkpoint(), tmp_path / "damaged"))
    weights = folder / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:10_000])
    with pytest.raises(CheckpointError, match=r"cannot be read: .* Fetch it again"):
        convert_here(folder, tmp_path)
    assert list((tmp_path / "openvino" / "test" / "float").iterdir()) == []


@pytest.fixture
def rounded(converted: Converted, tmp_path: Path) -> tuple[Source, ConversionStore]:
    """A conversion that is said to be int8, and its checkpoint."""
    store = ConversionStore(tmp_path / "openvino" / "test")
    shutil.copytree(converted.folder, store.folder / "int8")
    source = Source(folder=small_checkpoint(), name="test", revision="test", artifacts=tmp_path)
    return source, store


def agree(store: ConversionStore, same_label: float) -> None:
    made = store.find("int8") or Converted.read(store.folder / "int8")
    assert made is not None
    agreement = Agreement(photographs=5, pictures=100, mean_cosine=0.999, least_cosine=0.99, same_label=same_label)
    dataclasses.replace(made, variant="int8", agreement=agreement).write_marker()


@pytest.mark.parametrize("fast", [True, False], ids=["a CPU fast in int8", "a CPU that is not"])
def test_auto_takes_int8_where_it_is_there_agrees_and_is_fast(
    rounded: tuple[Source, ConversionStore], monkeypatch: pytest.MonkeyPatch, fast: bool
) -> None:
    source, store = rounded
    monkeypatch.setattr("clip_app.engines.has_fast_int8", lambda: fast)
    agree(store, 0.99)
    assert (candidates(load_settings(), source)[0].precision == "int8") == fast
    agree(store, 0.97)
    assert candidates(load_settings(), source)[0].precision != "int8"
    shutil.rmtree(store.folder)
    assert candidates(load_settings(), source)[0].precision != "int8"


def test_int8_that_agrees_too_little_is_refused_with_its_figures(rounded: tuple[Source, ConversionStore]) -> None:
    source, store = rounded
    agree(store, 0.97)
    with pytest.raises(CheckpointError, match=r"same best label 97\.0% \(98% wanted\).*--photographs FOLDER"):
        load_model(source, Choice("openvino", "int8"))
    agree(store, 0.98)
    assert load_model(source, Choice("openvino", "int8")).info.precision == "int8"


def test_int8_without_photographs_says_what_it_needs(tmp_path: Path) -> None:
    (tmp_path / "none").mkdir()
    command = [sys.executable, "-m", "clip_app", "prefetch", "--model", str(small_checkpoint()), "--precision", "int8"]
    env = os.environ | {"HF_HOME": str(tmp_path / "home")}
    run = subprocess.run([*command, "--photographs", tmp_path / "none"], env=env, capture_output=True, text=True)
    assert run.returncode == 1
    assert "--photographs names a folder with hardly any" in run.stderr


def test_a_conversion_ends_with_whoever_asked_for_it(tmp_path: Path) -> None:
    command: list[str | Path] = [
        sys.executable,
        "-m",
        "clip_app.engines.convert",
        small_checkpoint(),
        tmp_path,
        "float",
        examples_folder(),
    ]
    run = subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, timeout=60)
    assert run.returncode == 1
    assert Converted.read(tmp_path) is None


SERVE_ONCE = """
import sys, time
from pathlib import Path
started = time.time()
from fastapi import FastAPI
from clip_app.options import Options
from clip_app.server import create_app
from clip_app.settings import load_settings
from clip_app.source import examples_folder

heavy = {"torch", "transformers", "gradio", "openvino", "pandas"}
application = create_app(load_settings(model="bundled", engine="openvino", fallback="none"))
assert not heavy & set(sys.modules), heavy & set(sys.modules)
application.loader.run()
assert application.loader.status.ready, application.loader.status
application.page._build(FastAPI())
serving = application.loader.serving()
assert serving.model.info.engine == "openvino"
serving.bank.group(Options(labels=("a cat", "a dog")).resolve(serving.groups, serving.default_groups)[0])
assert {"gradio", "openvino"} <= set(sys.modules)
assert not {"torch", "transformers"} & set(sys.modules)
written = max(path.stat().st_mtime for path in Path(sys.modules["gradio"].__file__).parent.rglob("*.pyi"))
assert written < started, "Gradio wrote a type stub"
print("served")
"""


def test_nothing_heavy_is_imported_before_the_port_listens_and_torch_never() -> None:
    run = subprocess.run([sys.executable, "-c", SERVE_ONCE], capture_output=True, text=True)
    assert (run.returncode, run.stdout) == (0, "served\n"), run.stderr


WITHOUT_TORCH = """
import runpy, sys
for name in ("torch", "transformers"):
    sys.modules[name] = None  # as if it were not installed
sys.argv = ["clip-app", "analyze", sys.argv[1], "--format", "json", "--engine", sys.argv[2]]
runpy.run_module("clip_app", run_name="__main__")
"""


@pytest.mark.parametrize("engine", ["auto", "openvino", "onnxruntime"])
def test_a_pair_of_onnx_files_is_served_where_torch_is_not_installed(engine: str) -> None:
    env = os.environ | {"CLIP_APP_MODEL": "bundled"}
    command = [sys.executable, "-c", WITHOUT_TORCH, str(examples_folder() / "pizza.jpg"), engine]
    run = subprocess.run(command, env=env, capture_output=True, text=True)
    assert run.returncode == 0, run.stderr
    (result,) = json.loads(run.stdout)
    assert (result["groups"][0]["labels"][0]["label"], result["model"]["bundled"]) == ("pizza", True)


def test_where_nothing_can_be_kept_torch_serves_and_says_so(tmp_path: Path) -> None:
    (tmp_path / "hub").mkdir()
    (tmp_path / "hub" / "clip_app").write_text("a file stands where the folder should be")
    photo = str(examples_folder() / "coffee.jpg")
    command = [
        sys.executable,
        "-m",
        "clip_app",
        "analyze",
        photo,
        "--model",
        str(small_checkpoint()),
        "--format",
        "json",
    ]
    run = subprocess.run(command, env=os.environ | {"HF_HOME": str(tmp_path)}, capture_output=True, text=True)
    assert (run.returncode, '"engine": "torch"' in run.stdout) == (0, True), run.stderr
    run = subprocess.run(
        [*command, "--engine", "openvino", "--fallback", "none"],
        env=os.environ | {"HF_HOME": str(tmp_path)},
        capture_output=True,
        text=True,
    )
    assert run.returncode == 1
    assert "cannot be kept" in run.stderr
    assert str(tmp_path) not in run.stderr


def test_the_hubs_model_is_converted_once_by_prefetch_and_then_only_mapped(
    converted: Converted, tmp_path: Path
) -> None:
    with FakeHub(small_checkpoint()).running() as hub:
        env = os.environ | {"HF_HOME": str(tmp_path), "HF_ENDPOINT": hub.endpoint, "HF_HUB_OFFLINE": "0"}
        env |= {"CLIP_APP_MODEL": hub.repo, "CLIP_APP_REVISION": REVISION, "CLIP_APP_FALLBACK": "none"}
        command = [sys.executable, "-m", "clip_app", "prefetch", "--no-labels"]
        both = [subprocess.Popen(command, env=env, stdout=subprocess.PIPE, text=True) for _ in range(2)]
        said = [process.communicate(timeout=120)[0] for process in both]
        assert [process.returncode for process in both] == [0, 0]
        assert all("converted for OpenVINO: float, " in text for text in said)
    (folder,) = tmp_path.glob("hub/models--*/clip_app/openvino/*")
    assert (folder.name, [path.name for path in folder.iterdir()]) == (REVISION, ["float"])
    made = Converted.read(folder / "float")
    assert made is not None
    assert made.files == converted.files, "the same bytes of the same checkpoint"
    before = (folder / "float" / "converted.json").stat().st_mtime_ns
    with served(env={key: env[key] for key in env if key.startswith(("CLIP_APP_", "HF_"))} | {"HF_HUB_OFFLINE": "1"}):
        assert (folder / "float" / "converted.json").stat().st_mtime_ns == before
    doctor = subprocess.run([*command[:3], "doctor"], env=env | {"HF_HUB_OFFLINE": "1"}, capture_output=True, text=True)
    assert "hashed again" in doctor.stdout
    (folder / "float" / "text.bin").write_bytes(bytes((folder / "float" / "text.bin").stat().st_size))
    doctor = subprocess.run([*command[:3], "doctor"], env=env | {"HF_HUB_OFFLINE": "1"}, capture_output=True, text=True)
    assert (doctor.returncode, "text.bin of the converted model" in doctor.stdout) == (12, True)


def test_the_engine_is_chosen_by_what_is_there() -> None:
    choice = candidates(load_settings(device="cpu"))[0]
    assert (choice.engine, choice.device) == ("openvino", "cpu")
    assert choice.precision == ("bfloat16" if has_bfloat16() else "float32")
    assert candidates(load_settings(device="cpu", engine="torch", precision="float32"))[0].engine == "torch"
    if not torch.cuda.is_available():
        assert candidates(load_settings())[0] == choice


def test_the_tokens_are_those_of_transformers(converted: Converted) -> None:
    from clip_app.tokenizer import Tokenizer

    ours = Tokenizer.read(
        converted.folder / "tokenizer.json",
        context=converted.context,
        padding=converted.padding,
    )
    theirs = AutoTokenizer.from_pretrained(small_checkpoint())
    texts = [*PROMPTS, "ÄÖÜ  naïve  café", "it's 3 o'clock!", "word " * 100, ""]
    expected = theirs(texts, padding="longest", truncation=True, max_length=converted.context, return_tensors="np")
    np.testing.assert_array_equal(ours.pad(ours.encode(texts)).ids, expected["input_ids"])
