"""``POST /api/analyze``: one request, one answer, no state; and health."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Sequence
from functools import partial
from typing import Annotated

import anyio.to_thread
from anyio import CapacityLimiter
from fastapi import APIRouter, FastAPI, File, Form, Request, Response, UploadFile
from fastapi.exceptions import RequestValidationError
from pydantic import BaseModel, Field
from starlette.exceptions import HTTPException

from clip_app.analyzer import Analyzer, Options
from clip_app.errors import BadOption, Busy, ClipAppError, ImageTooLarge, NotReady, UndecodableImage
from clip_app.images import display_name
from clip_app.labels import DEFAULT_TEMPLATE, split_labels
from clip_app.loading import Loader, describe
from clip_app.middleware.body_limit import error_response
from clip_app.middleware.request_id import current_request
from clip_app.observation import REST, Observation
from clip_app.results import AnalysisResult

__all__ = ["IMAGES_PER_REQUEST", "add_error_handlers", "rest_routes"]

IMAGES_PER_REQUEST = 16
# Of one request: several share a forward pass, and others still get a turn.
IMAGES_AT_ONCE = 4
SPARE_THREADS = 16


class ErrorDetail(BaseModel):
    """What went wrong, and what to do."""

    code: str
    message: str
    request_id: str | None = Field(None, description="Also in the header X-Request-ID and in the server's log.")


class ErrorBody(BaseModel):
    """Every error that is not about one picture among several."""

    error: ErrorDetail


class FailedImage(BaseModel):
    """Stands in the place of a picture that could not be analysed, among others that could."""

    image: dict[str, str]
    error: ErrorDetail


class AnalyzeResponse(BaseModel):
    """One result per picture, in the order they were sent."""

    results: list[AnalysisResult | FailedImage]


class Health(BaseModel):
    """The process is alive."""

    status: str = "ok"


class Readiness(BaseModel):
    """Whether the model has answered a real inference."""

    ready: bool
    phase: str
    progress: float = Field(description="Share of the phase that is done, 0 to 1.")
    message: str
    reason: str | None = Field(description="Why loading failed, or why the bundled model serves.")


def readiness(loader: Loader) -> Readiness:
    """Say how far the model is."""
    status = loader.status
    return Readiness(
        ready=status.ready,
        phase=status.phase,
        progress=round(status.progress, 3),
        message=describe(status),
        reason=status.reason,
    )


def rest_routes(analyzer: Analyzer, loader: Loader, *, max_bytes: int, places: int) -> APIRouter:
    """Build the REST and health routes around an analyzer that has so many places."""
    router = APIRouter()
    limiter: list[CapacityLimiter] = []  # made on first use, inside the event loop

    @router.post(
        "/api/analyze",
        responses={status: {"model": ErrorBody} for status in (400, 413, 422, 503)},
        tags=["analyze"],
    )
    async def analyze(
        image: Annotated[list[UploadFile], File(description=f"A picture; repeat for up to {IMAGES_PER_REQUEST}.")],
        groups: Annotated[str | None, Form(description="Label groups, comma separated.")] = None,
        labels: Annotated[str | None, Form(description="Your own labels, comma separated or one a line.")] = None,
        template: Annotated[
            str | None, Form(description=f"Prompt for your labels, such as: {DEFAULT_TEMPLATE}")
        ] = None,
        independent: Annotated[bool, Form(description="Score each label alone.")] = False,
        top_k: Annotated[int | None, Form(description="Labels a group, best first; 5, or all of yours.")] = None,
    ) -> AnalyzeResponse:
        """Say what is in one picture or several."""
        options = Options(
            groups=None if groups is None else split_labels(groups),
            labels=None if labels is None else split_labels(labels),
            template=template,
            independent=independent,
            top_k=top_k,
        )
        if len(image) > IMAGES_PER_REQUEST:
            raise BadOption(f"{len(image)} pictures were sent; at most {IMAGES_PER_REQUEST} go into one request.")
        if not limiter:  # more threads than places, so that one too many is told so at once
            limiter.append(CapacityLimiter(places + SPARE_THREADS))
        turn = asyncio.Semaphore(min(IMAGES_AT_ONCE, places))
        received = time.perf_counter()

        def analyze_one(data: bytes, name: str) -> AnalysisResult:
            with Observation(REST, since=received) as observation:
                return analyzer.analyze(data, options, observation, name=name)

        async def one(file: UploadFile) -> AnalysisResult | ClipAppError:
            async with turn:
                data = await file.read(max_bytes + 1)
                context = partial(analyze_one, data, file.filename or "")
                try:
                    return await anyio.to_thread.run_sync(context, limiter=limiter[0])
                except ClipAppError as error:
                    return error

        answers = await asyncio.gather(*(one(file) for file in image))
        return AnalyzeResponse(results=_in_place(answers, [file.filename for file in image]))

    @router.head("/healthz", include_in_schema=False)
    @router.get("/healthz", tags=["health"])
    async def healthz() -> Health:
        """200 while the process is alive, model or not."""
        return Health()

    @router.head("/readyz", include_in_schema=False)
    @router.get("/readyz", tags=["health"], responses={503: {"model": Readiness}})
    async def readyz(response: Response) -> Readiness:
        """200 once the model has answered one real inference, else 503 with the reason."""
        state = readiness(loader)
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
            detail = ErrorDetail(code=answer.code, message=answer.message, request_id=context.id if context else None)
            results.append(FailedImage(image={"name": display_name(name)}, error=detail))
    return results


def add_error_handlers(app: FastAPI) -> None:
    """Answer every error in the one shape."""

    @app.exception_handler(ClipAppError)
    async def app_error(request: Request, error: ClipAppError) -> Response:
        retry = {"Retry-After": str(error.retry_after)} if isinstance(error, (Busy, NotReady)) else None
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
        return error_response(error.status_code, "http_error", str(error.detail), dict(error.headers or {}))
