"""The page, a thin face on the one call, with the generated API beside it.

The picture travels inside the question and the answer comes back at once: no upload folder
and no queue, so that any replica answers any question. What the page remembers lives in the
browser. The scripts are in ``page/``.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

import anyio.to_thread
from anyio import CapacityLimiter
from fastapi import FastAPI

from clip_app.analyzer import Analyzer
from clip_app.endpoints import PAGE, Endpoint
from clip_app.errors import ClipAppError
from clip_app.explainer import Explainer
from clip_app.gradio_api import GradioApi
from clip_app.gradio_host import CountedBlocks, Dress, end_streams, mount
from clip_app.gradio_host import gradio as gr
from clip_app.loading import Loader
from clip_app.middleware.request_id import current_request
from clip_app.observation import Observation
from clip_app.question import Question, is_fresh, number_of
from clip_app.settings import Settings
from clip_app.view import PAGE_FILES, answer, page_status, refusal

__all__ = ["mount_ui"]

TITLE = "clip_app: what is in this picture?"
# Of the generated API, of the forty threads that everything on the event loop shares.
MAX_THREADS = 32
SPARE_THREADS = 16
POLL_SECONDS = 1.0
DELETE_UPLOADS = (300, 1800)  # every five minutes, what is older than half an hour
# A part's script, found behind any prefix; its `start` wires the part.
START = """
const root = new URL(window.gradio_config?.root || "/", location.href).pathname.replace(/\\/$/, "");
import(`${location.origin}${root}/page/PART.js`).then((part) => part.start(element, props, watch));
"""
LOST = "() => window.dispatchEvent(new Event('clip-app-lost'))"


def mount_ui(
    app: FastAPI, analyzer: Analyzer, explainer: Explainer, loader: Loader, settings: Settings
) -> tuple[Callable[[], None], Mapping[int, Endpoint]]:
    """Mount the page at / after every other route.

    Returns what ends Gradio's endless streams, and which of its functions, by their index, analyse pictures.
    """
    demo = Page(analyzer, explainer, loader, settings).build()
    texts = {path.stem: json.loads(path.read_text("utf-8")) for path in sorted((PAGE_FILES / "texts").glob("*.json"))}
    dress = Dress(
        theme=gr.themes.Soft(primary_hue="indigo", neutral_hue="slate", font=["system-ui", "sans-serif"]),
        title=texts["en"]["ca.title"],
        description=texts["en"]["ca.description"],
        picture="examples/coffee.jpg",
        texts=texts,
    )
    mounted = mount(app, demo, settings, dress)
    return partial(end_streams, mounted), demo.functions


class Page:
    """The Blocks of the page and the functions behind them."""

    def __init__(self, analyzer: Analyzer, explainer: Explainer, loader: Loader, settings: Settings) -> None:
        self._analyzer = analyzer
        self._loader = loader
        self._max_bytes = settings.max_upload_bytes
        self._api = GradioApi(analyzer, explainer, loader, settings)
        self._places = settings.queue_size
        self._limiter: CapacityLimiter | None = None  # made on first use, inside the event loop

    def build(self) -> CountedBlocks:
        demo = CountedBlocks(title=TITLE, delete_cache=DELETE_UPLOADS, analytics_enabled=False)
        demo.endpoints = {"show": PAGE, **GradioApi.endpoints}
        with demo:
            status = _part("status")
            with gr.Column(elem_id="ca-page"):
                question = _part("question")
                result = _part("answer")
            direct: dict[str, Any] = {"queue": False, "show_progress": "hidden", "api_visibility": "private"}
            asked = question.change(self.show, [question], [result], trigger_mode="always_last", **direct)
            asked.failure(None, js=LOST, **direct)
            timer = gr.Timer(POLL_SECONDS)
            gr.on([demo.load, timer.tick], self.refresh, None, [status, timer], **direct)
            self._api.add(concurrency_id="clip", concurrency_limit=min(self._places, MAX_THREADS))
        return demo

    async def show(self, value: Any) -> dict[str, Any] | None:
        """Answer a question of the page."""
        if not value:
            return None
        if self._limiter is None:  # more threads than places, so that one too many is told so at once
            self._limiter = CapacityLimiter(self._places + SPARE_THREADS)
        return await anyio.to_thread.run_sync(self._show, value, limiter=self._limiter)

    def refresh(self) -> tuple[dict[str, Any], Any]:
        """Say how far the model is; once it is there, stop asking."""
        status = self._loader.status
        if not status.ready:
            return page_status(status, max_bytes=self._max_bytes), gr.Timer(active=True)
        serving = self._loader.serving()
        told = page_status(
            status,
            max_bytes=self._max_bytes,
            model=serving.model.info,
            groups=serving.groups,
            default_groups=serving.default_groups,
            preprocessing=serving.model.preprocessing,
            logit_scale=serving.model.logit_scale,
        )
        return told, gr.Timer(active=False)

    def _show(self, value: Any) -> dict[str, Any]:
        number = number_of(value)
        context = current_request()
        endpoint = PAGE if is_fresh(value) else PAGE.again()
        try:
            with Observation(endpoint, since=context.started if context else None) as observation:
                asked = Question.of(value, self._max_bytes)
                result = self._analyzer.analyze(asked.data, asked.options, observation, name=asked.name)
        except ClipAppError as error:
            return refusal(number, error, context.id if context else "")
        return answer(number, result, self._loader.serving().groups)


def _part(name: str) -> Any:
    """A part of the page: its markup, which its script fills in the visitor's language."""
    return gr.HTML(
        html_template=(PAGE_FILES / f"{name}.html").read_text("utf-8"),
        js_on_load=START.replace("PART", name),
        apply_default_css=False,
        elem_id=name,
    )
