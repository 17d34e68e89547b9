"""The Model Context Protocol: the one call as tools for language models, without state between requests."""

from __future__ import annotations

import asyncio
import base64
import binascii
import difflib
import json
import logging
import sys
import time
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

from mcp.server import Server, ServerRequestContext
from mcp.server.streamable_http_manager import StreamableHTTPSessionManager
from mcp.shared.exceptions import MCPError
from mcp_types import (
    INVALID_PARAMS,
    CallToolRequestParams,
    CallToolResult,
    ListToolsResult,
    PaginatedRequestParams,
    TextContent,
    Tool,
    ToolAnnotations,
)
from pydantic import BaseModel

from clip_app import __version__
from clip_app.analyzer import Analyzer, Embedded
from clip_app.endpoints import MCP_ANALYZE, MCP_CLASSIFY, MCP_SEARCH, Endpoint
from clip_app.errors import BadOption, Busy, ClipAppError, ImageTooLarge, UndecodableImage
from clip_app.middleware.request_id import RequestContext, current_request
from clip_app.observation import Observation, refuse
from clip_app.options import Asked, Options, SearchOptions
from clip_app.results import AnalysisResult, FailedImage
from clip_app.search import Search, SearchAnswer
from clip_app.settings import Settings
from clip_app.threads import IMAGES_PER_REQUEST, Threads

__all__ = ["McpTools", "mcp_sessions"]

logger = logging.getLogger("clip_app")

INSTRUCTIONS = (
    "Says what is in pictures with CLIP. Send a picture as the bytes of its file in base64. A confidence compares the "
    "labels of one group with each other and is not the probability of being right; where no_match exceeds the best "
    "label, nothing in the group fits."
)
SUMMARIES = {
    "mcp_analyze": (
        "Say what is in a picture",
        "Say what is in a picture: the best labels of each group, with scores.",
    ),
    "mcp_classify": (
        "Score a picture against labels",
        "Score a picture against your own labels: all of them come back, best first.",
    ),
    "mcp_search": (
        "Rank pictures by a text",
        "Rank pictures by how well they fit a text, and say which are relevant to it.",
    ),
}
NOT_FETCHED = "Pictures are not fetched from the web. Download it and send the bytes of the file in base64."
NOT_BASE64 = "This is not base64. Send the bytes of the picture's file in base64, not its name or path."
# They answer from what they are sent: nothing changes, and nothing else is looked at.
ANNOTATIONS = ToolAnnotations(read_only_hint=True, destructive_hint=False, idempotent_hint=True, open_world_hint=False)

Given = Mapping[str, Any]


def mcp_sessions(analyzer: Analyzer, settings: Settings) -> StreamableHTTPSessionManager:
    """Make what answers at the route, once it runs: plain JSON, no stream and no session, so that any replica does."""
    tools = McpTools(analyzer, settings)
    server = Server(
        "clip_app",
        title="clip_app",
        version=__version__,
        instructions=INSTRUCTIONS,
        on_list_tools=tools.tell,
        on_call_tool=tools.call,
    )
    # BodyLimit stands before it, and tells more.
    return StreamableHTTPSessionManager(server, json_response=True, stateless=True, max_request_body_size=sys.maxsize)


@dataclass(frozen=True)
class _Tool:
    """A tool: its row in the table of endpoints, what it does, and what it is told to clients."""

    endpoint: Endpoint
    run: Callable[[Given], Awaitable[BaseModel]]
    told: Tool


class McpTools:
    """The tools, each a thin face on the one call."""

    def __init__(self, analyzer: Analyzer, settings: Settings) -> None:
        self._analyzer = analyzer
        self._threads = Threads(settings.queue_size)
        one, several = _pictures(settings)
        analyze, classify = partial(self._analyze, MCP_ANALYZE), partial(self._analyze, MCP_CLASSIFY)
        rows = (
            _Tool(MCP_ANALYZE, analyze, _told(MCP_ANALYZE, one, Options, AnalysisResult)),
            _Tool(MCP_CLASSIFY, classify, _told(MCP_CLASSIFY, one, Options, AnalysisResult, required=("labels",))),
            _Tool(MCP_SEARCH, self._search, _told(MCP_SEARCH, several, SearchOptions, SearchAnswer)),
        )
        self._tools = {tool.told.name: tool for tool in rows}

    async def tell(self, context: ServerRequestContext[Any], params: PaginatedRequestParams | None) -> ListToolsResult:
        """Tell which tools there are."""
        return ListToolsResult(tools=[tool.told for tool in self._tools.values()])

    async def call(self, context: ServerRequestContext[Any], params: CallToolRequestParams) -> CallToolResult:
        """Run a tool; what goes wrong in it is its answer, for the model to read.

        Raises:
            MCPError: there is no such tool.
        """
        tool = self._tools.get(params.name)
        if tool is None:
            raise MCPError(
                INVALID_PARAMS, f"There is no tool {params.name[:40]!r}. There are: {', '.join(self._tools)}."
            )
        try:
            return _answer(await tool.run(_known(tool.told, params.arguments or {})))
        except ClipAppError as error:
            return _failure(tool.endpoint, error)
        except Exception as error:
            logger.error("the tool %s failed: %s", tool.told.name, type(error).__name__, exc_info=error)
            message = f"It failed with {type(error).__name__}, which is not known here. The server's log says more."
            return _failure(tool.endpoint, ClipAppError(message))

    async def _analyze(self, endpoint: Endpoint, given: Given) -> AnalysisResult:
        received = time.perf_counter()
        options = {name: given[name] for name in endpoint.options if name in given}

        def work() -> AnalysisResult:
            with Observation(endpoint, since=received) as observation:
                if endpoint is MCP_CLASSIFY:  # without labels it is not a question about the default groups
                    options["labels"] = options.get("labels") or ()
                data = _bytes_of(given.get("image"))
                return self._analyzer.analyze(data, Options.of(**options), observation)

        return await self._threads.run(work)

    async def _search(self, given: Given) -> SearchAnswer:
        received = time.perf_counter()
        asked = SearchOptions.of(**{name: given[name] for name in MCP_SEARCH.options if name in given})
        pictures = _several(given.get("images"))
        query = await self._threads.run(partial(self._analyzer.query, asked.query))
        turn = asyncio.Semaphore(self._threads.at_once)

        def embed(picture: Any) -> Embedded:
            with Observation(MCP_SEARCH, since=received) as observation:
                return self._analyzer.embed(_bytes_of(picture), observation)

        async def one(picture: Any) -> Embedded | ClipAppError:
            async with turn:
                try:
                    return await self._threads.run(partial(embed, picture))
                except ClipAppError as error:
                    return error

        answers = await asyncio.gather(*map(one, pictures))
        return Search(asked, query, len(pictures)).answer(_rows(answers))


def _rows(answers: Sequence[Embedded | ClipAppError]) -> list[Embedded | FailedImage]:
    """Say what is wrong with single pictures; what is wrong with more than that is raised."""
    some = any(isinstance(answer, Embedded) for answer in answers)
    about_one = (UndecodableImage, ImageTooLarge, Busy) if some else (UndecodableImage, ImageTooLarge)
    context = current_request()
    rows: list[Embedded | FailedImage] = []
    for answer in answers:
        if isinstance(answer, about_one):
            rows.append(FailedImage.of("", answer, context.id if context else None))
        elif isinstance(answer, ClipAppError):
            raise answer
        else:
            rows.append(answer)
    return rows


def _several(value: Any) -> list[Any]:
    if not isinstance(value, list) or not value:
        raise BadOption(f"images: it must be a list of 1 to {IMAGES_PER_REQUEST} pictures.")
    if len(value) > IMAGES_PER_REQUEST:
        raise BadOption(f"{len(value)} pictures were sent; at most {IMAGES_PER_REQUEST} go into one request.")
    return value


def _bytes_of(picture: Any) -> bytes:
    """Read base64, bare or in a data: address, with or without line breaks and padding.

    Raises:
        BadOption: there is no picture.
        UndecodableImage: it is an address, or no base64.
    """
    if not isinstance(picture, str) or not picture.strip():
        raise BadOption("image: there is no picture. Send the bytes of its file in base64.")
    text = "".join(picture.split())
    start = text[:8].lower()
    if start.startswith(("http://", "https://")):
        raise UndecodableImage(NOT_FETCHED)
    if start.startswith("data:"):
        head, _, text = text.partition(",")
        if not head.lower().endswith(";base64"):
            raise UndecodableImage(NOT_BASE64)
    try:
        return base64.b64decode(text + "=" * (-len(text) % 4), validate=True)
    except (binascii.Error, ValueError):
        raise UndecodableImage(NOT_BASE64) from None


def _pictures(settings: Settings) -> tuple[dict[str, Any], dict[str, Any]]:
    """Return the schemas of the arguments for one picture and for several."""
    accepted = (
        f"a JPEG, PNG, WebP, AVIF, GIF, BMP, TIFF or HEIC of at most {settings.max_upload_mb:g} MB, as the bytes of "
        "its file in base64 or as a data: address with them. Other addresses are not fetched."
    )
    several = f"Up to {IMAGES_PER_REQUEST} pictures, together as large as one may be; each is {accepted}"
    bounds = {"items": {"type": "string"}, "minItems": 1, "maxItems": IMAGES_PER_REQUEST}
    return (
        {"image": {"type": "string", "title": "Picture", "description": f"The picture: {accepted}"}},
        {"images": {"type": "array", **bounds, "title": "Pictures", "description": several}},
    )


def _told(
    endpoint: Endpoint,
    pictures: dict[str, Any],
    model: type[Asked],
    result: type[BaseModel],
    *,
    required: Sequence[str] = (),
) -> Tool:
    """Describe a tool: its arguments are pictures, and options in the words of every other face."""
    title, description = SUMMARIES[endpoint.name]
    options = model.model_json_schema()["properties"]
    needed = [name for name in endpoint.options if name in required or model.model_fields[name].is_required()]
    takes = {
        "type": "object",
        "properties": pictures | {name: options[name] for name in endpoint.options},
        "required": [*pictures, *needed],
        "additionalProperties": False,
    }
    return Tool(
        name=endpoint.tool or endpoint.name,
        title=title,
        description=description,
        input_schema=takes,
        output_schema=result.model_json_schema(),
        annotations=ANNOTATIONS,
    )


def _known(told: Tool, given: Given) -> Given:
    """Refuse an argument that is none: whoever misspells one would get an answer to another question."""
    names = list(told.input_schema["properties"])
    for name in given:
        if name not in names:
            near = difflib.get_close_matches(name, names, 1)
            hint = f" Did you mean {near[0]}?" if near else ""
            raise BadOption(f"There is no argument {name[:40]!r}.{hint} There are: {', '.join(names)}.")
    return given


def _answer(result: BaseModel) -> CallToolResult:
    """The result as it is, and as a text for clients that know no other."""
    content = result.model_dump(mode="json")
    text = json.dumps(content, ensure_ascii=False)
    return CallToolResult(content=[TextContent(type="text", text=text)], structured_content=content)


def _failure(endpoint: Endpoint, error: ClipAppError) -> CallToolResult:
    """Say what went wrong, with the id for the operator; one that no analysis was begun for is counted here."""
    context = current_request() or RequestContext()
    if not context.analyses:
        refuse(context, endpoint, error.outcome, error.code)
    text = f"{error.message} ({error.code}, request {context.id})"
    return CallToolResult(content=[TextContent(type="text", text=text)], is_error=True)
