"""Gradio's generated API: a typed endpoint for each row of the table, a thin face on the one call."""

# Annotations stay objects here: Gradio documents its API from them.

import inspect
from collections.abc import Callable, Mapping
from typing import Any, ClassVar, TypeVar, cast

from pydantic import BaseModel
from pydantic.fields import FieldInfo

from clip_app import __version__
from clip_app.analyzer import Analyzer
from clip_app.endpoints import ENDPOINTS, Endpoint
from clip_app.errors import ClipAppError, NotReady
from clip_app.gradio_host import gradio as gr
from clip_app.gradio_host import read_upload, shown
from clip_app.loading import Loader
from clip_app.middleware.request_id import current_request
from clip_app.observation import Observation
from clip_app.options import Options
from clip_app.results import AnalysisResult, ModelInfo
from clip_app.settings import Settings
from clip_app.signatures import keyword_parameters, with_signature
from clip_app.status import Readiness, readiness

__all__ = ["GradioApi"]

Answer = TypeVar("Answer", bound=BaseModel)

# The endpoints of the generated API, by their rows in the table.
SUMMARIES = {
    "analyze": "Say what is in a picture: the best labels of each group, with scores.",
    "classify": "Score a picture against your own labels.",
}


class Status(Readiness):
    """What ``/status`` answers."""

    version: str = __version__
    model: ModelInfo | None
    groups: list[str]


class GradioApi:
    """The functions behind the endpoints that programs call by name."""

    endpoints: ClassVar[Mapping[str, Endpoint]] = {name: ENDPOINTS[name] for name in SUMMARIES}

    def __init__(self, analyzer: Analyzer, loader: Loader, settings: Settings) -> None:
        self._analyzer = analyzer
        self._loader = loader
        self._max_bytes = settings.max_upload_bytes

    def add(self, **event: Any) -> None:
        """Add the endpoints to the Blocks that are being made."""
        for row in self.endpoints.values():
            gr.api(self._function(row), api_name=row.name, **event)
        gr.api(self.status, api_name="status", queue=False)

    def _function(self, endpoint: Endpoint) -> Callable[..., AnalysisResult]:
        """Make the function behind an endpoint; its parameters and texts are what the API documents."""

        def answer(image: Any, *values: Any) -> AnalysisResult:
            given = dict(zip(endpoint.options, values, strict=True))
            if "groups" not in given:  # a question without labels is not one about the default groups
                given["labels"] = given["labels"] or ()
            return self._answer(endpoint, image, lambda: Options.of(**given))

        described = [f"{name}: {Options.model_fields[name].description}" for name in endpoint.options]
        listed = "\n    ".join(["image: The picture.", *described])
        answer.__name__ = endpoint.name
        answer.__doc__ = f"{SUMMARIES[endpoint.name]}\n\nParameters:\n    {listed}\n"
        image = inspect.Parameter("image", inspect.Parameter.POSITIONAL_OR_KEYWORD, annotation=gr.FileData)
        options = keyword_parameters(Options, endpoint.options, _api_type)
        return with_signature(answer, [image, *(p.replace(kind=image.kind) for p in options)], AnalysisResult)

    def status(self) -> Status:
        """Say whether the model is ready, how far it is, and which one serves."""
        state = readiness(self._loader.status).model_dump()
        try:
            serving = self._loader.serving()
        except NotReady:
            return _plain(Status(**state, model=None, groups=[]))
        return _plain(Status(**state, model=serving.model.info, groups=list(serving.groups)))

    def _answer(self, endpoint: Endpoint, image: Any, options: Callable[[], Options]) -> AnalysisResult:
        try:
            return _plain(self._run(endpoint, image, options))
        except ClipAppError as error:
            raise shown(error) from None

    def _run(self, endpoint: Endpoint, image: Any, options: Callable[[], Options]) -> AnalysisResult:
        context = current_request()
        with Observation(endpoint, since=context.started if context else None) as observation:
            data, name = read_upload(image, self._max_bytes)
            return self._analyzer.analyze(data, options(), observation, name=name)


def _plain(answer: Answer) -> Answer:
    """Turn an answer into plain data; its type stays for Gradio to document.

    Gradio sends a model itself as JSON from /call, but as a text from /run.
    """
    return cast(Answer, answer.model_dump())


def _api_type(name: str, field: FieldInfo) -> Any:
    """How an option is documented to programs: a list where the model keeps a tuple."""
    return (list[str] | str | None) if name in ("groups", "labels") else field.annotation
