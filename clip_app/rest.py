"""``POST /api/analyze`` and ``/api/explain``: one request, one answer, no state; and health."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Sequence
from functools import partial
from typing import Annotated, Any

from fastapi import APIRouter, Depends, FastAPI, File, Request, Response, UploadFile
from fastapi.exceptions import RequestValidationError
from pydantic import BaseModel
from starlette.exceptions import HTTPException

from clip_app.analyzer import Analyzer
from clip_app.endpoints import REST, REST_EXPLAIN
from clip_app.errors import BadOption, Busy, ClipAppError, ImageTooLarge, UndecodableImage
from clip_app.explainer import Explainer
from clip_app.forms import form_options, known_fields
from clip_app.images import display_name
from clip_app.loading import Loader
from clip_app.middleware.body_limit import error_response, no_room
from clip_app.middleware.request_id import current_request
from clip_app.observation import Observation
from clip_app.options import ExplainOptions, Options
from clip_app.results import REFUSALS, AnalysisResult, Explanation, FailedImage
from clip_app.status import Readiness, readiness
from clip_app.threads import IMAGES_PER_REQUEST, Threads

__all__ = ["add_error_handlers", "rest_routes"]


class AnalyzeResponse(BaseModel):
    """One result per picture, in the order they were sent."""

    results: list[AnalysisResult | FailedImage]


class Health(BaseModel):
    """The process is alive."""

    status: str = "ok"


def rest_routes(  # noqa: C901 -- a list of routes, each of which is short
    analyzer: Analyzer,
    explainer: Explainer,
    loader: Loader,
    *,
    max_bytes: int,
    places: int,
    broken: Callable[[], str | None],
    dead: Callable[[], str | None],
) -> APIRouter:
    """Build the REST and health routes around an analyzer that has so many places.

    ``broken`` says what else is, and ``dead`` what only a new process mends.
    """
    router = APIRouter()
    threads = Threads(places)

    @router.post(
        REST.path or "",
        dependencies=[Depends(known_fields(REST))],
        responses=REFUSALS,
        tags=["analyze"],
    )
    async def analyze(
        image: Annotated[list[UploadFile], File(description=f"A picture; repeat for up to {IMAGES_PER_REQUEST}.")],
        options: Annotated[Options, Depends(form_options(REST, Options))],
    ) -> AnalyzeResponse:
        """Say what is in one picture or several."""
        if len(image) > IMAGES_PER_REQUEST:
            raise BadOption(f"{len(image)} pictures were sent; at most {IMAGES_PER_REQUEST} go into one request.")
        turn = asyncio.Semaphore(threads.at_once)
        received = time.perf_counter()

        def analyze_one(data: bytes, name: str) -> AnalysisResult:
            with Observation(REST, since=received) as observation:
                return analyzer.analyze(data, options, observation, name=name)

        async def one(file: UploadFile) -> AnalysisResult | ClipAppError:
            async with turn:
                data = await file.read(max_bytes + 1)
                try:
                    return await threads.run(partial(analyze_one, data, file.filename or ""))
                except ClipAppError as error:
                    return error

        answers = await asyncio.gather(*(one(file) for file in image))
        return AnalyzeResponse(results=_in_place(answers, [file.filename for file in image]))

    @router.post(
        REST_EXPLAIN.path or "",
        dependencies=[Depends(known_fields(REST_EXPLAIN))],
        response_model=Explanation,
        responses=REFUSALS | {200: {"content": {"image/png": {}}, "description": "The map, drawn or as numbers."}},
        tags=["analyze"],
    )
    async def explain(
        image: Annotated[list[UploadFile], File(description="The picture; one.")],
        options: Annotated[ExplainOptions, Depends(form_options(REST_EXPLAIN, ExplainOptions))],
    ) -> Any:
        """Say where in a picture a label was seen."""
        if len(image) > 1:
            raise BadOption(f"{len(image)} pictures were sent; a label is looked for in one.")
        received = time.perf_counter()
        data, name = await image[0].read(max_bytes + 1), image[0].filename or ""

        def work() -> Response | Explanation:
            with Observation(REST_EXPLAIN, since=received) as observation:
                if options.format == "json":
                    return explainer.explain(data, options, observation, name=name)
                return Response(explainer.draw(data, options, observation), media_type="image/png")

        return await threads.run(work)

    @router.head("/healthz", include_in_schema=False)
    @router.get("/healthz", tags=["health"], responses={503: {"model": Health}})
    async def healthz(response: Response) -> Health:
        """200 while the process is alive, model or not; 503 once it hangs for good."""
        failure = dead()
        response.status_code = 503 if failure else 200
        return Health(status=failure or "ok")

    @router.head("/readyz", include_in_schema=False)
    @router.get("/readyz", tags=["health"], responses={503: {"model": Readiness}})
    async def readyz(response: Response) -> Readiness:
        """200 once the model has answered one real inference and the page is there, else 503 with the reason."""
        state = readiness(loader.status)
        if (failure := broken()) is not None:
            state = state.model_copy(update={"ready": False, "message": failure, "reason": failure})
        response.status_code = 200 if state.ready else 503
        return state

    return router


def _in_place(
    answers: Sequence[AnalysisResult | ClipAppError], names: Sequence[str | None]
) -> list[AnalysisResult | FailedImage]:
    """Put a bad picture's error in its place, unless it stands alone or is not about the picture."""
    results: list[AnalysisResult | FailedImage] = []
    some = any(isinstance(answer, AnalysisResult) for answer in answers)
    about_one = (UndecodableImage, ImageTooLarge, Busy) if some else (UndecodableImage, ImageTooLarge)
    for answer, name in zip(answers, names, strict=True):
        if isinstance(answer, AnalysisResult):
            results.append(answer)
        elif len(answers) == 1 or not isinstance(answer, about_one):
            raise answer
        else:
            context = current_request()
            results.append(FailedImage.of(display_name(name), answer, context.id if context else None))
    return results


def add_error_handlers(app: FastAPI) -> None:
    """Answer every error in the one shape."""

    @app.exception_handler(ClipAppError)
    async def app_error(request: Request, error: ClipAppError) -> Response:
        retry = None if error.retry_after is None else {"Retry-After": str(error.retry_after)}
        return error_response(error.status, error.code, error.message, retry)

    @app.exception_handler(RequestValidationError)
    async def invalid(request: Request, error: RequestValidationError) -> Response:
        problem = error.errors()[0]
        field = problem["loc"][-1]
        return error_response(422, "bad_option", f"{field}: {problem['msg']}")

    @app.exception_handler(Exception)
    async def unexpected(request: Request, error: Exception) -> Response:
        return error_response(500, "error", "Something went wrong. The server's log says more.")

    @app.exception_handler(HTTPException)
    async def http_error(request: Request, error: HTTPException) -> Response:
        if isinstance(error.__cause__, OSError):  # of a body that is kept in a file while it comes
            return no_room(error.__cause__)
        return error_response(error.status_code, "http_error", str(error.detail), dict(error.headers or {}))
