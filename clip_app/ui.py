"""The page, a thin face on the one call, with the generated API beside it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import Any

from fastapi import FastAPI

from clip_app import view
from clip_app.analyzer import Analyzer
from clip_app.endpoints import PAGE, Endpoint
from clip_app.errors import ClipAppError, NotReady
from clip_app.gradio_api import GradioApi
from clip_app.gradio_host import CountedBlocks, end_streams, mount, read_upload
from clip_app.gradio_host import gradio as gr
from clip_app.labels import DEFAULT_TEMPLATE
from clip_app.loading import Loader
from clip_app.middleware.request_id import current_request
from clip_app.observation import Observation
from clip_app.options import Options
from clip_app.results import AnalysisResult
from clip_app.settings import Settings

__all__ = ["mount_ui"]

TITLE = "clip_app: what is in this picture?"
EXAMPLES = Path(__file__).parent / "examples"
STYLE = Path(__file__).parent / "page.css"
# Of the forty that everything on the event loop shares; REST has its own.
MAX_THREADS = 32
POLL_SECONDS = 1.0
DELETE_UPLOADS = (300, 1800)  # every five minutes, what is older than half an hour


def mount_ui(
    app: FastAPI, analyzer: Analyzer, loader: Loader, settings: Settings
) -> tuple[Callable[[], None], Mapping[int, Endpoint]]:
    """Mount the page at / after every other route.

    Returns what ends Gradio's endless streams, and which of its functions, by their index, analyse pictures.
    """
    demo = Page(analyzer, loader, settings).build()
    theme = gr.themes.Soft(primary_hue="indigo", neutral_hue="slate", font=["system-ui", "sans-serif"])
    mounted = mount(app, demo, settings, theme=theme, css=STYLE)
    return partial(end_streams, mounted), demo.functions


class Page:
    """The Blocks of the page and the functions behind them."""

    def __init__(self, analyzer: Analyzer, loader: Loader, settings: Settings) -> None:
        self._analyzer = analyzer
        self._loader = loader
        self._max_bytes = settings.max_upload_bytes
        self._api = GradioApi(analyzer, loader, settings)
        self._event = {"concurrency_id": "clip", "concurrency_limit": min(settings.queue_size, MAX_THREADS)}

    def build(self) -> CountedBlocks:
        demo = CountedBlocks(title=TITLE, delete_cache=DELETE_UPLOADS, analytics_enabled=False)
        demo.endpoints = {
            "show_new": PAGE,
            "show_groups": PAGE.again(),
            "show_labels": PAGE.again(),
            **GradioApi.endpoints,
        }
        with demo:
            gr.HTML(view.HEADER)
            banner = gr.HTML(self._banner())
            with gr.Row():
                with gr.Column(scale=5, min_width=320):
                    image = gr.Image(
                        label="Picture",
                        type="filepath",
                        sources=["upload", "clipboard", "webcam"],
                        height=380,
                        elem_id="picture",
                    )
                    gr.Examples(
                        [[str(path)] for path in sorted(EXAMPLES.glob("*.jpg"))], [image], label="Try one of these"
                    )
                with gr.Column(scale=6, min_width=320):
                    self._questions(image, banner, demo)
            self._api.add(**self._event)
        return demo

    def _questions(self, image: gr.Image, banner: gr.HTML, demo: gr.Blocks) -> None:
        with gr.Tabs():
            with gr.Tab("Label groups"):
                groups = gr.CheckboxGroup(label="Look for", choices=[], show_label=False)
                top_k = gr.Slider(1, 20, value=5, step=1, label="Labels per group")
            with gr.Tab("Your own labels"):
                labels = gr.Textbox(label="Labels, separated by commas", placeholder="a cat, a dog, breakfast", lines=2)
                with gr.Row():
                    template = gr.Textbox(DEFAULT_TEMPLATE, label="Prompt", scale=3)
                    independent = gr.Checkbox(False, label="Score each label alone", scale=2)
                ask = gr.Button("Score these labels", variant="primary")
        result = gr.HTML(view.waiting_html(), elem_id="result", min_height=220)
        with gr.Accordion("The result as JSON", open=False):
            raw = gr.JSON(show_label=False)

        asking: dict[str, Any] = {
            "outputs": [result, raw],
            "preprocess": False,
            "api_visibility": "private",
            "trigger_mode": "always_last",
            "show_progress": "minimal",
            **self._event,
        }
        image.change(self.show_new, [image, groups, top_k], **asking)
        gr.on([groups.change, top_k.release], self.show_groups, [image, groups, top_k], **asking)
        gr.on([ask.click, labels.submit], self.show_labels, [image, labels, template, independent], **asking)
        # The groups arrive with the model; their change asks again about a picture that is already there.
        timer = gr.Timer(POLL_SECONDS)
        gr.on(
            [demo.load, timer.tick],
            self.refresh,
            [groups],
            [banner, groups, timer],
            queue=False,
            preprocess=False,
            show_progress="hidden",
            api_visibility="private",
        )

    # What the page calls.

    def show_new(self, image: Any, groups: Any, top_k: Any) -> tuple[str, dict[str, Any] | None]:
        """Analyse a picture that was just put in, perhaps before the page has its groups."""
        return self._show(PAGE, image, lambda: Options.of(groups=groups or None, top_k=top_k))

    def show_groups(self, image: Any, groups: Any, top_k: Any) -> tuple[str, dict[str, Any] | None]:
        """Analyse the same picture with other groups."""
        return self._show(PAGE.again(), image, lambda: Options.of(groups=groups, top_k=top_k))

    def show_labels(
        self, image: Any, labels: Any, template: Any, independent: Any
    ) -> tuple[str, dict[str, Any] | None]:
        """Score the same picture against labels of the user's own."""
        return self._show(
            PAGE.again(),
            image,
            lambda: Options.of(labels=labels or "", template=template, independent=bool(independent)),
        )

    def refresh(self, chosen: list[str]) -> tuple[str, Any, Any]:
        """Bring the banner up to date, and once the model is there the groups; then stop asking."""
        status = self._loader.status
        if not status.ready:
            return self._banner(), gr.skip(), gr.Timer(active=status.phase != "failed")
        serving = self._loader.serving()
        choices = [(group.title, name) for name, group in serving.groups.items()]
        value = chosen or list(serving.default_groups)
        return self._banner(), gr.CheckboxGroup(choices=choices, value=value), gr.Timer(active=False)

    def _show(
        self, endpoint: Endpoint, image: Any, options: Callable[[], Options]
    ) -> tuple[str, dict[str, Any] | None]:
        if image is None and endpoint == PAGE.again():  # the answer to a picture that just came in may be overtaken
            return gr.skip(), gr.skip()
        if image is None:
            return view.waiting_html(), None
        try:
            result = self._run(endpoint, image, options)
        except NotReady:
            return view.waiting_html(), None  # the banner says how far the model is
        except ClipAppError as error:
            return view.error_html(error, _request_id()), None
        return view.result_html(result, self._loader.serving().groups), result.model_dump()

    def _run(self, endpoint: Endpoint, image: Any, options: Callable[[], Options]) -> AnalysisResult:
        context = current_request()
        with Observation(endpoint, since=context.started if context else None) as observation:
            data, name = read_upload(image, self._max_bytes)
            return self._analyzer.analyze(data, options(), observation, name=name)

    def _banner(self) -> str:
        status = self._loader.status
        return view.status_html(status, self._loader.serving().model.info if status.ready else None)


def _request_id() -> str:
    context = current_request()
    return context.id if context else ""
