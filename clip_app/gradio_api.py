"""Gradio's generated API: a typed endpoint for each row of the table, a thin face on the one call."""

# Annotations stay objects here: Gradio documents its API from them.

import inspect
from collections.abc import Callable, Mapping
from types import NoneType, UnionType
from typing import Any, ClassVar, TypeVar, Union, cast, get_args, get_origin

from pydantic import BaseModel
from pydantic.fields import FieldInfo

from clip_app import __version__
from clip_app.analyzer import Analyzer
from clip_app.endpoints import ENDPOINTS, EXPLAIN, Endpoint
from clip_app.errors import ClipAppError, NotReady
from clip_app.explainer import Explainer
from clip_app.gradio_host import describe, read_upload, shown
from clip_app.gradio_host import gradio as gr
from clip_app.loading import Loader
from clip_app.middleware.request_id import current_request
from clip_app.observation import Observation
from clip_app.options import Asked, ExplainOptions, Options
from clip_app.results import AnalysisResult, Explanation, ModelInfo
from clip_app.settings import Settings
from clip_app.signatures import keyword_parameters, with_signature
from clip_app.snippets import example_file
from clip_app.status import Readiness, readiness

__all__ = ["GradioApi"]

Answer = TypeVar("Answer", bound=BaseModel)

# The endpoints of the generated API, by their rows in the table.
SUMMARIES = {
    "analyze": "Say what is in a picture: the best labels of each group, with scores.",
    "classify": "Score a picture against your own labels.",
    "explain": "Say where in a picture a label was seen: a map of numbers from 0 to 1, rows from the top.",
}

JSON_TYPES = {list: "array", str: "string", int: "integer", bool: "boolean", NoneType: "null"}


class Status(Readiness):
    """What ``/status`` answers."""

    version: str = __version__
    model: ModelInfo | None
    groups: list[str]


class GradioApi:
    """The functions behind the endpoints that programs call by name."""

    endpoints: ClassVar[Mapping[str, Endpoint]] = {name: ENDPOINTS[name] for name in SUMMARIES}

    def __init__(self, analyzer: Analyzer, explainer: Explainer, loader: Loader, settings: Settings) -> None:
        self._analyzer = analyzer
        self._explainer = explainer
        self._loader = loader
        self._max_bytes = settings.max_upload_bytes
        self._picture = (
            f"A JPEG, PNG, WebP, AVIF, GIF, BMP, TIFF or HEIC of at most {settings.max_upload_mb:g} MB. It is uploaded "
            "first: handle_file does that; with curl it is a request of its own. An address is not fetched."
        )

    def add(self, **event: Any) -> None:
        """Add the endpoints to the Blocks that are being made."""
        for row in self.endpoints.values():
            model, result = (ExplainOptions, Explanation) if row is EXPLAIN else (Options, AnalysisResult)
            gr.api(self._function(row, model, result), api_name=row.name, **event)
        gr.api(self.status, api_name="status", queue=False)

    def _function(self, endpoint: Endpoint, model: type[Asked], result: type[BaseModel]) -> Callable[..., BaseModel]:
        """Make the function behind an endpoint; its parameters and texts are what the API documents."""

        def answer(image: Any, *values: Any) -> BaseModel:
            return self._answer(endpoint, image, dict(zip(endpoint.options, values, strict=True)))

        answer.__name__ = endpoint.name
        answer.__doc__ = SUMMARIES[endpoint.name]
        image = inspect.Parameter("image", inspect.Parameter.POSITIONAL_OR_KEYWORD, annotation=gr.FileData)
        options = [p.replace(kind=image.kind) for p in keyword_parameters(model, endpoint.options, _api_type)]
        described = {option.name: _described(option, model.model_fields[option.name]) for option in options}
        picture = {
            "label": "Picture",
            "python_type": {"type": "filepath", "description": self._picture},
            "component": "Image",  # so that the view names what its JavaScript takes
            "example_input": example_file(),
        }
        with_signature(answer, [image, *options], result)
        return describe(answer, {"image": picture, **described})

    def status(self) -> Status:
        """Say whether the model is ready, how far it is, and which one serves."""
        state = readiness(self._loader.status).model_dump()
        try:
            serving = self._loader.serving()
        except NotReady:
            return _plain(Status(**state, model=None, groups=[]))
        return _plain(Status(**state, model=serving.model.info, groups=list(serving.groups)))

    def _answer(self, endpoint: Endpoint, image: Any, given: dict[str, Any]) -> BaseModel:
        try:
            return _plain(self._run(endpoint, image, given))
        except ClipAppError as error:
            raise shown(error) from None

    def _run(self, endpoint: Endpoint, image: Any, given: dict[str, Any]) -> BaseModel:
        context = current_request()
        with Observation(endpoint, since=context.started if context else None) as observation:
            data, name = read_upload(image, self._max_bytes)
            if endpoint is EXPLAIN:
                return self._explainer.explain(data, ExplainOptions.of(**given), observation, name=name)
            if "groups" not in given:  # a question without labels is not one about the default groups
                given["labels"] = given["labels"] or ()
            return self._analyzer.analyze(data, Options.of(**given), observation, name=name)


def _plain(answer: Answer) -> Answer:
    """Turn an answer into plain data; its type stays for Gradio to document.

    Gradio sends a model itself as JSON from /call, but as a text from /run.
    """
    return cast(Answer, answer.model_dump())


def _api_type(name: str, field: FieldInfo) -> Any:
    """How an option is documented to programs: a list where the model keeps a tuple."""
    return (list[str] | str | None) if name in ("groups", "labels") else field.annotation


def _described(option: inspect.Parameter, field: FieldInfo) -> dict[str, Any]:
    """What Gradio's API says of an option, in the words of every other face."""
    kinds = get_args(option.annotation) if get_origin(option.annotation) in (Union, UnionType) else (option.annotation,)
    names = [JSON_TYPES[get_origin(kind) or kind] for kind in kinds]
    schema: dict[str, Any] = {"type": names if len(names) > 1 else names[0]}
    if "array" in names:
        schema["items"] = {"type": "string"}
    # The view adds None where it is the default.
    python = [str(kind) if get_args(kind) else kind.__name__ for kind in kinds if kind is not NoneType]
    required = option.default is inspect.Parameter.empty
    return {
        "label": field.title,
        "parameter_has_default": not required,
        "parameter_default": None if required else option.default,
        "type": schema,
        "python_type": {"type": " | ".join(python), "description": field.description},
        "example_input": (field.examples or [option.default])[0],
    }
