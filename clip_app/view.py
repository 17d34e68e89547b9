"""What the page is told: an answer, an error, and the state of the model. The browser draws them."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from pydantic import BaseModel, Field

from clip_app.errors import ClipAppError
from clip_app.labels import DEFAULT_NEUTRAL, DEFAULT_TEMPLATE, LabelGroup
from clip_app.preprocessing import Preprocessing
from clip_app.ranking import ALIKE, NEARLY_THE_SAME
from clip_app.results import AnalysisResult, ModelInfo
from clip_app.source import examples_folder
from clip_app.status import LoadStatus, Readiness, readiness
from clip_app.verdict import Verdict, verdict

__all__ = ["PAGE_FILES", "PageAnswer", "PageStatus", "answer", "page_status", "refusal"]

PAGE_FILES = Path(__file__).parent / "page"
TITLES = {"labels": "Your labels"}


class Problem(BaseModel):
    """Why there is no result; the page has a sentence of its own for each code."""

    code: str
    message: str
    request_id: str
    retry_after: int | None


class PageAnswer(BaseModel):
    """The answer to one question of the page, by the question's number."""

    number: int
    result: AnalysisResult | None = None
    verdict: Verdict | None = None
    titles: dict[str, str] = Field({}, description="Of the groups, by their names.")
    error: Problem | None = None


class GroupChoice(BaseModel):
    """A label group that may be asked for."""

    name: str
    title: str


class Resize(BaseModel):
    """The first step of the model's preprocessing: to a shorter edge, or to a size whatever the shape."""

    shortest: int | None
    width: int | None
    height: int | None
    filter: str

    @classmethod
    def of(cls, steps: Preprocessing) -> Resize | None:
        if steps.target is None:
            return None
        height, width = steps.size or (None, None)
        return cls(
            shortest=None if steps.size else steps.shortest_edge,
            width=width,
            height=height,
            filter=steps.resample.name.lower(),
        )


class Search(BaseModel):
    """What the browser needs to search the pictures of a visitor by itself: the rules of ranking.py."""

    template: str = DEFAULT_TEMPLATE
    neutral: tuple[str, ...] = DEFAULT_NEUTRAL
    scale: float = Field(description="The checkpoint's logit scale.")
    alike: float = ALIKE
    duplicate: float = NEARLY_THE_SAME


class PageStatus(Readiness):
    """The state of the model, and what the page needs to know before it asks."""

    verified: bool
    model: ModelInfo | None = None
    groups: list[GroupChoice]
    default_groups: list[str]
    examples: list[str]
    max_bytes: int
    resize: Resize | None = Field(None, description="What the browser may do to a picture already.")
    search: Search | None = None


def answer(number: int, result: AnalysisResult, groups: Mapping[str, LabelGroup]) -> dict[str, Any]:
    """An answer with its verdict and the titles of its groups."""
    titles = {name: group.title for name, group in groups.items()} | TITLES
    shown = {group.name: titles[group.name] for group in result.groups}
    return PageAnswer(number=number, result=result, verdict=verdict(result.groups), titles=shown).model_dump()


def refusal(number: int, error: ClipAppError, request_id: str) -> dict[str, Any]:
    """An answer that says why there is none."""
    problem = Problem(
        code=error.code, message=error.message, request_id=request_id, retry_after=type(error).retry_after
    )
    return PageAnswer(number=number, error=problem).model_dump()


def page_status(
    status: LoadStatus,
    *,
    max_bytes: int,
    model: ModelInfo | None = None,
    groups: Mapping[str, LabelGroup] | None = None,
    default_groups: tuple[str, ...] = (),
    preprocessing: Preprocessing | None = None,
    logit_scale: float | None = None,
) -> dict[str, Any]:
    """The state of the model, and what the page needs to know before it asks."""
    return PageStatus(
        **readiness(status).model_dump(),
        verified=status.verified,
        model=model,
        groups=[GroupChoice(name=name, title=group.title) for name, group in (groups or {}).items()],
        default_groups=list(default_groups),
        examples=sorted(path.name for path in examples_folder().glob("*.jpg")),
        max_bytes=max_bytes,
        resize=Resize.of(preprocessing) if preprocessing else None,
        search=None if logit_scale is None else Search(scale=logit_scale),
    ).model_dump()
