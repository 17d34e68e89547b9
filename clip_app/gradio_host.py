"""Everything of Gradio's that is not its public face, in one place, with a test for each.

The lean import; the mount and what it leaves open; the document around the page; the upload
folder; process_api, through which every call goes; the stop event of its streams. The routes that are closed are in
:mod:`clip_app.gradio_routes`.
"""

from __future__ import annotations

import errno
import inspect
import logging
import os
import re
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from html import escape
from pathlib import Path
from typing import Any, TypeVar, cast

from fastapi import FastAPI, Request
from jinja2 import ChoiceLoader, DictLoader
from starlette.responses import Response
from starlette.routing import Mount

from clip_app.endpoints import Endpoint
from clip_app.errors import BadOption, ClipAppError
from clip_app.gradio_routes import PREFIX, UPLOAD
from clip_app.middleware.body_limit import NOT_FETCHED, error_response, no_room
from clip_app.middleware.request_id import RequestContext, context_of, current_request, enter
from clip_app.observation import refuse
from clip_app.settings import Settings
from clip_app.snippets import code_snippets, example_file

__all__ = [
    "CountedBlocks",
    "Dress",
    "describe",
    "document",
    "end_streams",
    "find_upload",
    "gradio",
    "mount",
    "read_upload",
    "shown",
]

logger = logging.getLogger("clip_app")

Function = TypeVar("Function", bound=Callable[..., Any])

SESSIONS_KEPT = 500
QUEUE_SECONDS, PROGRESS_SECONDS = 0.05, 0.5
NOT_UPLOADED = "The picture was not uploaded here. Upload it through /gradio_api/upload first."

# Read when Gradio is imported: nothing is reported outside, no table is built after each event.
os.environ["GRADIO_ANALYTICS_ENABLED"] = "False"
os.environ.setdefault("GRADIO_ANALYTICS_CACHE_FREQUENCY", "1000000000")


@contextmanager
def _no_stub_files() -> Iterator[None]:
    """Keep Gradio from writing a type stub beside each of its components: a third of its import.

    It asks where a component's source is, and goes on without a stub where there is none.
    """
    getfile = inspect.getfile

    def hide_components(thing: Any) -> str:
        if isinstance(thing, type) and thing.__module__.startswith("gradio."):
            raise OSError("no stubs are written")
        return getfile(thing)

    inspect.getfile = hide_components  # type: ignore[assignment]
    try:
        yield
    finally:
        inspect.getfile = getfile


with _no_stub_files():
    import gradio


@dataclass(frozen=True, kw_only=True)
class Dress:
    """What the page looks like, in its window and where a link to it is shared.

    ``picture`` is what the link shows, a path on this server; ``texts`` has the words by language.
    """

    theme: Any
    title: str
    description: str
    picture: str
    texts: Mapping[str, Mapping[str, str]]


def mount(app: FastAPI, demo: CountedBlocks, settings: Settings, dress: Dress) -> FastAPI:
    """Mount the page at / after every other route, and return the application that serves it."""
    _dress_document(dress)
    demo.queue(max_size=settings.queue_size, api_open=True, status_update_rate=5)
    # It asks itself a thousand times a second whether somebody waits.
    queue = demo._queue  # noqa: SLF001
    queue.sleep_when_free, queue.progress_update_sleep_when_free = QUEUE_SECONDS, PROGRESS_SECONDS
    demo.state_session_capacity = SESSIONS_KEPT
    document(app, demo, settings)
    gradio.mount_gradio_app(
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
        theme=dress.theme,
        i18n=gradio.I18n(**dress.texts),
    )
    # Mounted apps never "launch", and without this Gradio copies any server path it is told to.
    demo.has_launched = True
    # Not demo.app, which is another one that nothing serves.
    mounted = app.routes[-1]
    assert isinstance(mounted, Mount) and isinstance(mounted.app, FastAPI)  # noqa: S101, PT018
    _answer_what_gradio_trips_over(mounted.app, demo)
    return mounted.app


def _answer_what_gradio_trips_over(mounted: FastAPI, demo: CountedBlocks) -> None:
    """Say what is wrong where Gradio would fail: no such function, a file without a name or too long, no room."""

    async def no_function(request: Request, error: Exception) -> Response:
        if isinstance(error, KeyError) and not (isinstance(error.args[0], int) and error.args[0] not in demo.fns):
            raise error
        return error_response(404, "not_found", "There is no such function. /gradio_api/info names them.")

    async def no_name(request: Request, error: Exception) -> Response:
        if not request.url.path.endswith(UPLOAD):
            raise error
        return error_response(400, "bad_upload", "Each file needs a name, as curl --form files=@PICTURE gives it.")

    async def no_file(request: Request, error: Exception) -> Response:
        if isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EROFS):
            return no_room(error)
        if not (isinstance(error, OSError) and error.errno == errno.ENAMETOOLONG):
            raise error
        return error_response(404, "not_found", "There is no such file.")

    mounted.add_exception_handler(TypeError, no_name)
    mounted.add_exception_handler(OSError, no_file)
    mounted.add_exception_handler(gradio.route_utils.FnIndexInferError, no_function)
    mounted.add_exception_handler(KeyError, no_function)


def _dress_document(dress: Dress) -> None:
    """Put the page's own words and icon into Gradio's document, whose own are fixed in its template.

    What reads links runs no script, so that the ``head`` of a mount, which a script puts in, comes too late.
    """
    environment, name = gradio.routes.templates.env, "frontend/index.html"
    source, _, _ = environment.loader.get_source(environment, name)
    source = re.sub(r'\s*<meta\s+(?:property="og:|name="twitter:)[^>]*>', "", source)
    # Relative, so that it is found behind a prefix.
    source = source.replace('href="/manifest.json"', 'href="./manifest.json"')
    title, description = escape(dress.title), escape(dress.description)
    ours = f"""
        <title>{title}</title>
        <meta name="description" content="{description}" />
        <meta property="og:type" content="website" />
        <meta property="og:site_name" content="clip_app" />
        <meta property="og:title" content="{title}" />
        <meta property="og:description" content="{description}" />
        <meta property="og:url" content="{{{{ config['root'] }}}}/" />
        <meta property="og:image" content="{{{{ config['root'] }}}}/{dress.picture}" />
        <meta name="twitter:card" content="summary" />
        <link rel="icon" type="image/svg+xml" href="./page/icon.svg" />
        <link rel="stylesheet" href="./page/page.css" />
    </head>"""
    environment.loader = ChoiceLoader([DictLoader({name: source.replace("</head>", ours, 1)}), environment.loader])
    environment.cache.clear()


def document(app: FastAPI, demo: CountedBlocks, settings: Settings) -> None:
    """Answer /gradio_api/info before Gradio does, with code that runs.

    Gradio keeps what it answered first, with the address that whoever asked first went to.
    """

    @app.get(f"{PREFIX}info", include_in_schema=False)
    @app.get(f"{PREFIX}info/", include_in_schema=False)
    def info(request: Request) -> Any:
        told = demo.get_api_info()
        root = gradio.route_utils.get_root_url(request, f"{PREFIX}info", settings.root_path or None)
        for name, endpoint in told["named_endpoints"].items():
            for parameter in endpoint["parameters"]:
                if parameter["example_input"] == example_file():
                    parameter["example_input"] = example_file(root)
                elif parameter["example_input"] == [example_file()]:
                    parameter["example_input"] = [example_file(root)]
            values = {parameter["parameter_name"]: parameter["example_input"] for parameter in endpoint["parameters"]}
            endpoint["code_snippets"] = code_snippets(root, name.removeprefix("/"), values)
        return told


def describe(function: Function, parameters: Mapping[str, Mapping[str, Any]]) -> Function:
    """Say what ``gr.api`` cannot know of a function's parameters, in the words of /gradio_api/info."""
    function.api_parameters = parameters  # type: ignore[attr-defined]
    return function


def end_streams(mounted: FastAPI | None) -> None:
    """End Gradio's endless streams, which would hold a stop up."""
    if (stop := getattr(mounted, "stop_event", None)) is not None:
        stop.set()


def find_upload(value: Any) -> tuple[Path, str]:
    """Return where an uploaded file lies and the name it was sent with, as Gradio describes it.

    Only regular files below the upload folder are found, whatever the path says.

    Raises:
        BadOption: there is no picture, or the path was not uploaded here.
    """
    if hasattr(value, "model_dump"):
        value = value.model_dump()
    if isinstance(value, str) and value.strip().lower().startswith(("http://", "https://")):
        raise BadOption(NOT_FETCHED)
    if not isinstance(value, dict) or not isinstance(value.get("path"), str):
        raise BadOption("There is no picture. Upload one first.")
    try:
        path = Path(value["path"]).resolve(strict=True)
        if not path.is_relative_to(Path(gradio.utils.get_upload_folder()).resolve()) or not path.is_file():
            raise BadOption(NOT_UPLOADED)
    except (OSError, ValueError):
        raise BadOption(NOT_UPLOADED) from None
    name = value.get("orig_name")
    return path, name if isinstance(name, str) else path.name


def read_upload(value: Any, max_bytes: int) -> tuple[bytes, str]:
    """Return the bytes, at most one more than ``max_bytes``, and the name of an uploaded file.

    Raises:
        BadOption: there is no picture, or the path was not uploaded here.
    """
    path, name = find_upload(value)
    try:
        with path.open("rb") as file:
            return file.read(max_bytes + 1), name
    except OSError:
        raise BadOption(NOT_UPLOADED) from None


class CountedBlocks(gradio.Blocks):  # type: ignore[misc]  # Gradio's types are not followed
    """Blocks whose every context, queued or direct, is counted and carries its request's id."""

    # Which functions, by their names, analyse pictures for whom.
    endpoints: Mapping[str, Endpoint] = {}

    @property
    def functions(self) -> dict[int, Endpoint]:
        """Functions that analyse pictures, by their index."""
        return {index: self.endpoints[fn.name] for index, fn in self.fns.items() if fn.name in self.endpoints}

    def get_api_info(self, *arguments: Any, **options: Any) -> Any:
        """What the API says of itself, with the texts of :func:`describe`."""
        told = super().get_api_info(*arguments, **options)
        for fn in self.fns.values():
            described = getattr(fn.fn, "api_parameters", {})
            endpoint = told["named_endpoints"].get(f"/{fn.api_name}", {"parameters": [], "returns": []})
            for parameter in endpoint["parameters"]:
                parameter.update(described.get(parameter["parameter_name"], {}))
            for result in endpoint["returns"]:
                result["label"] = "result"
        return told

    async def process_api(self, block_fn: Any, *arguments: Any, **options: Any) -> dict[str, Any]:
        """Run one call; where Gradio refuses its values before the function sees them, say so and count it."""
        request = options.get("request")
        context = (
            context_of(request.request.scope)
            if isinstance(request, gradio.Request) and request.request
            else current_request() or RequestContext()
        )
        enter(context)
        endpoint = self.functions.get(block_fn if isinstance(block_fn, int) else block_fn._id)  # noqa: SLF001
        if context.refusal is not None:
            if endpoint is not None:
                refuse(context, endpoint, "invalid", "bad_option")
            raise shown(BadOption(context.refusal))
        before = context.analyses
        try:
            return cast(dict[str, Any], await super().process_api(block_fn, *arguments, **options))
        except Exception as error:
            if endpoint is not None and context.analyses == before:
                refuse(context, endpoint, "invalid", "bad_option")
                problem = BadOption("The values do not fit this endpoint. /gradio_api/info says what it takes.")
                raise shown(problem) from error
            if isinstance(error, gradio.Error):
                raise
            # Not left to Gradio, which prints the error's text, with what the client sent in it.
            logger.error("a function of the page failed: %s", type(error).__name__, exc_info=error)
            raise shown(ClipAppError("Something went wrong. The server's log says more.")) from error


def shown(error: ClipAppError) -> gradio.Error:
    """The error as Gradio shows it, with the request's id for the operator."""
    context = current_request()
    if context is not None:
        context.status = error.status
    return gradio.Error(f"{error.message} (request {context.id if context else ''})", print_exception=False)
