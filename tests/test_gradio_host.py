"""What this app reaches for inside Gradio, a test a reach: the next minor has to pass them."""

from __future__ import annotations

import asyncio
import inspect
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from fastapi import FastAPI
from fastapi.testclient import TestClient

from clip_app.endpoints import ENDPOINTS
from clip_app.errors import BadOption
from clip_app.gradio_host import CountedBlocks, Dress, describe, document, end_streams, gradio, mount, read_upload
from clip_app.gradio_routes import CLOSED, JOIN, NAMED, RUN, UPLOAD
from clip_app.settings import load_settings

DRESS = Dress(
    theme=None,
    title="What & where",
    description="Says <what> is there.",
    picture="examples/coffee.jpg",
    texts={"en": {"common.complete": "Done"}},
)


@pytest.fixture(scope="module")
def demo() -> CountedBlocks:
    def analyze(text: str) -> str:
        return text

    demo = CountedBlocks(analytics_enabled=False)
    demo.endpoints = {"analyze": ENDPOINTS["analyze"]}
    describe(analyze, {"text": {"label": "A text", "example_input": "cat"}})
    with demo:
        gradio.api(analyze, api_name="analyze")
    return demo


@pytest.fixture(scope="module")
def mounted(demo: CountedBlocks) -> FastAPI:
    return mount(FastAPI(), demo, load_settings(model="bundled"), DRESS)


def test_the_lean_import_reports_nothing_and_writes_no_stub() -> None:
    assert os.environ["GRADIO_ANALYTICS_ENABLED"] == "False"
    assert inspect.getfile(gradio.Blocks).endswith("blocks.py"), "the look-up is as it was after the import"


def test_a_mounted_page_counts_as_launched_or_any_path_of_the_server_would_be_copied(
    demo: CountedBlocks, mounted: FastAPI
) -> None:
    assert demo.has_launched


@pytest.mark.parametrize("loop", ["start_processing", "start_progress_updates"])
def test_an_idle_queue_does_not_ask_itself_a_thousand_times_a_second(
    mounted: FastAPI, demo: CountedBlocks, monkeypatch: pytest.MonkeyPatch, loop: str
) -> None:
    from gradio import queueing

    queue, pauses, sleep = demo._queue, list[float](), asyncio.sleep

    async def pause(seconds: float) -> None:
        pauses.append(seconds)
        queue.stopped = len(pauses) == 5
        await sleep(0)

    async def run() -> None:
        queue.stopped = False
        await getattr(queue, loop)()

    monkeypatch.setattr(queueing.asyncio, "sleep", pause)
    monkeypatch.setattr(queue, "stopped", False)
    monkeypatch.setattr(queue, "active_jobs", [None])
    asyncio.run(run())
    assert pauses == [0.05 if loop == "start_processing" else 0.5] * 5


def test_the_mounted_application_is_the_one_that_serves(demo: CountedBlocks, mounted: FastAPI) -> None:
    assert mounted.get_blocks() is demo  # type: ignore[attr-defined]


def test_a_shared_link_shows_our_words_and_nothing_of_gradios(mounted: FastAPI) -> None:
    document = TestClient(mounted, base_url="http://example.org").get("/").text
    assert '<meta property="og:title" content="What &amp; where" />' in document
    assert "Says &lt;what&gt; is there." in document
    assert 'content="http://example.org/examples/coffee.jpg"' in document
    assert document.count('property="og:title"') == document.count('property="og:image"') == 1
    assert "{url}" not in document
    assert "raw.githubusercontent" not in document
    assert 'href="/' not in document, "what is behind a prefix is not found from the root"


def test_every_language_reaches_the_browser(mounted: FastAPI) -> None:
    config = TestClient(mounted).get("/config").json()
    assert config["i18n_translations"] == {"en": {"common.complete": "Done"}}


def test_process_api_is_what_every_call_goes_through(demo: CountedBlocks) -> None:
    theirs = list(inspect.signature(gradio.Blocks.process_api).parameters)
    assert theirs[:2] == ["self", "block_fn"]
    assert "request" in theirs


def test_functions_are_known_by_their_index(demo: CountedBlocks) -> None:
    assert list(demo.functions.values()) == [ENDPOINTS["analyze"]]
    assert set(demo.functions) <= set(demo.fns)


def test_the_api_says_of_a_parameter_what_the_function_cannot(demo: CountedBlocks) -> None:
    endpoint = demo.get_api_info()["named_endpoints"]["/analyze"]
    assert [(told["parameter_name"], told["label"]) for told in endpoint["parameters"]] == [("text", "A text")]
    assert [told["label"] for told in endpoint["returns"]] == ["result"]


@pytest.mark.parametrize(
    ("root_path", "url"),
    [
        ("", "http://testserver"),
        ("/clip", "http://testserver/clip"),
        ("https://clip.example/app", "https://clip.example/app"),
    ],
)
def test_the_code_of_the_api_view_is_ours_and_has_the_address_of_the_page(
    demo: CountedBlocks, root_path: str, url: str
) -> None:
    app = FastAPI()
    document(app, demo, load_settings(model="bundled", root_path=root_path))
    client = TestClient(app, root_path=root_path if root_path.startswith("/") else "")
    for path in ("/gradio_api/info", "/gradio_api/info/?all_endpoints=True"):
        code = client.get(path).json()["named_endpoints"]["/analyze"]["code_snippets"]
        assert set(code) == {"python", "javascript", "bash", "cli"}, "the tabs that print code"
        assert f'Client("{url}")' in code["python"]
        assert 'text="cat"' in code["python"]


def test_the_stop_event_ends_its_streams(mounted: FastAPI) -> None:
    assert hasattr(mounted, "stop_event"), "without it a stop waits for every open page"
    end_streams(mounted)
    end_streams(None)


def test_uploads_are_read_from_the_upload_folder_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GRADIO_TEMP_DIR", str(tmp_path / "uploads"))
    inside = tmp_path / "uploads" / "a" / "cat.png"
    inside.parent.mkdir(parents=True)
    inside.write_bytes(b"12345")
    outside = tmp_path / "secret.png"
    outside.write_bytes(b"secret")
    assert read_upload({"path": str(inside), "orig_name": "my cat.png"}, 3) == (b"1234", "my cat.png")
    (inside.parent / "link.png").symlink_to(outside)
    for path in (outside, inside.parent / "link.png", inside.parent, inside.parent / "none.png"):
        with pytest.raises(BadOption, match="not uploaded here"):
            read_upload({"path": str(path)}, 10)


def paths(router: Any) -> Iterator[str]:
    """The paths of a router and of those that it includes."""
    for route in router.routes:
        if (included := getattr(route, "original_router", None)) is not None:
            yield from paths(included)
        elif hasattr(route, "path"):
            yield route.path


def test_the_routes_that_are_closed_counted_and_bounded_are_gradios(mounted: FastAPI) -> None:
    known = list(paths(mounted.router))
    switched_off = "/gradio_api/run-history"  # mount's run_history=False
    for door in (UPLOAD, JOIN, RUN.removesuffix("predict"), *NAMED, *CLOSED):
        start = door.removesuffix("http").rstrip("/")  # what follows is a value
        assert door == switched_off or any(path.startswith(start) for path in known), door
