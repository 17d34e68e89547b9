"""One application on one port, made in one place: page, API, REST, tools, health and metrics."""

from __future__ import annotations

import asyncio
import logging
import os
import signal
import socket
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from types import FrameType
from typing import Any

import uvicorn
from fastapi import FastAPI
from fastapi_offline import FastAPIOffline
from starlette.middleware.cors import CORSMiddleware
from starlette.responses import Response
from starlette.routing import Route
from starlette.staticfiles import StaticFiles
from starlette.types import ASGIApp, Receive, Scope, Send

from clip_app import __version__, telemetry
from clip_app.analyzer import Analyzer
from clip_app.collection.library import Library
from clip_app.collection_api import collection_routes
from clip_app.connections import ACCEPTED_AT_ONCE, Connections, descriptors, protocol
from clip_app.embeddings_api import embedding_routes
from clip_app.endpoints import MCP, Endpoint
from clip_app.explainer import Explainer
from clip_app.loading import Loader
from clip_app.machine import available_cpus, cpu_limit, limit_allocator, memory_limit
from clip_app.mcp_route import McpRoute, Sessions
from clip_app.middleware.admission import Admission
from clip_app.middleware.basic_auth import BasicAuth
from clip_app.middleware.body_limit import BodyLimit, error_response
from clip_app.middleware.counting import Counting
from clip_app.middleware.forwarded import Forwarded
from clip_app.middleware.request_id import HEADER, RequestIds
from clip_app.middleware.root_path import RootPath
from clip_app.middleware.security_headers import SecurityHeaders
from clip_app.rest import add_error_handlers, rest_routes
from clip_app.settings import Settings
from clip_app.turns import Ledger
from clip_app.uploads import remove_broken_uploads, upload_folder

__all__ = ["Application", "create_app", "serve"]

logger = logging.getLogger("clip_app")

GRACE_SECONDS = 20
DEAD_SECONDS = 60.0  # of one batch at least, before the process is said to be dead
HEAD_START_SECONDS = 0.02
WAITING_TO_BE_ACCEPTED = 2048
SWEEP_SECONDS = 300
# What the page asks for besides Gradio's own files.
STATIC = {name: Path(__file__).parent / name for name in ("page", "examples")}
NO_PAGE = "The page could not be built; everything else works."
DESCRIPTION = "See what is in a picture: objects, scenes and other content, with confidence scores."


class Static(StaticFiles):
    """Files of the package; the browser asks whether they changed, as they do with a new version."""

    def file_response(self, *arguments: Any, **options: Any) -> Response:
        response = super().file_response(*arguments, **options)
        response.headers["Cache-Control"] = "no-cache"
        return response


class LatePage:
    """Gradio's page, which takes seconds to import: the port listens before, and visitors wait."""

    def __init__(self, build: Callable[[FastAPI], tuple[Callable[[], None], Mapping[int, Endpoint]]]) -> None:
        """Take the function that mounts the page on an application, and returns what mount_ui does."""
        self.functions: dict[int, Endpoint] = {}
        self.failure: str | None = None
        self._build = build
        self._built = asyncio.Event()
        self._stopped = asyncio.Event()
        self._app: FastAPI | None = None
        self._end_streams: Callable[[], None] = lambda: None

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        await self._built.wait()
        answer: ASGIApp = self._app or error_response(503, "no_page", self.failure or NO_PAGE)
        await answer(scope, receive, send)

    async def run(self) -> None:
        """Build the page and keep what it runs in the background alive until :meth:`stop`."""
        app = FastAPI(openapi_url=None)
        try:
            self._end_streams, functions = await asyncio.to_thread(self._build, app)
            self.functions.update(functions)
            async with app.router.lifespan_context(app):
                self._app = app
                self._built.set()
                await self._stopped.wait()
        except Exception as error:
            self.failure = f"{NO_PAGE} It was {type(error).__name__}; the server's log says more."
            logger.exception("the page does not work; everything else does")
        finally:
            self._built.set()

    def end_streams(self) -> None:
        """End Gradio's endless streams, which would hold a stop up."""
        self._end_streams()

    async def built(self) -> None:
        """Wait until it is built, or will not be."""
        await self._built.wait()

    def stop(self) -> None:
        """Let :meth:`run` end."""
        self._stopped.set()
        self._built.set()


@dataclass(frozen=True)
class Application:
    """The ASGI application; its lifespan begins the heavy work, the page and the model, and ends it."""

    page: LatePage
    loader: Loader
    asgi: ASGIApp

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        await self.asgi(scope, receive, send)


def create_app(settings: Settings) -> Application:
    """Make everything that is shared, and pass it in. Nothing heavy is imported yet.

    Any ASGI server runs it, and it becomes ready under each by its lifespan.

    Raises:
        LabelFileError: a file in LABELS_DIR cannot be used.
        SettingsError: COLLECTIONS names what is none.
    """
    telemetry.QUEUE_CAPACITY.set(settings.queue_size)
    telemetry.MEMORY_LIMIT.set(memory_limit())
    telemetry.CPU_LIMIT.set(cpu_limit())
    ledger = Ledger()
    loader = Loader(settings, ledger=ledger)
    analyzer = Analyzer(loader, settings, decoders=available_cpus(), ledger=ledger)
    explainer = Explainer(loader, analyzer.intake, ledger=ledger)
    library = Library(settings, analyzer.intake)
    page = LatePage(partial(_mount_page, analyzer=analyzer, explainer=explainer, loader=loader, settings=settings))
    # Gradio imports the same package, and two threads that import one at once may find half of it.
    tools = McpRoute(partial(_make_tools, analyzer, settings), after=page.built, origins=settings.allowed_origins)

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        loop = asyncio.get_running_loop()
        building: list[asyncio.Task[None]] = []
        # Once the server, whose turn it is after this, listens: imports would hold it up.
        starts = [
            loop.call_later(HEAD_START_SECONDS, lambda: building.append(asyncio.create_task(page.run()))),
            loop.call_later(HEAD_START_SECONDS, loader.start),
        ]
        asking = asyncio.create_task(tools.run())
        sweeping = asyncio.create_task(_sweep_uploads()) if "GRADIO_TEMP_DIR" in os.environ else None
        yield
        for start in starts:
            start.cancel()
        if sweeping is not None:
            sweeping.cancel()
        page.stop()
        tools.stop()
        loader.close()
        await asyncio.gather(asking, *building)

    api = _parent(lifespan)
    add_error_handlers(api)
    # Whatever comes after a mount at "/" is never reached.
    for path in ("/metrics", "/metrics/"):
        answer = telemetry.metrics if settings.metrics_port is None else telemetry.elsewhere
        api.add_api_route(path, answer, methods=["GET", "HEAD"], include_in_schema=False)
    api.include_router(
        rest_routes(
            analyzer,
            explainer,
            loader,
            max_bytes=settings.max_upload_bytes,
            places=settings.queue_size,
            broken=lambda: page.failure or _stuck(loader, settings.answer_seconds),
            dead=lambda: _stuck(loader, max(DEAD_SECONDS, 2 * settings.answer_seconds)),
        )
    )
    api.include_router(embedding_routes(loader, analyzer.intake))
    api.include_router(
        collection_routes(library, analyzer, loader, max_bytes=settings.max_upload_bytes, places=settings.queue_size)
    )
    for path in (f"{MCP.path}", f"{MCP.path}/"):  # a redirect would ask for the whole body again
        api.router.routes.append(Route(path, tools, include_in_schema=False))
    for name, folder in STATIC.items():
        api.mount(f"/{name}", Static(directory=folder))
    api.mount("/", page)
    return Application(page, loader, _guarded(api, page, analyzer, settings))


def _stuck(loader: Loader, most: float) -> str | None:
    """Say that the image encoder does not come back, where it has been at one batch for longer than so many seconds."""
    seconds = loader.encoding_for
    return f"The image encoder has been at one batch for {seconds:.0f} s; restart the app." if seconds > most else None


def _guarded(api: ASGIApp, page: LatePage, analyzer: Analyzer, settings: Settings) -> ASGIApp:
    """Put before the routes what every request goes through, the innermost first."""
    # A request of several pictures may have as much as four of the largest.
    most = settings.max_upload_bytes
    guarded: ASGIApp = BodyLimit(api, upload_bytes=most, request_bytes=4 * most)
    guarded = Admission(guarded, promise=analyzer.intake.promise)
    guarded = Counting(guarded, functions=page.functions)
    if settings.auth is not None:
        password, for_metrics = settings.auth.get_secret_value(), settings.metrics_auth == "login"
        guarded = BasicAuth(guarded, credentials=password, for_metrics=for_metrics)
    # A browser asks whether it may before it sends a password.
    guarded = CORSMiddleware(guarded, **_cross_origin(settings))
    guarded = SecurityHeaders(guarded, framed_by=settings.allowed_origins)
    guarded = RootPath(RequestIds(guarded), root_path=settings.root_path)
    return Forwarded(guarded, proxies=settings.proxies) if settings.proxies else guarded


def _cross_origin(settings: Settings) -> dict[str, Any]:
    """Which other sites' pages may ask, and read the answer: by default none."""
    return {
        "allow_origins": settings.allowed_origins,
        "allow_methods": ["GET", "POST"],
        "allow_headers": ["*"],
        "expose_headers": [HEADER, "Retry-After"],
    }


def _mount_page(
    app: FastAPI, *, analyzer: Analyzer, explainer: Explainer, loader: Loader, settings: Settings
) -> tuple[Callable[[], None], Mapping[int, Endpoint]]:
    # Gradio takes seconds: the page is built once the port listens.
    from clip_app.ui import mount_ui  # noqa: PLC0415

    # Gradio opens its routes to every site unless it finds this here.
    app.add_middleware(CORSMiddleware, **_cross_origin(settings))
    return mount_ui(app, analyzer, explainer, loader, settings)


def _make_tools(analyzer: Analyzer, settings: Settings) -> Sessions:
    # Its framework takes a second, which only those wait for who ask.
    from clip_app.mcp_server import mcp_sessions  # noqa: PLC0415

    return mcp_sessions(analyzer, settings)


def _parent(lifespan: object) -> FastAPI:
    return FastAPIOffline(
        docs_url="/api/docs",
        redoc_url=None,
        openapi_url="/api/openapi.json",
        static_url="/api/static",
        title="clip_app",
        description=DESCRIPTION,
        version=__version__,
        lifespan=lifespan,
    )


def serve(settings: Settings) -> None:
    """Serve until a signal comes, then answer what was accepted and stop."""
    limit_allocator()
    with upload_folder() as uploads, telemetry.served_apart(settings.host, settings.metrics_port):
        os.environ["GRADIO_TEMP_DIR"] = str(uploads)  # read by Gradio; only files below it are ever opened
        application = create_app(settings)
        connections = Connections.within(descriptors(), proxies=settings.proxies)
        config = uvicorn.Config(
            application,
            host=settings.host,
            port=settings.port,
            http=protocol(connections),
            backlog=ACCEPTED_AT_ONCE,  # the system's own list of who waits is made longer below
            proxy_headers=False,
            log_config=None,
            access_log=False,
            timeout_graceful_shutdown=GRACE_SECONDS,
        )
        _Server(config, application).run()
    if application.loader.loading:
        # Everything is answered. An orderly end would wait for the Hub's downloads, and an engine that is
        # being loaded while the interpreter ends takes the process down.
        logging.shutdown()
        os._exit(0)


async def _sweep_uploads() -> None:
    """Remove what broken uploads leave, now and then."""
    while True:
        await asyncio.sleep(SWEEP_SECONDS)
        await asyncio.to_thread(remove_broken_uploads, Path(os.environ["GRADIO_TEMP_DIR"]))


class _Server(uvicorn.Server):
    """Says where it is, and stops at a signal without waiting for streams."""

    def __init__(self, config: uvicorn.Config, application: Application) -> None:
        super().__init__(config)
        self._application = application

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        self._application.page.end_streams()
        # Not the parent's: it raises the signal again at the end, and nothing after run() would happen.
        self.force_exit = self.should_exit and sig == signal.SIGINT
        self.should_exit = True

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets)
        if self.started:
            for server in self.servers:
                for listening in server.sockets:
                    with socket.fromfd(listening.fileno(), listening.family, listening.type) as same:
                        same.listen(WAITING_TO_BE_ACCEPTED)
            host = f"[{self.config.host}]" if ":" in self.config.host else self.config.host
            port = self.servers[0].sockets[0].getsockname()[1]
            logger.info("clip_app %s is at http://%s:%d", __version__, host, port)
