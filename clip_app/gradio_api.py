"""Gradio's generated API: a typed endpoint for each row of the table, a thin face on the one call."""

# Annotations stay objects here: Gradio documents its API from them.

import inspect
from collections.abc import Callable, Iterator, Mapping
from types import NoneType, UnionType
from typing import Any, ClassVar, TypeVar, Union, cast, get_args, get_origin

from pydantic import BaseModel
from pydantic.fields import FieldInfo

from clip_app import __version__
from clip_app.analyzer import Analyzer, Embedded
from clip_app.batch import MOST_PICTURES, Batch, Crowd, Picture, Upload, count, pictures, updates
from clip_app.endpoints import ANALYZE_BATCH, ENDPOINTS, EXPLAIN, SEARCH, Endpoint
from clip_app.errors import BadOption, ClipAppError, NotReady
from clip_app.explainer import Explainer
from clip_app.gradio_host import describe, find_upload, read_upload, shown
from clip_app.gradio_host import gradio as gr
from clip_app.loading import Loader
from clip_app.middleware.request_id import RequestContext, current_request
from clip_app.observation import Observation, refuse
from clip_app.options import Asked, ExplainOptions, Options, SearchOptions
from clip_app.results import AnalysisResult, Explanation, FailedImage, ModelInfo
from clip_app.search import Search, SearchAnswer
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
    "analyze_batch": "Say what is in many pictures, answered as they are done: each update has the new results, "
    "and the last one, where done is total, all of them in order.",
    "search": "Find pictures by a text, the best first, and those that are nearly the same.",
    "explain": "Say where in a picture a label was seen: a map of numbers from 0 to 1, rows from the top.",
}

# What each takes and answers; the others take Options and answer an AnalysisResult.
MODELS: Mapping[str, tuple[type[Asked], type[BaseModel]]] = {
    "analyze_batch": (Options, Batch),
    "search": (SearchOptions, SearchAnswer),
    "explain": (ExplainOptions, Explanation),
}

# Of those that bring many pictures, whose next pictures are in memory; more wait in Gradio's queue.
CALLS_AT_ONCE = 4

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
        self._crowd = Crowd(analyzer.intake.in_background)
        kinds = f"A JPEG, PNG, WebP, AVIF, GIF, BMP, TIFF or HEIC of at most {settings.max_upload_mb:g} MB."
        upload = "uploaded first: handle_file does that; with curl it is a request of its own."
        self._picture = f"{kinds} It is {upload} An address is not fetched."
        self._pictures = (
            f"{kinds} Or zip archives of them, of as much each; at most {MOST_PICTURES:,} pictures in all. "
            f"They are {upload} Addresses are not fetched."
        )

    def add(self, **event: Any) -> None:
        """Add the endpoints to the Blocks that are being made."""
        several = {"concurrency_id": "several", "concurrency_limit": CALLS_AT_ONCE}
        for row in self.endpoints.values():
            gr.api(self._function(row), api_name=row.name, **(several if row.several else event))
        gr.api(self.status, api_name="status", queue=False)

    def _function(self, endpoint: Endpoint) -> Callable[..., Any]:
        """Make the function behind an endpoint; its parameters and texts are what the API documents."""
        model, result = MODELS.get(endpoint.name, (Options, AnalysisResult))

        def answer(image: Any, *values: Any) -> BaseModel:
            return self._answer(endpoint, image, dict(zip(endpoint.options, values, strict=True)))

        def stream(files: Any, *values: Any) -> Iterator[BaseModel]:
            yield from self._stream(endpoint, files, dict(zip(endpoint.options, values, strict=True)))

        function = stream if endpoint.several else answer
        function.__name__ = endpoint.name
        function.__doc__ = SUMMARIES[endpoint.name]
        sent, described = self._sent(several=endpoint.several)
        options = [p.replace(kind=sent.kind) for p in keyword_parameters(model, endpoint.options, _api_type)]
        with_signature(function, [sent, *options], result)
        asked = {option.name: _described(option, model.model_fields[option.name]) for option in options}
        return describe(function, {sent.name: described, **asked})

    def _sent(self, *, several: bool) -> tuple[inspect.Parameter, dict[str, Any]]:
        """The parameter that holds the picture, or the files, and what the API says of it."""
        kind = inspect.Parameter.POSITIONAL_OR_KEYWORD
        if several:
            parameter = inspect.Parameter("files", kind, annotation=list[gr.FileData])
            python = {"type": "list[filepath]", "description": self._pictures}
            return parameter, {"label": "Pictures", "python_type": python, "example_input": [example_file()]}
        parameter = inspect.Parameter("image", kind, annotation=gr.FileData)
        python = {"type": "filepath", "description": self._picture}
        return parameter, {
            "label": "Picture",
            "python_type": python,
            "component": "Image",  # so that the view names what its JavaScript takes
            "example_input": example_file(),
        }

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

    def _stream(self, endpoint: Endpoint, files: Any, given: dict[str, Any]) -> Iterator[BaseModel]:
        """Answer about many pictures, as they are done; what is wrong with the question is counted once."""
        context = current_request() or RequestContext()
        try:
            uploads = [_upload(value) for value in _listed(files)]
            total = count(uploads)
            begin = self._search if endpoint is SEARCH else self._batch
            found = begin(given, pictures(uploads, max_bytes=self._max_bytes), total)
        except ClipAppError as error:
            refuse(context, endpoint, error.outcome, error.code)
            raise shown(error) from None
        try:
            for update in found:
                yield _plain(update)
        except ClipAppError as error:
            raise shown(error) from None

    def _batch(self, given: dict[str, Any], sent: Iterator[Picture], total: int) -> Iterator[Batch]:
        options = Options.of(**given)
        self._analyzer.check(options)

        def work(picture: Picture) -> AnalysisResult | FailedImage:
            try:
                with Observation(ANALYZE_BATCH) as observation:
                    data = picture.read()
                    result = self._analyzer.analyze(data, options, observation, background=True)
            except ClipAppError as error:
                return picture.failed(error)
            result.image.name = picture.name
            return result

        return updates(self._crowd.answers(sent, work), total)

    def _search(self, given: dict[str, Any], sent: Iterator[Picture], total: int) -> Iterator[SearchAnswer]:
        asked = SearchOptions.of(**given)
        search = Search(asked, self._analyzer.query(asked.query), total)

        def work(picture: Picture) -> Embedded | FailedImage:
            try:
                with Observation(SEARCH) as observation:
                    embedded = self._analyzer.embed(picture.read(), observation, background=True)
            except ClipAppError as error:
                return picture.failed(error)
            embedded.image.name = picture.name
            return embedded

        return search.updates(self._crowd.answers(sent, work))


def _listed(files: Any) -> list[Any]:
    """Take one file for a list of one, and nothing for none."""
    return files if isinstance(files, list) else [] if files is None else [files]


def _upload(value: Any) -> Upload:
    """Find a file that was sent; one that is not there becomes a row with its error."""
    try:
        path, name = find_upload(value)
    except BadOption as error:
        return Upload("", problem=error)
    return Upload(name, path)


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
