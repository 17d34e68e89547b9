from __future__ import annotations

import pytest
from PIL import Image

from clip_app.errors import Busy, UndecodableImage
from clip_app.labels import LabelGroup
from clip_app.preprocessing import Preprocessing
from clip_app.results import AnalysisResult, GroupResult, ImageInfo, LabelScore, ModelInfo, Timings
from clip_app.source import examples_folder
from clip_app.status import LoadStatus
from clip_app.view import answer, page_status, refusal

MODEL = ModelInfo(id="acme/clip", revision="main", engine="torch", precision="float32", bundled=False)
GROUPS = {"pets": LabelGroup(name="pets", title="Pets & co", labels=("a cat",))}


def result(*groups: GroupResult) -> AnalysisResult:
    image = ImageInfo(name="x", width=30, height=20)
    return AnalysisResult(model=MODEL, image=image, groups=list(groups), timings_ms=Timings(total=31))


def group(name: str, confidence: float, no_match: float = 0.1) -> GroupResult:
    return GroupResult(
        name=name, no_match=no_match, labels=[LabelScore(label="a cat", confidence=confidence, similarity=0.3)]
    )


def test_an_answer_has_its_number_its_verdict_and_the_titles_of_what_was_asked() -> None:
    told = answer(7, result(group("pets", 0.8), group("labels", 0.6)), GROUPS)
    assert told["number"] == 7
    assert told["titles"] == {"pets": "Pets & co", "labels": "Your labels"}
    assert (told["verdict"]["level"], told["verdict"]["group"]) == ("clear", "labels")
    assert told["error"] is None
    assert AnalysisResult(**told["result"]).groups[0].name == "pets"


def test_a_refusal_says_why_and_when_to_come_back() -> None:
    told = refusal(8, Busy("64 pictures are in the works."), "seven")
    assert told["error"] == {
        "code": "busy",
        "message": "64 pictures are in the works.",
        "request_id": "seven",
        "retry_after": 1,
    }
    assert (told["number"], told["result"]) == (8, None)
    assert refusal(9, UndecodableImage("No."), "")["error"]["retry_after"] is None


def test_the_status_counts_the_bytes_while_the_model_is_fetched() -> None:
    told = page_status(LoadStatus("fetching", 0.25, done_bytes=5, total_bytes=20), max_bytes=9)
    assert (told["phase"], told["done_bytes"], told["total_bytes"]) == ("fetching", 5, 20)
    assert (told["ready"], told["model"], told["groups"], told["resize"]) == (False, None, [], None)
    assert told["max_bytes"] == 9


def test_the_status_offers_the_examples_of_the_package() -> None:
    offered = page_status(LoadStatus(), max_bytes=1)["examples"]
    assert len(offered) >= 4
    assert all((examples_folder() / name).is_file() for name in offered)


def steps(**size: int) -> Preprocessing:
    return Preprocessing(
        shortest_edge=size.get("shortest"),
        size=(size["height"], size["width"]) if "height" in size else None,
        crop=None,
        resample=Image.Resampling.BICUBIC,
        rescale=1 / 255,
        mean=(0, 0, 0),
        std=(1, 1, 1),
    )


@pytest.mark.parametrize("size", [{"shortest": 224}, {"height": 256, "width": 192}])
def test_a_ready_model_says_how_its_pictures_are_resized(size: dict[str, int]) -> None:
    told = page_status(LoadStatus("ready"), max_bytes=1, model=MODEL, groups=GROUPS, preprocessing=steps(**size))
    unset = {"shortest": None, "width": None, "height": None}
    assert told["resize"] == unset | size | {"filter": "bicubic"}
    assert told["groups"] == [{"name": "pets", "title": "Pets & co"}]


def test_a_model_that_takes_any_size_gets_the_picture_as_it_is() -> None:
    assert page_status(LoadStatus("ready"), max_bytes=1, preprocessing=steps())["resize"] is None
