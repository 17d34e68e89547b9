"""The page and Gradio's generated API, both thin faces on one call."""

# Annotations stay objects here: Gradio documents its API from them.

import logging
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, TypeVar, cast

from fastapi import FastAPI
from pydantic import BaseModel
from starlette.routing import Mount

from clip_app import __version__, view
from clip_app.analyzer import Analyzer, Options
from clip_app.errors import BadOption, ClipAppError, NotReady
from clip_app.gradio_host import gradio as gr  # before any other import of Gradio
from clip_app.labels import DEFAULT_TEMPLATE, split_labels
from clip_app.loading import Loader
from clip_app.middleware.request_id import RequestContext, context_of, current_request, enter
from clip_app.observation import ANALYZE, CLASSIFY, PAGE, PAGE_AGAIN, Face, Observation, refuse
from clip_app.rest import Readiness, readiness
from clip_app.results import AnalysisResult, ModelInfo
from clip_app.settings import Settings

__all__ = ["CountedBlocks", "mount_ui", "read_upload"]

logger = logging.getLogger("clip_app")

Answer = TypeVar("Answer", bound=BaseModel)

TITLE = "clip_app: what is in this picture?"
EXAMPLES = Path(__file__).parent / "examples"
# Of the forty that everything on the event loop shares; REST has its own.
MAX_THREADS = 32
POLL_SECONDS = 1.0
SESSIONS_KEPT = 500
DELETE_UPLOADS = (300, 1800)  # every five minutes, what is older than half an hour


def mount_ui(
    app: FastAPI, analyzer: Analyzer, loader: Loader, settings: Settings
) -> tuple[FastAPI, Mapping[int, Face]]:
    """Mount the page at / after every other route.

    Returns Gradio's application, and which of its functions, by their index, analyse pictures.
    """
    page = Page(analyzer, loader, settings)
    demo = page.build()
    demo.queue(max_size=settings.queue_size, api_open=True, status_update_rate=5)
    demo.state_session_capacity = SESSIONS_KEPT
    gr.mount_gradio_app(
        app,
        demo,
        path="/",
        root_path=settings.root_path or None,
        show_error=False,
        max_file_size=settings.max_upload_bytes,
        run_history=False,
        enable_monitoring=False,
        ssr_mode=False,
        footer_links=["api"],
        theme=gr.themes.Soft(primary_hue="indigo", neutral_hue="slate", font=["system-ui", "sans-serif"]),
        css=view.STYLE,
    )
    # Mounted apps never "launch", and without this Gradio copies any server path it is told to.
    demo.has_launched = True
    # Not demo.app, which is another one that nothing serves.
    mount = app.routes[-1]
    assert isinstance(mount, Mount) and isinstance(mount.app, FastAPI)  # noqa: S101, PT018
    return mount.app, demo.faces


def read_upload(value: Any, max_bytes: int) -> tuple[bytes, str]:
    """Return the bytes and the name of an uploaded file, as Gradio describes it.

    Only regular files below the upload folder are opened, whatever the path says.

    Raises:
        BadOption: there is no picture, or the path was not uploaded here.
    """
    if hasattr(value, "model_dump"):
        value = value.model_dump()
    if not isinstance(value, dict) or not isinstance(value.get("path"), str):
        raise BadOption("There is no picture. Upload one first.")
    refusal = BadOption("The picture was not uploaded here. Upload it through /gradio_api/upload first.")
    try:
        path = Path(value["path"]).resolve(strict=True)
        if not path.is_relative_to(Path(gr.utils.get_upload_folder()).resolve()) or not path.is_file():
            raise refusal
        with path.open("rb") as file:
            data = file.read(max_bytes + 1)
    except (OSError, ValueError):
        raise refusal from None
    name = value.get("orig_name")
    return data, name if isinstance(name, str) else path.name


class Status(Readiness):
    """What ``/status`` answers."""

    version: str = __version__
    model: ModelInfo | None
    groups: list[str]


class CountedBlocks(gr.Blocks):  # type: ignore[misc]  # Gradio's types are not followed
    """Blocks whose every context, queued or direct, is counted and carries its request's id."""

    @property
    def faces(self) -> dict[int, Face]:
        """Functions that analyse pictures, by their index."""
        faces = {"analyze": ANALYZE, "classify": CLASSIFY, "show_new": PAGE}
        faces |= {"show_groups": PAGE_AGAIN, "show_labels": PAGE_AGAIN}
        return {index: faces[fn.name] for index, fn in self.fns.items() if fn.name in faces}

    async def process_api(self, block_fn: Any, *arguments: Any, **options: Any) -> dict[str, Any]:
        """Run one call; where Gradio refuses its values before the function sees them, say so and count it."""
        request = options.get("request")
        context = (
            context_of(request.request.scope)
            if isinstance(request, gr.Request) and request.request
            else RequestContext()
        )
        enter(context)
        before = context.analyses
        try:
            return cast(dict[str, Any], await super().process_api(block_fn, *arguments, **options))
        except Exception as error:
            face = self.faces.get(block_fn if isinstance(block_fn, int) else block_fn._id)
            if face is not None and context.analyses == before:
                refuse(context, face, "invalid", "bad_option")
                problem = ClipAppError("The values do not fit this endpoint. /gradio_api/info says what it takes.")
                raise _shown(problem) from error
            if isinstance(error, gr.Error):
                raise
            # Not left to Gradio, which prints the error's text, with what the client sent in it.
            logger.error("a function of the page failed: %s", type(error).__name__, exc_info=error)
            raise _shown(ClipAppError("Something went wrong. The server's log says more.")) from error


class Page:
    """The Blocks of the page and the functions behind them."""

    def __init__(self, analyzer: Analyzer, loader: Loader, settings: Settings) -> None:
        self._analyzer = analyzer
        self._loader = loader
        self._max_bytes = settings.max_upload_bytes
        self._event = {"concurrency_id": "clip", "concurrency_limit": min(settings.queue_size, MAX_THREADS)}

    def build(self) -> CountedBlocks:
        demo = CountedBlocks(title=TITLE, delete_cache=DELETE_UPLOADS, analytics_enabled=False)
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
            self._api()
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

    def _api(self) -> None:
        for name, function in (("analyze", self.analyze), ("classify", self.classify)):
            gr.api(function, api_name=name, **self._event)
        gr.api(self.status, api_name="status", queue=False)

    # What the page calls.

    def show_new(self, image: Any, groups: Any, top_k: Any) -> tuple[str, dict[str, Any] | None]:
        """Analyse a picture that was just put in, perhaps before the page has its groups."""
        return self._show(PAGE, image, lambda: Options(groups=_names(groups) or None, top_k=_count(top_k)))

    def show_groups(self, image: Any, groups: Any, top_k: Any) -> tuple[str, dict[str, Any] | None]:
        """Analyse the same picture with other groups."""
        return self._show(PAGE_AGAIN, image, lambda: Options(groups=_names(groups), top_k=_count(top_k)))

    def show_labels(
        self, image: Any, labels: Any, template: Any, independent: Any
    ) -> tuple[str, dict[str, Any] | None]:
        """Score the same picture against labels of the user's own."""
        return self._show(
            PAGE_AGAIN,
            image,
            lambda: Options(labels=_names(labels or ""), template=_text(template), independent=bool(independent)),
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

    # The generated API: parameters, types and texts below are its documentation.

    def analyze(self, image: gr.FileData, groups: list[str] | None = None, top_k: int = 5) -> AnalysisResult:
        """Say what is in a picture: the best labels of each group, with scores.

        Parameters:
            image: The picture.
            groups: Names of label groups, such as objects, scenes, content; by default the model's own choice.
            top_k: How many labels per group, best first.
        """
        return self._answer(ANALYZE, image, lambda: Options(groups=_names(groups), top_k=_count(top_k)))

    def classify(
        self,
        image: gr.FileData,
        labels: list[str] | str,
        template: str = DEFAULT_TEMPLATE,
        independent: bool = False,
    ) -> AnalysisResult:
        """Score a picture against your own labels.

        Parameters:
            image: The picture.
            labels: The labels, as a list or separated by commas.
            template: The prompt, with {} where the label goes.
            independent: Score each label alone instead of against the others.
        """
        return self._answer(
            CLASSIFY,
            image,
            lambda: Options(labels=_names(labels) or (), template=_text(template), independent=bool(independent)),
        )

    def status(self) -> Status:
        """Say whether the model is ready, how far it is, and which one serves."""
        state = readiness(self._loader).model_dump()
        try:
            serving = self._loader.serving()
        except NotReady:
            return _plain(Status(**state, model=None, groups=[]))
        return _plain(Status(**state, model=serving.model.info, groups=list(serving.groups)))

    def _answer(self, face: Face, image: Any, options: Callable[[], Options]) -> AnalysisResult:
        try:
            return _plain(self._run(face, image, options))
        except ClipAppError as error:
            raise _shown(error) from None

    def _show(self, face: Face, image: Any, options: Callable[[], Options]) -> tuple[str, dict[str, Any] | None]:
        if image is None and face is PAGE_AGAIN:  # the answer to a picture that just came in may be overtaken
            return gr.skip(), gr.skip()
        if image is None:
            return view.waiting_html(), None
        try:
            result = self._run(face, image, options)
        except NotReady:
            return view.waiting_html(), None  # the banner says how far the model is
        except ClipAppError as error:
            return view.error_html(error, _request_id()), None
        return view.result_html(result, self._loader.serving().groups), result.model_dump()

    def _run(self, face: Face, image: Any, options: Callable[[], Options]) -> AnalysisResult:
        context = current_request()
        with Observation(face, since=context.started if context else None) as observation:
            data, name = read_upload(image, self._max_bytes)
            return self._analyzer.analyze(data, options(), observation, name=name)

    def _banner(self) -> str:
        status = self._loader.status
        return view.status_html(status, self._loader.serving().model.info if status.ready else None)


def _plain(answer: Answer) -> Answer:
    """Turn an answer into plain data; its type stays for Gradio to document.

    Gradio sends a model itself as JSON from /call, but as a text from /run.
    """
    return cast(Answer, answer.model_dump())


def _shown(error: ClipAppError) -> gr.Error:
    return gr.Error(f"{error.message} (request {_request_id()})", print_exception=False)


def _request_id() -> str:
    context = current_request()
    return context.id if context else ""


def _names(value: Any) -> tuple[str, ...] | None:
    if value is None:
        return None
    if isinstance(value, str):
        return split_labels(value)
    if isinstance(value, list) and all(isinstance(item, str) for item in value):
        return tuple(value)
    raise BadOption("Names are a list of texts, or one text with commas.")


def _count(value: Any) -> int | None:
    if value is None:
        return None
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not float(value).is_integer():
        raise BadOption("top_k is a whole number.")
    return int(value)


def _text(value: Any) -> str | None:
    if value is None or isinstance(value, str):
        return value or None
    raise BadOption("template is a text.")
