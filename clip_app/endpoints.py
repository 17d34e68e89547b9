"""The table of everything through which pictures come in.

A row is enough for a new endpoint to be registered with Gradio, bounded, counted from
zero and documented; its function is the other place.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Literal

__all__ = [
    "ANALYZE",
    "ANALYZE_BATCH",
    "CLASSIFY",
    "CLI",
    "ENDPOINTS",
    "EXPLAIN",
    "GRADIO",
    "MCP",
    "MCP_ANALYZE",
    "MCP_CLASSIFY",
    "MCP_SEARCH",
    "PAGE",
    "REST",
    "REST_EXPLAIN",
    "REST_SEARCH",
    "SEARCH",
    "Endpoint",
    "Source",
]

Source = Literal["ui", "api", "rest", "cli"]


@dataclass(frozen=True, kw_only=True)
class Endpoint:
    """Where a picture comes in.

    ``name`` is its label in the metrics and, for those of Gradio's API, its api_name;
    ``source`` counts the upload, None where it was counted before; ``options`` are the
    fields of one of the models in :mod:`clip_app.options` that it takes; ``path`` is its
    route where it has one of its own, ``takes_files`` says that the body holds pictures as files, ``several`` that
    an endpoint of Gradio's takes many files, and zip archives of them; ``tool`` is its name among the tools at the
    route of :data:`MCP`.
    """

    name: str
    source: Source | None
    options: tuple[str, ...] = ()
    path: str | None = None
    takes_files: bool = False
    tool: str | None = None
    several: bool = False

    def again(self) -> Endpoint:
        """The same for a picture that was counted as uploaded before."""
        return replace(self, source=None)


EVERY_OPTION = ("groups", "labels", "template", "independent", "top_k", "threshold")

PAGE = Endpoint(name="ui", source="ui")
ANALYZE = Endpoint(name="analyze", source="api", options=("groups", "top_k"))
CLASSIFY = Endpoint(name="classify", source="api", options=("labels", "template", "independent"))
ANALYZE_BATCH = Endpoint(
    name="analyze_batch",
    source="api",
    options=("groups", "labels", "template", "independent", "top_k"),
    several=True,
)
SEARCH = Endpoint(name="search", source="api", options=("query", "top_k"), several=True)
EXPLAIN = Endpoint(name="explain", source="api", options=("label",))
GRADIO = Endpoint(name="gradio", source="api")  # refused before it said what for
REST = Endpoint(name="rest", source="rest", options=(*EVERY_OPTION, "embedding"), path="/api/analyze", takes_files=True)
REST_EXPLAIN = Endpoint(
    name="rest_explain",
    source="rest",
    options=("label", "labels", "group", "template", "format"),
    path="/api/explain",
    takes_files=True,
)
REST_SEARCH = Endpoint(
    name="rest_search",
    source="rest",
    options=("collection", "text", "top_k", "above"),
    path="/api/search",
    takes_files=True,
)
MCP = Endpoint(name="mcp", source="api", path="/mcp")  # refused before it said what for
MCP_ANALYZE = Endpoint(name="mcp_analyze", source="api", options=ANALYZE.options, tool="analyze")
MCP_CLASSIFY = Endpoint(name="mcp_classify", source="api", options=CLASSIFY.options, tool="classify")
MCP_SEARCH = Endpoint(name="mcp_search", source="api", options=SEARCH.options, tool="search")
CLI = Endpoint(name="cli", source="cli", options=EVERY_OPTION)

TOOLS = (MCP_ANALYZE, MCP_CLASSIFY, MCP_SEARCH)
ROWS = (
    PAGE,
    ANALYZE,
    CLASSIFY,
    ANALYZE_BATCH,
    SEARCH,
    EXPLAIN,
    GRADIO,
    REST,
    REST_EXPLAIN,
    REST_SEARCH,
    MCP,
    *TOOLS,
    CLI,
)
ENDPOINTS = {row.name: row for row in ROWS}
