from __future__ import annotations

import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
from prometheus_client import REGISTRY

from clip_app.analyzer import Analyzer, Embedded
from clip_app.endpoints import REST
from clip_app.errors import BadOption, Busy, ImageTooLarge, NotReady, UndecodableImage
from clip_app.labels import query_group
from clip_app.loading import Loader
from clip_app.observation import Observation
from clip_app.options import Options
from clip_app.results import AnalysisResult
from clip_app.serving import Serving
from clip_app.settings import Settings, load_settings


def settings(**given: object) -> Settings:
    return load_settings(**({"model": "bundled", "precision": "float32", "device": "cpu"} | given))


@pytest.fixture(scope="module")
def loader() -> Iterator[Loader]:
    loader = Loader(settings(), preload=[])
    loader.run()
    yield loader
    loader.close()


@pytest.fixture(scope="module")
def cat(photographs: dict[str, Path]) -> bytes:
    return photographs["cat"].read_bytes()


def analyze(loader: Loader, data: bytes, options: Options | None = None, **given: object) -> AnalysisResult:
    analyzer = Analyzer(loader, settings(**given), decoders=1)
    with Observation(REST) as analysis:
        return analyzer.analyze(data, options or Options(), analysis, name="folder/cat.png")


OWN = ("a cat", "a rocket", "a cup of coffee", "a dog", "a tree", "a car", "a house")


def test_a_result_says_what_was_seen_by_which_model_in_what_time(loader: Loader, cat: bytes) -> None:
    result = analyze(loader, cat)
    assert (result.image.name, result.image.width, result.image.height) == ("cat.png", 451, 300)
    assert result.model == loader.serving().model.info
    assert [group.name for group in result.groups] == list(loader.serving().default_groups)
    times = result.timings_ms
    parts = times.decode + times.preprocess + times.queue + times.encode + times.score
    assert min(times.decode, times.preprocess, times.queue, times.encode, times.score) >= 0
    assert 0 < parts <= times.total + 0.01


def test_the_best_five_come_first_and_of_own_labels_all(loader: Loader, cat: bytes) -> None:
    kinds, own = analyze(loader, cat, Options(groups=("kinds",), labels=OWN)).groups
    assert (kinds.name, len(kinds.labels)) == ("kinds", 5)
    assert sorted(score.label for score in own.labels) == sorted(OWN)
    for group in (kinds, own):
        similarities = [score.similarity for score in group.labels]
        assert similarities == sorted(similarities, reverse=True)
    assert sum(score.confidence for score in own.labels) + own.no_match == pytest.approx(1, abs=1e-4)


@pytest.mark.parametrize(("top_k", "returned"), [(1, 1), (6, 6), (7, 7), (1000, 7)])
def test_as_many_labels_are_returned_as_asked_for(loader: Loader, cat: bytes, top_k: int, returned: int) -> None:
    assert len(analyze(loader, cat, Options(labels=OWN, top_k=top_k)).groups[0].labels) == returned


@pytest.mark.parametrize("options", [Options(groups=("x",)), Options(labels=())])
def test_options_that_cannot_be_used_are_refused(loader: Loader, cat: bytes, options: Options) -> None:
    with pytest.raises(BadOption):
        analyze(loader, cat, options)


def test_independent_labels_do_not_share(loader: Loader, cat: bytes) -> None:
    (alone,) = analyze(loader, cat, Options(labels=("cat", "kitten"), independent=True)).groups
    (both,) = analyze(loader, cat, Options(labels=("cat", "kitten"))).groups
    assert sum(score.confidence for score in alone.labels) > sum(score.confidence for score in both.labels)


def test_the_settings_bound_the_picture(loader: Loader, cat: bytes) -> None:
    with pytest.raises(ImageTooLarge):
        analyze(loader, cat, max_pixels=451 * 300 - 1)
    assert analyze(loader, cat, max_pixels=451 * 300).groups


def test_before_the_model_is_ready_it_is_not_waited_for(cat: bytes) -> None:
    with pytest.raises(NotReady):
        analyze(Loader(settings()), cat)


class HeldLoader(Loader):
    """Lets pictures wait until it is told."""

    def __init__(self, settings: Settings, serving: Serving) -> None:
        super().__init__(settings)
        self.asked, self.told = threading.Event(), threading.Event()
        self._given = serving

    def serving(self) -> Serving:
        self.asked.set()
        assert self.told.wait(10)
        return self._given


def test_a_full_house_is_busy_and_has_room_again_afterwards(loader: Loader, cat: bytes) -> None:
    held = HeldLoader(settings(), loader.serving())
    analyzer = Analyzer(held, settings(queue_size=1), decoders=1)

    def ask() -> AnalysisResult:
        with Observation(REST) as analysis:
            return analyzer.analyze(cat, Options(labels=OWN), analysis)

    def in_flight() -> float:
        return REGISTRY.get_sample_value("clip_app_in_flight") or 0.0

    before = in_flight()
    with ThreadPoolExecutor(1) as pool:
        first = pool.submit(ask)
        assert held.asked.wait(10)
        assert in_flight() - before == 1
        with pytest.raises(Busy, match="1 pictures are already in the works"):
            ask()
        held.told.set()
        assert first.result(30).groups
    assert ask().groups
    assert in_flight() == before


def embed(analyzer: Analyzer, data: bytes) -> Embedded:
    with Observation(REST) as analysis:
        return analyzer.embed(data, analysis, name="folder/cat.png")


def test_an_embedding_is_that_of_the_analysis(loader: Loader, cat: bytes) -> None:
    embedded = embed(Analyzer(loader, settings(), decoders=1), cat)
    assert embedded.image == analyze(loader, cat).image
    assert np.linalg.norm(embedded.embedding) == pytest.approx(1, abs=1e-3)
    (group,) = analyze(loader, cat, Options(labels=("cat",))).groups
    (row,), _ = loader.serving().bank.group(query_group("cat"))
    assert embedded.embedding @ row == pytest.approx(group.labels[0].similarity, abs=1e-4)
    with pytest.raises(UndecodableImage):
        embed(Analyzer(loader, settings(), decoders=1), b"no picture")


def test_a_text_ranks_pictures_and_ends_where_they_do_not_fit(loader: Loader, photographs: dict[str, Path]) -> None:
    analyzer = Analyzer(loader, settings(), decoders=1)
    names = ["coffee", "cat", "rocket"]
    rows = np.stack([embed(analyzer, photographs[name].read_bytes()).embedding for name in names])
    ranking = analyzer.query("a cat, lying down").rank(rows)
    assert names[ranking.order[0]] == "cat"
    assert ranking.relevant.tolist() == [False, True, False]
    assert not analyzer.query("an elephant").rank(rows).relevant.any()


def test_a_text_that_was_asked_for_lately_is_not_embedded_again(loader: Loader) -> None:
    def missed() -> float:
        return REGISTRY.get_sample_value("clip_app_label_cache_total", {"result": "miss"}) or 0

    analyzer = Analyzer(loader, settings(), decoders=1)
    first, before = analyzer.query("something that nobody asked for"), missed()
    again = analyzer.query("  something that  nobody asked for ")
    assert (again.embedding == first.embedding).all()
    assert missed() == before


@pytest.mark.parametrize(("text", "message"), [("", "nothing to search by"), (" \n", "nothing"), ("x" * 201, "200")])
def test_a_text_to_search_by_is_there_and_not_too_long(loader: Loader, text: str, message: str) -> None:
    with pytest.raises(BadOption, match=message):
        Analyzer(loader, settings(), decoders=1).query(text)
