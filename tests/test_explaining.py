"""Where a label was seen: by every method, over the whole upright picture, and nowhere in an empty one."""

from __future__ import annotations

import io
import json
from pathlib import Path

import numpy as np
import pytest
from checkpoint import export_pair
from conftest import embedded, small_checkpoint
from PIL import Image
from test_model import tiny_siglip

from clip_app.analyzer import Analyzer
from clip_app.endpoints import REST_EXPLAIN
from clip_app.errors import BadOption, Busy, ImageTooLarge, NotReady, UndecodableImage
from clip_app.explainer import NOTHING, Explainer
from clip_app.heatmaps import METHODS
from clip_app.loading import Loader
from clip_app.observation import Observation
from clip_app.options import ExplainOptions
from clip_app.overlay import LONGEST, lay_over
from clip_app.results import Explanation
from clip_app.settings import load_settings
from clip_app.source import examples_folder

ENGINES = ("openvino", "onnxruntime")
CLASS_MAPS, ATTENTION, LEGRAD, CROPS = (method.name for method in METHODS)

# The exporter says at length what it traces.
pytestmark = pytest.mark.filterwarnings("ignore::Warning:torch", "ignore::Warning:transformers")


class Asker:
    """A model that serves in this process, asked where."""

    def __init__(self, model: str, engine: str = "auto", **given: object) -> None:
        embedded()
        settings = load_settings(**({"model": model, "engine": engine, "fallback": "none"} | given))
        self.loader = Loader(settings, preload=())
        self.loader.run()
        self.explainer = Explainer(self.loader, Analyzer(self.loader, settings, decoders=1).intake)

    def __call__(self, picture: Image.Image | bytes, label: str, **options: object) -> Explanation:
        data = picture if isinstance(picture, bytes) else png(picture)
        with Observation(REST_EXPLAIN) as observation:
            return self.explainer.explain(data, ExplainOptions.of(label=label, **options), observation)

    def draw(self, picture: Image.Image, label: str) -> Image.Image:
        with Observation(REST_EXPLAIN) as observation:
            drawn = self.explainer.draw(png(picture), ExplainOptions.of(label=label), observation)
        return Image.open(io.BytesIO(drawn))


def png(picture: Image.Image) -> bytes:
    out = io.BytesIO()
    picture.save(out, "PNG")
    return out.getvalue()


def example(name: str) -> Image.Image:
    return Image.open(examples_folder() / f"{name}.jpg").convert("RGB")


def beside(*names: str, side: int = 400) -> Image.Image:
    row = Image.new("RGB", (side * len(names), side))
    for place, name in enumerate(names):
        row.paste(example(name).resize((side, side)), (place * side, 0))
    return row


def peak(explanation: Explanation) -> tuple[float, float]:
    """Where the map is highest, from 0 to 1 across and down."""
    heat = np.array(explanation.map)
    row, column = np.unravel_index(heat.argmax(), heat.shape)
    return float((column + 0.5) / heat.shape[1]), float((row + 0.5) / heat.shape[0])


@pytest.fixture(scope="module", params=ENGINES)
def ask(request: pytest.FixtureRequest) -> Asker:
    """The bundled model, by each engine that serves it."""
    return Asker("bundled", request.param)


@pytest.fixture(scope="module")
def ask_openvino() -> Asker:
    return Asker("bundled", "openvino")


# The bundled model, on pictures that it knows.


def test_the_map_is_in_the_half_that_shows_the_label_and_moves_with_it(ask: Asker) -> None:
    labels = {"chelsea": "cat", "pizza": "pizza", "teddy_bear": "teddy bear", "coffee": "cup of coffee"}
    for left, right in (("chelsea", "pizza"), ("teddy_bear", "coffee"), ("pizza", "teddy_bear")):
        picture = beside(left, right)
        seen = ask(picture, labels[left], group="kinds"), ask(picture, labels[right], group="kinds")
        assert [explanation.method for explanation in seen] == [CLASS_MAPS] * 2
        assert peak(seen[0])[0] < 0.5 < peak(seen[1])[0]


def test_a_map_is_numbers_from_0_to_1_over_the_whole_picture(ask: Asker) -> None:
    explanation = ask(example("taxis"), "taxi")
    heat = np.array(explanation.map)
    assert (heat.min(), heat.max()) == (pytest.approx(0, abs=0.2), 1)
    assert heat.shape[1] / heat.shape[0] == pytest.approx(640 / 427, rel=0.1)
    assert (explanation.image.width, explanation.image.height) == (640, 427)
    assert peak(explanation)[1] > 0.5, "the street, not the houses above it"


def test_own_labels_tell_apart(ask_openvino: Asker) -> None:
    both = beside("chelsea", "teddy_bear")
    for rivals in (["teddy bear"], ["cat", "teddy bear"]):
        assert peak(ask_openvino(both, "cat", labels=rivals))[0] < 0.5
    assert peak(ask_openvino(both, "a child's stuffed toy", labels="a purring cat, a pizza"))[0] > 0.5


@pytest.mark.parametrize(
    "options", [{}, {"group": "objects"}, {"group": "scenes"}, {"labels": []}, {"labels": ["CUP OF COFFEE"]}]
)
def test_whatever_it_is_told_apart_from_the_label_comes_back(ask_openvino: Asker, options: dict[str, object]) -> None:
    explanation = ask_openvino(example("coffee"), "cup of  coffee", **options)
    assert explanation.label == "cup of coffee"
    assert np.array(explanation.map).max() == 1


def test_a_label_of_no_group_is_told_apart_from_all_that_are_asked(ask_openvino: Asker) -> None:
    picture = beside("pizza", "chelsea")
    assert peak(ask_openvino(picture, "Italian flat bread with cheese"))[0] < 0.5


def test_a_panorama_is_seen_from_end_to_end(ask: Asker) -> None:
    names = ["chelsea", "pizza", "pizza", "pizza", "pizza", "pizza", "pizza", "pizza"]
    for picture, expected in ((beside(*names), 0), (beside(*names[::-1]), 7)):
        assert int(peak(ask(picture, "cat"))[0] * 8) == expected
    thread = Image.new("RGB", (9000, 1))
    thread.paste((200, 30, 30), (0, 0, 4500, 1))
    heat = np.array(ask(thread, "cat").map)
    assert heat.size < 100_000


def test_a_picture_that_lies_on_its_side_is_mapped_upright(ask: Asker) -> None:
    upright = beside("chelsea", "pizza")
    exif = Image.Exif()
    exif[0x0112] = 6
    out = io.BytesIO()
    upright.transpose(Image.Transpose.ROTATE_90).save(out, "JPEG", exif=exif, quality=95)
    explanation = ask(out.getvalue(), "cat")
    assert (explanation.image.width, explanation.image.height) == upright.size
    assert peak(explanation)[0] < 0.5
    assert len(explanation.map) < len(explanation.map[0])


@pytest.mark.parametrize("size", [(1, 1), (3, 2), (40, 700)])
def test_a_tiny_or_narrow_picture_has_a_map(ask: Asker, size: tuple[int, int]) -> None:
    assert np.isfinite(np.array(ask(example("chelsea").resize(size), "cat").map)).all()


def test_a_picture_of_one_colour_has_a_map_of_zeros_and_says_why(ask: Asker) -> None:
    explanation = ask(Image.new("RGB", (300, 200), "teal"), "cat")
    assert not np.array(explanation.map).any()
    assert ["nothing to be seen" in warning for warning in explanation.image.warnings] == [True]
    assert NOTHING not in explanation.image.warnings


def test_the_two_engines_agree() -> None:
    picture = beside("coffee", "chelsea")
    first, second = (np.array(Asker("bundled", engine)(picture, "cat").map) for engine in ENGINES)
    assert first.shape == second.shape
    assert np.corrcoef(first.ravel(), second.ravel())[0, 1] > 0.99


# The picture of the map.


def test_a_drawing_has_the_pictures_shape_and_is_bounded(ask_openvino: Asker) -> None:
    assert ask_openvino.draw(example("taxis"), "taxi").size == (640, 427)
    large = beside("chelsea", "pizza", side=2000)
    drawn = ask_openvino.draw(large, "cat")
    assert drawn.size == (LONGEST, LONGEST // 2)
    assert (drawn.format, drawn.mode) == ("PNG", "RGB")


def test_a_drawing_is_bright_where_the_map_is_high_and_dark_where_it_is_not() -> None:
    heat = np.array([[1, 0], [1, 0]], np.float32)
    drawn = np.asarray(Image.open(io.BytesIO(lay_over(Image.new("RGB", (100, 50), "grey"), heat))), int)
    assert drawn.shape == (50, 100, 3)
    left, right = drawn[25, 5], drawn[25, 95]
    assert left[:2].min() > 180 > left[2], "yellow"
    assert right.max() < 128, "the photograph, darkened"


# What is refused.


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"label": " "}, "label: it is empty"),
        ({"label": None}, "label"),
        ({"label": "x" * 201}, "more than 200"),
        ({"label": "cat", "group": "birds"}, "no label group 'birds'"),
        ({"label": "cat", "group": "kinds", "labels": ["dog"]}, "one of the two"),
        ({"label": "cat", "labels": ["dog"], "template": "no place"}, "template"),
        ({"label": "cat", "format": "gif"}, "format"),
        ({"label": "cat", "top_k": 3}, "top_k"),
    ],
)
def test_a_bad_option_is_named(ask_openvino: Asker, options: dict[str, object], message: str) -> None:
    with pytest.raises(BadOption, match=message):
        ask_openvino(example("coffee"), **options)  # type: ignore[arg-type]


def test_a_picture_is_bounded_as_everywhere() -> None:
    strict = Asker("bundled", "openvino", max_pixels=1000, max_upload_mb=0.05)
    with pytest.raises(ImageTooLarge, match="CLIP_APP_MAX_PIXELS"):
        strict(Image.new("1", (40, 40)), "cat")
    with pytest.raises(ImageTooLarge, match="CLIP_APP_MAX_UPLOAD_MB"):
        strict(bytes(60_000), "cat")
    with pytest.raises(UndecodableImage):
        strict(b"no picture", "cat")


def test_before_there_is_a_model_it_is_not_ready() -> None:
    settings = load_settings(model="bundled")
    loader = Loader(settings)
    with pytest.raises(NotReady), Observation(REST_EXPLAIN) as observation:
        Explainer(loader, Analyzer(loader, settings, decoders=1).intake).explain(
            b"", ExplainOptions(label="cat"), observation
        )


def test_it_takes_one_of_the_places_of_the_analyzer() -> None:
    settings = load_settings(model="bundled", queue_size=1)
    loader = Loader(settings)
    intake = Analyzer(loader, settings, decoders=1).intake
    with intake.place(), pytest.raises(Busy), Observation(REST_EXPLAIN) as observation:
        Explainer(loader, intake).explain(b"", ExplainOptions(label="cat"), observation)


# Other checkpoints: random weights see nothing, and the method is the right one over the whole picture.


@pytest.fixture(scope="module")
def checkpoints(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    folder = tmp_path_factory.mktemp("checkpoints")
    return {
        "clip": small_checkpoint(),
        "siglip": tiny_siglip(folder / "siglip"),
        "pair": export_pair(small_checkpoint(), folder / "pair"),
        "fixed pair": export_pair(small_checkpoint(), folder / "fixed", dynamic=False),
    }


@pytest.mark.parametrize(
    ("checkpoint", "engine", "method"),
    [
        ("clip", "torch", ATTENTION),
        ("clip", "openvino", ATTENTION),
        ("siglip", "torch", LEGRAD),
        ("pair", "openvino", CROPS),
        ("pair", "onnxruntime", CROPS),
        ("fixed pair", "onnxruntime", CROPS),
    ],
)
def test_the_method_is_that_of_the_checkpoint(
    checkpoints: dict[str, Path], checkpoint: str, engine: str, method: str
) -> None:
    ask = Asker(str(checkpoints[checkpoint]), engine)
    for picture in (example("taxis"), beside("chelsea", "pizza", "coffee"), example("coffee").resize((90, 300))):
        explanation = ask(picture, "cat", labels=["dog", "pizza"])
        assert explanation.method == method
        heat = np.array(explanation.map)
        assert heat.min() >= 0
        assert heat.max() == 1 or NOTHING in explanation.image.warnings
    assert not np.array(ask(Image.new("RGB", (64, 64), "red"), "cat").map).any()


def test_damaged_weights_leave_crops_where_another_engine_serves(tmp_path: Path) -> None:
    """The same files in both formats, and the one for torch is cut."""
    folder = export_pair(small_checkpoint(), tmp_path / "both")
    weights = (small_checkpoint() / "model.safetensors").read_bytes()
    (folder / "model.safetensors").write_bytes(weights[: len(weights) // 2])
    explanation = Asker(str(folder), "onnxruntime")(example("taxis"), "cat")
    assert explanation.method == CROPS


def test_a_config_without_class_maps_or_weights_is_crops_whatever_it_calls_itself(
    checkpoints: dict[str, Path], tmp_path: Path
) -> None:
    folder = export_pair(small_checkpoint(), tmp_path / "renamed")
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(config | {"model_type": "siglip"}))
    assert Asker(str(folder), "onnxruntime")(example("taxis"), "cat").method == CROPS
